"""A new plan after nodes were lost: nearly as fast as the best, with the fewest bytes moved.

"Nearly" is within 1.05 times the best bottleneck of a chain, or its latency where that is the
objective.
"""

import hashlib
from collections.abc import Sequence

import msgspec

from messages.ids import NodeId, PlanId
from messages.metadata import ModelMetadata
from messages.nodes import Node
from messages.plans import Assignment, SplitPlan
from messages.wishes import Wishes
from services.planner import contiguous
from services.planner.assemble import assemble
from services.planner.case import Case, case_of
from services.planner.goal import objective_of
from services.planner.line import line_of
from services.planner.moves import Loss, fewest_moves, held_units
from services.planner.plan import place
from services.planner.selection import Policy, offers_of
from services.planner.soon import fewest_moves_soon
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
    if best.strategy == "pipeline" and best.replicas == old.replicas == 1 and not wishes.order:
        plan = _with_fewest_moves(case, old, best)
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


def loss_of(case: Case, old: SplitPlan, best: SplitPlan) -> Loss:
    """The old chain and the best new one in the solvers' terms."""
    line = line_of(case.blocks, case.tie.size_bytes, case.tie.block)
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
