"""The requester on a real bus: what it accepts, refuses, answers, cancels and lets expire."""

import json

import anyio
import msgspec
import nats.errors
import pytest

from config.settings import Settings
from messages.api import JobQuery, NodesAnswer, NodesQuery, ProcessRequest
from messages.documents import Document
from messages.ids import JobId, NodeId, PlanId
from messages.jobs import CancelJob, JobCancelled, JobFailed, ModelRequest, ModelRequested
from messages.metadata import ModelMetadata
from messages.models import MetadataReady
from messages.plans import MegaphonePlan, SplitPlan, SplitPlanned
from messages.subjects import (
    API_CANCEL,
    API_NODES,
    API_PLAN,
    API_PROCESS,
    API_REQUEST,
    API_STATUS,
    JOB_ENDED,
    METADATA_READY,
    MODEL_REQUEST,
    MODEL_REQUESTED,
)
from messages.wire import decode
from services.requester.service import build
from services.runtime import names
from services.runtime.bus import Bus, Refused
from services.runtime.graveyard import Graveyard
from services.runtime.service import Route, Service
from tests.bus_fixture import entry, running


async def test_a_plain_publish_starts_one_job_of_this_origin(bus: Bus, settings: Settings) -> None:
    async with running(bus, settings, build(settings, bus)):
        await bus.client.publish("williw.model.request", b'{"model_name":"org/name"}')
        with anyio.fail_after(10):
            said = await bus.facts.wait(MODEL_REQUESTED)
    assert said.fact.origin == "node_001"
    assert said.fact.request.model_name == "org/name"
    assert said.fact.request.sequence_length == 512


async def test_a_request_with_a_job_id_is_one_job_however_often_it_is_sent(
    bus: Bus, settings: Settings
) -> None:
    body = b'{"model_name":"org/name","job_id":"mine"}'
    async with running(bus, settings, build(settings, bus)):
        for _ in range(3):
            await bus.client.publish("williw.model.request", body)
        accepted = await bus.ask(API_REQUEST, ModelRequest(model_name="m", job_id=JobId("mine")))
        with anyio.fail_after(10):
            await bus.facts.wait(MODEL_REQUESTED, job_id="mine")
        # A job of another id, accepted after them all: the queue before it is done.
        last = await bus.ask(API_REQUEST, ModelRequest(model_name="m"))
        with anyio.fail_after(10):
            await bus.facts.wait(MODEL_REQUESTED, job_id=last.job_id)
    assert accepted.job_id == "mine"
    assert await bus.facts.count(MODEL_REQUESTED, job_id="mine") == 1


@pytest.mark.parametrize("of_this_origin", [True, False])
async def test_a_request_that_was_accepted_by_another_is_not_taken_twice_nor_failed_for_its_absence(
    bus: Bus, settings: Settings, *, of_this_origin: bool
) -> None:
    node = msgspec.structs.replace(settings.node, origin=of_this_origin)
    here = msgspec.structs.replace(settings, node=node)
    request = ModelRequest(model_name="org/name", job_id=JobId("mine"))
    elsewhere = ModelRequested(origin=NodeId("gone"), job_id=JobId("mine"), request=request)
    await bus.facts.say(elsewhere)
    async with running(bus, here, build(here, bus)):
        await bus.send(request, MODEL_REQUEST)
        await until_taken(bus, "requester-model_request")
    assert [said.fact for said in await bus.facts.read(MODEL_REQUESTED)] == [elsewhere]
    assert await bus.facts.count(JOB_ENDED) == 0


async def until_taken(bus: Bus, consumer: str) -> None:
    """Wait until a consumer has nothing left to do, and nothing handed back."""
    js = bus.client.jetstream()
    with anyio.fail_after(20):
        while True:
            info = await js.consumer_info(names.FACTS_STREAM, consumer)
            if not info.num_pending and not info.num_ack_pending:
                return
            await anyio.sleep(0.05)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"model_name":"../../etc/passwd"}',
        b'{"model_name":"org/name","node_id":"a.b"}',
        b'{"model_name":"org/name","job_id":"*"}',
        b'{"model_name":"org/name","batch_size":0}',
    ],
)
async def test_a_malformed_question_is_refused_with_the_field(
    bus: Bus, settings: Settings, body: bytes
) -> None:
    async with running(bus, settings, build(settings, bus)):
        answer = await bus.client.request("williw.api.request", body, timeout=5)
    assert answer.headers
    assert answer.headers["Nats-Service-Error-Code"] == "400"
    assert "ModelRequest" in json.loads(answer.data)["reason"]


