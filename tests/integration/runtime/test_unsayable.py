"""What cannot be said on a real server ends as a failure or a dead letter, not the service."""

from collections.abc import Iterable

import anyio
import msgspec
import pytest

from config.settings import Settings
from messages.base import Fact
from messages.failures import Permanent
from messages.ids import JobId
from messages.jobs import JobFailed, ModelRequested
from messages.models import ModelDownloaded
from messages.subjects import JOB_ENDED, MODEL_DOWNLOADED, MODEL_REQUESTED
from messages.wire import encode
from services.runtime import names
from services.runtime.actor import Actor
from services.runtime.bus import Bus
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

OTHER = msgspec.structs.replace(REQUESTED, job_id=JobId("job-2"))
ENDED = JOB_ENDED.where(origin=NODE, job_id=JOB, generation=1)


def too_large(requested: ModelRequested) -> ModelDownloaded:
    """More than any server takes in a message."""
    return msgspec.structs.replace(
        downloaded(requested), files_downloaded=tuple(f"{k:01000d}" for k in range(1100))
    )


async def still_works(bus: Bus, actor: Actor) -> None:
    """The next job is handled, the message before it acknowledged."""
    await bus.facts.say(OTHER)
    with anyio.fail_after(30):
        await bus.facts.wait(MODEL_DOWNLOADED, job_id=OTHER.job_id)
    await acknowledged(bus)
    assert not actor.lacking()


async def test_a_fact_too_large_for_a_message_fails_its_job_and_the_next_is_handled(
    bus: Bus, settings: Settings
) -> None:
    handled: list[JobId] = []

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        handled.append(requested.job_id)
        return (too_large(requested) if requested.job_id == JOB else downloaded(requested),)

    async with running(bus, settings, downloader(handle)) as actor:
        await bus.facts.say(REQUESTED)
        fact = (await ended(bus)).fact
        assert isinstance(fact, JobFailed)
        assert "more than a message of this NATS server may hold" in fact.reason
        assert "max_payload" in fact.advice
        await still_works(bus, actor)
    assert handled == [JOB, OTHER.job_id]


async def test_a_refusal_longer_than_a_message_is_cut_and_still_ends_its_job(
    bus: Bus, settings: Settings
) -> None:
    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        if requested.job_id == JOB:
            raise Permanent("no " * 500_000, advice="ask " * 500_000)
        return (downloaded(requested),)

    async with running(bus, settings, downloader(handle)) as actor:
        await bus.facts.say(REQUESTED)
        fact = (await ended(bus)).fact
        assert isinstance(fact, JobFailed)
        assert (fact.reason[:6], fact.advice[:8]) == ("no no ", "ask ask ")
        await still_works(bus, actor)


async def test_a_failure_that_finds_its_place_unreadable_is_a_dead_letter_and_no_loop(
    bus: Bus, settings: Settings
) -> None:
    js = bus.client.jetstream()

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        if requested.job_id == JOB:
            await js.publish(ENDED, b"nobody reads this")
            raise Permanent("refused")
        return (downloaded(requested),)

    async with running(bus, settings, downloader(handle)) as actor:
        await bus.facts.say(REQUESTED)
        await acknowledged(bus)
        await still_works(bus, actor)
    (letter,) = await dead_letters(bus)
    assert letter.payload == encode(REQUESTED)
    assert "not a" in letter.error


async def test_an_unreadable_message_of_a_job_with_an_unreadable_ending_is_one_dead_letter(
    bus: Bus, settings: Settings
) -> None:
    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        return (downloaded(requested),)

    async with running(bus, settings, downloader(handle)) as actor:
        js = bus.client.jetstream()
        await js.publish(ENDED, b"nobody reads this")
        await js.publish(MODEL_REQUESTED.of(REQUESTED), b"nor this")
        await acknowledged(bus)
        await still_works(bus, actor)
    (letter,) = await dead_letters(bus)
    assert letter.payload == b"nor this"


@pytest.mark.parametrize("where", ["its end", "a newer plan"])
async def test_an_ending_that_cannot_be_read_is_one_and_an_unreadable_plan_is_none(
    bus: Bus, settings: Settings, where: str
) -> None:
    handled: list[JobId] = []

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        handled.append(requested.job_id)
        return (downloaded(requested),)

    plan = f"williw.split.planned.{NODE}.{JOB}.2"
    await bus.client.jetstream().publish(ENDED if where == "its end" else plan, b"?")
    async with running(bus, settings, downloader(handle)) as actor:
        await bus.facts.say(REQUESTED)
        await still_works(bus, actor)
    assert handled == ([OTHER.job_id] if where == "its end" else [JOB, OTHER.job_id])
    assert await dead_letters(bus) == []


async def test_what_is_no_trace_is_not_carried_from_fact_to_fact(
    bus: Bus, settings: Settings
) -> None:
    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        return (downloaded(requested),)

    js = bus.client.jetstream()
    async with running(bus, settings, downloader(handle)):
        await js.publish(
            MODEL_REQUESTED.of(REQUESTED),
            encode(REQUESTED),
            headers={"traceparent": "x" * 65_000},
        )
        with anyio.fail_after(30):
            await bus.facts.wait(MODEL_DOWNLOADED, job_id=JOB)
    raw = await js.get_last_msg(names.FACTS_STREAM, MODEL_DOWNLOADED.of(downloaded(REQUESTED)))
    assert len((raw.headers or {})["traceparent"]) == 55


async def test_what_somebody_sends_to_a_services_own_inbox_is_dropped(
    bus: Bus, settings: Settings
) -> None:
    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        return (downloaded(requested),)

    inboxes: set[str] = set()

    async def hear(message: object) -> None:
        inboxes.add(str(getattr(message, "reply", "")))

    await bus.client.subscribe("$JS.API.CONSUMER.MSG.NEXT.>", cb=hear)
    async with running(bus, settings, downloader(handle)) as actor:
        await until(lambda: bool(inboxes))
        for inbox in tuple(inboxes):
            await bus.client.publish(inbox, encode(REQUESTED))
            await bus.client.publish(inbox, encode(REQUESTED), reply="$JS.ACK.x")
        await bus.client.flush()
        await still_works(bus, actor)
    assert await bus.facts.count(MODEL_DOWNLOADED, job_id=JOB) == 0
