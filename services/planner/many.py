"""Many nodes, no two alike, and no closed form: bound by prices, found by search or by covering.

At each limit: prices that refuse it are a proof; else the guided search may find a chain; else
branch and bound on the covering problem finds one or proves that there is none. All effort is
counted in steps, never in seconds, so that the same input gives the same plan everywhere.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from services.planner.chains import Chain, Stage, bottleneck
from services.planner.covering import Prices, cover, prices_of
from services.planner.guided import Guided
from services.planner.line import Offer
from services.planner.table import Table

BY_PRICES = "prices of the configuration LP"
BY_SEARCH = "complete search under the prices of the configuration LP"
BY_BRANCHING = "branch and bound over covers of the line"
_MOST_CELLS = 40_000
_WIDTH_STEPS = 60_000
_MOST_WIDTH = 1_500
_BRANCHES = 400
_FIRST_STEP = 1e-6
_GROWTH = 8.0
_CLOSE = 2e-4
_MOST_PROBES = 48


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
        self.small = table.held.size <= _MOST_CELLS
        self.width = max(8, min(_MOST_WIDTH, _WIDTH_STEPS // len(table.counts)))
        self.prices: Prices | None = None
        self._top_s = float(table.sums[-1] / table.rates.min())
        self.proof = BY_PRICES if self.small else "all work over all compute within memory"

    def best(self) -> tuple[Chain, float] | None:
        """The best chain found and a proven lower bound; None where there is provably none."""
        first = self.probe(self._top_s, branches=None)
        if first.chain is None:
            return None
        low_s = self.bound(self.table.lower_bound(), self._time(first.chain))
        return self._descend(first.chain, low_s)

    def exists(self) -> bool:
        """Whether any chain exists at all."""
        return self.probe(self._top_s, branches=None).chain is not None

    def bound(self, low_s: float, high_s: float) -> float:
        """The largest limit, nearly, that prices refuse; `high_s` can be kept."""
        while self.small and high_s - low_s > _FIRST_STEP / 4 * high_s:
            middle = low_s + (high_s - low_s) / 2
            if self._refused(middle):
                low_s = middle
            else:
                high_s = middle
        return low_s

    def probe(self, limit_s: float, branches: int | None = _BRANCHES) -> Probe:
        """Whether a chain keeps the limit, by prices, guided search and covering in turn.

        `branches` None means: until it is decided.
        """
        if self._refused(limit_s):
            return Probe(None, BY_PRICES)
        ends = self.table.ends(limit_s)
        prices = self.prices or self._by_work()
        sought = Guided(self.table, prices, self.width).feasible(limit_s)
        if sought.chain is not None or sought.complete:
            return Probe(sought.chain, BY_SEARCH)
        if branches is not None and not self.small:
            return Probe(None)
        found = cover(ends, self.table.counts, 2**31 - 1 if branches is None else branches)
        if found.intervals is None:
            return Probe(None, BY_BRANCHING if found.proven else "")
        return Probe(self._chain(found.intervals))

    def _descend(self, chain: Chain, low_s: float) -> tuple[Chain, float]:
        """Up from the bound in growing steps to a chain, halving from there, then just below it."""
        best, best_s = chain, self._time(chain)
        floor_s, step = low_s, _FIRST_STEP
        for _ in range(_MOST_PROBES):
            if floor_s >= best_s:
                break
            below = math.nextafter(best_s, 0.0)
            if best_s - floor_s <= _CLOSE * best_s:
                limit = below
            else:
                limit = min(below, floor_s * (1 + step), floor_s + (best_s - floor_s) / 2)
            found = self.probe(limit)
            if found.chain is not None:
                best, best_s = found.chain, self._time(found.chain)
                continue
            step *= _GROWTH
            floor_s = math.nextafter(limit, math.inf)
            if found.proof and floor_s > low_s:
                low_s, self.proof = floor_s, found.proof
        return best, min(low_s, best_s)

    def _refused(self, limit_s: float) -> bool:
        """Whether the prices, those at hand or the limit's own, prove the limit too small."""
        ends = self.table.ends(limit_s)
        if self.prices is not None and self.prices.refuse(ends, self.table.counts):
            return True
        if not self.small:
            return False
        prices = prices_of(ends, self.table.counts)
        if prices is None:
            return True
        self.prices = prices
        return prices.refuse(ends, self.table.counts)

    def _by_work(self) -> Prices:
        return Prices(self.table.sums / max(1, int(self.table.sums[-1])))

    def _chain(self, intervals: tuple[tuple[int, int, int], ...]) -> Chain:
        """The cover without overlaps: from each position the interval that goes furthest."""
        taken = [0] * len(self.table.counts)
        stages: list[Stage] = []
        at = 0
        while at < len(self.table.line):
            kind, _, end = max((i for i in intervals if i[1] <= at), key=lambda i: (i[2], -i[0]))
            stages.append(Stage(self.table.members[kind][taken[kind]], at, end))
            taken[kind] += 1
            at = end
        return tuple(stages)

    def _time(self, chain: Chain) -> float:
        return bottleneck(self.table.line, self.offers, chain)