async def test_a_request_that_no_origin_can_take_is_refused_at_once(
    bus: Bus, settings: Settings
) -> None:
    elsewhere = msgspec.structs.replace(
        settings, node=msgspec.structs.replace(settings.node, node_id="desk", origin=False)
    )
    async with running(bus, elsewhere, build(elsewhere, bus)):
        with pytest.raises(Refused, match="no origin is alive"):
            await bus.ask(API_REQUEST, ModelRequest(model_name="m"))
        await bus.registry.announce(entry("store", origin=True))
        accepted = await bus.ask(API_REQUEST, ModelRequest(model_name="m"))
    assert accepted.origin == "store"


async def test_a_job_is_cancelled_once_and_then_no_more(bus: Bus, settings: Settings) -> None:
    async with running(bus, settings, build(settings, bus)):
        accepted = await bus.ask(API_REQUEST, ModelRequest(model_name="m"))
        with anyio.fail_after(10):
            await bus.facts.wait(MODEL_REQUESTED, job_id=accepted.job_id)
        await bus.ask(API_CANCEL, CancelJob(job_id=accepted.job_id, reason="no need"))
        with anyio.fail_after(10):
            said = await bus.facts.wait(JOB_ENDED, job_id=accepted.job_id)
        assert isinstance(said.fact, JobCancelled)
        state = (await bus.ask(API_STATUS, JobQuery(job_id=accepted.job_id))).job
        assert (state.status, state.reason) == ("cancelled", "no need")
        with pytest.raises(Refused, match="has ended already: cancelled"):
            await bus.ask(API_CANCEL, CancelJob(job_id=accepted.job_id))
        with pytest.raises(Refused, match="no job nobody is known"):
            await bus.ask(API_CANCEL, CancelJob(job_id=JobId("nobody")))


async def test_a_request_and_its_cancelling_in_one_breath_end_cancelled(
    bus: Bus, settings: Settings
) -> None:
    await bus.client.publish("williw.job.cancel.mine", b'{"job_id":"mine"}')
    await bus.client.publish("williw.model.request", b'{"model_name":"m","job_id":"mine"}')
    await bus.client.flush()
    async with running(bus, settings, build(settings, bus)):
        with anyio.fail_after(15):
            said = await bus.facts.wait(JOB_ENDED, job_id="mine")
    assert isinstance(said.fact, JobCancelled)


async def test_a_job_past_its_deadline_fails_and_one_within_it_does_not(
    bus: Bus, settings: Settings
) -> None:
    async with running(bus, settings, build(settings, bus)):
        late = await bus.ask(API_REQUEST, ModelRequest(model_name="m", timeout_s=0.5))
        early = await bus.ask(API_REQUEST, ModelRequest(model_name="m", timeout_s=500))
        with anyio.fail_after(15):
            said = await bus.facts.wait(JOB_ENDED, job_id=late.job_id)
    assert isinstance(said.fact, JobFailed)
    assert said.fact.stage == "deadline"
    assert f"williw retry {late.job_id} --timeout-s" in said.fact.advice
    assert await bus.facts.count(JOB_ENDED, job_id=early.job_id) == 0


@pytest.mark.parametrize("timeout_s", ["1e10", "1e300"])
async def test_a_deadline_beyond_every_clock_is_a_dead_letter_and_the_next_job_is_taken(
    bus: Bus, settings: Settings, timeout_s: str
) -> None:
    body = b'{"model_name":"no/hub","job_id":"late","timeout_s":%s}' % timeout_s.encode()
    async with running(bus, settings, build(settings, bus)) as actor:
        await bus.client.publish("williw.model.request", body)
        refusal = await bus.client.request("williw.api.request", body, timeout=5)
        assert "timeout_s" in json.loads(refusal.data)["reason"]
        accepted = await bus.ask(API_REQUEST, ModelRequest(model_name="m", timeout_s=366 * 86_400))
        with anyio.fail_after(10):
            await bus.facts.wait(MODEL_REQUESTED, job_id=accepted.job_id)
        assert not actor.lacking()
    (letter,) = await Graveyard(bus.client).letters()
    assert letter.letter is not None
    assert "timeout_s" in letter.letter.error
    assert await bus.facts.count(MODEL_REQUESTED, job_id="late") == 0


async def test_the_plan_is_answered_once_there_is_one(bus: Bus, settings: Settings) -> None:
    async with running(bus, settings, build(settings, bus)):
        accepted = await bus.ask(API_REQUEST, ModelRequest(model_name="m"))
        with anyio.fail_after(10):
            await bus.facts.wait(MODEL_REQUESTED, job_id=accepted.job_id)
        with pytest.raises(Refused, match="has no plan: it is requested"):
            await bus.ask(API_PLAN, JobQuery(job_id=accepted.job_id))
        await bus.facts.say(planned(accepted.origin, accepted.job_id))
        answer = await bus.ask(API_PLAN, JobQuery(job_id=accepted.job_id))
    assert answer.plan == PLAN


