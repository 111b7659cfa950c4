"""Latency over many nodes: prices of nodes, which bound it from below.

Were every node free to be used again, the least latency would be a shortest path. A price on each
use, less the prices of all nodes once, keeps that a bound for any prices; they are raised where a
node is used too often.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from services.planner.chains import Demands
from services.planner.line import Line, Offer
from services.planner.windows import window_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_MOST_CELLS = 2_000_000
_STEPS = 200_000_000
_MOST_ROUNDS = 150
_PATIENCE = 6
_SHORTER = 0.6
_CLOSE = 1e-6


def applies(line: Line, offers: Sequence[Offer]) -> bool:
    """Whether the seconds of all ranges on all nodes can be listed."""
    return len(offers) * (len(line) + 1) ** 2 <= _MOST_CELLS


class Priced:
    """The nodes by kinds, what each range costs on them, and the best prices so far."""

    def __init__(self, line: Line, offers: Sequence[Offer], demands: Demands) -> None:
        grouped: dict[tuple[object, ...], list[int]] = {}
        for k, offer in enumerate(offers):
            own = k if k in demands.must else -1
            grouped.setdefault((*offer.kind, own), []).append(k)
        self.members = list(grouped.values())
        self.counts = np.array([len(kind) for kind in self.members])
        self.must = [t for t, kind in enumerate(self.members) if kind[0] in demands.must]
        self.goal = len(line)
        windows = [window_of(line, offers, demands, kind[0]) for kind in self.members]
        self.costs = [
            np.stack([window.seconds(start)[start + 1 :] for window in windows])
            for start in range(self.goal)
        ]
        self.prices = np.zeros(len(self.members))
        self.bound_s = -math.inf

    def ahead(self, prices: Floats) -> tuple[Floats, list[tuple[int, int]]]:
        """The least priced seconds from each unit to the end, and the first (kind, end) there."""
        least = np.full(self.goal + 1, np.inf)
        least[self.goal] = 0.0
        steps: list[tuple[int, int]] = [(0, 0)] * self.goal
        for start in range(self.goal - 1, -1, -1):
            through = self.costs[start] + least[start + 1 :]
            ends = through.argmin(axis=1)
            each = through[np.arange(len(ends)), ends] + prices
            kind = int(each.argmin())
            least[start] = each[kind]
            steps[start] = (kind, start + 1 + int(ends[kind]))
        return least, steps

    def raise_prices(self, known_s: float) -> None:
        """Prices with a larger bound, towards the latency that is known to be possible."""
        prices, scale, waited = self.prices, 1.0, 0
        for _ in range(min(_MOST_ROUNDS, _STEPS // (len(self.counts) * (self.goal + 1) ** 2))):
            least, steps = self.ahead(prices)
            bound_s = float(least[0] - prices @ self.counts)
            if math.isinf(bound_s):
                return
            waited += 1
            if bound_s > self.bound_s:
                self.bound_s, self.prices, waited = bound_s, prices, 0
            if waited >= _PATIENCE:
                scale, waited, prices = scale * _SHORTER, 0, self.prices
                continue
            excess = (self._uses(steps) - self.counts).astype(float)
            excess[(prices <= 0) & (excess < 0)] = 0.0
            weight = float(excess @ excess)
            target_s = known_s if known_s < math.inf else self.bound_s * 1.05
            if weight == 0 or target_s - self.bound_s <= _CLOSE * target_s:
                return
            prices = np.maximum(0.0, prices + scale * (target_s - bound_s) / weight * excess)

    def _uses(self, steps: Sequence[tuple[int, int]]) -> Ints:
        uses = np.zeros(len(self.counts), dtype=np.int64)
        at = 0
        while at < self.goal:
            kind, at = steps[at]
            uses[kind] += 1
        return uses
