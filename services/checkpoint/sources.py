"""Reading a stage's bytes out of the model's files by its layout, as if the stage were cut."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from services.checkpoint.failures import ChangedFile
from services.checkpoint.layout import FileLayout, Literal


class SourceFiles:
    """The model's files, opened once and read with pread from any thread; use as a context."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = dict(paths)
        self._open: dict[str, int] = {}

    def __enter__(self) -> "SourceFiles":
        for name, path in self._paths.items():
            self._open[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def descriptor(self, source: str) -> int:
        """The open file of this name."""
        return self._open[source]

    def read_into(self, file: FileLayout, position: int, view: memoryview) -> int:
        """Fill `view` with the file's bytes from `position`; how many came (less at its end).

        Raises ChangedFile where a source is shorter than it was when it was laid out.
        """
        filled = 0
        wanted = min(len(view), file.size_bytes - position)
        for piece in file.part(position, max(wanted, 0)):
            part = view[filled : filled + piece.size_bytes]
            if isinstance(piece, Literal):
                part[:] = piece.data
            else:
                self._fill(piece.source, piece.start, part)
            filled += piece.size_bytes
        return filled

    def _fill(self, source: str, start: int, view: memoryview) -> None:
        filled = 0
        while filled < len(view):
            got = os.preadv(self._open[source], [view[filled:]], start + filled)
            if got == 0:
                raise ChangedFile(
                    f"{source} ends at byte {start + filled}, before its tensors do",
                    advice="the model's files changed while they were read; request it again",
                )
            filled += got
