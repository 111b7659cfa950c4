"""What one node is to have and whom it may ask: an assignment, with what the bus says of it."""

from dataclasses import dataclass

from messages.failures import Passing, Permanent
from messages.ids import NodeId
from messages.jobs import JobCancelled
from messages.plans import NodeAssigned, SplitPlan, SplitPlanned
from messages.shards import Access, ShardsReady, StageManifest, StageReady
from messages.subjects import JOB_ENDED, SHARDS_READY, SPLIT_PLANNED
from messages.wire import Undecodable, decode
from services.distributor.routes import files_by_route
from services.runtime.bus import Bus


class NotInPlan(Permanent):
    """The node was assigned a part, and the origin made none for it."""


@dataclass(frozen=True)
class Order:
    """What one node is to have: the manifest as it came, its digest, and the facts behind it."""

    assigned: NodeAssigned
    ready: ShardsReady
    stage: StageReady
    body: bytes
    manifest: StageManifest

    @property
    def sha256(self) -> str:
        """The stage's name."""
        return self.stage.manifest.sha256


async def order_for(bus: Bus, node_id: NodeId, assigned: NodeAssigned) -> Order:
    """The order of this assignment, once the origin can serve its stages."""
    said = await bus.facts.wait(
        SHARDS_READY,
        origin=assigned.origin,
        job_id=assigned.job_id,
        generation=assigned.generation,
    )
    ready = said.fact
    assert isinstance(ready, ShardsReady)  # noqa: S101
    for stage in ready.stages:
        if stage.node_id == node_id:
            body = await bus.documents.get(stage.manifest)
            return Order(assigned, ready, stage, body, decode(body, StageManifest))
    raise NotInPlan(f"the origin made no stage for {node_id}")


async def routes_of(
    bus: Bus, node_id: NodeId, order: Order
) -> dict[tuple[str, ...], tuple[str, ...]]:
    """The digests of the stage's files by route."""
    assigned = order.assigned
    planned = await bus.facts.last(
        SPLIT_PLANNED,
        origin=assigned.origin,
        job_id=assigned.job_id,
        generation=assigned.generation,
    )
    if planned is None or not isinstance(planned.fact, SplitPlanned):
        raise NotInPlan("the plan of this assignment is no longer on the bus")
    plan = await bus.documents.load(planned.fact.plan, SplitPlan)
    access = Access(tokens={}, files={})
    if order.ready.access is not None:
        access = await bus.documents.load(order.ready.access, Access)
    routes = files_by_route(
        [file.digest for file in order.manifest.files],
        node_id,
        assigned.origin,
        assigned.fetch_from,
        plan.megaphone_plan,
        access.files,
    )
    return {tuple(map(str, route)): digests for route, digests in routes.items()}


async def was_cancelled(bus: Bus, order: Order) -> bool:
    """Whether the job ended by being cancelled; not, where that cannot be read."""
    assigned = order.assigned
    try:
        ended = await bus.facts.last(
            JOB_ENDED,
            origin=assigned.origin,
            job_id=assigned.job_id,
            generation=assigned.generation,
        )
    except (Passing, Undecodable):
        return False
    return ended is not None and isinstance(ended.fact, JobCancelled)
