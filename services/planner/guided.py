"""A search over sets of nodes, guided and cut by the configuration LP's prices.

A set S that reached unit p has wasted what its nodes could earn less what [0, p) costs. A whole
chain wastes exactly the nodes' earnings less the line's cost, so a set that wasted more leads
nowhere and is dropped; of the rest the thriftiest are kept. Where none had to be left for want of
room, finding nothing proves that there is nothing.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.planner.covering import Floats, Prices
from services.planner.table import Ints, Ranges, Reach

_SLACK = 1e-9
_MIX = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Sought:
    """The ranges found, or None; `complete` says that nothing was left out for want of room."""

    ranges: Ranges | None
    complete: bool


@dataclass(frozen=True)
class _Level:
    parents: Ints
    kinds: Ints
    at: Ints


class Guided:
    """The search under one limit with one set of prices, keeping `width` sets of each size."""

    def __init__(self, reach: Reach, prices: Prices, width: int) -> None:
        self.reach = reach
        self.prices = prices
        self.width = width
        self.counts = np.array(reach.counts)
        self.keys = keys_of(reach.counts)

    def search(self, stop: int | None = None) -> Sought:
        """A chain within the limit, if the search comes upon one; with `stop` a chain up to there.

        Of several the thriftiest.
        """
        goal, ends = stop or self.reach.goal, self.reach.ends
        earned = self.prices.earned(ends)
        budget = float(earned @ self.counts - self.prices.sums[-1]) + _SLACK
        if budget < 0:
            return Sought(None, complete=True)
        ahead = self._least_waste_ahead(ends, earned)
        used = np.zeros((1, len(self.counts)), dtype=np.int16)
        at, waste, key = np.zeros(1, np.int64), np.zeros(1), np.zeros(1, np.uint64)
        levels: list[_Level] = []
        complete = True
        while len(at):
            parents, kinds = np.nonzero(used < self.counts)
            to = ends[kinds, at[parents]]
            spent = (
                waste[parents]
                + earned[kinds]
                - self.prices.sums[to]
                + self.prices.sums[at[parents]]
            )
            fit = (spent + ahead[to] <= budget) & (to > at[parents])
            parents, kinds, to, spent = parents[fit], kinds[fit], to[fit], spent[fit]
            reached = key[parents] + self.keys[kinds]
            kept = _furthest(reached, to)
            if len(kept) > self.width:
                complete = False
                kept = kept[np.argsort((spent + ahead[to])[kept], kind="stable")[: self.width]]
            parents, kinds, at = parents[kept], kinds[kept], to[kept]
            waste, key = spent[kept], reached[kept]
            levels.append(_Level(parents, kinds, at))
            if len(at) and at.max() >= goal:
                cost = np.where(at >= goal, waste + ahead[at], np.inf)
                return Sought(_walk_back(levels, int(np.argmin(cost))), complete)
            used = used[parents]
            used[np.arange(len(kinds)), kinds] += 1
        return Sought(None, complete)

    def _least_waste_ahead(self, ends: Ints, earned: Floats) -> Floats:
        """What is wasted at least from each unit on, if every node could be used again."""
        sums, goal = self.prices.sums, ends.shape[1]
        ahead = np.full(goal + 1, np.inf)
        ahead[goal] = 0.0
        for start in range(goal - 1, -1, -1):
            to = ends[:, start]
            wasted = earned - (sums[to] - sums[start]) + np.where(to > start, ahead[to], np.inf)
            ahead[start] = wasted.min()
        return ahead


def _walk_back(levels: list[_Level], state: int) -> Ranges:
    ranges: list[tuple[int, int, int]] = []
    for before, level in zip([None, *levels[:-1]][::-1], levels[::-1], strict=True):
        kind, end = int(level.kinds[state]), int(level.at[state])
        state = int(level.parents[state])
        ranges.append((kind, 0 if before is None else int(before.at[state]), end))
    return tuple(reversed(ranges))


def keys_of(counts: tuple[int, ...]) -> npt.NDArray[np.uint64]:
    """What adding one node of a kind adds to a set's key: bit fields where 64 bits suffice.

    Else odd multiples of the golden ratio, whose sums practically never meet.
    """
    widths = [count.bit_length() for count in counts]
    if sum(widths) <= 64:
        shifts = [sum(widths[:k]) for k in range(len(widths))]
        return np.array([1 << shift for shift in shifts], dtype=np.uint64)
    mixed = [(_MIX * (2 * k + 1) ** 3 | 1) % 2**64 for k in range(len(counts))]
    return np.array(mixed, dtype=np.uint64)


def _furthest(keys: npt.NDArray[np.uint64], to: Ints) -> Ints:
    """For each different set the entry that reached furthest."""
    order = np.lexsort((-to, keys))
    first = np.ones(len(order), dtype=bool)
    first[1:] = keys[order[1:]] != keys[order[:-1]]
    return order[first]
