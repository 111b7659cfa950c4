"""Many nodes, no two alike, and no closed form: bound by prices, found by search or by covering.

At each limit: prices that refuse it are a proof; else the guided search may find a chain; else
branch and bound on the covering problem finds one or proves that there is none. Nodes that reach
equally far under a limit are one kind there, so that a thousand unlike nodes may be forty kinds;
where they are not, prices are weighed instead of solved for, and branch and bound is left for the
end. All effort is counted in steps, never in seconds, so that the same input gives the same plan
everywhere.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.planner.chains import Chain, bottleneck
from services.planner.covering import Prices, cover, prices_of
from services.planner.failures import Undecided
from services.planner.guided import Guided
from services.planner.line import Offer
from services.planner.rolling import rolled
from services.planner.table import Ints, Ranges, Reach, Table
from services.planner.weighing import weighed

BY_PRICES = "prices of the configuration LP"
BY_SEARCH = "complete search under the prices of the configuration LP"
BY_BRANCHING = "branch and bound over covers of the line"
BY_WORK = "all work over all compute within memory"
_MOST_CELLS = 40_000
_WIDTH_STEPS = 60_000
_LEVEL_STEPS = 12_000_000
_LEAST_WIDTH, _MOST_WIDTH = 8, 1_500
_BRANCHES = 400
_UNTIL_DECIDED = 2**31 - 1
_CLOSE = 2e-4


@dataclass(frozen=True)
class Effort:
    """How finely limits are told apart, and how many are tried: in steps, never in seconds."""

    first_step: float
    growth: float
    climb: float
    probes: int


_FINE = Effort(1e-6, 8.0, 1.3, 48)
_COARSE = Effort(4e-3, 3.0, 1.06, 10)


@dataclass(frozen=True)
class Probe:
    """What one limit brought: a chain, or none, and the argument where there provably is none."""

    chain: Chain | None
    proof: str = ""


class Many:
    """The search over limits for one table; `proof` tells what the bound rests on."""

    def __init__(self, table: Table, offers: Sequence[Offer]) -> None:
        self.table = table
        self.offers = offers
        self.effort = _FINE if table.held.size <= _MOST_CELLS else _COARSE
        self.prices: Prices | None = None
        self.proof = BY_WORK
        self._top_s = float(table.sums[-1] / table.rates.min())

    def best(self) -> tuple[Chain, float] | None:
        """The best chain found and a proven lower bound; None where there is provably none.

        Raises Undecided where no chain was found and none was proven impossible.
        """
        if self._refused(self.table.reach(self._top_s)):
            return None
        low_s = self.bound(min(self.table.lower_bound(), self._top_s))
        return self._descend(low_s)

    def exists(self, branches: int = _UNTIL_DECIDED) -> bool:
        """Whether any chain exists at all; raises Undecided where that was not found out.

        With no branches prices and searches alone decide, which takes a moment.
        """
        first = self.probe(self._top_s, min(branches, _BRANCHES))
        if first.chain is None and not first.proof:
            first = self._decided(branches)
        return first.chain is not None

    def bound(self, low_s: float) -> float:
        """The largest limit, nearly, that prices refuse, not above the top, which can be kept."""
        high_s = low_s
        while high_s < self._top_s and self._refused(self.table.reach(high_s)):
            low_s, high_s, self.proof = (
                high_s,
                min(self._top_s, high_s * self.effort.climb),
                BY_PRICES,
            )
        while high_s - low_s > self.effort.first_step / 4 * high_s:
            middle = low_s + (high_s - low_s) / 2
            if self._refused(self.table.reach(middle)):
                low_s, self.proof = middle, BY_PRICES
            else:
                high_s = middle
        return low_s

    def probe(self, limit_s: float, branches: int = _BRANCHES) -> Probe:
        """Whether a chain keeps the limit, by prices, guided search and covering in turn."""
        reach = self.table.reach(limit_s)
        if self._refused(reach):
            return Probe(None, BY_PRICES)
        prices = self.prices or self._by(self.table.sums)
        if reach.ends.size > _MOST_CELLS:
            ranges = rolled(reach, prices, self._width(reach))
            return Probe(None if ranges is None else reach.staged(ranges))
        return self._sought(reach, prices) or self._covered(reach, branches)

    def _sought(self, reach: Reach, prices: Prices) -> Probe | None:
        """What the guided search finds or proves, if it does either."""
        sought = Guided(reach, prices, self._width(reach)).search()
        if sought.ranges is not None:
            return Probe(reach.staged(sought.ranges))
        return Probe(None, BY_SEARCH) if sought.complete else None

    def _descend(self, low_s: float) -> tuple[Chain, float] | None:
        """Up from the bound in growing steps to a chain, halving from there, then just below it."""
        best: Chain | None = None
        best_s, floor_s, step = math.inf, low_s, self.effort.first_step
        for _ in range(self.effort.probes):
            if floor_s >= min(best_s, self._top_s):
                break
            limit_s = self._next(floor_s, best_s, step)
            found = self.probe(limit_s)
            if found.chain is not None:
                best, best_s = found.chain, self._time(found.chain)
                continue
            step *= self.effort.growth
            floor_s = math.nextafter(limit_s, math.inf)
            if found.proof and floor_s > low_s:
                low_s, self.proof = floor_s, found.proof
        if best is None:
            best = self._decided().chain
        return None if best is None else (best, min(low_s, self._time(best)))

    def _next(self, floor_s: float, best_s: float, step: float) -> float:
        if math.isinf(best_s):
            return min(self._top_s, floor_s * (1 + step))
        below_s = math.nextafter(best_s, 0.0)
        if best_s - floor_s <= _CLOSE * best_s:
            return below_s
        return min(below_s, floor_s * (1 + step), floor_s + (best_s - floor_s) / 2)

    def _decided(self, branches: int = _UNTIL_DECIDED) -> Probe:
        """Any chain at all: by searches for memory and for work, then by branching to the end."""
        reach = self.table.reach(self._top_s)
        for sums in (np.array(self.table.line.memory_sums), self.table.sums):
            sought = self._sought(reach, self._by(sums))
            if sought is not None:
                return sought
        found = self._covered(reach, branches)
        if found.chain is None and not found.proof:
            raise Undecided(len(self.offers), len(self.table.line))
        return found

    def _covered(self, reach: Reach, branches: int) -> Probe:
        if not branches:
            return Probe(None)
        found = cover(reach.ends, reach.counts, branches)
        if found.intervals is None:
            return Probe(None, BY_BRANCHING if found.proven else "")
        return Probe(reach.staged(_trimmed(found.intervals)))

    def _refused(self, reach: Reach) -> bool:
        """Whether the prices, those at hand or the limit's own, prove the limit too small."""
        if self.prices is not None and self.prices.refuse(reach.ends, reach.counts):
            return True
        if reach.ends.size > _MOST_CELLS:
            prices: Prices | None = weighed(reach, self.prices or self._by(self.table.sums))
        else:
            prices = prices_of(reach.ends, reach.counts)
        if prices is None:
            return True
        self.prices = prices
        return prices.refuse(reach.ends, reach.counts)

    def _by(self, sums: Ints) -> Prices:
        """Prices by work or by memory, given as sums from the left; all alike where those are 0."""
        even = np.arange(len(sums)) / (len(sums) - 1)
        return Prices(sums / int(sums[-1]) if sums[-1] else even)

    def _width(self, reach: Reach) -> int:
        kinds = len(reach.counts)
        width = min(_WIDTH_STEPS // kinds, _LEVEL_STEPS // (kinds * len(self.offers)))
        return max(_LEAST_WIDTH, min(_MOST_WIDTH, width))

    def _time(self, chain: Chain) -> float:
        return bottleneck(self.table.line, self.offers, chain)


def _trimmed(intervals: Ranges) -> Ranges:
    """The cover without overlaps: from each position the interval that goes furthest."""
    ranges: list[tuple[int, int, int]] = []
    at, goal = 0, max(end for _, _, end in intervals)
    while at < goal:
        kind, _, end = max((i for i in intervals if i[1] <= at), key=lambda i: (i[2], -i[0]))
        ranges.append((kind, at, end))
        at = end
    return tuple(ranges)
