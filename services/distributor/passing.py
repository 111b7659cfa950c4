"""Passing on what this node does not keep: a chunk is fetched, verified, sent, and forgotten.

This is how a chain reaches a node that the origin cannot, and how a plan's chain brings different
parts through: nothing lands on the disks on the way.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import anyio

from messages.shards import StageFile
from services.checkpoint.chunks import chunk_range
from services.distributor.content import Extent
from services.distributor.failures import SourceTrouble
from services.distributor.room import Room
from services.distributor.sources import Sources
from services.distributor.transfer import Giver, Line

MEMORY_BYTES = 16 << 20
"""For the chunks on their way through a node at once, over all who ask."""
MOST_DIGESTS = 1 << 17
"""Of files that are passed on; 16 MB, and as many MiB of files."""


@dataclass
class Upstream:
    """Whom this node asks for what others ask it; connections are kept for the next chunk."""

    route: tuple[str, ...]
    sources: Sources
    room: Room = field(default_factory=lambda: Room(MEMORY_BYTES))
    _idle: dict[Giver, list[Line]] = field(default_factory=dict)
    _closed: bool = False

    async def chunk(self, file: StageFile, index: int) -> bytes:
        """One verified chunk; nothing where its source gave none, or while all sources rest."""
        source = await self.sources.pick(self.route)
        if source is None:
            await anyio.sleep(0.1)
            return b""
        links = self._idle.setdefault(source, [])
        link = links.pop() if links else source.line()
        _, length = chunk_range(index, file.size_bytes, file.chunk_bytes)
        buffer = bytearray(length)
        try:
            await link.bring(file, index, 1, memoryview(buffer), _kept)
        except SourceTrouble as trouble:
            link.close()
            await self.sources.troubled(trouble)
            return b""
        if self._closed:
            link.close()
        links.append(link)
        self.sources.gave(source.node_id)
        return bytes(buffer)

    def close(self) -> None:
        """Close the connections, for good."""
        self._closed = True
        for links in self._idle.values():
            for link in links:
                link.close()
        self._idle.clear()


class Through:
    """One request's view of a file that is fetched as it is asked for, a chunk an answer."""

    def __init__(self, file: StageFile, upstream: Upstream) -> None:
        self._file, self._upstream = file, upstream
        self._first = 0
        self._data = b""
        self._taken_bytes = 0

    @property
    def size_bytes(self) -> int:
        """The file's length."""
        return self._file.size_bytes

    async def ready(self, first: int, most: int, wait_s: float) -> int:
        """One chunk, if it comes from upstream within `wait_s`; it has its room until `close`."""
        _, length = chunk_range(first, self._file.size_bytes, self._file.chunk_bytes)
        with anyio.move_on_after(wait_s):
            await self._upstream.room.take(length)
            self._taken_bytes = length
            while not self._data:
                self._first, self._data = first, await self._upstream.chunk(self._file, first)
        return 1 if self._data else 0

    def extents(self, start: int, size_bytes: int) -> list[Extent | bytes]:
        """The chunk that is ready, from memory."""
        offset = start - self._first * self._file.chunk_bytes
        return [self._data[offset : offset + size_bytes]]

    def close(self) -> None:
        """The chunk was sent: another may have its room."""
        self._data = b""
        self._upstream.room.give_back(self._taken_bytes)
        self._taken_bytes = 0


class Passed:
    """The files that were passed on of late, by digest; the oldest are forgotten first."""

    def __init__(self, most_digests: int = MOST_DIGESTS) -> None:
        self._most, self._count = most_digests, 0
        self._files: dict[str, StageFile] = {}

    def get(self, digest: str) -> StageFile | None:
        """The file of this digest, if it is still known."""
        return self._files.get(digest)

    def add(self, files: Iterable[StageFile]) -> None:
        """Keep these, and as many of the others as there is room for."""
        added = {file.digest: file for file in files if file.digest not in self._files}
        self._files |= added
        self._count += sum(len(file.chunks) for file in added.values())
        while self._count > self._most and len(self._files) > len(added):
            oldest = self._files.pop(next(iter(self._files)))
            self._count -= len(oldest.chunks)


def _kept(_index: int, _data: memoryview) -> None:
    """The buffer is the chunk."""
