"""Why a plan is as it is, and what another set of nodes would bring: a pure value, and its text."""

import functools
from collections.abc import Sequence

import msgspec

from messages.failures import Permanent
from messages.ids import NodeId
from messages.metadata import ModelMetadata
from messages.nodes import Node
from messages.plans import Assignment, Backup, Rejection, SplitPlan
from messages.wishes import Objective, Wishes
from services.planner.assemble import assemble
from services.planner.binding import Binding, binding
from services.planner.case import Case, case_of
from services.planner.goal import goal_of, objective_of, times_as_good
from services.planner.plan import place
from services.planner.selection import Policy, idle
from services.planner.validate import check_plan

_MOST_TRIALS = 8


class StageReason(msgspec.Struct, frozen=True, kw_only=True):
    """What one node got, and what keeps it from taking one more block.

    `binds`: `compute` (it would become slower than the bottleneck; for the least latency: slower
    at that block than who has it), `memory`, `disk`, or `neighbours` (it could take more; nothing
    would be faster).
    """

    node_id: NodeId
    stage: int
    replica: int
    start_block: int
    end_block: int
    compute_required: float
    memory_bytes: int
    offered_bytes: int
    stage_s: float
    binds: Binding
    why: str


class WhatIf(msgspec.Struct, frozen=True, kw_only=True):
    """Another set of nodes and what its best plan would do; `refused` says why there is none."""

    change: str
    bottleneck_s: float | None = None
    latency_s: float | None = None
    throughput_per_s: float | None = None
    faster: float | None = None
    node_ids: tuple[NodeId, ...] = ()
    refused: str = ""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer. `faster` of a what-if: how many times as good, by the plan's `objective`.

    That is its throughput over the plan's own, or the plan's latency over its own.
    """

    plan_id: str
    objective: Objective = "throughput"
    summary: str
    stages: tuple[StageReason, ...]
    left_out: tuple[Rejection, ...]
    backups: tuple[Backup, ...]
    next_best: WhatIf | None
    one_more: tuple[WhatIf, ...]
    asked: WhatIf | None = None


def explain(
    plan: SplitPlan,
    metadata: ModelMetadata,
    nodes: Sequence[Node],
    wishes: Wishes,
    policy: Policy,
    *,
    origin: NodeId | None = None,
    add: Sequence[Node] = (),
    without: Sequence[NodeId] = (),
) -> Explanation:
    """Why `plan` is as it is. `add` and `without` ask for the best plan of other nodes.

    The next best plan is the best one that lacks a node of this plan; `one_more` tries one more
    node like each of the strongest kinds, idle. However busy its work keeps the plan's own nodes,
    all these plans may use them. Pure; plans anew up to a dozen times.
    """
    case = case_of(metadata, nodes, wishes, policy, origin, running=plan)

    def trial(change: str, others: Sequence[Node], wish: Wishes = wishes) -> WhatIf:
        return _what_if(plan, change, metadata, others, wish, policy)

    asked = None
    if add or without:
        kept = [n for n in nodes if n.node_id not in {*without, *(a.node_id for a in add)}]
        asked = trial(_change(add, without), [*kept, *add], _free_of(wishes, without))
    losses = sorted(plan.assignments, key=lambda a: (-a.stage_s, a.node_id))[:_MOST_TRIALS]
    needed = {*wishes.require, *wishes.order, *(pin.node_id for pin in wishes.pins)}
    others = [
        trial(f"without {a.node_id}", [n for n in nodes if n.node_id != a.node_id])
        for a in losses
        if a.node_id not in needed and len(nodes) > 1
    ]
    possible = [other for other in others if not other.refused]
    return Explanation(
        plan_id=plan.plan_id,
        objective=objective_of(plan),
        summary=summary(plan),
        stages=tuple(_reason(plan, case, a) for a in plan.assignments),
        left_out=plan.rejected,
        backups=plan.backups,
        next_best=max(possible, key=functools.partial(_goodness, objective_of(plan)), default=None),
        one_more=tuple(
            trial(f"one more like {like.node_id}", [*nodes, _twin(like, nodes)])
            for like in _kinds(case.selection.nodes)
            if not wishes.order
        ),
        asked=asked,
    )


def summary(plan: SplitPlan) -> str:
    """One sentence: what was chosen and how good it is proven to be."""
    chains = "one chain" if plan.replicas == 1 else f"{plan.replicas} replicas"
    good = "optimal" if plan.gap == 0 else f"within {plan.gap * 100:.3g} % of the bound"
    return (
        f"{plan.model_name}: {plan.strategy}, {chains} on {len(plan.assignments)} nodes, "
        f"{goal_of(plan)}, {good} ({plan.proof}), {plan.hops_per_token} hops a token"
    )


def _reason(plan: SplitPlan, case: Case, a: Assignment) -> StageReason:
    binds, why = binding(plan, case, a)
    return StageReason(
        node_id=a.node_id,
        stage=a.stage,
        replica=a.replica,
        start_block=a.start_block,
        end_block=a.end_block,
        compute_required=a.compute_required,
        memory_bytes=a.memory_bytes,
        offered_bytes=case.offered.get(a.node_id, 0),
        stage_s=a.stage_s,
        binds=binds,
        why=why,
    )


def _what_if(
    plan: SplitPlan,
    change: str,
    metadata: ModelMetadata,
    nodes: Sequence[Node],
    wishes: Wishes,
    policy: Policy,
) -> WhatIf:
    try:
        case = case_of(metadata, nodes, wishes, policy, running=plan)
        other = assemble(case, place(case))
        check_plan(other, case)
    except Permanent as refusal:
        return WhatIf(change=change, refused=refusal.reason)
    return WhatIf(
        change=change,
        bottleneck_s=other.bottleneck_s,
        latency_s=other.latency_s,
        throughput_per_s=other.throughput_per_s,
        faster=times_as_good(other, plan),
        node_ids=tuple(a.node_id for a in other.assignments),
    )


def _goodness(objective: Objective, other: WhatIf) -> float:
    if objective == "latency":
        return -(other.latency_s or 0.0)
    return other.throughput_per_s or 0.0


def _change(add: Sequence[Node], without: Sequence[NodeId]) -> str:
    parts = [f"with {n.node_id}" for n in add] + [f"without {node_id}" for node_id in without]
    return ", ".join(parts)


def _free_of(wishes: Wishes, without: Sequence[NodeId]) -> Wishes:
    """The wishes, but for those that name a node which is taken away."""
    return msgspec.structs.replace(
        wishes,
        require=tuple(n for n in wishes.require if n not in without),
        order=tuple(n for n in wishes.order if n not in without),
        pins=tuple(pin for pin in wishes.pins if pin.node_id not in without),
    )


def _kinds(nodes: Sequence[Node]) -> list[Node]:
    """The strongest node of each kind: its GPU where it is told, else its figures; four at most."""
    kinds: dict[object, Node] = {}
    for node in sorted(nodes, key=lambda n: (-n.compute_gflops, n.node_id)):
        kinds.setdefault(node.gpu_name or (node.compute_gflops, node.memory_bytes), node)
    return list(kinds.values())[:4]


def _twin(node: Node, nodes: Sequence[Node]) -> Node:
    taken = {n.node_id for n in nodes}
    names = (f"{node.node_id[:56]}-more{k or ''}" for k in range(len(nodes) + 1))
    return idle(node, NodeId(next(name for name in names if name not in taken)))
