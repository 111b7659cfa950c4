"""The downloader: `ModelRequested` becomes `ModelDownloaded`."""

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import structlog

from config.settings import Settings
from messages.jobs import ModelRequest, ModelRequested
from messages.models import ModelDownloaded
from messages.names import is_path
from messages.subjects import MODEL_REQUESTED
from services.downloader.convert import convert
from services.downloader.local import Found, listing, open_local
from services.downloader.shelf import Shelf
from services.hub import cache, hub, transfer
from services.hub.failures import UnusableModel
from services.hub.selection import Choice, choose
from services.runtime import progress
from services.runtime.bus import Bus
from services.runtime.service import Route, Service

log = structlog.get_logger()
_MIB = 1024 * 1024


def build(settings: Settings, _bus: Bus) -> Service:
    """The downloader of this origin."""
    downloader = Downloader(settings)
    route = Route(
        MODEL_REQUESTED,
        downloader.download,
        where={"origin": settings.node.node_id},
        slots=settings.downloader.slots,
    )
    return Service("downloader", routes=(route,))


@dataclass(frozen=True)
class Downloader:
    """Brings models to this origin's disk, each commit once."""

    settings: Settings
    patience: transfer.Patience = field(default_factory=transfer.Patience)

    async def download(self, said: ModelRequested) -> tuple[ModelDownloaded]:
        """Where the model stands, whole; the same answer however often it is asked.

        `total_size_mb` counts units of 1024 x 1024 bytes.
        """
        request = said.request
        found = await (self._local(request) if is_path(request.model_name) else self._hub(request))
        if found.choice.format == "pickle":
            found = await self._converted(request, found)
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

    @property
    def _shelf(self) -> Shelf:
        return Shelf(self.settings.origin_dir / "models")

    async def _local(self, request: ModelRequest) -> Found:
        roots = self.settings.downloader.local_roots
        found = await anyio.to_thread.run_sync(open_local, request.model_name, roots)
        _check_consent(request, found.choice)
        return found

    async def _hub(self, request: ModelRequest) -> Found:
        """A commit that is here needs no call of the Hub, a branch or tag one to resolve it."""
        name, revision = request.model_name, request.revision
        if hub.is_commit(revision):
            found = await anyio.to_thread.run_sync(self._kept, name, revision)
            if found is None:
                known = await anyio.to_thread.run_sync(cache.cached, name, revision)
                found = await self._in_cache(request, known) if known else None
            if found is not None:
                _check_consent(request, found.choice)
                return found
        snapshot = await hub.resolve(name, revision)
        choice = choose(name, snapshot.files)
        _check_consent(request, choice)
        found = await anyio.to_thread.run_sync(self._kept, name, snapshot.commit)
        return (
            found
            or await self._in_cache(request, snapshot)
            or await self._fetched(snapshot, choice)
        )

    def _kept(self, model_name: str, commit: str) -> Found | None:
        place = self._shelf.place(model_name, commit)
        if not place.is_dir():
            return None
        return Found(place, commit, choose(model_name, listing(place)))

    async def _in_cache(self, request: ModelRequest, snapshot: hub.Snapshot) -> Found | None:
        """The commit in the Hub's own cache, used in place, where that holds all that is needed."""
        choice = choose(request.model_name, snapshot.files)
        directory = await anyio.to_thread.run_sync(cache.cached_directory, snapshot, choice.files)
        return Found(directory, snapshot.commit, choice) if directory else None

    async def _fetched(self, snapshot: hub.Snapshot, choice: Choice) -> Found:
        shelf, name = self._shelf, snapshot.model_name
        place = shelf.place(name, snapshot.commit)
        downloader = self.settings.downloader
        await anyio.to_thread.run_sync(shelf.sweep)
        async with shelf.claimed(place) as making:
            if not place.is_dir():
                keep = downloader.keep_free_bytes
                await anyio.to_thread.run_sync(
                    shelf.check_space, name, making, choice.size_bytes, keep
                )
                log.info("fetching", model=name, commit=snapshot.commit, bytes=choice.size_bytes)
                await self._transfer(snapshot, choice, making)
                await anyio.to_thread.run_sync(shelf.publish, making, place)
        return Found(place, snapshot.commit, choice)

    async def _transfer(self, snapshot: hub.Snapshot, choice: Choice, making: Path) -> None:
        try:
            await transfer.fetch(
                transfer.Source(snapshot.model_name, snapshot.commit),
                choice.files,
                making,
                workers=self.settings.downloader.workers,
                on_bytes=_counter(choice.size_bytes),
                patience=self.patience,
            )
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise self._shelf.no_space(snapshot.model_name, making, choice.size_bytes, 0) from error

    async def _converted(self, request: ModelRequest, found: Found) -> Found:
        """The same model as safetensors, converted once for each revision."""
        shelf, name = self._shelf, request.model_name
        place = shelf.place(name, found.revision, converted=True)
        async with shelf.claimed(place) as making:
            if not place.is_dir():
                keep = self.settings.downloader.keep_free_bytes
                await anyio.to_thread.run_sync(
                    shelf.check_space, name, making, found.choice.size_bytes, keep
                )
                await anyio.to_thread.run_sync(convert, found, making)
                await anyio.to_thread.run_sync(shelf.publish, making, place)
        choice = choose(name, await anyio.to_thread.run_sync(listing, place))
        return Found(place, found.revision, choice)


def _check_consent(request: ModelRequest, choice: Choice) -> None:
    if choice.format == "pickle" and not request.pickle:
        raise UnusableModel(
            request.model_name,
            "holds its weights only as Python pickles, which can run code when they are read",
            advice='if you trust it, request it with "pickle": true: its weights are then read with'
            " weights_only and converted to safetensors once",
        )


def _counter(total_bytes: int) -> Callable[[int], None]:
    done = 0

    def count(arrived: int) -> None:
        nonlocal done
        done += arrived
        progress.report(done, total_bytes)

    return count
