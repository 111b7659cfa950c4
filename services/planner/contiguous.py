"""Chains of contiguous blocks: from metadata and wishes to the solvers' terms, and back."""

import functools
import math
from collections.abc import Sequence
from itertools import pairwise

from messages.nodes import Node
from messages.plans import Assignment
from messages.wishes import Wishes
from services.planner.case import Case, Placed
from services.planner.chains import Chain, Demands, Stage
from services.planner.failures import ImpossibleWish, Infeasible
from services.planner.line import Line, Offer, line_of
from services.planner.pipeline import exists, solve
from services.planner.refusal import refusal, too_many_copies
from services.planner.replicas import best_fleet
from services.planner.selection import offers_of


def place(case: Case) -> Placed:
    """The best chains of the eligible nodes; Infeasible or ImpossibleWish where there are none."""
    line = line_of(case.blocks, case.tie.copies)
    offers = offers_of(case.selection.nodes, line.scale, lambda node: case.offered[node.node_id])
    demands = demands_of(case.wishes, line, offers)
    if case.wishes.objective == "latency":
        return _fastest_answer(case, line, offers, demands)
    wanted = _replicas(case, demands)
    solver = functools.partial(solve, line, demands=demands)
    fleet = best_fleet(line, offers, solver, wanted)
    if fleet is not None:
        bound_s = fleet.slowest_s / (1 + fleet.gap)
        return placed_chains(case, line, offers, fleet.chains, bound_s, fleet.proof)
    if wanted is not None and wanted > 1 and solver(offers) is not None:
        raise too_many_copies(line, offers, wanted)
    raise _refusal(case, line, offers, demands)


def _fastest_answer(case: Case, line: Line, offers: Sequence[Offer], demands: Demands) -> Placed:
    """One chain with the least latency."""
    from services.planner import latency

    def another() -> Chain | None:
        found = solve(line, offers, demands)
        return found.chain if found else None

    answer = latency.solve(line, offers, demands, another)
    if answer is None:
        raise _refusal(case, line, offers, demands)
    return placed_chains(case, line, offers, (answer.chain,), answer.lower_bound_s, answer.proof)


def _refusal(
    case: Case, line: Line, offers: Sequence[Offer], demands: Demands
) -> Infeasible | ImpossibleWish:
    feasible = functools.partial(exists, line, demands=demands, thrifty=True)
    return refusal(line, offers, demands, feasible, case.headroom)


def _replicas(case: Case, demands: Demands) -> int | None:
    """How many chains; wishes about nodes are about one chain."""
    wanted = case.wishes.replicas
    if not demands:
        return wanted
    if wanted is not None and wanted > 1:
        raise ImpossibleWish(
            "pins, required nodes and a fixed order hold for one chain, not for several replicas",
            advice="ask for one replica, or leave out the pins, the requirements and the order",
        )
    return 1


def placed_chains(
    case: Case,
    line: Line,
    offers: Sequence[Offer],
    chains: Sequence[Chain],
    lower_bound_s: float,
    proof: str,
) -> Placed:
    """The chains, one a replica, as stages of the plan."""
    by_id = {node.node_id: node for node in case.selection.nodes}
    return Placed(
        assignments=tuple(
            [
                _assignment(case, line, by_id[offers[units.offer].node_id], (stage, replica), units)
                for replica, chain in enumerate(chains)
                for stage, units in enumerate(chain)
            ]
        ),
        lower_bound_s=lower_bound_s,
        proof=proof,
        hops=max(len(chain) for chain in chains) - 1,
    )


def demands_of(wishes: Wishes, line: Line, offers: Sequence[Offer]) -> Demands:
    """The wishes as offers' indices and units; ImpossibleWish where two contradict each other."""
    index = {offer.node_id: k for k, offer in enumerate(offers)}
    pins: dict[int, tuple[int, int]] = {}
    for pin in wishes.pins:
        if not pin.start_block < pin.end_block <= line.borders[-1]:
            raise ImpossibleWish(
                f"{pin.node_id} is pinned to blocks {pin.start_block} to {pin.end_block - 1}, "
                f"the model has {line.borders[-1]}, from 0 on"
            )
        start = max(u for u in range(len(line)) if line.borders[u] <= pin.start_block)
        end = min(u for u in range(len(line) + 1) if line.borders[u] >= pin.end_block)
        mine = pins.get(index[pin.node_id], (start, end))
        pins[index[pin.node_id]] = (min(start, mine[0]), max(end, mine[1]))
    ranges = sorted((*pin, k) for k, pin in pins.items())
    for (_, end, one), (start, _, other) in pairwise(ranges):
        if start < end:
            raise ImpossibleWish(
                f"{offers[one].node_id} and {offers[other].node_id} are pinned to the same block"
            )
    order = tuple(index[node_id] for node_id in wishes.order if node_id in index)
    if len(set(order)) != len(order):
        raise ImpossibleWish("a node is in the requested order twice")
    return Demands(pins, frozenset(index[node_id] for node_id in wishes.require), order)


def _assignment(
    case: Case, line: Line, node: Node, place: tuple[int, int], units: Stage
) -> Assignment:
    """The stage's units on the node, at `place` (stage, replica).

    The last stage holds tied tensors of earlier stages as well.
    """
    start, end = line.borders[units.start], line.borders[units.end]
    mine = case.blocks[start:end]
    names = tuple([name for block in mine for name in block.tensors])
    if end == len(case.blocks):
        names += case.tie.needed_from(start)
    compute = math.fsum([block.compute_required for block in mine])
    return Assignment(
        node_id=node.node_id,
        stage=place[0],
        replica=place[1],
        start_block=start,
        end_block=end,
        layer_names=names,
        compute_required=compute,
        memory_bytes=line.memory_of(units.start, units.end),
        stage_s=compute / node.compute_gflops,
    )
