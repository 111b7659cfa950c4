"""Every set of nodes in every order, by kinds: a dynamic programme over multisets, vectorised.

f(S) is the furthest unit that the nodes of S can reach in some order under a limit:
f(S) = max over kinds t in S of end_t(f(S - t)). Exchangeable nodes count once, so the number of
states is the product of (count + 1); 65,536 for sixteen distinct nodes.
"""

import functools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.planner.chains import Chain, Stage
from services.planner.table import Table

MOST_TRANSITIONS = 1 << 25
Ints = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Level:
    """The states of one number of nodes: for each the (previous state, kind) pairs, in rows."""

    states: Ints
    previous: Ints
    kinds: npt.NDArray[np.int16]
    starts: Ints


@functools.lru_cache(maxsize=4)
def levels_of(counts: tuple[int, ...]) -> tuple[Level, ...]:
    """The multisets of these kinds by their number of nodes, the empty one left out."""
    strides = _strides(counts)
    states = np.arange(math.prod(c + 1 for c in counts), dtype=np.intp)
    sizes = np.zeros_like(states)
    digits = np.empty((len(states), len(counts)), dtype=bool)
    for t, (count, stride) in enumerate(zip(counts, strides, strict=True)):
        digit = (states // stride) % (count + 1)
        sizes += digit
        digits[:, t] = digit > 0
    order = np.argsort(sizes, kind="stable")
    edges = np.searchsorted(sizes[order], np.arange(1, sum(counts) + 2))
    levels = []
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        chosen = order[low:high]
        rows, kinds = np.nonzero(digits[chosen])
        previous = chosen[rows] - np.array(strides, dtype=np.intp)[kinds]
        starts = np.searchsorted(rows, np.arange(len(chosen)))
        levels.append(Level(chosen, previous, kinds.astype(np.int16), starts))
    return tuple(levels)


class Multisets:
    """The programme for one table; `feasible` answers one limit."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def feasible(self, limit_s: float) -> Chain | None:
        """A chain of the fewest nodes whose stages all take at most `limit_s`, or None."""
        counts, goal = self.table.counts, len(self.table.line)
        ends = np.full((len(counts), goal + 1), goal, dtype=np.int16)
        ends[:, :-1] = self.table.ends(limit_s)
        furthest = np.zeros(math.prod(c + 1 for c in counts), dtype=np.int16)
        flat, width = ends.ravel(), goal + 1
        for level in levels_of(counts):
            reached = flat[level.kinds * np.int32(width) + furthest[level.previous]]
            best = np.maximum.reduceat(reached, level.starts)
            furthest[level.states] = best
            if best.max() == goal:
                return self._walk_back(int(level.states[np.argmax(best)]), ends, furthest)
        return None

    def _walk_back(
        self, state: int, ends: npt.NDArray[np.int16], furthest: npt.NDArray[np.int16]
    ) -> Chain:
        counts = self.table.counts
        strides = _strides(counts)
        stages: list[tuple[int, int, int]] = []
        end = len(self.table.line)
        while state:
            for t, (count, stride) in enumerate(zip(counts, strides, strict=True)):
                start = int(furthest[state - stride]) if state // stride % (count + 1) else -1
                if start >= 0 and ends[t, start] >= end:
                    break
            else:
                raise ValueError("a reachable state has no way back")
            if start < end:
                stages.append((t, start, end))
            state, end = state - stride, start
        taken: Counter[int] = Counter()
        chain = []
        for t, start, end in reversed(stages):
            chain.append(Stage(self.table.members[t][taken[t]], start, end))
            taken[t] += 1
        return tuple(chain)


def transitions(counts: Sequence[int]) -> int:
    """How many steps one limit takes: states × kinds."""
    return math.prod(c + 1 for c in counts) * len(counts)


def _strides(counts: Sequence[int]) -> tuple[int, ...]:
    strides, stride = [], 1
    for count in counts:
        strides.append(stride)
        stride *= count + 1
    return tuple(strides)
