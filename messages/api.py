"""The request-reply faces of the bus: what `williw.api.*` takes and answers."""

import msgspec

from messages.base import Message
from messages.documents import Document
from messages.ids import JobId, NodeId
from messages.jobs import ModelRequest
from messages.metadata import ModelMetadata
from messages.nodes import Node, NodeEntry
from messages.plans import SplitPlan
from messages.state import JobState
from messages.wishes import Wishes


class RequestAccepted(Message, frozen=True, kw_only=True):
    """The request is stored on the bus; a job of this id will end in exactly one way."""

    job_id: JobId
    origin: NodeId


class ProcessRequest(Message, frozen=True, kw_only=True):
    """Please plan for metadata that a node made itself.

    Either `metadata` inline, or `repo` and `file` on the Hub at `commit`. `available_nodes`
    replaces the registry. Unless `plan_only`, the origin `node_id` goes on to cut and deliver.
    """

    metadata: ModelMetadata | None = None
    repo: str = ""
    file: str = ""
    commit: str = "main"
    node_id: NodeId | None = None
    job_id: JobId | None = None
    available_nodes: tuple[Node, ...] | None = None
    wishes: Wishes = Wishes()
    plan_only: bool = True


class PreviewRequest(Message, frozen=True, kw_only=True):
    """Please plan without a job: inline metadata, or a Hub model profiled from its headers.

    Exactly one of `metadata` and `request`. `nodes` replaces the registry; `wishes` the request's,
    unless they are the default.
    """

    metadata: ModelMetadata | None = None
    request: ModelRequest | None = None
    nodes: tuple[Node, ...] | None = None
    wishes: Wishes = Wishes()


class JobQuery(Message, frozen=True, kw_only=True):
    """Which job is meant."""

    job_id: JobId


class PlanAnswer(Message, frozen=True, kw_only=True):
    """A job's plan, as the file it is."""

    job_id: JobId | None = None
    plan: SplitPlan


class StatusAnswer(Message, frozen=True, kw_only=True):
    """A job's state: the fold of its facts."""

    job: JobState


class CancelAccepted(Message, frozen=True, kw_only=True):
    """The command to cancel is stored on the bus."""

    job_id: JobId


class NodesQuery(Message, frozen=True, kw_only=True):
    """Which nodes live now?"""


class NodesAnswer(Message, frozen=True, kw_only=True):
    """The registry at this moment."""

    nodes: tuple[NodeEntry, ...]


class ProfileAnswer(Message, frozen=True, kw_only=True):
    """The metadata of a Hub model, read from its headers: a `ModelMetadata` by reference."""

    metadata: Document


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why an endpoint did not do it; sent beside the service protocol's error headers."""

    reason: str
    advice: str = ""
