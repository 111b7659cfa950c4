"""Watching running jobs for lost nodes: who is missed for long enough gets the job a new plan."""

import functools
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import anyio
import anyio.to_thread
import msgspec
import structlog

import config.settings
from messages.failures import Passing, Permanent
from messages.ids import JobId, NodeId
from messages.metadata import ModelMetadata
from messages.nodes import Node
from messages.plans import SplitPlan, SplitPlanned
from messages.state import Said
from messages.subjects import JOB_ENDED, METADATA_READY, SPLIT_PLANNED
from messages.wire import encode
from services.runtime.documents import Documents
from services.runtime.factlog import FactLog
from services.runtime.registry import Registry

log = structlog.get_logger()
_LOOK_EVERY_S = 0.5
# Nobody is missed so soon: what is said meanwhile is read together.
_GATHER_S = 0.25
# A reader that is further behind than this takes an ended job for a running one, until it loses a
# node: its end is looked for then, before anything is planned.
_ENDED_KEPT = 10_000


@dataclass
class Absences:
    """Since when each node is missed: those that were seen, and those that a plan counts on."""

    after_s: float
    seen: set[NodeId] = field(default_factory=set)
    since: dict[NodeId, float] = field(default_factory=dict)

    def look(
        self, live: frozenset[NodeId], expected: frozenset[NodeId], now_s: float
    ) -> frozenset[NodeId]:
        """The nodes that are lost: missed for `after_s`; one that returns is not missed.

        Expected nodes count though they were never seen: they may have gone while nobody looked.
        """
        self.seen |= live | expected
        for node_id in live:
            self.since.pop(node_id, None)
        for node_id in self.seen - live:
            self.since.setdefault(node_id, now_s)
        return frozenset(n for n, since in self.since.items() if now_s - since >= self.after_s)


class _Running(NamedTuple):
    """What is kept of a running job's newest plan: thousands may run, and plans are not small."""

    origin: NodeId
    generation: int
    node_ids: tuple[NodeId, ...]


class Watch:
    """The running jobs with their newest plans, and a new plan for each that lost a node."""

    def __init__(
        self,
        settings: config.settings.Planner,
        facts: FactLog,
        documents: Documents,
        registry: Registry,
    ) -> None:
        self._settings = settings
        self._facts = facts
        self._documents = documents
        self._registry = registry
        self._running: dict[JobId, _Running] = {}
        # Plans and endings come by two readers: an ending may be learnt of before its plan.
        self._ended: OrderedDict[JobId, int] = OrderedDict()
        self._absences = Absences(settings.replan_after_s)
        self._tried: dict[JobId, frozenset[NodeId]] = {}

    async def run(self) -> None:
        """Until cancelled: learn of plans and endings, and look at the registry."""
        async with anyio.create_task_group() as group:
            for subject in (SPLIT_PLANNED, JOB_ENDED):
                facts = self._facts.follow(subject.where(), gather_s=_GATHER_S)
                group.start_soon(self._learn, facts)
            while True:
                await anyio.sleep(_LOOK_EVERY_S)
                try:
                    await self.look(anyio.current_time())
                except Passing as error:
                    log.debug("waiting for the bus", error=str(error))

    def learn(self, said: Said[Any]) -> None:
        """Keep a newer plan, forget a job that ended."""
        fact = said.fact
        if isinstance(fact, SplitPlanned):
            known = self._running.get(fact.job_id)
            newer = known is None or fact.generation > known.generation
            ended = self._ended.get(fact.job_id, 0) >= fact.generation
            if newer and not ended and not fact.plan_only:
                self._running[fact.job_id] = _Running(fact.origin, fact.generation, fact.node_ids)
            return
        self._ended[fact.job_id] = max(fact.generation, self._ended.pop(fact.job_id, 0))
        if len(self._ended) > _ENDED_KEPT:
            self._ended.popitem(last=False)
        running = self._running.get(fact.job_id)
        if running is not None and running.generation <= fact.generation:
            del self._running[fact.job_id]
            self._tried.pop(fact.job_id, None)

    async def look(self, now_s: float) -> None:
        """Plan anew for each running job that lost a node; once for each set of live nodes."""
        entries = await self._registry.nodes()
        live = frozenset(entry.node.node_id for entry in entries)
        expected = frozenset(n for p in self._running.values() for n in p.node_ids)
        lost = self._absences.look(live, expected, now_s)
        for job_id, running in list(self._running.items()):
            if lost.isdisjoint(running.node_ids) or self._tried.get(job_id) == live:
                continue
            try:
                await self._plan_anew(job_id, running, {e.node.node_id: e.node for e in entries})
            except Passing as error:  # tried again at the next look, and holds no other job up
                log.debug("waiting for the bus", job_id=job_id, error=str(error))
                continue
            except Permanent as refusal:
                log.warning("no plan without the lost nodes yet", job_id=job_id, why=refusal.reason)
            self._tried[job_id] = live

    async def _plan_anew(
        self, job_id: JobId, running: _Running, live: Mapping[NodeId, Node]
    ) -> None:
        # Only this generation's end counts: a job that was tried again has one that ended before.
        this = {"job_id": job_id, "generation": running.generation}
        if await self._facts.last(JOB_ENDED, **this) is not None:
            return
        said = await self._facts.last(SPLIT_PLANNED, origin=running.origin, **this)
        if said is None:
            raise Passing("a plan that was heard of cannot be read yet")
        planned = said.fact
        from services.planner.replan import replan  # numpy, only after a loss

        old = await self._documents.load(planned.plan, SplitPlan)
        metadata = await self._documents.load(planned.metadata, ModelMetadata)
        make = functools.partial(
            replan,
            old,
            metadata,
            await self._eligible(planned.job_id, live),
            planned.request.policy,
            self._settings,
            origin=planned.origin,
            generation=planned.generation + 1,
        )
        plan = await anyio.to_thread.run_sync(make, abandon_on_cancel=True)
        log.info("planned anew", job_id=planned.job_id, moved_bytes=plan.moved_bytes)
        fact = msgspec.structs.replace(
            planned,
            generation=plan.generation,
            plan_id=plan.plan_id,
            node_ids=tuple(a.node_id for a in plan.assignments),
            bottleneck_s=plan.bottleneck_s,
            plan=await self._documents.put(encode(plan), f"{plan.plan_id}.json"),
        )
        self.learn(await self._facts.say(fact))

    async def _eligible(self, job_id: JobId, live: Mapping[NodeId, Node]) -> tuple[Node, ...]:
        """Live nodes; where the job came with nodes of its own, those of them, as it gave them."""
        ready = await self._facts.last(METADATA_READY, job_id=job_id)
        given = ready.fact.available_nodes if ready is not None else None
        if given is None:
            return tuple(live.values())
        return tuple(node for node in given if node.node_id in live)

    async def _learn(self, facts: AsyncIterator[Said[Any]]) -> None:
        async for said in facts:
            self.learn(said)
