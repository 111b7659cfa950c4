"""A model as the solvers see it: a line of uncuttable units with integer work, memory and disk.

Work is counted in integers (GFLOP times a power of two, about 2**50 in all), so that "does this
range fit under T" has one answer and the smallest feasible T is found exactly.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import msgspec

from messages.ids import NodeId
from messages.metadata import Block
from services.planner.metadata import Copy

UNLIMITED = 1 << 62
_TOTAL_BITS = 50
_MOST_SCALE_BITS = 100


class Offer(msgspec.Struct, frozen=True, gc=False):
    """What one node brings: `rate` work units a second, memory and disk in bytes.

    A hop away from the node costs `hop_s` plus `byte_s` for every byte of activations.
    """

    node_id: NodeId
    rate: float
    memory: int
    disk: int = UNLIMITED
    hop_s: float = 0.0
    byte_s: float = 0.0

    @property
    def kind(self) -> tuple[float, int, int, float, float]:
        """Offers of one kind are exchangeable."""
        return (self.rate, self.memory, self.disk, self.hop_s, self.byte_s)


@dataclass(frozen=True)
class Line:
    """Units in execution order. Unit u is blocks `borders[u]` to `borders[u + 1]`.

    `ties` are units where tied tensors are stored, and their bytes: so much more is needed by the
    range that holds the last unit, unless it holds that unit as well. It is no more than the unit's
    own, so that a further start never needs more. `outputs[u]` are the bytes that leave unit u.
    """

    works: tuple[int, ...]
    memory: tuple[int, ...]
    disk: tuple[int, ...]
    borders: tuple[int, ...]
    outputs: tuple[int, ...]
    scale: float = 1.0
    ties: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return len(self.works)

    @cached_property
    def work_sums(self) -> tuple[int, ...]:
        """Prefix sums of work: a range [i, j) does work_sums[j] - work_sums[i]."""
        return tuple(accumulate(self.works, initial=0))

    @cached_property
    def memory_sums(self) -> tuple[int, ...]:
        """Prefix sums of memory, without tied tensors' second copies."""
        return tuple(accumulate(self.memory, initial=0))

    @cached_property
    def disk_sums(self) -> tuple[int, ...]:
        """Prefix sums of weights, without tied tensors' second copies."""
        return tuple(accumulate(self.disk, initial=0))

    def tied_copy(self, start: int, end: int) -> int:
        """Bytes of the tied tensors' second copies in the range [start, end)."""
        if not self.ties or end < len(self):
            return 0
        return sum([size for unit, size in self.ties if unit < start])

    def work(self, start: int, end: int) -> int:
        """Work units of [start, end)."""
        return self.work_sums[end] - self.work_sums[start]

    def memory_of(self, start: int, end: int) -> int:
        """Bytes that a node needs to compute [start, end)."""
        return self.memory_sums[end] - self.memory_sums[start] + self.tied_copy(start, end)

    def disk_of(self, start: int, end: int) -> int:
        """Bytes of weights in [start, end)."""
        return self.disk_sums[end] - self.disk_sums[start] + self.tied_copy(start, end)

    def seconds(self, offer: Offer, start: int, end: int) -> float:
        """The stage time of [start, end) on this offer."""
        return self.work(start, end) / offer.rate

    def fits(self, offer: Offer, start: int, end: int, cap: int = UNLIMITED) -> bool:
        """Whether the offer can hold [start, end) and it does no more work than `cap`."""
        return (
            self.work(start, end) <= cap
            and self.memory_of(start, end) <= offer.memory
            and self.disk_of(start, end) <= offer.disk
        )

    def reach(self, offer: Offer, start: int, cap: int = UNLIMITED) -> int:
        """The largest end for which [start, end) fits; `start` itself where nothing does."""
        end = min(
            bisect_right(self.work_sums, self.work_sums[start] + cap),
            bisect_right(self.memory_sums, self.memory_sums[start] + offer.memory),
            bisect_right(self.disk_sums, self.disk_sums[start] + offer.disk),
        )
        end -= 1
        if end == len(self) and end > start and not self.fits(offer, start, end, cap):
            end -= 1
        return end

    def reaches(self, offer: Offer, limit_s: float) -> list[int]:
        """`reach` from every start, under the time limit."""
        cap = work_cap(limit_s, offer.rate, self.work_sums[-1])
        return [self.reach(offer, start, cap) for start in range(len(self))]


def work_cap(limit_s: float, rate: float, total: int) -> int:
    """The largest integer work w, at most `total`, whose time w / rate is at most `limit_s`."""
    if math.isinf(limit_s):
        return total
    cap = int(min(limit_s * rate, float(total)))
    while cap < total and (cap + 1) / rate <= limit_s:
        cap += 1
    while cap > 0 and cap / rate > limit_s:
        cap -= 1
    return cap


def scale_of(total_gflop: float) -> float:
    """The power of two that makes about 2**50 work units of the whole model."""
    if total_gflop <= 0:
        return 1.0
    return math.ldexp(1.0, min(_MOST_SCALE_BITS, _TOTAL_BITS - math.frexp(total_gflop)[1]))


def line_of(blocks: Sequence[Block], copies: Sequence[Copy] = ()) -> Line:
    """The line of these blocks: blocks bound by `together_with`, and all between, are one unit."""
    borders = _borders(blocks)
    scale = scale_of(math.fsum([b.compute_required for b in blocks]))
    disk = _by_unit([b.weight_bytes for b in blocks], borders)
    return Line(
        works=_by_unit([round(b.compute_required * scale) for b in blocks], borders),
        memory=_by_unit([memory_bytes(b) for b in blocks], borders),
        disk=disk,
        borders=borders,
        outputs=tuple([blocks[end - 1].output_bytes for end in borders[1:]]),
        scale=scale,
        ties=_ties(copies, borders, disk),
    )


def _ties(
    copies: Sequence[Copy], borders: Sequence[int], disk: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """The tied bytes of each unit; of metadata that contradicts itself no more than its weights."""
    sizes: dict[int, int] = {}
    for copy in copies:
        unit = bisect_right(borders, copy.block) - 1
        sizes[unit] = min(disk[unit], sizes.get(unit, 0) + copy.size_bytes)
    return tuple((unit, size) for unit, size in sizes.items() if size)


def memory_bytes(block: Block) -> int:
    """What a block needs resident: weights, key-value cache and activations."""
    return block.weight_bytes + block.kv_bytes + block.activation_bytes


def _by_unit(figures: Sequence[int], borders: Sequence[int]) -> tuple[int, ...]:
    if len(borders) == len(figures) + 1:
        return tuple(figures)
    return tuple(sum(figures[start:end]) for start, end in pairwise(borders))


def _borders(blocks: Sequence[Block]) -> tuple[int, ...]:
    """The block indices where a cut is allowed, 0 and the end included."""
    if all(block.together_with is None for block in blocks):
        return tuple(range(len(blocks) + 1))
    place = {block.name: k for k, block in enumerate(blocks)}
    last_of: dict[int, int] = {}
    for k, block in enumerate(blocks):
        if block.together_with is not None:
            first, last = sorted((k, place[block.together_with]))
            last_of[first] = max(last, last_of.get(first, first))
    borders, held_to = [0], 0
    for k in range(len(blocks)):
        held_to = max(held_to, last_of.get(k, k))
        if held_to == k:
            borders.append(k + 1)
    return tuple(borders)
