"""What the origin makes of its nodes' words: the job complete with all, or failed with one."""

from collections import OrderedDict
from collections.abc import Sequence

import structlog

from messages.base import Fact
from messages.failures import Passing
from messages.ids import JobId, NodeId
from messages.jobs import DeliveredStage, JobCompleted, JobFailed
from messages.plans import SplitPlanned
from messages.shards import ShardDelivered, ShardFailed
from messages.subjects import SHARD_DELIVERED, SPLIT_PLANNED
from services.runtime.bus import Bus

log = structlog.get_logger()
_PLANS_KEPT = 64


class Endings:
    """Ends the jobs of one origin."""

    def __init__(self, bus: Bus, node_id: NodeId) -> None:
        self._facts = bus.facts
        self._node_id = node_id
        self._plans: OrderedDict[tuple[JobId, int], SplitPlanned] = OrderedDict()

    async def conclude(self, told: ShardDelivered | ShardFailed) -> Sequence[Fact]:
        """The end of the job, where this delivery was the last or has failed.

        Nothing for a node without a part in the plan: its word is about itself alone.
        """
        if told.origin != self._node_id:
            return ()
        planned = await self._planned(told)
        if planned is None or told.node_id not in planned.node_ids:
            log.warning("dropped: it has no part in this job", node_id=told.node_id)
            return ()
        if isinstance(told, ShardFailed):
            return (failed(told),)
        return await self._completed(told, planned)

    async def _planned(self, told: ShardDelivered | ShardFailed) -> SplitPlanned | None:
        """The plan of this generation; None where there is none, by the stream's leader.

        A fact never changes: what was read for one node of a job serves for the others.
        """
        this = (told.job_id, told.generation)
        if this in self._plans:
            return self._plans[this]
        job = {"origin": told.origin, "job_id": told.job_id, "generation": told.generation}
        said = await self._facts.last(SPLIT_PLANNED, **job)
        if said is not None:
            self._plans[this] = said.fact
            if len(self._plans) > _PLANS_KEPT:
                self._plans.popitem(last=False)
            return said.fact
        if await self._facts.count(SPLIT_PLANNED, **job):
            raise Passing("the plan that was delivered cannot be read yet")
        return None

    async def _completed(
        self, delivered: ShardDelivered, planned: SplitPlanned
    ) -> Sequence[JobCompleted]:
        job = {"job_id": delivered.job_id, "generation": delivered.generation}
        nodes = set(planned.node_ids)
        if await self._facts.count(SHARD_DELIVERED, **job) < len(nodes):
            return ()
        read = [said.fact for said in await self._facts.read(SHARD_DELIVERED, **job)]
        parts = [p for p in read if isinstance(p, ShardDelivered) and p.node_id in nodes]
        heard = {part.node_id for part in read}
        for node_id in sorted(nodes - heard):
            if await self._facts.count(SHARD_DELIVERED, **job, node_id=node_id):
                # The leader counted it; a replica that lags behind answered the read.
                raise Passing(f"what {node_id} said of its part cannot be read yet")
        return (completed(delivered, parts),) if len(parts) == len(nodes) else ()


def completed(delivered: ShardDelivered, parts: Sequence[ShardDelivered]) -> JobCompleted:
    """The ending of a job whose nodes hold these parts, in the pipeline's order."""
    return JobCompleted(
        origin=delivered.origin,
        job_id=delivered.job_id,
        generation=delivered.generation,
        plan_id=delivered.plan_id,
        nodes=tuple(
            DeliveredStage(
                node_id=part.node_id, stage_dir=part.stage_dir, size_bytes=part.size_bytes
            )
            for part in sorted(parts, key=lambda part: (part.stage, part.node_id))
        ),
    )


def failed(told: ShardFailed) -> JobFailed:
    """The ending of a job of which one node says that it will not have its part."""
    return JobFailed(
        origin=told.origin,
        job_id=told.job_id,
        generation=told.generation,
        stage=told.stage,
        reason=told.reason,
        advice=told.advice,
        node_id=told.node_id,
    )
