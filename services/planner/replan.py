"""A new plan after nodes were lost: nearly as fast as the best, with the fewest bytes moved.

"Nearly" is within 1.05 times the best bottleneck of a chain, its latency where that is the
objective, or the passes a second of several chains.
"""

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from messages.ids import NodeId, PlanId
from messages.metadata import ModelMetadata
from messages.nodes import Node
from messages.plans import Assignment, SplitPlan
from messages.wishes import Wishes
from services.planner import contiguous
from services.planner.assemble import assemble
from services.planner.case import Case, case_of
from services.planner.chains import Stage, bottleneck
from services.planner.goal import objective_of
from services.planner.line import line_of
from services.planner.moves import Loss, fewest_moves, held_units
from services.planner.plan import place
from services.planner.selection import Policy, offers_of
from services.planner.soon import fewest_moves_soon
from services.planner.survivors import Broken, passes_per_s, regrouped
from services.planner.validate import check_plan

SLOWER_AT_MOST = 1.05


def replan(
    old: SplitPlan,
    metadata: ModelMetadata,
    nodes: Sequence[Node],
    wishes: Wishes,
    policy: Policy,
    *,
    origin: NodeId | None = None,
    generation: int = 2,
) -> SplitPlan:
    """The plan of generation `generation` for the nodes that live now; raises as `plan_split`.

    Its objective is at most 1.05 times the best, and among the chains considered it moves the
    fewest bytes; `moved_bytes` are the weights that a node needs and did not hold under `old`.
    """
    case = case_of(metadata, nodes, wishes, policy, origin, running=old)
    best = assemble(case, place(case))
    plan = best
    if best.strategy == old.strategy == "pipeline" and not wishes.order:
        one = best.replicas == old.replicas == 1
        plan = (_with_fewest_moves if one else _chains_with_fewest_moves)(case, old, best)
    check_plan(plan, case)
    return msgspec.structs.replace(
        plan,
        plan_id=_plan_id(old, plan),
        generation=generation,
        model_url=old.model_url,
        revision=old.revision,
        metadata_sha256=old.metadata_sha256,
        replaces=old.plan_id,
        moved_bytes=moved_bytes(case, old.assignments, plan.assignments),
    )


def moved_bytes(case: Case, before: Sequence[Assignment], after: Sequence[Assignment]) -> int:
    """The weights that nodes of `after` need and did not hold in `before`."""
    size = {n: b.weight_bytes / max(1, len(b.tensors)) for b in case.blocks for n in b.tensors}
    held = {a.node_id: set(a.layer_names) for a in before}
    return round(
        sum(
            size.get(name, 0.0)
            for a in after
            for name in a.layer_names
            if name not in held.get(a.node_id, ())
        )
    )


def _with_fewest_moves(case: Case, old: SplitPlan, best: SplitPlan) -> SplitPlan:
    """One chain: the one that moves fewest bytes; of equals the best."""
    loss = loss_of(case, old, best)
    if objective_of(best) == "latency":
        chain = fewest_moves_soon(loss, best.latency_s * SLOWER_AT_MOST)
    else:
        chain = fewest_moves(loss, best.bottleneck_s * SLOWER_AT_MOST)
    if chain is None:
        return best
    bound_s = best.lower_bound_s
    placed = contiguous.placed_chains(case, loss.line, loss.offers, (chain,), bound_s, best.proof)
    plan = assemble(case, placed)
    return min(best, plan, key=lambda p: moved_bytes(case, old.assignments, p.assignments))


def _chains_with_fewest_moves(case: Case, old: SplitPlan, best: SplitPlan) -> SplitPlan:
    """As many chains as wished for, or any number; as good by passes a second of all together."""
    loss = loss_of(case, old, best)
    index = {offer.node_id: k for k, offer in enumerate(loss.offers)}
    olds = _chains(old.assignments, index, loss)
    news = [tuple(s for s in chain if s) for chain in _chains(best.assignments, index, loss)]
    least_per_s = best.throughput_per_s / SLOWER_AT_MOST
    chains = regrouped(loss, olds, news, least_per_s, SLOWER_AT_MOST, case.wishes.replicas)
    if chains is None:
        return best
    slowest_s = max(bottleneck(loss.line, loss.offers, chain) for chain in chains)
    passes = passes_per_s(loss, chains)
    ideal = sum(offer.rate for offer in loss.offers) / max(1, loss.line.work_sums[-1])
    bound_s = slowest_s * passes / ideal if passes else slowest_s
    proof = f"{len(chains)} chains, kept where they were; together against all compute"
    placed = contiguous.placed_chains(
        case, loss.line, loss.offers, chains, min(bound_s, slowest_s), proof
    )
    plan = assemble(case, placed)
    return min(best, plan, key=lambda p: moved_bytes(case, old.assignments, p.assignments))


def _chains(
    assignments: Sequence[Assignment], index: Mapping[NodeId, int], loss: Loss
) -> list[Broken]:
    """The chains of a plan, replica by replica; None where a node is lost or cut elsewhere now."""
    chains: dict[int, list[Stage | None]] = {}
    for a in assignments:
        units = held_units(loss.line, (a,), index)
        stage = [Stage(k, start, end) for k, (start, end) in units.items()]
        chains.setdefault(a.replica, []).append(stage[0] if stage else None)
    return [tuple(chain) for chain in chains.values()]


def loss_of(case: Case, old: SplitPlan, best: SplitPlan) -> Loss:
    """The old chain and the best new one in the solvers' terms."""
    line = line_of(case.blocks, case.tie.copies)
    offers = offers_of(case.selection.nodes, line.scale, lambda node: case.offered[node.node_id])
    index = {offer.node_id: k for k, offer in enumerate(offers)}
    return Loss(
        line,
        offers,
        held=held_units(line, old.assignments, index),
        chain=tuple(index.get(a.node_id) for a in old.assignments),
        newest=tuple(index[a.node_id] for a in best.assignments),
        demands=contiguous.demands_of(case.wishes, line, offers),
    )


def _plan_id(old: SplitPlan, plan: SplitPlan) -> PlanId:
    """Of the old plan and of the new one's inputs and ranges: the same loss, the same id."""
    ranges = [(a.node_id, a.start_block, a.end_block) for a in plan.assignments]
    body = msgspec.json.encode((old.plan_id, plan.plan_id, ranges))
    return PlanId(hashlib.sha256(body).hexdigest()[:32])
