"""The profiler: `ModelDownloaded` becomes `ModelProfiled`."""

import functools
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import anyio
import structlog

from config.settings import Settings
from messages.api import ProfileAnswer
from messages.documents import digest_of
from messages.failures import Permanent
from messages.ids import Sha256
from messages.jobs import ModelRequest
from messages.metadata import ModelMetadata
from messages.models import ModelDownloaded, ModelProfiled
from messages.names import metadata_file_name, short_name
from messages.subjects import API_PROFILE, MODEL_DOWNLOADED
from messages.wire import encode
from services.checkpoint.stamps import stamp_of
from services.profiler.counting import Counter
from services.profiler.exact import COUNTED
from services.profiler.files import body_of, write_metadata
from services.profiler.profile import in_thread, profile_directory, profile_hub
from services.runtime import progress
from services.runtime.bus import Bus
from services.runtime.documents import Documents
from services.runtime.remembered import Remembered
from services.runtime.service import Endpoint, Route, Service

log = structlog.get_logger()
_SLOTS = 32


def build(settings: Settings, bus: Bus) -> Service:
    """The profiler of this origin; it counts exactly where settings and packages allow."""
    counter = (
        Counter(settings.origin_dir / "cache" / "flops", settings.profiler.count_timeout_s)
        if settings.profiler.exact
        else None
    )
    slots = settings.profiler.slots
    profiler = Profiler(settings.origin_dir, counter, at_once=anyio.CapacityLimiter(slots))
    remote = Remote(bus.documents, anyio.CapacityLimiter(slots), counter)
    where = {"origin": settings.node.node_id}
    route = Route(MODEL_DOWNLOADED, profiler.profile, where=where, slots=_SLOTS)
    background = (counter.keep,) if counter else ()
    endpoints = (Endpoint(API_PROFILE, remote.profile),)
    return Service("profiler", routes=(route,), endpoints=endpoints, background=background)


@dataclass(frozen=True)
class Remote:
    """Answers for models on the Hub from their headers, a few at a time."""

    documents: Documents
    limiter: anyio.CapacityLimiter
    counter: Counter | None = None

    async def profile(self, request: ModelRequest) -> ProfileAnswer:
        """The metadata of a Hub model; nothing of it is kept here. Raises what the Hub refuses."""
        if request.model_name.startswith("/"):
            raise Permanent(
                "a directory cannot be profiled from afar",
                advice="run `williw profile DIR` on its machine and send the metadata inline",
            )
        async with self.limiter:
            metadata = await profile_hub(
                request.model_name,
                request.revision,
                batch_size=request.batch_size,
                sequence_length=request.sequence_length,
                counter=self.counter,
            )
        name = metadata_file_name(request.model_name)
        return ProfileAnswer(metadata=await self.documents.put(encode(metadata), name))


class Profiled(NamedTuple):
    """A metadata file: where it stands, its bytes, and what they say in short."""

    path: Path
    body: bytes
    sha256: Sha256
    total_compute: float
    total_layers: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Profiler:
    """Costs every tensor of a model on this origin's disk, from its headers alone.

    The same files for the same workload are `known`: what was made of them is said again, however
    many others are profiled `at_once`.
    """

    origin_dir: Path
    counter: Counter | None = None
    known: Remembered[tuple[object, ...], Profiled] = field(default_factory=Remembered)
    at_once: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(1))

    async def profile(self, said: ModelDownloaded) -> tuple[ModelProfiled]:
        """Where the metadata file stands and what it sums up to."""
        found = await anyio.to_thread.run_sync(self._again, said)
        if found is None:
            async with self.at_once:
                found = await in_thread(functools.partial(self._profiled, said))
        progress.report(found.total_layers, found.total_layers, "tensors")
        for warning in found.warnings:
            log.warning("profile", job_id=said.job_id, warning=warning)
        return (
            ModelProfiled(
                origin=said.origin,
                job_id=said.job_id,
                generation=said.generation,
                request=said.request,
                revision=said.revision,
                metadata_file=str(found.path),
                sha256=found.sha256,
                size_bytes=len(found.body),
                total_compute=found.total_compute,
                total_layers=found.total_layers,
            ),
        )

    def _again(self, said: ModelDownloaded) -> Profiled | None:
        """What was made of these very files before; its metadata file stands again."""
        key = _key(said)
        found = self.known.get(key) if key is not None else None
        if found is not None:
            self._written(said, found.body)
        return found

    def _profiled(self, said: ModelDownloaded, given_up: threading.Event) -> Profiled:
        request, key = said.request, _key(said)
        metadata = profile_directory(
            Path(said.model_path),
            batch_size=request.batch_size,
            sequence_length=request.sequence_length,
            model_name=short_name(request.model_name),
            revision=said.revision,
            node_id=said.origin,
            counter=self.counter,
            given_up=given_up,
        )
        body = body_of(metadata)
        found = Profiled(
            self._written(said, body),
            body,
            digest_of(body),
            metadata.total_compute,
            metadata.total_layers,
            metadata.warnings,
        )
        if key is not None and (self.counter is None or counted(metadata)):
            self.known.keep(key, found, len(body))
        return found

    def _written(self, said: ModelDownloaded, body: bytes) -> Path:
        name = metadata_file_name(said.request.model_name)
        return write_metadata(self.origin_dir / "metadata", name, body)


def _key(said: ModelDownloaded) -> tuple[object, ...] | None:
    """All that a profile depends on; None while the files have only just been written."""
    request, stamp = said.request, stamp_of(Path(said.model_path))
    work = (request.batch_size, request.sequence_length)
    key = (stamp, said.model_path, request.model_name, said.revision, said.origin, *work)
    return key if stamp else None


def counted(metadata: ModelMetadata) -> bool:
    """Whether its compute was counted: where it was not, it may be the next time."""
    return any(layer.cost_source == COUNTED for layer in metadata.layers)
