"""The fewest more bytes on one node with which a chain exists: by bounds first, then by probes.

What a node can hold changes only where one more range fits, so those sizes are halved, from what
the other nodes leave over at least. Effort is counted in probes, never in seconds.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from services.planner.chains import Demands
from services.planner.failures import Undecided
from services.planner.line import Line, Offer

Feasible = Callable[[Sequence[Offer]], bool]
_MOST_PROBES = 64
_MOST_IN_CLOSED_FORM = 2_000


@dataclass(frozen=True)
class Change:
    """`missing` more bytes on `offer` make a chain exist; `least`: fewer do so on no node."""

    offer: Offer
    missing: int
    least: bool


def least_change(
    line: Line, offers: Sequence[Offer], constraint: str, demands: Demands, feasible: Feasible
) -> Change | None:
    """The node found to need the fewest more bytes of what binds; None: no node alone suffices.

    `feasible` says whether a chain exists, or raises Undecided. Where it did, or was asked too
    often, the change is enough but perhaps not the least.
    """
    from services.planner import identical

    closed = not demands and identical.applies(line)
    probes = _MOST_IN_CLOSED_FORM if closed else _MOST_PROBES
    asked = _Asked(offers, constraint, feasible, probes)
    ranges = _Ranges(line, constraint)
    floors = _floors(line, offers, constraint)
    best: Offer | None = None
    fewest = ranges.whole + 1
    alike: set[tuple[int, ...]] = set()
    for k in sorted(range(len(offers)), key=lambda k: (floors[k], -offers[k].memory)):
        kind = (k,) if demands else (offers[k].memory, offers[k].disk)
        if kind in alike:
            continue
        alike.add(kind)
        sizes = ranges.beyond(offers[k], floors[k], fewest)
        if sizes and asked.enough(k, sizes[-1]):
            best, fewest = offers[k], asked.least(k, sizes)
    return None if best is None else Change(best, fewest, asked.certain)


class _Asked:
    """Whether more bytes on one offer are known to be enough; `certain` while all was decided."""

    def __init__(
        self, offers: Sequence[Offer], constraint: str, feasible: Feasible, probes: int
    ) -> None:
        self.offers = offers
        self.constraint = constraint
        self.feasible = feasible
        self.certain = True
        self.left = probes

    def enough(self, k: int, more: int) -> bool:
        """Whether a chain exists once offer k has `more` bytes more; False where that is open."""
        self.left -= 1
        if self.left >= 0:
            grown = _grown(self.offers[k], self.constraint, more)
            try:
                return self.feasible([*self.offers[:k], grown, *self.offers[k + 1 :]])
            except Undecided:
                pass
        self.certain = False
        return False

    def least(self, k: int, sizes: Sequence[int]) -> int:
        """The first of the rising sizes that is known to be enough, the last of which is."""
        return sizes[bisect_left(sizes[:-1], 1, key=lambda more: int(self.enough(k, more)))]


class _Ranges:
    """The bytes of every range of the line: where a node's room may come to matter."""

    def __init__(self, line: Line, constraint: str) -> None:
        pairs = [(i, j) for j in range(1, len(line) + 1) for i in range(j)]
        self.memory = sorted({line.memory_of(i, j) for i, j in pairs if "memory" in constraint})
        self.disk = sorted({line.disk_of(i, j) for i, j in pairs if "disk" in constraint})
        self.whole = max(*self.memory[-1:], *self.disk[-1:], 0)

    def beyond(self, offer: Offer, floor: int, fewest: int) -> list[int]:
        """The additions from `floor` to below `fewest` with which the offer may hold one more."""
        found: set[int] = set()
        for sizes, has in ((self.memory, offer.memory), (self.disk, offer.disk)):
            low, high = bisect_left(sizes, has + floor), bisect_left(sizes, has + fewest)
            found.update(size - has for size in sizes[low:high])
        return sorted(found)


def _floors(line: Line, offers: Sequence[Offer], constraint: str) -> list[int]:
    """For each offer the bytes that it lacks even if all others hold their largest ranges."""
    import numpy as np

    from services.planner.table import Table

    table = Table(line, offers)
    floors = [1] * len(offers)
    for name, sums in (("memory", line.memory_sums), ("disk", line.disk_sums)):
        if name not in constraint:
            continue
        prefix = np.array(sums, dtype=np.int64)
        most = (prefix[table.held] - prefix[:-1]).max(axis=1).tolist()
        held = {k: size for kind, size in zip(table.members, most, strict=True) for k in kind}
        over = sums[-1] - sum(held.values())
        rooms = [offer.memory if name == "memory" else offer.disk for offer in offers]
        floors = [max(floors[k], over + held[k] - room) for k, room in enumerate(rooms)]
    return floors


def _grown(offer: Offer, constraint: str, more: int) -> Offer:
    memory = offer.memory + more if "memory" in constraint else offer.memory
    disk = offer.disk + more if "disk" in constraint else offer.disk
    return replace(offer, memory=memory, disk=disk)
