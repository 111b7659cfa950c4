"""A chain of stages, the wishes it must keep, and the search for the smallest feasible time."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from services.planner.line import Line, Offer


class Stage(NamedTuple):
    """Units [start, end) on the offer of this index."""

    offer: int
    start: int
    end: int


Chain = tuple[Stage, ...]
Oracle = Callable[[float], Chain | None]


@dataclass(frozen=True)
class Demands:
    """Wishes in the solvers' terms: offers by index, ranges in units.

    `pins` holds the units an offer must compute; `required` offers must have a stage; `order` is
    the only order in which offers may follow each other, where it is given.
    """

    pins: dict[int, tuple[int, int]] = field(default_factory=dict)
    required: frozenset[int] = frozenset()
    order: tuple[int, ...] = ()

    @property
    def must(self) -> frozenset[int]:
        """The offers that must have a stage."""
        return self.required | self.pins.keys()

    def __bool__(self) -> bool:
        return bool(self.pins or self.required or self.order)


NO_DEMANDS = Demands()
_NEAR = 1e-3


@dataclass(frozen=True)
class Answer:
    """A chain with its largest stage time and a proven lower bound; `proof` is the argument."""

    chain: Chain
    bottleneck_s: float
    lower_bound_s: float
    proof: str


def bottleneck(line: Line, offers: Sequence[Offer], chain: Chain) -> float:
    """The largest stage time of the chain."""
    sums = line.work_sums
    return max([(sums[end] - sums[start]) / offers[k].rate for k, start, end in chain])


def smallest(
    line: Line, offers: Sequence[Offer], oracle: Oracle, lower_s: float, chain: Chain
) -> tuple[Chain, float]:
    """The best chain and a proven lower bound, for an oracle that is exact at every limit.

    Every feasible probe snaps to the time its chain really takes, and the last probe is at the
    largest double below it: refused there, no smaller time exists. Limits are halved before.
    """
    best, best_s, low_s = chain, bottleneck(line, offers, chain), lower_s
    lowered = False
    while low_s < best_s:
        below = math.nextafter(best_s, 0.0)
        near = best_s - low_s <= _NEAR * best_s and not lowered
        limit = below if near else min(below, low_s + (best_s - low_s) / 2)
        found = oracle(limit)
        if found is not None:
            best, best_s = found, bottleneck(line, offers, found)
            lowered = near
        else:
            lowered = False
            low_s = math.nextafter(limit, math.inf)
    return best, min(low_s, best_s)
