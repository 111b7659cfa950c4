"""A model's metadata from its directory, or from the Hub without its weights."""

import functools
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import anyio.to_thread
import msgspec

from messages.ids import NodeId
from messages.metadata import ModelMetadata
from messages.names import short_name
from services.checkpoint.checkpoint import Checkpoint, open_checkpoint
from services.checkpoint.config import parse_config, read_config
from services.checkpoint.files import left_out
from services.checkpoint.headers import parse_header
from services.checkpoint.index import check_index, parse_index
from services.hub import hub
from services.profiler.architecture import Config
from services.profiler.counting import Counter
from services.profiler.exact import corrected
from services.profiler.flaws import listed
from services.profiler.metadata import About, metadata_of
from services.profiler.study import study
from services.profiler.workload import Workload

T = TypeVar("T")


async def in_thread(work: Callable[[threading.Event], T]) -> T:
    """The outcome of `work` in a thread, left behind by a cancel, which sets the event it is given.

    A count that looks at the event ends within a second then; all else takes moments by itself.
    """
    given_up = threading.Event()
    try:
        return await anyio.to_thread.run_sync(work, given_up, abandon_on_cancel=True)
    finally:
        given_up.set()


def profile_directory(
    path: Path,
    *,
    batch_size: int = 1,
    sequence_length: int = 512,
    model_name: str | None = None,
    revision: str = "",
    node_id: NodeId | None = None,
    counter: Counter | None = None,
    given_up: threading.Event | None = None,
) -> ModelMetadata:
    """The metadata of the model in `path`, from its headers and config.json; weights stay unread.

    `model_name` is `local/<directory>` by default. With a `counter` the compute is counted on the
    meta device, else it is in closed form; `given_up` ends a count that is under way. Raises
    BadCheckpoint and its kin; blocks.
    """
    name = model_name or short_name(str(path.absolute()))
    checkpoint = open_checkpoint(path)
    found = _profile(
        checkpoint,
        read_config(path),
        About(name, revision, node_id, _now()),
        Workload(batch_size, sequence_length),
        counter,
        given_up,
    )
    return _warned(found, left_out(path, checkpoint.files))


async def profile_hub(
    model_name: str,
    revision: str = "main",
    *,
    batch_size: int = 1,
    sequence_length: int = 512,
    counter: Counter | None = None,
) -> ModelMetadata:
    """The metadata of a Hub model, from headers fetched by range: no weights are downloaded.

    A cancel ends it within a second, a count under way with it. Raises what the Hub refuses
    (GatedModel, NoSuchModel, ...) and BadCheckpoint and its kin.
    """
    remote = await hub.read_headers(model_name, revision)
    work = Workload(batch_size, sequence_length)
    return await in_thread(functools.partial(_profile_remote, remote, work, counter))


def _profile_remote(
    remote: hub.RemoteModel, work: Workload, counter: Counter | None, given_up: threading.Event
) -> ModelMetadata:
    headers = {f.path: parse_header(f.header, f.size_bytes, f.path) for f in remote.files}
    if remote.index is not None:
        check_index(parse_index(msgspec.json.encode(remote.index)), headers)
    about = About(remote.model_name, remote.commit, None, _now())
    config = parse_config(remote.config, f"{remote.model_name}: config.json")
    found = _profile(Checkpoint(headers), config, about, work, counter, given_up)
    return _warned(found, remote.left_out)


def _profile(
    tensors: Checkpoint,
    config: Config,
    about: About,
    work: Workload,
    counter: Counter | None,
    given_up: threading.Event | None,
) -> ModelMetadata:
    found = study(tensors, config, work)
    if counter is not None:
        found = corrected(found, counter.count(config, found.scene.work, given_up))
    return metadata_of(found, about, work)


def _warned(found: ModelMetadata, left: Sequence[str]) -> ModelMetadata:
    """The metadata, with a warning where safetensors files beside the weights were not read."""
    if not left:
        return found
    note = f"{listed(left)}: not used, being taken for another copy of the weights or an adapter"
    return msgspec.structs.replace(found, warnings=(*found.warnings, note))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
