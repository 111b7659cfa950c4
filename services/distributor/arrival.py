"""A stage on its way, on this node's disk: its files, which chunks are verified, how it resumes."""

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from messages.shards import StageFile, StageManifest
from services.checkpoint.chunks import chunk_range, digest_of_chunk
from services.checkpoint.writeback import start_writing
from services.distributor.board import Board
from services.distributor.content import ArrivingFile

_NO_HOLES = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP)


@dataclass
class Arrival:
    """The files of one stage in `directory`, open for writing; `close` when no thread writes.

    `final` is where the directory will be when the stage is whole.
    """

    manifest: StageManifest
    directory: Path
    final: Path
    files: dict[str, ArrivingFile] = field(default_factory=dict)
    _open: dict[str, int] = field(default_factory=dict)

    @property
    def verified_bytes(self) -> int:
        """Bytes of verified chunks."""
        return sum(file.board.verified_bytes for file in self.files.values())

    @property
    def complete(self) -> bool:
        """Whether every chunk of every file is verified."""
        return all(file.board.complete for file in self.files.values())

    def open(self) -> None:
        """Make the files with their full length; what they held before stays."""
        for file in self.manifest.files:
            path = self.directory / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._open[file.name] = os.open(path, flags, 0o644)
            if os.fstat(self._open[file.name]).st_size != file.size_bytes:
                os.ftruncate(self._open[file.name], file.size_bytes)
            self.files[file.name] = ArrivingFile(Board(file), path, self.final / file.name)

    def close(self) -> None:
        """Close the files."""
        while self._open:
            os.close(self._open.popitem()[1])

    def write(self, file: StageFile, index: int, data: memoryview) -> None:
        """Write one verified chunk; OSError where the disk is full."""
        start, _ = chunk_range(index, file.size_bytes, file.chunk_bytes)
        written = 0
        while written < len(data):
            written += os.pwrite(self._open[file.name], data[written:], start + written)
        start_writing(self._open[file.name], start, written)

    def read(self, file: StageFile, index: int, view: memoryview) -> memoryview:
        """One chunk as it is on disk, in `view`."""
        start, length = chunk_range(index, file.size_bytes, file.chunk_bytes)
        got = os.preadv(self._open[file.name], [view[:length]], start)
        return view[:got]

    def resume(
        self,
        view: memoryview,
        verified: Callable[[StageFile, int], None],
        before_each: Callable[[], None] = lambda: None,
    ) -> None:
        """Tell `verified` each chunk that is on disk already, by its digest; holes are skipped.

        A chunk that the disk cannot read is one that is not there. `before_each` is called before
        a chunk is read, and may raise.
        """
        for file in self.manifest.files:
            for index in _with_data(self._open[file.name], file):
                before_each()
                try:
                    data = self.read(file, index, view)
                except OSError:
                    continue
                if digest_of_chunk(data) == file.chunks[index]:
                    verified(file, index)


def _with_data(descriptor: int, file: StageFile) -> Iterator[int]:
    """The chunks that have any bytes on disk, in order."""
    position, after = 0, 0
    while position < file.size_bytes:
        try:
            low = os.lseek(descriptor, position, os.SEEK_DATA)
            high = os.lseek(descriptor, low, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            if error.errno not in _NO_HOLES:
                raise
            low, high = position, file.size_bytes
        first = max(low // file.chunk_bytes, after)
        after = -(-min(high, file.size_bytes) // file.chunk_bytes)
        yield from range(first, after)
        position = high
