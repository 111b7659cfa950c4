"""The facts of the origin before planning: the model is on disk, costed, its metadata readable."""

from messages.base import Fact
from messages.ids import Count, NonNegative, Sha256
from messages.jobs import ModelRequest
from messages.nodes import Node


class ModelDownloaded(Fact, frozen=True, kw_only=True):
    """The files of one commit are whole under `model_path` on the origin's disk."""

    request: ModelRequest
    revision: str
    model_path: str
    files_downloaded: tuple[str, ...]
    total_size_bytes: Count
    total_size_mb: NonNegative


class ModelProfiled(Fact, frozen=True, kw_only=True):
    """The cost of every tensor is in `metadata_file` on the origin's disk."""

    request: ModelRequest
    revision: str
    metadata_file: str
    sha256: Sha256
    size_bytes: Count
    total_compute: NonNegative
    total_layers: Count


class MetadataReady(Fact, frozen=True, kw_only=True):
    """The metadata can be read by anybody: file `file` of Hub repository or bucket `repo`.

    `url` is https for the Hub and `nats://object/<bucket>/<name>` for the bus, where `commit` is
    empty. A node that made its own metadata may publish this itself; `available_nodes` then
    replaces the registry, and `plan_only` ends the job with its plan.
    """

    request: ModelRequest
    repo: str
    file: str
    url: str
    commit: str = ""
    revision: str = ""
    sha256: Sha256
    size_bytes: Count
    available_nodes: tuple[Node, ...] | None = None
    plan_only: bool = False
