"""The search for the least latency: sets of nodes from unit to unit, guided by prices.

A set that reached a unit has spent its seconds and its prices. What is ahead costs at least the
shortest path there, so a set that cannot end below what is known is dropped; of the others those
stay that spent least. Where none was dropped for want of room, what is found is the best.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.planner.chains import Chain, Stage
from services.planner.guided import keys_of
from services.planner.priced import Priced

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_LEAST_WIDTH, _MOST_WIDTH = 48, 400
_STEPS = 120_000_000
_HEAPED = 8
_MOST_PAIRS = 1_000_000


@dataclass(frozen=True)
class Found:
    """A chain with less latency than was known, if one was found; `complete`: none has less."""

    chain: Chain | None
    latency_s: float
    complete: bool


@dataclass(frozen=True)
class _States:
    """Sets that reached one unit: what they spent, which they are, and (unit, row, kind) before."""

    spent: Floats
    key: npt.NDArray[np.uint64]
    came: Ints

    def of(self, rows: Ints) -> "_States":
        return _States(self.spent[rows], self.key[rows], self.came[rows])


class Following:
    """One search below a latency that is known, perhaps none."""

    def __init__(self, priced: Priced, known_s: float) -> None:
        self.priced = priced
        self.limit_s = known_s + float(priced.prices @ priced.counts)
        self.known_s = known_s
        self.keys = keys_of(tuple(priced.counts.tolist()))
        self.complete = True
        ranges = len(priced.counts) * (priced.goal + 1) ** 2
        self.width = max(_LEAST_WIDTH, min(_MOST_WIDTH, _STEPS // ranges))
        self.heaps: list[list[_States]] = [[] for _ in range(priced.goal + 1)]
        self.held: list[_States | None] = [None] * (priced.goal + 1)
        self.used: list[Ints] = [np.zeros((0, 0), dtype=np.int64)] * (priced.goal + 1)

    def search(self) -> Found:
        """The best chain found, if it is better than what is known."""
        kinds = len(self.priced.counts)
        self.heaps[0] = [
            _States(np.zeros(1), np.zeros(1, np.uint64), np.zeros((1, 3), dtype=np.int64))
        ]
        ahead, _ = self.priced.ahead(self.priced.prices)
        for at in range(self.priced.goal + 1):
            if not self.heaps[at]:
                continue
            states = self._thinned(self.heaps[at])
            used = np.zeros((len(states.spent), kinds), dtype=np.int64)
            if at:
                for row, (before, parent, kind) in enumerate(states.came.tolist()):
                    used[row] = self.used[before][parent]
                    used[row, kind] += 1
            self.held[at], self.used[at], self.heaps[at] = states, used, []
            if at < self.priced.goal:
                self._step(at, states, used, ahead)
        return self._best()

    def _step(self, at: int, states: _States, used: Ints, ahead: Floats) -> None:
        """Every range from here that may still lead below the limit."""
        costs = self.priced.costs[at] + self.priced.prices[:, None]
        through = costs + ahead[at + 1 :]
        kinds, ends = np.nonzero(through < self.limit_s - states.spent.min())
        most = _MOST_PAIRS // len(states.spent)
        if len(kinds) > most:
            self.complete = False
            kept = np.argsort(through[kinds, ends], kind="stable")[:most]
            kinds, ends = kinds[kept], ends[kept]
        order = np.argsort(ends, kind="stable")
        kinds, ends = kinds[order], ends[order]
        fit = states.spent[:, None] + through[kinds, ends] < self.limit_s
        pairs, rows = np.nonzero((fit & (used < self.priced.counts)[:, kinds]).T)
        borders = np.nonzero(np.diff(ends[pairs]))[0] + 1
        for pair, row in zip(np.split(pairs, borders), np.split(rows, borders), strict=True):
            if len(pair):
                kind, end = kinds[pair], int(ends[pair[0]])
                came = np.stack([np.full_like(row, at), row, kind], axis=1)
                spent = states.spent[row] + costs[kind, end]
                heap = self.heaps[at + 1 + end]
                heap.append(_States(spent, states.key[row] + self.keys[kind], came))
                if sum(len(part.spent) for part in heap) > _HEAPED * self.width:
                    heap[:] = [self._thinned(heap)]

    def _thinned(self, heap: list[_States]) -> _States:
        """Of each set the way that spent least, and of the sets those that spent least."""
        states = _States(
            np.concatenate([part.spent for part in heap]),
            np.concatenate([part.key for part in heap]),
            np.concatenate([part.came for part in heap]),
        )
        order = np.lexsort((states.spent, states.key))
        first = np.ones(len(order), dtype=bool)
        first[1:] = states.key[order[1:]] != states.key[order[:-1]]
        rows = order[first]
        if len(rows) > self.width:
            self.complete = False
        return states.of(rows[np.argsort(states.spent[rows], kind="stable")[: self.width]])

    def _best(self) -> Found:
        goal, must = self.priced.goal, self.priced.must
        whole, used = self.held[goal], self.used[goal]
        if whole is not None:
            latency = whole.spent - used @ self.priced.prices
            latency[~(used[:, must] > 0).all(axis=1)] = np.inf
            row = int(np.argmin(latency))
            if latency[row] < self.known_s:
                return Found(self._walked_back(row), float(latency[row]), self.complete)
        return Found(None, math.inf, self.complete)

    def _walked_back(self, row: int) -> Chain:
        members = [list(kind) for kind in self.priced.members]
        stages: list[Stage] = []
        at = self.priced.goal
        while at:
            states = self.held[at]
            if states is None:
                raise ValueError("a reached unit has no states")
            before, parent, kind = states.came[row].tolist()
            stages.append(Stage(members[kind].pop(), before, at))
            at, row = before, parent
        return tuple(reversed(stages))
