"""The Hub as one more source: ranges of the model's own files, put together and verified here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio.to_thread

from messages.shards import StageFile, StageManifest
from services.checkpoint.chunks import chunk_range, digest_of_chunk
from services.checkpoint.layout import FileLayout, Literal
from services.distributor.failures import Absent, Distrusted, Unreachable
from services.distributor.recipe import layout_of
from services.distributor.transfer import Sink
from services.hub.failures import HubUnavailable, ModelRefused
from services.hub.hub import is_commit
from services.hub.ranges import Ranges

HUB = "hub"


@dataclass(frozen=True, eq=False)
class HubSource:
    """The files of one model at one commit, as a source of any stage of it."""

    ranges: Ranges
    node_id: str = HUB
    layouts: dict[str, FileLayout | None] = field(default_factory=dict)

    def line(self) -> "HubLine":
        """One more that reads from it; the HTTP client is the same."""
        return HubLine(self)


@asynccontextmanager
async def hub_source(manifest: StageManifest) -> AsyncIterator[HubSource | None]:
    """The Hub for the length of the block; None where the manifest names no commit of it."""
    if not is_commit(manifest.revision):
        yield None
        return
    async with Ranges(manifest.model_name, manifest.revision) as ranges:
        yield HubSource(ranges)


@dataclass(frozen=True)
class HubLine:
    """Fetches runs of chunks, each range of a model's file by one request."""

    source: HubSource

    async def bring(
        self, file: StageFile, first: int, count: int, buffer: memoryview, sink: Sink
    ) -> int:
        """Hand chunks [first, first + count) to `sink`, each verified; how many came.

        Raises Unreachable, Absent, Distrusted.
        """
        layouts = self.source.layouts
        if file.digest not in layouts:
            layouts[file.digest] = layout_of(file)
        layout = layouts[file.digest]
        if layout is None:
            raise Absent(HUB, f"holds {file.name} in no file of the model")
        start = first * file.chunk_bytes
        end = min(start + count * file.chunk_bytes, file.size_bytes)
        chunks = _Chunks(file, first, buffer, sink)
        try:
            for piece in layout.part(start, end - start):
                if isinstance(piece, Literal):
                    await chunks.take(piece.data)
                else:
                    await self.source.ranges.read(
                        piece.source, piece.start, piece.size_bytes, chunks.take
                    )
        except HubUnavailable as error:
            raise Unreachable(HUB, f"gave no {file.name}: {error}") from None
        except ModelRefused as error:
            raise Absent(HUB, f"refused {file.name}: {error}") from None
        return count

    def close(self) -> None:
        """Nothing: whoever made the source closes its client."""


@dataclass
class _Chunks:
    """Bytes in order, cut into chunks in `buffer`; each is verified when it is full."""

    file: StageFile
    index: int
    buffer: memoryview
    sink: Sink
    filled: int = 0

    async def take(self, data: bytes) -> None:
        """The next bytes."""
        view = memoryview(data)
        while view:
            _, length = chunk_range(self.index, self.file.size_bytes, self.file.chunk_bytes)
            count = min(length - self.filled, len(view))
            self.buffer[self.filled : self.filled + count] = view[:count]
            self.filled, view = self.filled + count, view[count:]
            if self.filled == length:
                await anyio.to_thread.run_sync(self._verify, self.buffer[:length])
                self.index, self.filled = self.index + 1, 0

    def _verify(self, chunk: memoryview) -> None:
        if digest_of_chunk(chunk) != self.file.chunks[self.index]:
            raise Distrusted(HUB, f"altered chunk {self.index} of {self.file.name}")
        self.sink(self.index, chunk)
