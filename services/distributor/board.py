"""Which chunks of an arriving file are verified, on their way, or missing; pure."""

from messages.shards import StageFile
from services.checkpoint.chunks import chunk_range

_MISSING, _CLAIMED, _VERIFIED = 0, 1, 2


class Board:
    """The chunks of one file. A chunk is verified once and for ever; a claim can be given back."""

    def __init__(self, file: StageFile) -> None:
        self.file = file
        self.verified_bytes = 0
        self._states = bytearray(len(file.chunks))
        self._left = len(file.chunks)

    @property
    def complete(self) -> bool:
        """Whether every chunk is verified."""
        return self._left == 0

    @property
    def missing(self) -> tuple[int, ...]:
        """The chunks that are neither verified nor on their way, in order."""
        return tuple(k for k, state in enumerate(self._states) if state == _MISSING)

    def has(self, index: int) -> bool:
        """Whether this chunk is verified."""
        return self._states[index] == _VERIFIED

    def run(self, first: int, most: int) -> int:
        """How many chunks from `first` on are verified in a row, `most` at most."""
        end = min(first + most, len(self._states))
        k = first
        while k < end and self._states[k] == _VERIFIED:
            k += 1
        return k - first

    def claim(self, most: int) -> tuple[int, int] | None:
        """Take the first missing chunks in a row: the first and how many; None where none is."""
        first = self._states.find(_MISSING)
        if first < 0:
            return None
        end = first
        while end < len(self._states) and end - first < most and self._states[end] == _MISSING:
            self._states[end] = _CLAIMED
            end += 1
        return first, end - first

    def give_back(self, first: int, count: int) -> None:
        """Those of the claimed chunks that were not verified are missing again."""
        for k in range(first, first + count):
            if self._states[k] == _CLAIMED:
                self._states[k] = _MISSING

    def verify(self, index: int) -> int:
        """Chunk `index` is on disk and has its digest; its length if that is new, else 0."""
        if self._states[index] == _VERIFIED:
            return 0
        self._states[index] = _VERIFIED
        self._left -= 1
        _, length = chunk_range(index, self.file.size_bytes, self.file.chunk_bytes)
        self.verified_bytes += length
        return length
