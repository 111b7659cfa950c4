"""The `pipeline` strategy: which exact method a problem admits, and the best chain it finds.

numpy and HiGHS are imported when a problem needs them: a few nodes need neither.
"""

import functools
import math
from collections.abc import Sequence

from services.planner import exhaustive, ordered
from services.planner.bounds import lower_bound
from services.planner.chains import NO_DEMANDS, Answer, Chain, Demands, Oracle, bottleneck, smallest
from services.planner.line import Line, Offer

_FEW_STEPS = 2_000
_MORE_STEPS = 400_000
_MOST_TRANSITIONS = 1 << 23


def solve(line: Line, offers: Sequence[Offer], demands: Demands = NO_DEMANDS) -> Answer | None:
    """The chain with the smallest bottleneck that a method can find and bound; None: none exists.

    The proof names the argument: the bound is a theorem for this input, never an estimate.
    """
    if demands.order:
        oracle = functools.partial(ordered.feasible, line, offers, demands, demands.order)
        return _exact(line, offers, oracle, "order given: parametric search")
    if exhaustive.steps(line, offers) <= (_MORE_STEPS if demands.required else _FEW_STEPS):
        oracle = functools.partial(exhaustive.feasible, line, offers, demands)
        return _exact(line, offers, oracle, "every set and order of the nodes")
    free = sorted(demands.required - demands.pins.keys())
    if free:
        return _with_required(line, offers, demands, free)
    return _vectorised(line, offers, demands.pins)


def exists(
    line: Line, offers: Sequence[Offer], demands: Demands = NO_DEMANDS, *, thrifty: bool = False
) -> bool:
    """Whether any chain exists at all; cheaper than the best one.

    Raises Undecided where that was not found out: soon where it is to be `thrifty`, which leaves
    branching out, and else practically never.
    """
    if demands.order:
        return ordered.feasible(line, offers, demands, demands.order, math.inf) is not None
    few = _MORE_STEPS if demands.required else _FEW_STEPS
    if exhaustive.steps(line, offers) <= few:
        return exhaustive.feasible(line, offers, demands, math.inf) is not None
    if demands.required - demands.pins.keys():
        return solve(line, offers, demands) is not None
    from services.planner import identical
    from services.planner.many import Many
    from services.planner.multisets import Multisets, transitions
    from services.planner.table import Table

    if not demands and identical.applies(line):
        return identical.Counts(line, offers).feasible(math.inf)

    table = Table(line, offers, demands.pins)
    if transitions(table.counts) <= _MOST_TRANSITIONS:
        return Multisets(table).feasible(math.inf) is not None
    many = Many(table, offers)
    return many.exists(branches=0) if thrifty else many.exists()


def _with_required(
    line: Line, offers: Sequence[Offer], demands: Demands, free: Sequence[int]
) -> Answer | None:
    """Many nodes, some required: the best chain, with who lacks in it pinned to a small unit."""
    best = _vectorised(line, offers, demands.pins)
    if best is None:
        return None
    lacking = [k for k in free if all(stage.offer != k for stage in best.chain)]
    if not lacking:
        return best
    k = lacking[0]
    pinned = {u for first, last in demands.pins.values() for u in range(first, last)}
    for unit in sorted(set(range(len(line))) - pinned, key=lambda u: (line.works[u], u)):
        if line.fits(offers[k], unit, unit + 1):
            pins = {**demands.pins, k: (unit, unit + 1)}
            found = solve(line, offers, Demands(pins, demands.required))
            if found is not None:
                proof = f"{best.proof}, without the required nodes"
                return answer(line, offers, found.chain, best.lower_bound_s, proof)
    return None


def _exact(line: Line, offers: Sequence[Offer], oracle: Oracle, proof: str) -> Answer | None:
    first = oracle(math.inf)
    if first is None:
        return None
    chain, bound_s = smallest(line, offers, oracle, lower_bound(line, offers), first)
    return answer(line, offers, chain, bound_s, proof)


def _vectorised(
    line: Line, offers: Sequence[Offer], pins: dict[int, tuple[int, int]]
) -> Answer | None:
    from services.planner import identical, multisets
    from services.planner.table import Table

    if not pins and identical.applies(line):
        found = identical.best(line, offers)
        proof = "identical blocks: closed form"
        return found and answer(line, offers, *found, proof)
    table = Table(line, offers, pins)
    if multisets.transitions(table.counts) <= _MOST_TRANSITIONS:
        programme = multisets.Multisets(table)
        first = programme.feasible(math.inf)
        if first is None:
            return None
        chain, bound_s = smallest(line, offers, programme.feasible, table.lower_bound(), first)
        return answer(line, offers, chain, bound_s, "dynamic programme over sets of nodes")
    from services.planner.many import Many

    many = Many(table, offers)
    best = many.best()
    return best and answer(line, offers, *best, many.proof)


def answer(line: Line, offers: Sequence[Offer], chain: Chain, bound_s: float, proof: str) -> Answer:
    """The chain as an answer: its time, and the bound, which is never above it."""
    time_s = bottleneck(line, offers, chain)
    return Answer(chain, time_s, min(bound_s, time_s), proof)
