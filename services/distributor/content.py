"""What can be served of one file: whole on disk, laid out over source files, or still arriving."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import anyio

from services.checkpoint.layout import FileLayout, Literal
from services.distributor.board import Board


@dataclass(frozen=True)
class Extent:
    """Bytes [offset, offset + size_bytes) of the file at `path`."""

    path: Path
    offset: int
    size_bytes: int


class Content(Protocol):
    """One file's bytes, cut into chunks of `chunk_bytes`."""

    @property
    def size_bytes(self) -> int:
        """The file's length."""

    async def ready(self, first: int, most: int, wait_s: float) -> int:
        """How many chunks from `first` on can be sent now; waits up to `wait_s` for the first."""

    def extents(self, start: int, size_bytes: int) -> list[Extent | bytes]:
        """Where these bytes are, in order; only of chunks that are ready."""

    def close(self) -> None:
        """One answer made of it was sent, or will not be."""


@dataclass(frozen=True)
class WholeFile:
    """A verified file of a complete stage."""

    path: Path
    size_bytes: int

    async def ready(self, first: int, most: int, wait_s: float) -> int:
        """All of them."""
        return most

    def extents(self, start: int, size_bytes: int) -> list[Extent | bytes]:
        """One extent."""
        return [Extent(self.path, start, size_bytes)]

    def close(self) -> None:
        """Nothing is held for an answer."""


@dataclass(frozen=True)
class LaidOutFile:
    """A file of a stage that was never cut: ranges of the model's own files."""

    layout: FileLayout
    paths: Mapping[str, str]

    @property
    def size_bytes(self) -> int:
        """The file's length."""
        return self.layout.size_bytes

    async def ready(self, first: int, most: int, wait_s: float) -> int:
        """All of them."""
        return most

    def extents(self, start: int, size_bytes: int) -> list[Extent | bytes]:
        """The header from memory, the rest from the source files."""
        return [
            piece.data
            if isinstance(piece, Literal)
            else Extent(Path(self.paths[piece.source]), piece.start, piece.size_bytes)
            for piece in self.layout.part(start, size_bytes)
        ]

    def close(self) -> None:
        """Nothing is held for an answer."""


class ArrivingFile:
    """A file whose verified chunks are served while the rest is on its way."""

    def __init__(self, board: Board, path: Path, final: Path) -> None:
        self.board = board
        self._path, self._final = path, final
        self._rung = anyio.Event()

    @property
    def size_bytes(self) -> int:
        """The file's length."""
        return self.board.file.size_bytes

    def ring(self) -> None:
        """A chunk was verified: wake whoever waits for one."""
        rung, self._rung = self._rung, anyio.Event()
        rung.set()

    async def ready(self, first: int, most: int, wait_s: float) -> int:
        """The verified chunks in a row from `first` on."""
        with anyio.move_on_after(wait_s):
            while not self.board.has(first):
                await self._rung.wait()
        return self.board.run(first, most)

    def extents(self, start: int, size_bytes: int) -> list[Extent | bytes]:
        """One extent of the file as it grows, or where it went when its stage became whole."""
        path = self._path if self._path.exists() else self._final
        return [Extent(path, start, size_bytes)]

    def close(self) -> None:
        """Nothing is held for an answer."""


@dataclass(frozen=True)
class Awaited:
    """A file that this node is to have and does not yet receive: none of it is ready."""

    size_bytes: int = 1 << 62

    async def ready(self, first: int, most: int, wait_s: float) -> int:
        """None, a little later."""
        await anyio.sleep(min(wait_s, 0.2))
        return 0

    def extents(self, start: int, size_bytes: int) -> list[Extent | bytes]:
        """Nothing."""
        return []

    def close(self) -> None:
        """Nothing is held for an answer."""