async def test_the_live_nodes_are_answered(bus: Bus, settings: Settings) -> None:
    await bus.registry.announce(entry("node_a"))
    async with running(bus, settings, build(settings, bus)):
        answer = await bus.ask(API_NODES, NodesQuery())
        empty = await bus.client.request(API_NODES.subject, b"", timeout=5)
        assert decode(empty.data, NodesAnswer) == answer
    assert [found.node.node_id for found in answer.nodes] == ["node_a"]


async def test_metadata_made_by_a_node_is_stored_and_answered_with_the_plan(
    bus: Bus, settings: Settings
) -> None:
    async def plan(ready: MetadataReady) -> list[SplitPlanned]:
        document = Document(
            sha256=ready.sha256, size_bytes=ready.size_bytes, bucket=ready.repo, name=ready.file
        )
        assert await bus.documents.load(document, ModelMetadata) == metadata
        assert ready.plan_only
        return [planned(ready.origin, ready.job_id)]

    metadata = ModelMetadata(model_name="org/name", batch_size=2)
    planner = Service("planner", routes=(Route(METADATA_READY, plan),))
    async with running(bus, settings, build(settings, bus), planner):
        answer = await bus.ask(API_PROCESS, ProcessRequest(metadata=metadata), timeout_s=10)
        assert answer.plan == PLAN
        with pytest.raises(Refused, match="neither metadata nor where to read it"):
            await bus.ask(API_PROCESS, ProcessRequest())


async def test_a_plan_that_fails_refuses_the_question_with_its_reason(
    bus: Bus, settings: Settings
) -> None:
    async def plan(ready: MetadataReady) -> list[JobFailed]:
        return [
            JobFailed(origin=ready.origin, job_id=ready.job_id, stage="plan", reason="no node fits")
        ]

    planner = Service("planner", routes=(Route(METADATA_READY, plan),))
    question = ProcessRequest(metadata=ModelMetadata(model_name="org/name"))
    async with running(bus, settings, build(settings, bus), planner):
        with pytest.raises(Refused, match="no node fits"):
            await bus.ask(API_PROCESS, question, timeout_s=10)


async def test_the_services_protocol_lists_the_endpoints(bus: Bus, settings: Settings) -> None:
    async with running(bus, settings, build(settings, bus)):
        answer = await bus.client.request("$SRV.INFO.williw-requester", b"", timeout=5)
        listed = {endpoint["subject"] for endpoint in json.loads(answer.data)["endpoints"]}
    assert listed == {
        f"williw.api.{name}" for name in ("request", "process", "plan", "status", "cancel", "nodes")
    }
    with pytest.raises(nats.errors.NoRespondersError):
        await bus.client.request("williw.api.nodes", b"{}", timeout=5)


PLAN = SplitPlan(
    plan_id="plan-1",  # type: ignore[arg-type]
    model_name="m",
    model_url="",
    selected_nodes=(),
    split_plan={},
    megaphone_plan=MegaphonePlan(start_node=NodeId("node_001"), chain=()),
)


def planned(origin: NodeId, job_id: JobId) -> SplitPlanned:
    return SplitPlanned(
        origin=origin,
        job_id=job_id,
        request=ModelRequest(model_name="m"),
        plan_id=PLAN.plan_id,
        model_name="m",
        revision="r",
        strategy="pipeline",
        node_ids=(),
        bottleneck_s=1.0,
        plan=Document.of_small(msgspec.json.encode(PLAN)),
        metadata=Document.of_small(b"{}"),
    )


async def test_a_deadline_ends_the_newest_plan_of_its_request(bus: Bus, settings: Settings) -> None:
    requested = ModelRequested(
        origin=NodeId("node_001"),
        job_id=JobId("job-1"),
        request=ModelRequest(model_name="org/name", timeout_s=1.0),
    )
    planned = SplitPlanned(
        origin=requested.origin,
        job_id=requested.job_id,
        generation=2,
        request=requested.request,
        plan_id=PlanId("anew"),
        model_name="org/name",
        revision="",
        strategy="pipeline",
        node_ids=(NodeId("node_001"),),
        bottleneck_s=1.0,
        plan=Document.of_small(b"{}"),
        metadata=Document.of_small(b"{}"),
    )
    await bus.facts.say(requested)
    await bus.facts.say(planned)
    async with running(bus, settings, build(settings, bus)):
        with anyio.fail_after(20):
            said = await bus.facts.wait(JOB_ENDED, job_id=requested.job_id)
    assert isinstance(said.fact, JobFailed)
    assert (said.fact.generation, said.fact.stage) == (2, "deadline")
