"""The actor on a real server: one message in, facts out, whatever happens in between."""

from collections.abc import Iterable

import anyio
import msgspec
import pytest

from config import logging
from config.settings import Logging, Settings
from messages.base import Fact
from messages.failures import Passing, Permanent
from messages.ids import JobId, NodeId
from messages.jobs import JobFailed, ModelRequest, ModelRequested
from messages.models import ModelDownloaded
from messages.progress import Progress
from messages.subjects import MODEL_DOWNLOADED, MODEL_REQUEST, MODEL_REQUESTED
from messages.wire import decode, encode
from services.runtime import names, progress
from services.runtime.bus import Bus
from services.runtime.service import NotYet, Route, Service
from tests.bus_fixture import running, until
from tests.integration.runtime.acting import (
    JOB,
    NODE,
    REQUESTED,
    acknowledged,
    dead_letters,
    downloaded,
    downloader,
    ended,
)


async def test_what_a_handler_returns_is_said_and_its_message_acknowledged(
    bus: Bus, settings: Settings
) -> None:
    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        return (downloaded(requested),)

    async with running(bus, settings, downloader(handle)):
        await bus.facts.say(REQUESTED)
        with anyio.fail_after(10):
            said = await bus.facts.wait(MODEL_DOWNLOADED, origin=NODE, job_id=JOB)
        assert said.fact == downloaded(REQUESTED)
        await acknowledged(bus)


async def test_a_refusal_ends_the_job_with_its_reason_and_advice(
    bus: Bus, settings: Settings
) -> None:
    async def handle(_: ModelRequested) -> Iterable[Fact]:
        raise Permanent("no such model hf_abcdefghijklmnop", advice="check the name")

    logging.setup(Logging(format="json"), terminal=False)
    async with running(bus, settings, downloader(handle)):
        await bus.facts.say(REQUESTED)
        fact = (await ended(bus)).fact
    assert isinstance(fact, JobFailed)
    assert (fact.stage, fact.reason, fact.advice, fact.node_id) == (
        "downloader",
        "no such model ***",
        "check the name",
        NODE,
    )


async def test_passing_trouble_is_tried_again_and_then_no_more_is_heard_of_it(
    bus: Bus, settings: Settings
) -> None:
    tries: list[ModelRequested] = []

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        tries.append(requested)
        if len(tries) < 3:
            raise Passing("the Hub answers 503")
        return (downloaded(requested),)

    async with running(bus, settings, downloader(handle)):
        await bus.facts.say(REQUESTED)
        with anyio.fail_after(20):
            await bus.facts.wait(MODEL_DOWNLOADED, job_id=JOB)
        await acknowledged(bus)
    assert len(tries) == 3
    assert await dead_letters(bus) == []


async def test_who_asks_for_patience_is_not_asked_again_before(
    bus: Bus, settings: Settings
) -> None:
    tries: list[float] = []

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        tries.append(anyio.current_time())
        if len(tries) == 1:
            raise Passing("the Hub answers 429", after_s=1.5)
        return (downloaded(requested),)

    async with running(bus, settings, downloader(handle)):
        await bus.facts.say(REQUESTED)
        with anyio.fail_after(20):
            await bus.facts.wait(MODEL_DOWNLOADED, job_id=JOB)
    assert tries[1] - tries[0] >= 1.4


@pytest.mark.parametrize("error", [Passing("down"), ValueError("a bug")])
async def test_trouble_that_does_not_pass_fails_the_job_and_leaves_a_dead_letter(
    bus: Bus, settings: Settings, error: Exception
) -> None:
    tries: list[ModelRequested] = []

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        tries.append(requested)
        raise error

    async with running(bus, settings, downloader(handle)):
        await bus.facts.say(REQUESTED)
        fact = (await ended(bus)).fact
        await acknowledged(bus)
    assert len(tries) == settings.bus.max_deliver
    assert isinstance(fact, JobFailed)
    assert str(error) in fact.reason
    (letter,) = await dead_letters(bus)
    assert (letter.service, letter.attempts) == ("downloader", settings.bus.max_deliver)
    assert decode(letter.payload, ModelRequested) == REQUESTED


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"origin":"node_001","job_id":"job-1","request":{"model_name":"../etc"}}',
        encode(msgspec.structs.replace(REQUESTED, origin=NodeId("node_002"))),
        encode(msgspec.structs.replace(REQUESTED, job_id=JobId("job-2"))),
    ],
)
async def test_a_message_that_is_not_what_it_should_be_is_buried_and_its_job_told(
    bus: Bus, settings: Settings, body: bytes
) -> None:
    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        return (downloaded(requested),)

    async with running(bus, settings, downloader(handle)):
        await bus.client.jetstream().publish(f"williw.model.requested.{NODE}.job-1.1", body)
        fact = (await ended(bus)).fact
        await acknowledged(bus)
    assert isinstance(fact, JobFailed)
    assert (fact.origin, fact.job_id) == (NODE, JOB)
    (letter,) = await dead_letters(bus)
    assert letter.payload == body
    assert await bus.facts.count(MODEL_DOWNLOADED) == 0


