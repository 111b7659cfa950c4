"""Memory for the chunks on their way, shared by all that a node does at once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio


@dataclass
class Room:
    """At most `limit_bytes` at a time, first come first served; one buffer always fits.

    So a node's memory is bounded however many stages it receives, and however large their chunks.
    """

    limit_bytes: int
    taken_bytes: int = 0
    _turn: anyio.Lock = field(default_factory=anyio.Lock)
    _freed: anyio.Event = field(default_factory=anyio.Event)

    async def take(self, size_bytes: int) -> None:
        """Return when there is room for these bytes; `give_back` must follow."""
        async with self._turn:
            while self.taken_bytes and self.taken_bytes + size_bytes > self.limit_bytes:
                await self._freed.wait()
            self.taken_bytes += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """These bytes are free again."""
        self.taken_bytes -= size_bytes
        freed, self._freed = self._freed, anyio.Event()
        freed.set()

    @asynccontextmanager
    async def buffer(self, size_bytes: int) -> AsyncIterator[memoryview]:
        """A buffer for the length of the block."""
        await self.take(size_bytes)
        try:
            yield memoryview(bytearray(size_bytes))
        finally:
            self.give_back(size_bytes)
