"""Bringing a Hub model to this disk: found if it is here, else fetched, verified and shelved."""

import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import structlog

from config.settings import Downloader as DownloaderSettings
from messages.jobs import ModelRequest
from services.downloader.convert import convert
from services.downloader.local import Found, listing
from services.downloader.shelf import Shelf
from services.hub import cache, hub, transfer
from services.hub.failures import UnusableModel
from services.hub.selection import Choice, choose
from services.runtime import progress

log = structlog.get_logger()
_TIDY_S = 1.5
Cancelled = Callable[[], Awaitable[bool]]


@dataclass(frozen=True)
class Bringer:
    """Brings models to a shelf, each commit once."""

    shelf: Shelf
    settings: DownloaderSettings
    patience: transfer.Patience = field(default_factory=transfer.Patience)

    async def bring(self, request: ModelRequest, cancelled: Cancelled) -> Found:
        """The model at the commit that its revision means; one call of the Hub where it is here.

        None at all where the revision is a whole commit id. When the work is cancelled and
        `cancelled` says that the job was, what has arrived is removed; else the next one uses it.
        """
        name, revision = request.model_name, request.revision
        found = await self._by_commit(name, revision) if hub.is_commit(revision) else None
        if found is not None:
            check_consent(request, found.choice)
            return found
        snapshot = await hub.resolve(name, revision)
        choice = choose(name, snapshot.files)
        check_consent(request, choice)
        found = await anyio.to_thread.run_sync(self._kept, name, snapshot.commit)
        found = found or await _in_cache(snapshot)
        return found or await self._fetched(snapshot, choice, cancelled)

    async def converted(self, request: ModelRequest, found: Found) -> Found:
        """The same model as safetensors, converted once for each revision."""
        name, size_bytes = request.model_name, found.choice.size_bytes
        place = self.shelf.place(name, found.revision, converted=True)
        async with self._making(place, name, size_bytes) as making:
            if making:
                await convert(found, making)
        choice = choose(name, await anyio.to_thread.run_sync(listing, place))
        return Found(place, found.revision, choice)

    async def _by_commit(self, model_name: str, commit: str) -> Found | None:
        kept = await anyio.to_thread.run_sync(self._kept, model_name, commit)
        if kept is not None:
            return kept
        snapshot = await anyio.to_thread.run_sync(cache.cached, model_name, commit)
        return await _in_cache(snapshot) if snapshot else None

    def _kept(self, model_name: str, commit: str) -> Found | None:
        place = self.shelf.place(model_name, commit)
        if not place.is_dir():
            return None
        return Found(place, commit, choose(model_name, listing(place)))

    async def _fetched(self, snapshot: hub.Snapshot, choice: Choice, cancelled: Cancelled) -> Found:
        name, commit, size_bytes = snapshot.model_name, snapshot.commit, choice.size_bytes
        await anyio.to_thread.run_sync(self.shelf.sweep)
        place = self.shelf.place(name, commit)
        async with self._making(place, name, size_bytes) as making:
            if making:
                log.info("fetching", model=name, commit=commit, size_bytes=size_bytes)
                async with self._removed_if(cancelled, making):
                    await self._transfer(snapshot, choice, making)
        return Found(place, commit, choice)

    @asynccontextmanager
    async def _making(
        self, place: Path, model_name: str, size_bytes: int
    ) -> AsyncIterator[Path | None]:
        """A directory that becomes `place` at the end; None where another made it meanwhile."""
        async with self.shelf.claimed(place) as making:
            if await anyio.Path(place).is_dir():
                yield None
                return
            keep = self.settings.keep_free_bytes
            await anyio.to_thread.run_sync(
                self.shelf.check_space, model_name, making, size_bytes, keep
            )
            try:
                yield making
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise self.shelf.no_space(model_name, making, size_bytes, 0) from error
            await anyio.to_thread.run_sync(self.shelf.publish, making, place)

    async def _transfer(self, snapshot: hub.Snapshot, choice: Choice, making: Path) -> None:
        await transfer.fetch(
            transfer.Source(snapshot.model_name, snapshot.commit),
            choice.files,
            making,
            workers=self.settings.workers,
            on_bytes=_counter(choice.size_bytes),
            patience=self.patience,
        )

    @asynccontextmanager
    async def _removed_if(self, cancelled: Cancelled, making: Path) -> AsyncIterator[None]:
        try:
            yield
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(_TIDY_S, shield=True):
                if await cancelled():
                    await anyio.to_thread.run_sync(self.shelf.discard, making)
            raise


async def _in_cache(snapshot: hub.Snapshot) -> Found | None:
    """The commit in the Hub's own cache, used in place, where that holds all that is needed."""
    choice = choose(snapshot.model_name, snapshot.files)
    directory = await anyio.to_thread.run_sync(cache.cached_directory, snapshot, choice.files)
    return Found(directory, snapshot.commit, choice) if directory else None


def check_consent(request: ModelRequest, choice: Choice) -> None:
    """UnusableModel where the weights are pickles and the request does not consent to them."""
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
