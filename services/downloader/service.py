"""The downloader: `ModelRequested` becomes `ModelDownloaded`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import anyio

from config.settings import Settings
from messages.jobs import JobCancelled, ModelRequest, ModelRequested
from messages.models import ModelDownloaded
from messages.names import is_path
from messages.subjects import JOB_ENDED, MODEL_REQUESTED
from services.downloader.bringing import Bringer, check_consent
from services.downloader.local import Found, open_local
from services.downloader.shelf import Shelf
from services.hub.transfer import Patience
from services.runtime import progress
from services.runtime.bus import Bus
from services.runtime.service import Route, Service

_MIB = 1024 * 1024
_SLOTS = 32


def build(settings: Settings, bus: Bus) -> Service:
    """The downloader of this origin."""

    async def cancelled(said: ModelRequested) -> bool:
        ended = await bus.facts.last(JOB_ENDED, origin=said.origin, job_id=said.job_id)
        return ended is not None and isinstance(ended.fact, JobCancelled)

    at_once = anyio.CapacityLimiter(settings.downloader.slots)
    downloader = Downloader(settings, cancelled=cancelled, at_once=at_once)
    where = {"origin": settings.node.node_id}
    route = Route(MODEL_REQUESTED, downloader.download, where=where, slots=_SLOTS)
    return Service("downloader", routes=(route,))


async def _not_cancelled(_said: ModelRequested) -> bool:
    return False


@dataclass(frozen=True)
class Downloader:
    """Brings models to this origin's disk.

    `cancelled` tells a job that was cancelled, whose parts go, from a service that stops, whose
    parts the next one continues. `at_once` bounds what is fetched or converted; a model that stands
    here already waits for none of it.
    """

    settings: Settings
    patience: Patience = field(default_factory=Patience)
    cancelled: Callable[[ModelRequested], Awaitable[bool]] = _not_cancelled
    at_once: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(2))

    async def download(self, said: ModelRequested) -> tuple[ModelDownloaded]:
        """Where the model stands, whole; the same answer however often it is asked.

        `total_size_mb` counts units of 1024 x 1024 bytes.
        """
        request = said.request
        if is_path(request.model_name):
            found = await self._local(request)
        else:
            async with self.at_once:
                found = await self._bringer().bring(request, partial(self.cancelled, said))
        if found.choice.format == "pickle":
            async with self.at_once:
                found = await self._bringer().converted(request, found)
        total = found.choice.size_bytes
        progress.report(total, total)
        return (
            ModelDownloaded(
                origin=said.origin,
                job_id=said.job_id,
                generation=said.generation,
                request=request,
                revision=found.revision,
                model_path=str(found.directory),
                files_downloaded=tuple(file.path for file in found.choice.files),
                total_size_bytes=total,
                total_size_mb=total / _MIB,
            ),
        )

    def _bringer(self) -> Bringer:
        shelf = Shelf(self.settings.origin_dir / "models")
        return Bringer(shelf, self.settings.downloader, self.patience)

    async def _local(self, request: ModelRequest) -> Found:
        roots = self.settings.downloader.local_roots
        found = await anyio.to_thread.run_sync(open_local, request.model_name, roots)
        check_consent(request, found.choice)
        return found
