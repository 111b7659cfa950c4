"""What a reader has the server send on to a subject of the stream is stored, and not obeyed."""

import json
from collections.abc import Iterable

import anyio
import pytest

from config.settings import Settings
from messages.base import Fact
from messages.ids import JobId
from messages.jobs import ModelRequest, ModelRequested
from messages.subjects import (
    API_NODES,
    API_REQUEST,
    API_STATUS,
    JOB_ENDED,
    MODEL_DOWNLOADED,
    MODEL_REQUEST,
    MODEL_REQUESTED,
)
from messages.wire import encode
from services.requester.service import build
from services.runtime import names
from services.runtime.bus import Bus
from services.runtime.service import Route, Service
from tests.bus_fixture import running
from tests.integration.runtime.acting import (
    REQUESTED,
    acknowledged,
    dead_letters,
    downloaded,
    downloader,
)

READ = f"$JS.API.DIRECT.GET.{names.FACTS_STREAM}"


async def stored(bus: Bus) -> int:
    info = await bus.client.jetstream().stream_info(names.FACTS_STREAM)
    return int(info.state.messages)


@pytest.mark.parametrize(
    "question", [{"seq": 1}, {"seq": 1, "next_by_subj": "williw.>", "batch": 5}]
)
async def test_a_stored_request_that_a_reader_has_sent_on_starts_no_second_job(
    bus: Bus, settings: Settings, question: dict[str, object]
) -> None:
    seen: list[JobId | None] = []

    async def handle(request: ModelRequest) -> Iterable[Fact]:
        seen.append(request.job_id)
        return ()

    js = bus.client.jetstream()
    await js.publish(MODEL_REQUEST.where(), b'{"model_name":"org/name"}')
    before = await stored(bus)
    await bus.client.publish(READ, json.dumps(question).encode(), reply=MODEL_REQUEST.where())
    with anyio.fail_after(30):
        while await stored(bus) == before:  # noqa: ASYNC110
            await anyio.sleep(0.02)
    await js.publish(MODEL_REQUEST.where(), encode(ModelRequest(model_name="m", job_id=JobId("z"))))
    service = Service("requester", routes=(Route(MODEL_REQUEST, handle),))
    async with running(bus, settings, service):
        with anyio.fail_after(30):
            while "z" not in seen or await _left(bus):  # noqa: ASYNC110
                await anyio.sleep(0.02)
    assert len(seen) == 2
    assert await dead_letters(bus) == []


async def test_a_stored_fact_that_a_reader_has_sent_on_is_refused_by_the_server(
    bus: Bus, settings: Settings
) -> None:
    handled: list[ModelRequested] = []

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        handled.append(requested)
        return (downloaded(requested),)

    async with running(bus, settings, downloader(handle)):
        await bus.facts.say(REQUESTED)
        with anyio.fail_after(30):
            await bus.facts.wait(MODEL_DOWNLOADED, job_id=REQUESTED.job_id)
        before = await stored(bus)
        await bus.client.publish(READ, b'{"seq": 1}', reply=MODEL_REQUESTED.of(REQUESTED))
        await bus.client.flush()
        await acknowledged(bus)
    assert handled == [REQUESTED]
    assert await stored(bus) == before


async def test_a_stored_request_that_a_reader_has_sent_to_an_endpoint_starts_no_job(
    bus: Bus, settings: Settings
) -> None:
    request = ModelRequest(model_name="m", job_id=JobId("mine"))
    await bus.client.jetstream().publish(MODEL_REQUEST.of(request), encode(request))
    async with running(bus, settings, build(settings, bus)):
        with anyio.fail_after(30):
            await bus.facts.wait(MODEL_REQUESTED, job_id="mine")
        before = await stored(bus)
        await bus.client.publish(READ, b'{"seq": 1}', reply=API_REQUEST.subject)
        await bus.client.flush()
        # Asked after it and answered, so that one was passed over before.
        last = await bus.ask(API_REQUEST, ModelRequest(model_name="m", job_id=JobId("last")))
        with anyio.fail_after(30):
            await bus.facts.wait(MODEL_REQUESTED, job_id=last.job_id)
    assert await stored(bus) == before + 2


async def test_an_answer_that_would_go_to_a_subject_of_the_stream_is_not_given(
    bus: Bus, settings: Settings
) -> None:
    ended = JOB_ENDED.where(origin="node_001", job_id="mine", generation=1)
    async with running(bus, settings, build(settings, bus)):
        for body in (b"{}", b"nonsense"):
            await bus.client.publish(API_STATUS.subject, body, reply=ended)
        await bus.client.publish(API_STATUS.subject, b"{}")
        # Asked after them and answered.
        await bus.ask(API_NODES, API_NODES.question())
    assert await bus.facts.last(JOB_ENDED, job_id="mine") is None


async def _left(bus: Bus) -> int:
    js = bus.client.jetstream()
    info = await js.consumer_info(names.FACTS_STREAM, "requester-model_request")
    return int((info.num_pending or 0) + (info.num_ack_pending or 0))
