"""`williw explain`: why a job's plan is as it is."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from messages.failures import Permanent
from messages.ids import JobId
from messages.metadata import ModelMetadata
from messages.nodes import Node
from messages.plans import SplitPlan
from messages.subjects import METADATA_READY, SPLIT_PLANNED
from services.console.commands.jobs import known
from services.console.explaining import Case, draw, tell
from services.console.failures import EXIT_DONE
from services.console.nodes_file import ids_given, nodes_added
from services.console.options import Asking, Reach
from services.console.output import note
from services.console.reaching import ask, settings_of
from services.console.wanted import job_named

if TYPE_CHECKING:
    from services.runtime.bus import Bus


def explain(
    job: str,
    /,
    *,
    add: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
    picture: Path | None = None,
    reach: Asking = None,
) -> int:
    """Say why each node got what it got, why others were left out, and what would be better.

    Example: williw explain job-0123456789ab --picture plan.svg

    Parameters
    ----------
    job
        The job's id.
    add
        A node as JSON: what it would bring.
    without
        A node: what its loss would cost.
    picture
        Write an SVG of blocks over nodes to this file.
    """
    reach = reach or Reach()
    job_id = job_named(job)
    case, plan = ask(reach, lambda bus: _case(bus, job_id, reach))
    case = replace(case, add=nodes_added(add), without=ids_given(without))
    case.changed_nodes()
    draw(plan, picture)
    tell(plan, case.explained(plan, case.nodes, what_if=True), None, as_json=reach.json)
    return EXIT_DONE


async def _case(bus: "Bus", job_id: JobId, reach: Reach) -> tuple[Case, SplitPlan]:
    """The plan with the metadata it was made for and the nodes that are known of."""
    state = await known(bus, job_id)
    planned = await bus.facts.last(SPLIT_PLANNED, job_id=job_id)
    if planned is None:
        why = f" ({state.reason})" if state.reason else ""
        raise Permanent(f"job {job_id} has no plan: it is {state.status}{why}")
    plan = await bus.documents.load(planned.fact.plan, SplitPlan)
    ready = await bus.facts.last(METADATA_READY, job_id=job_id)
    given = ready.fact.available_nodes if ready else None
    nodes = given or tuple(entry.node for entry in await bus.registry.nodes())
    case = Case(
        metadata=await bus.documents.load(planned.fact.metadata, ModelMetadata),
        nodes=_with_used(nodes, plan),
        wishes=planned.fact.request.policy,
        settings=settings_of(reach),
        origin=planned.fact.origin,
    )
    return case, plan


def _with_used(nodes: tuple[Node, ...], plan: SplitPlan) -> tuple[Node, ...]:
    """The nodes, those of the plan that are gone since included, as far as the plan tells them."""
    live = {node.node_id for node in nodes}
    memory = {part.node_id: part.memory_bytes for part in plan.assignments}
    gone = [one for one in plan.selected_nodes if one.node_id not in live]
    if gone:
        note(f"gone since, as the plan knew them: {', '.join(one.node_id for one in gone)}")
    return (
        *nodes,
        *(
            Node(
                node_id=one.node_id,
                compute_gflops=one.compute_power,
                memory_bytes=memory.get(one.node_id, 0) * 2,
            )
            for one in gone
        ),
    )
