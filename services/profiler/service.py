"""The profiler: `ModelDownloaded` becomes `ModelProfiled`."""

import functools
import threading
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
import structlog

from config.settings import Settings
from messages.api import ProfileAnswer
from messages.documents import digest_of
from messages.failures import Permanent
from messages.jobs import ModelRequest
from messages.metadata import ModelMetadata
from messages.models import ModelDownloaded, ModelProfiled
from messages.names import metadata_file_name, short_name
from messages.subjects import API_PROFILE, MODEL_DOWNLOADED
from messages.wire import encode
from services.profiler.counting import Counter
from services.profiler.files import write_metadata
from services.profiler.profile import in_thread, profile_directory, profile_hub
from services.runtime import progress
from services.runtime.bus import Bus
from services.runtime.documents import Documents
from services.runtime.service import Endpoint, Route, Service

log = structlog.get_logger()


def build(settings: Settings, bus: Bus) -> Service:
    """The profiler of this origin; it counts exactly where settings and packages allow."""
    counter = (
        Counter(settings.origin_dir / "cache" / "flops", settings.profiler.count_timeout_s)
        if settings.profiler.exact
        else None
    )
    profiler = Profiler(settings.origin_dir, counter)
    remote = Remote(bus.documents, anyio.CapacityLimiter(settings.profiler.slots), counter)
    route = Route(
        MODEL_DOWNLOADED,
        profiler.profile,
        where={"origin": settings.node.node_id},
        slots=settings.profiler.slots,
    )
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


@dataclass(frozen=True)
class Profiler:
    """Costs every tensor of a model on this origin's disk, from its headers alone."""

    origin_dir: Path
    counter: Counter | None = None

    async def profile(self, said: ModelDownloaded) -> tuple[ModelProfiled]:
        """Where the metadata file stands and what it sums up to."""
        metadata = await in_thread(functools.partial(self._profiled, said))
        progress.report(len(metadata.layers), len(metadata.layers), "tensors")
        for warning in metadata.warnings:
            log.warning("profile", job_id=said.job_id, warning=warning)
        return (await self._said(said, metadata),)

    def _profiled(self, said: ModelDownloaded, given_up: threading.Event) -> ModelMetadata:
        request = said.request
        return profile_directory(
            Path(said.model_path),
            batch_size=request.batch_size,
            sequence_length=request.sequence_length,
            model_name=short_name(request.model_name),
            revision=said.revision,
            node_id=said.origin,
            counter=self.counter,
            given_up=given_up,
        )

    async def _said(self, said: ModelDownloaded, metadata: ModelMetadata) -> ModelProfiled:
        name = metadata_file_name(said.request.model_name)
        folder = self.origin_dir / "metadata"
        path, body = await anyio.to_thread.run_sync(write_metadata, folder, name, metadata)
        return ModelProfiled(
            origin=said.origin,
            job_id=said.job_id,
            generation=said.generation,
            request=said.request,
            revision=said.revision,
            metadata_file=str(path),
            sha256=digest_of(body),
            size_bytes=len(body),
            total_compute=metadata.total_compute,
            total_layers=metadata.total_layers,
        )
