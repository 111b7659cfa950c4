"""The `pipeline` strategy: which exact method a problem admits, and the best chain it finds."""

import functools
import math
from collections.abc import Sequence

from services.planner import exhaustive, ordered
from services.planner.chains import (
    NO_DEMANDS,
    Answer,
    Chain,
    Demands,
    bottleneck,
    simple_bound,
    smallest,
)
from services.planner.line import Line, Offer


def solve(line: Line, offers: Sequence[Offer], demands: Demands = NO_DEMANDS) -> Answer | None:
    """The chain with the smallest bottleneck that a method can find and bound; None: none exists.

    The proof names the argument: the bound is a theorem for this input, never an estimate.
    """
    lower_s = simple_bound(line, offers)
    if demands.order:
        oracle = functools.partial(ordered.feasible, line, offers, demands, demands.order)
        return _exact(line, offers, oracle, lower_s, "order given: parametric search")
    if len(offers) <= exhaustive.MOST_NODES:
        oracle = functools.partial(exhaustive.feasible, line, offers, demands)
        return _exact(line, offers, oracle, lower_s, "every set and order of the nodes")
    oracle = functools.partial(ordered.feasible, line, offers, demands, range(len(offers)))
    first = oracle(math.inf)
    if first is None:
        return None
    chain, _ = smallest(line, offers, oracle, lower_s, first)
    return _answer(line, offers, chain, lower_s, "all work over all compute")


def _exact(
    line: Line,
    offers: Sequence[Offer],
    oracle: functools.partial[Chain | None],
    lower_s: float,
    proof: str,
) -> Answer | None:
    first = oracle(math.inf)
    if first is None:
        return None
    chain, bound_s = smallest(line, offers, oracle, lower_s, first)
    return _answer(line, offers, chain, bound_s, proof)


def _answer(
    line: Line, offers: Sequence[Offer], chain: Chain, bound_s: float, proof: str
) -> Answer:
    time_s = bottleneck(line, offers, chain)
    return Answer(chain, time_s, min(bound_s, time_s), proof)
