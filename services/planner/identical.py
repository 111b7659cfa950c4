"""The closed form for [first] + n identical units + [last]: the usual shape of a language model.

Between the ends only the number of units on a node counts, not which; so a limit is feasible
exactly when the nodes' counts sum to n, after the two nodes that lose least host the ends. O(nodes)
for each limit, vectorised; the smallest feasible double is found by bisection.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from services.planner.bounds import least_feasible
from services.planner.chains import Chain, Stage, smallest
from services.planner.line import Line, Offer

Ints = npt.NDArray[np.int64]
_NEVER = 1 << 40
_NEAR = 1e-8


def applies(line: Line) -> bool:
    """Whether all units but the first and the last are alike, and a tied tensor is in the first."""
    middle = {(line.works[u], line.memory[u], line.disk[u]) for u in range(1, len(line) - 1)}
    return len(line) >= 2 and len(middle) <= 1 and (line.tie_unit == 0 or not line.tie_bytes)


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
        tie = line.tie_bytes
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
        left = self.middle
        at_front = min(left, int(first[opens]))
        left -= at_front
        at_back = min(left, int(last[closes]))
        left -= at_back
        stages, at = [Stage(opens, 0, 1 + at_front)], 1 + at_front
        for k in np.argsort(-plain, kind="stable").tolist():
            if left == 0:
                break
            take = min(left, int(plain[k])) if k not in (opens, closes) else 0
            if take:
                stages.append(Stage(k, at, at + take))
                at, left = at + take, left - take
        return (*stages, Stage(closes, at, len(self.line)))


def best(line: Line, offers: Sequence[Offer]) -> tuple[Chain, float] | None:
    """The best chain and a proven lower bound, which is its time; None where nothing fits."""
    counts = Counts(line, offers)
    low_s = counts.total / float(counts.rates.sum()) * (1 - 1e-12)
    top_s = max(float(counts.total / counts.rates.min()), low_s)
    if not counts.feasible(top_s):
        return None
    near_s = low_s
    while not counts.feasible(near_s):
        low_s, near_s = near_s, min(top_s, near_s * 1.25)
    near_s = least_feasible(counts.feasible, low_s, near_s, tolerance=_NEAR)

    def oracle(limit_s: float) -> Chain | None:
        return counts.chain(limit_s) if counts.feasible(limit_s) else None

    start = oracle(min(top_s, near_s * (1 + 2 * _NEAR))) or counts.chain(top_s)
    return smallest(line, offers, oracle, near_s, start)


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
