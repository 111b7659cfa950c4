"""From the stored plan to the fact each node hears."""

from messages.ids import NodeId
from messages.plans import NodeAssigned, SplitPlan, SplitPlanned


def assigned(planned: SplitPlanned, plan: SplitPlan) -> tuple[NodeAssigned, ...]:
    """One assignment for each stage of the plan, whatever happens to the nodes since."""
    stages: dict[int, int] = {}
    for a in plan.assignments:
        stages[a.replica] = stages.get(a.replica, 0) + 1
    return tuple(
        NodeAssigned(
            origin=planned.origin,
            job_id=planned.job_id,
            generation=planned.generation,
            node_id=a.node_id,
            request=planned.request,
            plan_id=plan.plan_id,
            model_name=plan.model_name,
            revision=plan.revision,
            stage=a.stage,
            stages=stages[a.replica],
            replica=a.replica,
            start_block=a.start_block,
            end_block=a.end_block,
            tensor_count=len(a.layer_names),
            memory_bytes=a.memory_bytes,
            fetch_from=sources(plan, a.node_id, planned.origin),
        )
        for a in plan.assignments
    )


def sources(plan: SplitPlan, node_id: NodeId, origin: NodeId) -> tuple[NodeId, ...]:
    """Whom the node asks, in this order: who hands on to it in the relay, then the origin."""
    before = [s.node_id for s in plan.megaphone_plan.chain if node_id in s.next_nodes]
    return tuple(dict.fromkeys(n for n in (*before, origin) if n != node_id)) or (origin,)