async def test_stopping_lets_handlers_finish_and_hands_back_those_that_do_not(
    bus: Bus, settings: Settings
) -> None:
    began = anyio.Event()

    async def slow(_: ModelRequested) -> Iterable[Fact]:
        began.set()
        await anyio.sleep_forever()
        return ()

    async def quick(requested: ModelRequested) -> Iterable[Fact]:
        return (downloaded(requested),)

    impatient = msgspec.structs.replace(
        settings, bus=msgspec.structs.replace(settings.bus, grace_s=0.2, lease_s=60.0)
    )
    async with running(bus, impatient, downloader(slow)):
        await bus.facts.say(REQUESTED)
        await began.wait()
    async with running(bus, impatient, downloader(quick)):
        with anyio.fail_after(10):  # far sooner than its lease of a minute ends
            await bus.facts.wait(MODEL_DOWNLOADED, job_id=JOB)


async def test_a_patient_route_is_asked_again_when_it_said(bus: Bus, settings: Settings) -> None:
    tries: list[float] = []

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        tries.append(anyio.current_time())
        if len(tries) <= settings.bus.max_deliver + 1:
            raise NotYet(0.05)
        return (downloaded(requested),)

    async with running(bus, settings, downloader(handle, patient=True)):
        await bus.facts.say(REQUESTED)
        with anyio.fail_after(20):
            await bus.facts.wait(MODEL_DOWNLOADED, job_id=JOB)
    assert len(tries) == settings.bus.max_deliver + 2
    assert await dead_letters(bus) == []


async def test_progress_reported_from_a_thread_is_published(bus: Bus, settings: Settings) -> None:
    heard: list[Progress] = []
    release = anyio.Event()

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        await anyio.to_thread.run_sync(progress.report, 30, 100)
        await anyio.to_thread.run_sync(progress.report, 10, 100)
        await release.wait()
        progress.report(100, 100)
        return (downloaded(requested),)

    await bus.hear_progress(heard.append, JOB)
    async with running(bus, settings, downloader(handle)):
        await bus.facts.say(REQUESTED)
        await until(lambda: len(heard) >= 1)
        release.set()
        await until(lambda: len(heard) >= 2)
    assert [(p.done, p.total, p.stage, p.node_id) for p in heard] == [
        (30, 100, "downloader", NODE),
        (100, 100, "downloader", NODE),
    ]


async def test_a_request_without_an_id_gets_one_from_its_place_in_the_log(
    bus: Bus, settings: Settings
) -> None:
    seen: list[JobId | None] = []

    async def handle(request: ModelRequest) -> Iterable[Fact]:
        seen.append(request.job_id)
        if len(seen) < 2:
            raise Passing("once more")
        return ()

    service = Service("requester", routes=(Route(MODEL_REQUEST, handle),))
    async with running(bus, settings, service):
        await bus.client.publish("williw.model.request", b'{"model_name":"org/name"}')
        await until(lambda: len(seen) == 2)
    assert seen[0] is not None
    assert seen[0] == seen[1]


async def test_a_trace_is_carried_from_fact_to_fact(bus: Bus, settings: Settings) -> None:
    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        return (downloaded(requested),)

    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    js = bus.client.jetstream()
    async with running(bus, settings, downloader(handle)):
        await js.publish(
            MODEL_REQUESTED.of(REQUESTED), encode(REQUESTED), headers={"traceparent": trace}
        )
        with anyio.fail_after(10):
            await bus.facts.wait(MODEL_DOWNLOADED, job_id=JOB)
    raw = await js.get_last_msg(names.FACTS_STREAM, MODEL_DOWNLOADED.of(downloaded(REQUESTED)))
    assert (raw.headers or {})["traceparent"] == trace


async def test_many_facts_of_one_handler_are_each_said_once_though_one_is_too_large(
    bus: Bus, settings: Settings
) -> None:
    def numbered(requested: ModelRequested, number: int) -> ModelDownloaded:
        path = "/" * (2 << 20) if number == 7 else "/models/x"
        job_id = JobId(f"job-{number}")
        return downloaded(msgspec.structs.replace(requested, job_id=job_id), path)

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        return [numbered(requested, number) for number in range(100)]

    async with running(bus, settings, downloader(handle)):
        await bus.facts.say(REQUESTED)
        await acknowledged(bus)
    said = [fact.fact.job_id for fact in await bus.facts.read(MODEL_DOWNLOADED)]
    assert sorted(said) == sorted(f"job-{n}" for n in range(100) if n != 7)
    failed = (await ended(bus)).fact
    assert isinstance(failed, JobFailed)
    assert "more than a message" in failed.reason
