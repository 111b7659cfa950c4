"""Receiving a stage: what is here already, then the rest by chunks from whoever should have it."""

import errno
import functools
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.from_thread import check_cancelled

from messages.failures import Permanent
from messages.shards import StageFile
from services.checkpoint.chunks import chunk_range, digest_of_chunk
from services.checkpoint.shelf import ShelvedStage
from services.checkpoint.sources import SourceFiles
from services.distributor.arrival import Arrival
from services.distributor.content import ArrivingFile
from services.distributor.failures import DiskFull, DiskTrouble, NoSource, SourceTrouble
from services.distributor.held import Held, find
from services.distributor.room import Room
from services.distributor.sources import Sources
from services.distributor.transfer import Giver, Line
from services.runtime import progress

HELD = "held"
BATCH = 8
"""Chunks asked for at once: what a source has of them in a row comes in one answer."""
MEMORY_BYTES = 24 << 20
"""For the chunks that a node receives at once, over all its deliveries."""
GIVE_UP_S = 60.0


class ChangedModel(Permanent):
    """The model's files at the origin are no longer those that the manifest was made from."""


class NoHonestSource(Permanent):
    """Every source of a file gave other bytes than the manifest says."""


@dataclass
class Lane:
    """Files that have the same route, fetched in order, `workers` requests at once."""

    route: tuple[str, ...]
    files: tuple[ArrivingFile, ...]
    changed: anyio.Event = field(default_factory=anyio.Event)

    @property
    def complete(self) -> bool:
        """Whether every chunk is verified."""
        return all(file.board.complete for file in self.files)

    def claim(self, most: int) -> tuple[ArrivingFile, int, int] | None:
        """The next missing chunks: file, first, count."""
        for file in self.files:
            claimed = file.board.claim(most)
            if claimed:
                return file, *claimed
        return None

    def ring(self) -> None:
        """Something changed: look again for what to claim."""
        changed, self.changed = self.changed, anyio.Event()
        changed.set()


