"""The planner's routes: metadata becomes one plan, and the stored plan each node's assignment."""

import functools
from collections.abc import Sequence
from pathlib import PurePosixPath

import anyio
import anyio.to_thread

import config.settings
from config.settings import Settings
from messages.api import PlanAnswer, PreviewRequest
from messages.base import Fact
from messages.failures import Permanent
from messages.jobs import JobCompleted
from messages.metadata import ModelMetadata
from messages.models import MetadataReady
from messages.nodes import Node
from messages.plans import NodeAssigned, SplitPlan, SplitPlanned
from messages.subjects import API_PREVIEW, API_PROFILE, METADATA_READY, SPLIT_PLANNED
from messages.wire import decode, encode
from messages.wishes import Wishes
from services.planner import reading
from services.planner.assignments import assigned
from services.planner.failures import Infeasible, NoNodes
from services.planner.made import Made, key_of
from services.planner.plan import plan_split
from services.planner.watching import Watch
from services.runtime.bus import Bus
from services.runtime.remembered import Remembered
from services.runtime.service import Endpoint, Route, Service

_LOOK_AGAIN_S = 0.25
_SLOTS = 64
_PROFILE_TIMEOUT_S = 600.0


class Planner:
    """The handlers, with the settings and the ports they need."""

    def __init__(
        self,
        settings: config.settings.Planner,
        bus: Bus,
        from_hub: reading.ReadFromHub = reading.from_hub,
    ) -> None:
        self._settings = settings
        self._documents = bus.documents
        self._registry = bus.registry
        self._from_hub = from_hub
        self._bus = bus
        self._nodes: tuple[Node, ...] = ()
        self._reading, self._asks, self._answered = anyio.Lock(), 0, 0
        self._made = Remembered[bytes, Made]()

    async def plan(self, ready: MetadataReady) -> Sequence[Fact]:
        """The one plan of this metadata: what lives now decides, what is stored stays decided."""
        document, read = await reading.read(ready, self._documents, self._from_hub)
        plan, encoded = await self._planned(ready, read)
        return (
            SplitPlanned(
                origin=ready.origin,
                job_id=ready.job_id,
                generation=ready.generation,
                request=ready.request,
                plan_id=plan.plan_id,
                model_name=plan.model_name,
                revision=plan.revision,
                strategy=plan.strategy,
                node_ids=tuple(a.node_id for a in plan.assignments),
                bottleneck_s=plan.bottleneck_s,
                plan=await self._documents.put(encoded, f"{plan.plan_id}.json"),
                metadata=document,
                plan_only=ready.plan_only,
            ),
        )

    async def assign(self, planned: SplitPlanned) -> Sequence[Fact]:
        """Each node's part of the plan as it was stored; the end of a job that only planned."""
        if planned.plan_only:
            return (
                JobCompleted(
                    origin=planned.origin,
                    job_id=planned.job_id,
                    generation=planned.generation,
                    plan_id=planned.plan_id,
                ),
            )
        plan = await self._documents.load(planned.plan, SplitPlan)
        facts: tuple[NodeAssigned, ...] = assigned(planned, plan)
        return facts

    async def preview(self, question: PreviewRequest) -> PlanAnswer:
        """A plan without a job, for metadata or a Hub model, and the given or the live nodes."""
        metadata, wishes = await self._asked(question)
        nodes = question.nodes if question.nodes is not None else await self._live()
        plan = await anyio.to_thread.run_sync(
            functools.partial(plan_split, metadata, nodes, wishes, self._settings),
            abandon_on_cancel=True,
        )
        return PlanAnswer(plan=plan)

    async def _asked(self, question: PreviewRequest) -> tuple[ModelMetadata, Wishes]:
        """The metadata, from the profiler where only a model is named, and the wishes."""
        request = question.request
        if question.metadata is not None and request is None:
            return question.metadata, question.wishes
        if request is None or question.metadata is not None:
            raise Permanent(
                "a preview needs either metadata or a request",
                advice='send `{"request": {"model_name": "org/name"}}`, or metadata inline',
            )
        answer = await self._bus.ask(API_PROFILE, request, _PROFILE_TIMEOUT_S)
        metadata = await self._documents.load(answer.metadata, ModelMetadata)
        return metadata, request.policy if question.wishes == Wishes() else question.wishes

    async def _planned(self, ready: MetadataReady, read: reading.Read) -> Made:
        """The plan for the given nodes, or for live ones; what the same gave before is it again."""
        given = ready.available_nodes
        nodes = given if given is not None else await self._live()
        known = self._made.get(key_of(ready, nodes))
        if known is not None:
            return known
        metadata = await anyio.to_thread.run_sync(decode, await read(), ModelMetadata)
        make = functools.partial(self._make, metadata, ready)
        if given is not None:
            return await anyio.to_thread.run_sync(make, given, abandon_on_cancel=True)
        return await self._when_nodes_suffice(make, nodes)

    def _make(self, metadata: ModelMetadata, ready: MetadataReady, nodes: Sequence[Node]) -> Made:
        plan = plan_split(
            metadata,
            nodes,
            ready.request.policy,
            self._settings,
            origin=ready.origin,
            generation=ready.generation,
            model_url=model_url(ready.request.model_name),
            revision=ready.revision or metadata.revision,
            metadata_sha256=ready.sha256,
        )
        made = Made(plan, encode(plan))
        self._made.keep(key_of(ready, nodes), made, len(made.body))
        return made

    async def _when_nodes_suffice(
        self, make: functools.partial[Made], nodes: Sequence[Node]
    ) -> Made:
        """The plan for live nodes, at first these; waits a while for enough to come."""
        deadline = anyio.current_time() + self._settings.wait_for_nodes_s
        seen: Sequence[Node] = ()
        while True:
            too_late = anyio.current_time() >= deadline
            if nodes != seen or too_late:
                seen = nodes
                try:
                    return await anyio.to_thread.run_sync(make, nodes, abandon_on_cancel=True)
                except (Infeasible, NoNodes):
                    if too_late:
                        raise
            await anyio.sleep(_LOOK_AGAIN_S)
            nodes = await self._live()

    async def _live(self) -> tuple[Node, ...]:
        """The live nodes, by a read that began after this was asked for; several share one."""
        self._asks += 1
        ask = self._asks
        async with self._reading:
            if ask > self._answered:
                upto = self._asks
                self._nodes = tuple(entry.node for entry in await self._registry.nodes())
                self._answered = upto
            return self._nodes


def model_url(model_name: str) -> str:
    """Where the model is: its page on the Hub, or its directory at the origin."""
    if model_name.startswith("/"):
        return PurePosixPath(model_name).as_uri()
    return f"https://huggingface.co/{model_name}"


def build(settings: Settings, bus: Bus) -> Service:
    """The planner; it can run anywhere, in several copies."""
    planner = Planner(settings.planner, bus)
    watch = Watch(settings.planner, bus.facts, bus.documents, bus.registry)
    return Service(
        "planner",
        routes=(
            Route(METADATA_READY, planner.plan, slots=_SLOTS),
            Route(SPLIT_PLANNED, planner.assign, slots=_SLOTS),
        ),
        endpoints=(Endpoint(API_PREVIEW, planner.preview),),
        background=(watch.run,),
    )
