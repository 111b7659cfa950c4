"""What the origin makes of its nodes' words: the job complete with all, or failed with one."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import anyio
import structlog

from messages.base import Fact
from messages.failures import Passing
from messages.ids import JobId, NodeId
from messages.jobs import DeliveredStage, JobCompleted, JobFailed
from messages.shards import ShardDelivered, ShardFailed
from messages.subjects import SHARD_DELIVERED, SPLIT_PLANNED
from messages.wire import Undecodable
from services.runtime import over
from services.runtime.bus import Bus

log = structlog.get_logger()
_JOBS_KEPT = 256


@dataclass
class _Job:
    """What is known of one generation of a job: who has a part in it, and what each told."""

    nodes: tuple[NodeId, ...] = ()
    told: dict[NodeId, ShardDelivered | ShardFailed] = field(default_factory=dict)
    ended_by: NodeId | None = None
    turn: anyio.Lock = field(default_factory=anyio.Lock)


class Endings:
    """Ends the jobs of one origin.

    A fact never changes: what was read for one node of a job serves for the others.
    """

    def __init__(self, bus: Bus, node_id: NodeId) -> None:
        self._facts = bus.facts
        self._node_id = node_id
        self._jobs: OrderedDict[tuple[JobId, int], _Job] = OrderedDict()

    async def conclude(self, told: ShardDelivered | ShardFailed) -> Sequence[Fact]:
        """The end of the job, where this delivery was the last or has failed.

        Nothing for a node without a part in the plan: its word is about itself alone.
        """
        if told.origin != self._node_id:
            return ()
        job = self._jobs.setdefault((told.job_id, told.generation), _Job())
        job.told[told.node_id] = told
        if len(self._jobs) > _JOBS_KEPT:
            self._jobs.popitem(last=False)
        async with job.turn:
            return await self._ending(told, job)

    async def _ending(self, told: ShardDelivered | ShardFailed, job: _Job) -> Sequence[Fact]:
        job.nodes = job.nodes or await self._nodes(told)
        if told.node_id not in job.nodes:
            log.warning("dropped: it has no part in this job", node_id=told.node_id)
            return ()
        if job.ended_by not in (None, told.node_id):
            return ()
        parts = await self._parts(told, job) if isinstance(told, ShardDelivered) else []
        if isinstance(told, ShardDelivered) and len(parts) < len(job.nodes):
            return ()
        # A job that was planned anew meanwhile is ended by its newer plan.
        if await over.is_planned_anew(self._facts, told):
            return ()
        job.ended_by = told.node_id  # and by no other; its message may come again
        return (failed(told) if isinstance(told, ShardFailed) else completed(told, parts),)

    async def _nodes(self, told: ShardDelivered | ShardFailed) -> tuple[NodeId, ...]:
        """The plan's nodes; none where this generation has no plan, by the stream's leader."""
        job = {"origin": told.origin, "job_id": told.job_id, "generation": told.generation}
        said = await self._facts.last(SPLIT_PLANNED, **job)
        return said.fact.node_ids if said is not None else ()

    async def _parts(self, delivered: ShardDelivered, job: _Job) -> list[ShardDelivered]:
        """The deliveries of all its nodes, or fewer as soon as one is not there.

        The leader is asked, and only for what this process was not told itself: of what two copies
        of it are told at once, the later finds the earlier.
        """
        this = {"job_id": delivered.job_id, "generation": delivered.generation}
        for node_id in job.nodes:
            if node_id in job.told:
                continue
            try:
                said = await self._facts.last(SHARD_DELIVERED, **this, node_id=node_id)
            except Undecodable as error:
                raise Passing(f"what {node_id} said of its part cannot be read") from error
            if said is None:
                break
            job.told[node_id] = said.fact
        told = (job.told[node_id] for node_id in job.nodes if node_id in job.told)
        return [part for part in told if isinstance(part, ShardDelivered)]


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
