"""The planner on a real bus: one plan, assignments from it, refusals, previews, lost nodes."""

from collections.abc import Sequence
from typing import Any

import anyio
import msgspec
import pytest

from config.settings import Settings
from messages.api import PreviewRequest
from messages.documents import digest_of
from messages.ids import JobId, NodeId, Sha256
from messages.jobs import JobCompleted, JobFailed, ModelRequest
from messages.metadata import Block, ModelMetadata
from messages.models import MetadataReady
from messages.nodes import Node, NodeEntry
from messages.plans import SplitPlan
from messages.subjects import API_PREVIEW, JOB_ENDED, NODE_ASSIGNED, SPLIT_PLANNED
from messages.wire import encode
from messages.wishes import Wishes
from services.planner import service
from services.planner.plan import plan_split
from services.planner.service import build
from services.runtime.bus import Bus, Refused
from tests.bus_fixture import running

ORIGIN = NodeId("node_001")
ONE_CHAIN = Wishes(headroom=0.0, replicas=1)


def metadata() -> ModelMetadata:
    return ModelMetadata(
        model_name="org/model",
        blocks=tuple(
            Block(name=f"b{k}", tensors=(f"t{k}",), compute_required=10.0, weight_bytes=100)
            for k in range(8)
        ),
    )


def node(node_id: str, memory_bytes: int = 400) -> Node:
    return Node(node_id=NodeId(node_id), compute_gflops=1000.0, memory_bytes=memory_bytes)


async def ready(bus: Bus, body: bytes, job: str = "job", **more: object) -> MetadataReady:
    document = await bus.documents.store(body, "org_model_metadata.json")
    fact = MetadataReady(
        origin=ORIGIN,
        job_id=JobId(job),
        request=ModelRequest(model_name="org/model", wishes=ONE_CHAIN),
        repo=document.bucket,
        file=document.name,
        url="",
        sha256=document.sha256,
        size_bytes=document.size_bytes,
    )
    return msgspec.structs.replace(fact, **more)


async def announce(bus: Bus, *nodes: Node) -> None:
    for each in nodes:
        await bus.registry.announce(NodeEntry(node=each, data_url="http://127.0.0.1:1"))


def quick(settings: Settings, **planner: object) -> Settings:
    return msgspec.structs.replace(
        settings, planner=msgspec.structs.replace(settings.planner, **planner)
    )


async def test_metadata_becomes_one_plan_and_an_assignment_for_each_node(
    bus: Bus, settings: Settings
) -> None:
    await announce(bus, node("n1"), node("n2"))
    async with running(bus, settings, build(settings, bus)):
        await bus.facts.say(await ready(bus, encode(metadata())))
        with anyio.fail_after(10):
            planned = (await bus.facts.wait(SPLIT_PLANNED)).fact
            first = (await bus.facts.wait(NODE_ASSIGNED, node_id="n1")).fact
            second = (await bus.facts.wait(NODE_ASSIGNED, node_id="n2")).fact
    plan = await bus.documents.load(planned.plan, SplitPlan)
    assert plan.plan_id == planned.plan_id == first.plan_id
    assert {first.stage, second.stage} == {0, 1}
    assert first.fetch_from[0] == second.fetch_from[0] == ORIGIN
    assert await bus.documents.load(planned.metadata, ModelMetadata) == metadata()


async def test_the_same_question_is_searched_once_and_any_other_anew(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[Sequence[Node]] = []

    def watched(metadata: ModelMetadata, nodes: Sequence[Node], *rest: Any, **more: Any) -> Any:
        searched.append(nodes)
        return plan_split(metadata, nodes, *rest, **more)

    monkeypatch.setattr(service, "plan_split", watched)
    few, many = (node("n1"), node("n2")), (node("n1"), node("n2", 800))

    async def plan_of(job: str, **more: object) -> SplitPlan:
        await bus.facts.say(await ready(bus, encode(metadata()), job, **more))
        with anyio.fail_after(10):
            planned = (await bus.facts.wait(SPLIT_PLANNED, job_id=job)).fact
        return await bus.documents.load(planned.plan, SplitPlan)

    async with running(bus, settings, build(settings, bus)):
        await announce(bus, *few)
        first = await plan_of("job1")
        assert await plan_of("job2") == first
        assert searched == [few]
        await announce(bus, *many)
        assert (await plan_of("job3")).plan_id != first.plan_id
        wished = ModelRequest(model_name="org/model", wishes=Wishes(headroom=0.25, replicas=1))
        assert (await plan_of("job4", request=wished)).plan_id != first.plan_id
        assert searched == [few, many, many]
        await bus.facts.say(await ready(bus, encode(metadata()), "job5", repo="elsewhere"))
        with anyio.fail_after(10):
            ended = (await bus.facts.wait(JOB_ENDED, job_id="job5")).fact
    assert isinstance(ended, JobFailed)
    assert "elsewhere" in ended.reason


async def test_given_nodes_replace_the_registry_and_a_plan_only_job_ends_with_its_plan(
    bus: Bus, settings: Settings
) -> None:
    given_nodes = (node("far", 900),)
    async with running(bus, settings, build(settings, bus)):
        fact = await ready(bus, encode(metadata()), available_nodes=given_nodes, plan_only=True)
        await bus.facts.say(fact)
        with anyio.fail_after(10):
            ended = (await bus.facts.wait(JOB_ENDED)).fact
    assert isinstance(ended, JobCompleted)
    assert await bus.facts.count(NODE_ASSIGNED) == 0


async def test_a_plan_waits_for_enough_nodes(bus: Bus, settings: Settings) -> None:
    await announce(bus, node("n1"))
    async with running(bus, settings, build(settings, bus)):
        await bus.facts.say(await ready(bus, encode(metadata())))
        with anyio.move_on_after(1):
            await bus.facts.wait(SPLIT_PLANNED)
            pytest.fail("half the memory was enough")
        await announce(bus, node("n1"), node("n2"))
        with anyio.fail_after(10):
            planned = (await bus.facts.wait(SPLIT_PLANNED)).fact
    assert set(planned.node_ids) == {"n1", "n2"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"model_name":"org/model"}', "layers"),
        (b'{"model_name":"org/model","blocks":[{"name":"b"}]}', "tensors"),
        (b"{", "ModelMetadata"),
        (encode(metadata()), "no split fits"),
    ],
)
async def test_what_cannot_be_planned_fails_the_job_with_the_reason(
    bus: Bus, settings: Settings, body: bytes, said: str
) -> None:
    async with running(bus, settings, build(settings, bus)):
        fact = await ready(bus, body, available_nodes=(node("small", 300),))
        await bus.facts.say(fact)
        with anyio.fail_after(10):
            ended = (await bus.facts.wait(JOB_ENDED)).fact
    assert isinstance(ended, JobFailed)
    assert said in ended.reason
    assert ended.stage == "planner"


