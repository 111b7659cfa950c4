"""Watching running jobs on a real bus: what a look at the registry says after a loss."""

import msgspec

from config.settings import Settings
from messages.documents import Document, digest_of
from messages.ids import JobId, NodeId
from messages.jobs import ModelRequest
from messages.metadata import Block, ModelMetadata
from messages.models import MetadataReady
from messages.nodes import Node, NodeEntry
from messages.plans import SplitPlan, SplitPlanned
from messages.subjects import SPLIT_PLANNED
from messages.wire import encode
from messages.wishes import Wishes
from services.planner.plan import plan_split
from services.planner.watching import Watch
from services.runtime import names
from services.runtime.bus import Bus

ORIGIN = NodeId("node_001")
ONE_CHAIN = Wishes(headroom=0.0, replicas=1)
METADATA = ModelMetadata(
    model_name="org/model",
    blocks=tuple(
        Block(name=f"b{k}", tensors=(f"t{k}",), compute_required=10.0, weight_bytes=100)
        for k in range(8)
    ),
)
REQUEST = ModelRequest(model_name="org/model", wishes=ONE_CHAIN)
LATER_S = 1000.0


def node(node_id: str, memory_bytes: int = 400) -> Node:
    return Node(node_id=NodeId(node_id), compute_gflops=1000.0, memory_bytes=memory_bytes)


async def watching(bus: Bus, settings: Settings, *running: SplitPlanned) -> Watch:
    watch = Watch(settings.planner, bus.facts, bus.documents, bus.registry)
    for planned in running:
        watch.learn(await bus.facts.say(planned))
    return watch


def planned_for(settings: Settings, job: str, *nodes: Node) -> tuple[SplitPlanned, SplitPlan]:
    """A running job on these nodes, its documents within the fact."""
    plan = plan_split(METADATA, nodes, ONE_CHAIN, settings.planner)
    fact = SplitPlanned(
        origin=ORIGIN,
        job_id=JobId(job),
        request=REQUEST,
        plan_id=plan.plan_id,
        model_name=plan.model_name,
        revision="",
        strategy="pipeline",
        node_ids=tuple(a.node_id for a in plan.assignments),
        bottleneck_s=plan.bottleneck_s,
        plan=Document.of_small(encode(plan)),
        metadata=Document.of_small(encode(METADATA)),
    )
    return fact, plan


async def lose(bus: Bus, lost: NodeId, *nodes: Node) -> None:
    """All but the lost one are announced."""
    for each in nodes:
        if each.node_id != lost:
            await bus.registry.announce(NodeEntry(node=each, data_url="http://127.0.0.1:1"))


async def anew(bus: Bus, job: str) -> SplitPlanned | None:
    said = await bus.facts.last(SPLIT_PLANNED, job_id=job, generation=2)
    return said.fact if said is not None else None


async def test_a_plan_that_could_not_be_read_is_replaced_once_it_can_and_holds_no_other_job_up(
    bus: Bus, settings: Settings
) -> None:
    """The nodes that live stay the same all the while."""
    nodes = (node("n1"), node("n2"), node("n3"))
    unread, plan = planned_for(settings, "unread", *nodes)
    body = encode(plan)
    late = Document(
        sha256=digest_of(body),
        size_bytes=len(body),
        bucket=names.DOCUMENTS_BUCKET,
        name=f"{digest_of(body)[:16]}/late.json",
    )
    unread = msgspec.structs.replace(unread, plan=late)
    other, _ = planned_for(settings, "other", *nodes)
    watch = await watching(bus, settings, unread, other)
    await lose(bus, unread.node_ids[0], *nodes)
    await watch.look(0.0)
    await watch.look(LATER_S)
    assert await anew(bus, "unread") is None
    assert await anew(bus, "other") is not None
    assert await bus.documents.store(body, "late.json") == late
    await watch.look(LATER_S + 1)
    replaced = await anew(bus, "unread")
    assert replaced is not None
    assert unread.node_ids[0] not in replaced.node_ids


async def ready(bus: Bus, job: str, *given: Node) -> None:
    await bus.facts.say(
        MetadataReady(
            origin=ORIGIN,
            job_id=JobId(job),
            request=REQUEST,
            repo="",
            file="",
            url="",
            sha256=digest_of(b""),
            size_bytes=0,
            available_nodes=given or None,
        )
    )


async def test_a_job_with_nodes_of_its_own_is_planned_anew_on_those_of_them_that_live(
    bus: Bus, settings: Settings
) -> None:
    """A job that came without nodes takes the stranger, which is much faster than the third."""
    slow = msgspec.structs.replace(node("n3"), compute_gflops=10.0)
    mine, stranger = (node("n1"), node("n2"), slow), node("stranger")
    own, _ = planned_for(settings, "own", *mine)
    free, _ = planned_for(settings, "free", *mine)
    await ready(bus, "own", *mine)
    await ready(bus, "free")
    watch = await watching(bus, settings, own, free)
    await lose(bus, own.node_ids[0], *mine, stranger)
    await watch.look(0.0)
    await watch.look(LATER_S)
    restricted, anywhere = await anew(bus, "own"), await anew(bus, "free")
    assert restricted is not None
    assert set(restricted.node_ids) == {n.node_id for n in mine} - {own.node_ids[0]}
    assert anywhere is not None
    assert "stranger" in anywhere.node_ids


async def test_a_job_with_nodes_that_nobody_announced_stays_as_it_was_planned(
    bus: Bus, settings: Settings
) -> None:
    mine = (node("far1"), node("far2"))
    own, _ = planned_for(settings, "own", *mine)
    await ready(bus, "own", *mine)
    watch = await watching(bus, settings, own)
    await lose(bus, NodeId("nobody"), node("near", 900))
    await watch.look(0.0)
    await watch.look(LATER_S)
    assert await anew(bus, "own") is None
