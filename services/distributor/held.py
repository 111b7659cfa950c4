"""Bytes of a stage that this node holds already, found by tensor; every guess is verified.

An older plan, another revision with equal tensors, a copy of the model in the Hub's cache: what
has a tensor's name, type and shape is tried, and counts only if the chunk has its digest.
"""

import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from messages.shards import StageFile, StageManifest, StageTensor
from services.checkpoint.chunks import chunk_range, digest_of_chunk
from services.checkpoint.stage_header import header_of


@dataclass(frozen=True)
class Place:
    """Where a copy of a tensor (or of a whole small file) may be."""

    path: Path
    start: int


@dataclass
class Held:
    """What is on this node: tensors by name, type and shape, files by content and by name."""

    tensors: dict[tuple[str, str, tuple[int, ...]], list[Place]] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)

    def add(self, manifest: StageManifest, directory: Path) -> None:
        """Everything in a stage directory."""
        for file in manifest.files:
            path = directory / file.name
            self.files[file.digest] = path
            for tensor in file.tensors:
                self._add(tensor, Place(path, tensor.start))

    def add_model(self, manifest: StageManifest, directory: Path) -> None:
        """Those tensors of `manifest` whose source files are in `directory` (a Hub snapshot)."""
        present: Mapping[str, bool] = {
            name: (directory / name).is_file()
            for name in {t.source for file in manifest.files for t in file.tensors}
        }
        for file in manifest.files:
            if file.source and (directory / file.source).is_file():
                self.files.setdefault(file.digest, directory / file.source)
            for tensor in file.tensors:
                if present[tensor.source]:
                    self._add(tensor, Place(directory / tensor.source, tensor.source_start))

    def _add(self, tensor: StageTensor, place: Place) -> None:
        self.tensors.setdefault((tensor.name, tensor.dtype, tensor.shape), []).append(place)


def find(
    file: StageFile, missing: Iterable[int], held: Held, view: memoryview
) -> Iterator[tuple[int, memoryview]]:
    """Each missing chunk that can be put together from what is held, verified; `view` is reused."""
    copy = held.files.get(file.digest)
    places = [held.tensors.get((t.name, t.dtype, t.shape), []) for t in file.tensors]
    if copy is None and not any(places):
        return
    with _Files() as files:
        puzzle = _Puzzle(file, places, files)
        for index in missing:
            start, length = chunk_range(index, file.size_bytes, file.chunk_bytes)
            part = view[:length]
            for filled in puzzle.tries(start, part, copy):
                if filled and digest_of_chunk(part) == file.chunks[index]:
                    yield index, part
                    break


class _Puzzle:
    """One file, put together from the places where its tensors may be."""

    def __init__(self, file: StageFile, places: list[list[Place]], files: "_Files") -> None:
        self._tensors, self._places, self._files = file.tensors, places, files
        self._head = header_of(file) if file.tensors else b""
        self._starts = [tensor.start for tensor in file.tensors]
        self._most = max(map(len, places), default=0)

    def tries(self, start: int, part: memoryview, copy: Path | None) -> Iterator[bool]:
        """Fill `part` with the bytes from `start` in one way after another; whether it could."""
        if copy is not None:
            yield self._files.read(copy, start, part)
        for choice in range(self._most):
            yield self._assemble(start, part, choice)

    def _assemble(self, start: int, part: memoryview, choice: int) -> bool:
        end = start + len(part)
        if start < len(self._head):
            upto = min(end, len(self._head))
            part[: upto - start] = self._head[start:upto]
        k = max(bisect_right(self._starts, start) - 1, 0)
        while k < len(self._tensors) and self._tensors[k].start < end:
            if not self._place(k, start, part, choice):
                return False
            k += 1
        return True

    def _place(self, k: int, start: int, part: memoryview, choice: int) -> bool:
        tensor, places = self._tensors[k], self._places[k]
        low = max(start, tensor.start)
        high = min(start + len(part), tensor.start + tensor.size_bytes)
        if low >= high:
            return True
        if not places:
            return False
        place = places[min(choice, len(places) - 1)]
        at = place.start + low - tensor.start
        return self._files.read(place.path, at, part[low - start : high - start])


class _Files:
    """Files opened once for reading; what cannot be opened or is short reads as absent."""

    def __init__(self) -> None:
        self._open: dict[Path, int] = {}

    def __enter__(self) -> "_Files":
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def read(self, path: Path, start: int, view: memoryview) -> bool:
        """Whether the file gave all the bytes of `view`."""
        with suppress(OSError):
            if path not in self._open:
                self._open[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            filled = 0
            while filled < len(view):
                got = os.preadv(self._open[path], [view[filled:]], start + filled)
                if got == 0:
                    return False
                filled += got
            return True
        return False
