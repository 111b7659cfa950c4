"""A model's metadata from its directory, or from the Hub without its weights."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import anyio.to_thread
import msgspec

from messages.ids import NodeId
from messages.metadata import ModelMetadata
from messages.names import short_name
from services.checkpoint.checkpoint import Checkpoint, StoredTensor, open_checkpoint
from services.checkpoint.config import read_config
from services.checkpoint.headers import parse_header
from services.checkpoint.index import check_index, parse_index
from services.hub import hub
from services.profiler.architecture import Config
from services.profiler.counting import Counter
from services.profiler.exact import corrected
from services.profiler.metadata import About, metadata_of
from services.profiler.study import study
from services.profiler.workload import Workload


def profile_directory(
    path: Path,
    *,
    batch_size: int = 1,
    sequence_length: int = 512,
    model_name: str | None = None,
    revision: str = "",
    node_id: NodeId | None = None,
    counter: Counter | None = None,
) -> ModelMetadata:
    """The metadata of the model in `path`, from its headers and config.json; weights stay unread.

    `model_name` is `local/<directory>` by default. With a `counter` the compute is counted on the
    meta device, else it is in closed form. Raises BadCheckpoint and its kin; blocks.
    """
    name = model_name or short_name(str(path.absolute()))
    return _profile(
        open_checkpoint(path),
        read_config(path),
        About(name, revision, node_id, _now()),
        Workload(batch_size, sequence_length),
        counter,
    )


async def profile_hub(
    model_name: str,
    revision: str = "main",
    *,
    batch_size: int = 1,
    sequence_length: int = 512,
    counter: Counter | None = None,
) -> ModelMetadata:
    """The metadata of a Hub model, from headers fetched by range: no weights are downloaded.

    Raises what the Hub refuses (GatedModel, NoSuchModel, ...) and BadCheckpoint and its kin.
    """
    remote = await hub.read_headers(model_name, revision)
    headers = {f.path: parse_header(f.header, f.size_bytes, f.path) for f in remote.files}
    if remote.index is not None:
        check_index(parse_index(msgspec.json.encode(remote.index)), headers)
    about = About(model_name, remote.commit, None, _now())
    work = Workload(batch_size, sequence_length)
    return await anyio.to_thread.run_sync(
        _profile, Checkpoint(headers), remote.config, about, work, counter
    )


def _profile(
    tensors: Iterable[StoredTensor],
    config: Config,
    about: About,
    work: Workload,
    counter: Counter | None,
) -> ModelMetadata:
    found = study(tensors, config, work)
    if counter is not None:
        found = corrected(found, counter.count(config, found.scene.work))
    return metadata_of(found, about, work)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
