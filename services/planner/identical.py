"""The closed form for [first] + n identical units + [last]: the usual shape of a language model.

Between the ends only the number of units on a node counts, not which; so a limit is feasible
exactly when the nodes' counts sum to n, after the two nodes that lose least host the ends. O(nodes)
for each limit, vectorised; the smallest feasible double is one of the times at which a count grows.
"""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from services.planner.chains import Chain, Stage
from services.planner.line import Line, Offer

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_NEVER = 1 << 40
_GROWTH = 2.0
_MOST_STEPS = 20_000


def applies(line: Line) -> bool:
    """Whether all units but the first and the last are alike, and tied tensors are in the first."""
    middle = set(zip(line.works[1:-1], line.memory[1:-1], line.disk[1:-1], strict=True))
    return len(line) >= 2 and len(middle) <= 1 and all(unit == 0 for unit, _ in line.ties)


class Counts:
    """How many middle units each node can take: alone, beside the first unit, beside the last."""

    def __init__(self, line: Line, offers: Sequence[Offer]) -> None:
        self.line = line
        self.middle = len(line) - 2
        self.total = line.work_sums[-1]
        self.rates = np.array([offer.rate for offer in offers])
        memory = np.array([offer.memory for offer in offers], dtype=np.int64)
        disk = np.array([offer.disk for offer in offers], dtype=np.int64)
        unit = (line.works[1], line.memory[1], line.disk[1]) if self.middle else (0, 0, 0)
        self.work, unit_memory, unit_disk = unit
        tie = line.tied_copy(1, len(line))
        self.held = [
            np.minimum(
                self._fitting(memory - used, unit_memory),
                self._fitting(disk - used_disk, unit_disk),
            )
            for used, used_disk in (
                (0, 0),
                (line.memory[0], line.disk[0]),
                (line.memory[-1] + tie, line.disk[-1] + tie),
            )
        ]
        count = len(line)
        self.alone = (memory >= line.memory_of(0, count)) & (disk >= line.disk_of(0, count))

    def _fitting(self, room: Ints, unit: int) -> Ints:
        """Units that fit in the room, -1 where there is less than none."""
        counts = (
            np.full_like(room, self.middle) if unit == 0 else np.minimum(room // unit, self.middle)
        )
        return np.where(room < 0, -1, counts)

    def under(self, limit_s: float) -> tuple[npt.NDArray[np.bool_], Ints, Ints, Ints]:
        """Under a limit: who can take the whole model, and the three counts of every node."""
        caps = np.minimum(limit_s * self.rates, float(self.total)).astype(np.int64)
        caps += ((caps + 1) / self.rates <= limit_s) & (caps < self.total)
        caps -= caps / self.rates > limit_s
        works = (0, self.line.works[0], self.line.works[-1])
        plain, first, last = (
            np.minimum(self._fitting(caps - used, self.work), held)
            for used, held in zip(works, self.held, strict=True)
        )
        return self.alone & (caps >= self.total), np.maximum(plain, 0), first, last

    def feasible(self, limit_s: float) -> bool:
        """Whether a chain exists whose stages all take at most `limit_s`."""
        whole, plain, first, last = self.under(limit_s)
        if whole.any():
            return True
        hosts = _hosts(plain, first, last)
        return hosts is not None and int(plain.sum()) - hosts[2] >= self.middle

    def chain(self, limit_s: float) -> Chain:
        """A chain of few nodes for a limit that is feasible."""
        whole, plain, first, last = self.under(limit_s)
        if whole.any():
            return (Stage(int(np.argmax(whole)), 0, len(self.line)),)
        hosts = _hosts(plain, first, last)
        if hosts is None:
            raise ValueError(f"no chain within {limit_s} s")
        return self._fill(hosts[0], hosts[1], plain, first, last)

    def _fill(self, opens: int, closes: int, plain: Ints, first: Ints, last: Ints) -> Chain:
        at_front = min(self.middle, int(first[opens]))
        at_back = min(self.middle - at_front, int(last[closes]))
        others = plain.copy()
        others[[opens, closes]] = 0
        order = np.argsort(-others, kind="stable")
        ends = 1 + at_front + np.cumsum(others[order])
        edge = len(self.line) - 1 - at_back
        used = int(np.searchsorted(ends, edge)) + 1 if at_front + at_back < self.middle else 0
        borders = [1 + at_front, *np.minimum(ends[:used], edge).tolist()]
        between = map(Stage, order[:used].tolist(), borders, borders[1:])
        return (Stage(opens, 0, borders[0]), *between, Stage(closes, edge, len(self.line)))

    def steps(self, low_s: float, high_s: float) -> Floats | None:
        """The times in (low, high] at which some node can take one unit more, in order.

        None where there are too many to list.
        """
        low, high = self.under(low_s), self.under(high_s)
        if self.work and np.sum(high[1:]) - np.sum(low[1:]) > _MOST_STEPS:
            return None
        works = (0, self.line.works[0], self.line.works[-1])
        times = [self.total / self.rates[high[0] & ~low[0]]]
        for used, before, after in zip(works, low[1:], high[1:], strict=True):
            more = np.minimum(after, 0 if self.work == 0 else self.middle) - before
            node = np.repeat(np.arange(len(more)), np.maximum(more, 0))
            nth = np.arange(len(node)) - np.searchsorted(node, node) + 1
            times.append((used + (before[node] + nth) * self.work) / self.rates[node])
        found = np.unique(np.concatenate(times))
        return found[(found > low_s) & (found <= high_s)]


def best(line: Line, offers: Sequence[Offer]) -> tuple[Chain, float] | None:
    """The best chain and a proven lower bound, which is its time; None where nothing fits.

    What fits changes only at the times at which some node can take one unit more. Between a limit
    that is refused and one that is not these are listed, and the first that suffices is the least.
    """
    counts = Counts(line, offers)
    low_s = counts.total / float(counts.rates.sum()) * (1 - 1e-12) if counts.total else -1.0
    top_s = float(counts.total / counts.rates.min())
    high_s = min(top_s, low_s * _GROWTH) if counts.total else 0.0
    while not counts.feasible(high_s):
        if high_s == top_s:
            return None
        low_s, high_s = high_s, min(top_s, high_s * _GROWTH)
    while (times := counts.steps(low_s, high_s)) is None:
        middle = low_s + (high_s - low_s) / 2
        low_s, high_s = (low_s, middle) if counts.feasible(middle) else (middle, high_s)
    least = bisect_left(times, 1, key=lambda t: int(counts.feasible(float(t))))
    return counts.chain(float(times[least])), float(times[least])


def _hosts(plain: Ints, first: Ints, last: Ints) -> tuple[int, int, int] | None:
    """The pair of different nodes that lose fewest units by hosting the ends, and the loss."""
    opening = np.where(first >= 0, plain - first, _NEVER)
    closing = np.where(last >= 0, plain - last, _NEVER)
    pairs = [
        (int(opening[a] + closing[b]), a, b)
        for a in _two_least(opening)
        for b in _two_least(closing)
        if a != b
    ]
    loss, a, b = min(pairs, default=(_NEVER, 0, 0))
    return (a, b, loss) if loss < _NEVER else None


def _two_least(values: Ints) -> list[int]:
    if len(values) == 1:
        return [0]
    least = int(np.argmin(values))
    kept = int(values[least])
    values[least] = _NEVER * 2
    second = int(np.argmin(values))
    values[least] = kept
    return [least, second]