@dataclass
class Reception:
    """One stage being received; `received` counts verified bytes by source."""

    arrival: Arrival
    sources: Sources
    in_flight: int = 4
    room: Room = field(default_factory=lambda: Room(MEMORY_BYTES))
    give_up_s: float = GIVE_UP_S
    received: Counter[str] = field(default_factory=Counter)
    resumed_bytes: int = 0
    _moved_at: float = 0.0

    async def resume(self) -> None:
        """Count the chunks that an interrupted reception left on disk."""
        await self._fill(self._resume)
        self.resumed_bytes = self.arrival.verified_bytes
        self.received[HELD] += self.resumed_bytes

    async def take_held(self, held: Held) -> None:
        """Put together what this node holds in other stages or in a copy of the model."""
        await self._fill(functools.partial(self._take_held, held))

    async def take_made(self, bodies: Mapping[str, bytes]) -> None:
        """Write those files, by name, that this node can make itself; wrong guesses are dropped."""
        await self._fill(functools.partial(self._take_made, bodies))

    async def take_laid_out(self, shelved: ShelvedStage, node_id: str) -> None:
        """Read the stage out of the model's files, which are on this machine's disk."""
        await self._fill(functools.partial(self._take_laid_out, shelved, node_id))

    async def fetch(self, routes: Mapping[tuple[str, ...], Sequence[str]]) -> None:
        """Fetch what is missing; `routes` gives the digests of the files of each route.

        Raises NoSource when nobody gave a byte for a while, NoHonestSource, DiskFull.
        """
        self._moved_at = anyio.current_time()
        by_digest = {f.board.file.digest: f for f in self.arrival.files.values()}
        with plain_errors(self.arrival):
            async with anyio.create_task_group() as group:
                for route, digests in routes.items():
                    files = tuple(by_digest[digest] for digest in digests)
                    lane = Lane(route, files)
                    chunk_bytes = max(file.board.file.chunk_bytes for file in files)
                    most = max(self.room.limit_bytes // len(routes) // chunk_bytes, 1)
                    for _ in range(min(self.in_flight, most)):
                        group.start_soon(self._work, lane, chunk_bytes)

    async def _work(self, lane: Lane, chunk_bytes: int) -> None:
        links: dict[Giver, Line] = {}
        try:
            while not lane.complete:
                await self._step(lane, chunk_bytes, links)
        finally:
            for link in links.values():
                link.close()

    async def _step(self, lane: Lane, chunk_bytes: int, links: dict[Giver, Line]) -> None:
        source = await self.sources.pick(lane.route)
        if source is None:
            self._check_patience(lane)
            await anyio.sleep(0.1)
            return
        claimed = lane.claim(BATCH)
        if claimed is None:
            changed = lane.changed
            with anyio.move_on_after(0.5):
                await changed.wait()
            return
        arriving, first, count = claimed
        if source not in links:
            links[source] = source.line()
        sink = _Sink(self, arriving, source.node_id)
        try:
            async with self.room.buffer(chunk_bytes) as buffer:
                await links[source].bring(arriving.board.file, first, count, buffer, sink)
        except SourceTrouble as trouble:
            arriving.board.give_back(first, count)
            await self.sources.troubled(trouble)
            self._check_patience(lane)
        finally:
            arriving.board.give_back(first, count)
            lane.ring()

    def _check_patience(self, lane: Lane) -> None:
        if self.sources.exhausted(lane.route):
            raise NoHonestSource(
                f"{', '.join(lane.route)} gave other bytes than the manifest says",
                advice="the model's files at the origin may have changed: request the model again",
            )
        if anyio.current_time() - self._moved_at > self.give_up_s:
            raise NoSource(f"no byte came from {', '.join(lane.route)} in {self.give_up_s:g} s")

    def verified(self, arriving: ArrivingFile, index: int, source: str) -> None:
        """Chunk `index` is on disk, verified: count it, tell who waits. On the event loop."""
        size_bytes = arriving.board.verify(index)
        if size_bytes:
            self._moved_at = anyio.current_time()
            self.received[source] += size_bytes
            self.sources.gave(source)
            progress.report(self.arrival.verified_bytes, self.arrival.manifest.size_bytes)
            arriving.ring()

    async def _fill(self, work: Callable[[memoryview], None]) -> None:
        chunk_bytes = max((f.chunk_bytes for f in self.arrival.manifest.files), default=1)
        with plain_errors(self.arrival):
            await anyio.to_thread.run_sync(work, memoryview(bytearray(chunk_bytes)))

    def _resume(self, view: memoryview) -> None:
        def verified(file: StageFile, index: int) -> None:
            self.arrival.files[file.name].board.verify(index)

        self.arrival.resume(view, verified, check_cancelled)

    def _take_held(self, held: Held, view: memoryview) -> None:
        for arriving in self.arrival.files.values():
            file = arriving.board.file
            for index, data in find(file, _each(arriving.board.missing), held, view):
                self.arrival.write(file, index, data)
                self.received[HELD] += arriving.board.verify(index)
                progress.report(self.arrival.verified_bytes, self.arrival.manifest.size_bytes)

    def _take_made(self, bodies: Mapping[str, bytes], _view: memoryview) -> None:
        for name, body in bodies.items():
            if name not in self.arrival.files:
                continue
            arriving = self.arrival.files[name]
            for index in arriving.board.missing:
                file = arriving.board.file
                start, length = chunk_range(index, file.size_bytes, file.chunk_bytes)
                part = memoryview(body)[start : start + length]
                if digest_of_chunk(part) == file.chunks[index]:
                    self.arrival.write(file, index, part)
                    self.received[HELD] += arriving.board.verify(index)

    def _take_laid_out(self, shelved: ShelvedStage, node_id: str, view: memoryview) -> None:
        layouts = {file.name: file for file in shelved.layout.files}
        paths = {name: Path(path) for name, path in shelved.paths.items()}
        with SourceFiles(paths) as sources:
            for arriving in self.arrival.files.values():
                file, board = arriving.board.file, arriving.board
                for index in _each(board.missing):
                    start, length = chunk_range(index, file.size_bytes, file.chunk_bytes)
                    part = view[:length]
                    sources.read_into(layouts[file.name], start, part)
                    if digest_of_chunk(part) != file.chunks[index]:
                        raise ChangedModel(
                            f"{file.name} would not be what its manifest says",
                            advice="the model's files were changed: request the model again",
                        )
                    self.arrival.write(file, index, part)
                    self.received[node_id] += board.verify(index)
                    progress.report(self.arrival.verified_bytes, self.arrival.manifest.size_bytes)


def _each(chunks: Iterable[int]) -> Iterator[int]:
    """These chunks, one after the other until the work is cancelled: the thread ends then."""
    for index in chunks:
        check_cancelled()
        yield index


@dataclass(frozen=True)
class _Sink:
    """Takes verified chunks in a worker thread: to the disk, then to the books on the loop."""

    reception: Reception
    arriving: ArrivingFile
    source: str

    def __call__(self, index: int, data: memoryview) -> None:
        arrival = self.reception.arrival
        try:
            arrival.write(self.arriving.board.file, index, data)
        except OSError as error:  # as itself it would pass for the connection's
            named = _named(error, arrival)
            if named is error:
                raise DiskTrouble(arrival.directory, error) from error
            raise named from error
        anyio.from_thread.run_sync(self.reception.verified, self.arriving, index, self.source)


@contextmanager
def plain_errors(arrival: Arrival) -> Iterator[None]:
    """The first error of a group of workers as itself, a full disk by its name and figures."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise _first(group, arrival) from None
    except OSError as error:
        raise _named(error, arrival) from error


def _first(error: BaseException, arrival: Arrival) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return _named(error, arrival) if isinstance(error, OSError) else error


def _named(error: OSError, arrival: Arrival) -> Exception:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    missing = arrival.manifest.size_bytes - arrival.verified_bytes
    models = arrival.final.parent.parent
    return DiskFull(missing, shutil.disk_usage(models).free, models)
