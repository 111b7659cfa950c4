"""What a stage is made of, as a value: its files, and where every byte of them comes from.

A layout is decided and checked before a byte moves. The same value is carried out by whoever cuts a
stage, and read by whoever serves it out of the source files without cutting it.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import accumulate

import msgspec

from messages.failures import Permanent
from messages.ids import NodeId, PlanId
from messages.shards import FileName, SourceName, StageTensor


class BadLayout(Permanent):
    """A layout that would not rebuild the source; nothing was written."""


class Literal(msgspec.Struct, frozen=True, tag="literal"):
    """Bytes that no source file holds: a header, an index, a description."""

    data: bytes

    @property
    def size_bytes(self) -> int:
        """How many bytes."""
        return len(self.data)

    def part(self, start: int, size_bytes: int) -> "Literal":
        """Bytes [start, start + size_bytes) of this piece."""
        return Literal(self.data[start : start + size_bytes])


class Span(msgspec.Struct, frozen=True, tag="span"):
    """Bytes [start, start + size_bytes) of the model's file `source`."""

    source: str
    start: int
    size_bytes: int

    def part(self, start: int, size_bytes: int) -> "Span":
        """Bytes [start, start + size_bytes) of this piece."""
        return Span(self.source, self.start + start, size_bytes)


Piece = Literal | Span


class FileLayout(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One file of a stage as its pieces in order; see `StageFile` for the other fields."""

    name: FileName
    pieces: tuple[Piece, ...]
    source: SourceName | None = None
    data_start: int = 0
    tensors: tuple[StageTensor, ...] = ()

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(piece.size_bytes for piece in self.pieces))

    @property
    def size_bytes(self) -> int:
        """The file's length."""
        return self._ends[-1] if self.pieces else 0

    def part(self, start: int, size_bytes: int) -> Iterator[Piece]:
        """The pieces of bytes [start, start + size_bytes); BadLayout where the file is shorter."""
        if start + size_bytes > self.size_bytes:
            raise BadLayout(f"{self.name} has no byte {start + size_bytes - 1}")
        k = bisect_right(self._ends, start)
        while size_bytes > 0:
            piece = self.pieces[k]
            offset = start - (self._ends[k] - piece.size_bytes)
            length = min(size_bytes, piece.size_bytes - offset)
            if length:
                yield piece.part(offset, length)
            start, size_bytes, k = start + length, size_bytes - length, k + 1

    def validate(self, sources: Mapping[str, int]) -> None:
        """Check every piece against the source files' sizes, and every tensor against the pieces.

        Raises BadLayout.
        """
        for piece in self.pieces:
            if isinstance(piece, Span):
                _check_span(self.name, piece, sources)
        reached = self.data_start
        for tensor in self.tensors:
            if tensor.start != reached:
                raise BadLayout(f"{self.name}: {tensor.name} leaves a hole or overlaps")
            reached += tensor.size_bytes
            found = tuple(self.part(tensor.start, tensor.size_bytes))
            wanted = Span(tensor.source, tensor.source_start, tensor.size_bytes)
            if tensor.size_bytes and found != (wanted,):  # adjacent ranges were joined
                raise BadLayout(f"{self.name}: {tensor.name} is not its bytes of {tensor.source}")
        if self.tensors and reached != self.size_bytes:
            raise BadLayout(f"{self.name}: {self.size_bytes - reached} bytes belong to no tensor")


class StageLayout(msgspec.Struct, frozen=True, kw_only=True):
    """One node's stage: stage `stage` of `stages` in copy `replica`, under `directory`."""

    plan_id: PlanId
    model_name: str
    revision: str
    directory: FileName
    node_id: NodeId
    stage: int
    stages: int
    replica: int = 0
    chunk_bytes: int
    files: tuple[FileLayout, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size_bytes for file in self.files)

    @property
    def tensors(self) -> Iterator[StageTensor]:
        """Every tensor of the stage, in file order."""
        return (tensor for file in self.files for tensor in file.tensors)

    def validate(self, sources: Mapping[str, int]) -> None:
        """Check that every byte of every file comes from a named place; raises BadLayout.

        `sources` gives the length of each file of the model.
        """
        names = [file.name for file in self.files]
        if len(set(names)) != len(names):
            raise BadLayout(f"the stage of {self.node_id} names a file twice")
        held = [tensor.name for tensor in self.tensors]
        if len(set(held)) != len(held):
            raise BadLayout(f"the stage of {self.node_id} holds a tensor twice")
        for file in self.files:
            file.validate(sources)


def check_coverage(
    layouts: Iterable[StageLayout], tensors: Iterable[str], shared: Iterable[str]
) -> None:
    """Check that each copy of the pipeline holds every tensor once, and twice only what is shared.

    Raises BadLayout with the names.
    """
    expected, may_repeat = set(tensors), set(shared)
    copies: dict[int, dict[str, int]] = {}
    for layout in layouts:
        held = copies.setdefault(layout.replica, {})
        for tensor in layout.tensors:
            held[tensor.name] = held.get(tensor.name, 0) + 1
    for replica, held in copies.items():
        where = f"copy {replica} of the plan"
        _refuse(expected - held.keys(), f"{where} leaves out tensors of the model")
        _refuse(held.keys() - expected, f"{where} names tensors that the model has not")
        repeated = {name for name, count in held.items() if count > 1}
        _refuse(repeated - may_repeat, f"{where} holds tensors twice that are not tied")


def _refuse(names: set[str], what: str) -> None:
    if names:
        shown = ", ".join(sorted(names)[:8]) + (", …" if len(names) > 8 else "")
        raise BadLayout(
            f"{what}: {shown} ({len(names)} in all)",
            advice="plan again from the metadata of exactly this revision of the model",
        )


def _check_span(name: str, span: Span, sources: Mapping[str, int]) -> None:
    if span.source not in sources:
        raise BadLayout(f"{name} takes bytes of {span.source}, which is no file of the model")
    if span.start < 0 or span.start + span.size_bytes > sources[span.source]:
        raise BadLayout(f"{name} takes bytes of {span.source} beyond its end")