async def test_metadata_with_another_digest_is_refused(bus: Bus, settings: Settings) -> None:
    async with running(bus, settings, build(settings, bus)):
        wrong = Sha256(digest_of(b"something else"))
        await bus.facts.say(await ready(bus, encode(metadata()), sha256=wrong))
        with anyio.fail_after(10):
            ended = (await bus.facts.wait(JOB_ENDED)).fact
    assert isinstance(ended, JobFailed)
    assert "sha256" in ended.reason


async def test_a_preview_plans_without_a_job_or_says_why_not(bus: Bus, settings: Settings) -> None:
    async with running(bus, settings, build(settings, bus)):
        question = PreviewRequest(
            metadata=metadata(), nodes=(node("n1", 900),), wishes=Wishes(headroom=0.0)
        )
        answer = await bus.ask(API_PREVIEW, question)
        assert [a.node_id for a in answer.plan.assignments] == ["n1"]
        with pytest.raises(Refused, match="memory binds"):
            await bus.ask(API_PREVIEW, msgspec.structs.replace(question, nodes=(node("n1"),)))


async def test_a_lost_node_brings_a_new_generation_and_one_that_returns_does_not(
    bus: Bus, settings: Settings
) -> None:
    patient = quick(settings, replan_after_s=2.0)
    await announce(bus, node("n1"), node("n2"), node("n3"))
    async with running(bus, patient, build(patient, bus)):
        await bus.facts.say(await ready(bus, encode(metadata())))
        with anyio.fail_after(10):
            planned = (await bus.facts.wait(SPLIT_PLANNED, generation=1)).fact
        lost, kept = planned.node_ids[0], planned.node_ids[1]
        await anyio.sleep(1.2)
        await bus.registry.withdraw(kept)
        await anyio.sleep(0.8)
        await announce(bus, node(kept))
        await anyio.sleep(2.2)
        assert await bus.facts.last(SPLIT_PLANNED, generation=2) is None
        await bus.registry.withdraw(lost)
        with anyio.fail_after(10):
            anew = (await bus.facts.wait(SPLIT_PLANNED, generation=2)).fact
            await bus.facts.wait(NODE_ASSIGNED, node_id=kept, generation=2)
    plan = await bus.documents.load(anew.plan, SplitPlan)
    assert lost not in anew.node_ids
    assert plan.replaces == planned.plan_id
    assert plan.moved_bytes in (200, 300)


async def test_a_job_that_was_tried_again_is_planned_anew_too(bus: Bus, settings: Settings) -> None:
    patient = quick(settings, replan_after_s=1.0)
    await announce(bus, node("n1"), node("n2"), node("n3"))
    async with running(bus, patient, build(patient, bus)):
        await bus.facts.say(await ready(bus, encode(metadata())))
        with anyio.fail_after(30):
            first = (await bus.facts.wait(SPLIT_PLANNED, generation=1)).fact
        failed = JobFailed(
            origin=ORIGIN, job_id=first.job_id, generation=1, stage="delivery", reason="a test"
        )
        await bus.facts.say(failed)
        again = msgspec.structs.replace(first, generation=2)
        await bus.facts.say(again)
        with anyio.fail_after(30):
            await bus.facts.wait(NODE_ASSIGNED, node_id=again.node_ids[0], generation=2)
            await bus.registry.withdraw(again.node_ids[0])
            third = (await bus.facts.wait(SPLIT_PLANNED, generation=3)).fact
    assert again.node_ids[0] not in third.node_ids
