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
    """Whom the node asks for what it needs alone, in this order.

    Who hands on to it in the relay, then the origin; in a mixed plan the origin, then who is before
    it in the relay, where the origin cannot be reached.
    """
    relay = plan.megaphone_plan
    before = [step.node_id for step in relay.chain if node_id in step.next_nodes]
    asked = (origin, *before) if relay.topology == "mixed" else (*before, origin)
    return tuple(dict.fromkeys(n for n in asked if n != node_id)) or (origin,)
