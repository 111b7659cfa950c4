"""What was heard is a hint: it saves questions, and the log alone says what is stored."""

from collections.abc import Iterable

import anyio
import msgspec
import pytest

from config.settings import Settings
from messages.base import Fact
from messages.ids import JobId
from messages.jobs import JobCancelled, ModelRequested
from messages.subjects import JOB_ENDED, MODEL_DOWNLOADED, MODEL_REQUESTED
from messages.wire import encode
from services.console.embedded import EmbeddedNats
from services.runtime import ears, factlog, over
from services.runtime.bus import Bus
from services.runtime.ears import Bell, Ears
from tests.bus_fixture import running, until
from tests.integration.runtime.acting import (
    JOB,
    NODE,
    REQUESTED,
    acknowledged,
    downloaded,
    downloader,
)
from tests.integration.runtime.asking import asked_of

EVERY = MODEL_REQUESTED.where()


def job(number: int) -> ModelRequested:
    return msgspec.structs.replace(REQUESTED, job_id=JobId(f"job-{number}"))


async def has_heard(heard: Ears, fact: ModelRequested) -> None:
    await until(lambda: heard.heard(EVERY, MODEL_REQUESTED.of(fact)))


async def test_what_was_said_since_it_listens_is_heard_and_nothing_before(bus: Bus) -> None:
    await bus.facts.say(job(1))
    heard = Ears(bus.client)
    await heard.listen(EVERY)
    await bus.facts.say(job(2))
    await has_heard(heard, job(2))
    assert not heard.heard(EVERY, MODEL_REQUESTED.of(job(1)))
    assert not heard.heard(JOB_ENDED.where(), MODEL_REQUESTED.of(job(2)))


async def test_it_covers_what_was_stored_a_while_after_it_began_to_listen(bus: Bus) -> None:
    heard = Ears(bus.client)
    now_s = 1_000_000.0
    assert not heard.covers(EVERY, now_s + 60)  # it does not listen
    await heard.listen(EVERY)
    assert not heard.covers(EVERY, now_s + 60)  # it does not know the server's time
    heard.set_clock(now_s, anyio.current_time())
    assert heard.covers(EVERY, now_s + 60)
    assert not heard.covers(EVERY, now_s + 1)
    assert not heard.covers(JOB_ENDED.where(), now_s + 60)


async def test_after_a_break_it_covers_only_what_came_since(
    bus: Bus, nats_server: EmbeddedNats
) -> None:
    heard = bus.facts.ears
    await heard.listen(EVERY)
    heard.set_clock(1_000_000.0, anyio.current_time())
    at = 1_000_000.0 + 60
    assert heard.covers(EVERY, at)
    nats_server.kill()
    await until(lambda: not bus.client.is_connected)
    assert not heard.covers(EVERY, at)
    nats_server.start()
    await until(lambda: bus.client.is_connected)
    began = anyio.current_time()
    assert heard.covers(EVERY, at)
    # Its clock runs on, so a time of before the break is the first that it no longer covers.
    await until(lambda: anyio.current_time() > began + 0.1)
    assert not heard.covers(EVERY, 1_000_000.0 + 5)
    await bus.facts.say(job(1))
    await has_heard(heard, job(1))


async def test_of_more_than_it_can_keep_it_covers_what_it_has_not_forgotten(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ears, "_KEPT", 2)
    monkeypatch.setattr(ears, "_MARGIN_S", 0.0)
    heard = Ears(bus.client)
    await heard.listen(EVERY)
    heard.set_clock(0.0, anyio.current_time())
    began = anyio.current_time()
    await bus.facts.say(job(0))
    await has_heard(heard, job(0))
    await until(lambda: anyio.current_time() > began + 0.2)
    before_the_others_s = anyio.current_time() - began
    assert heard.covers(EVERY, 0.1)
    for number in (1, 2, 3):
        await bus.facts.say(job(number))
        await has_heard(heard, job(number))
    assert not heard.heard(EVERY, MODEL_REQUESTED.of(job(0)))
    assert heard.heard(EVERY, MODEL_REQUESTED.of(job(3)))
    assert not heard.covers(EVERY, before_the_others_s)
    assert heard.covers(EVERY, anyio.current_time() - began)


async def test_a_bell_that_rang_for_nothing_rings_soon_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ears, "_RING_ANYWAY_S", 60.0)
    bell = Bell()
    bell.ring()
    with anyio.fail_after(10):
        await bell.wait()
        await bell.wait()
        await bell.wait()
    bell.ring()
    await bell.wait()
    with anyio.move_on_after(0.5) as too_long:
        await bell.wait(found=True)
    assert too_long.cancelled_caught


async def test_a_fact_that_would_have_been_heard_is_asked_for_when_it_is_said(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ears, "_RING_ANYWAY_S", 60.0)
    await bus.facts.ears.listen(EVERY)
    bus.facts.ears.set_clock(0.0, anyio.current_time())
    found: list[Fact] = []

    async def wait() -> None:
        factlog.in_hand_since.set(3600.0)
        ids = {"origin": NODE, "job_id": JOB, "generation": 1}
        found.append((await bus.facts.wait(MODEL_REQUESTED, **ids)).fact)

    async with asked_of(bus) as questions, anyio.create_task_group() as group:
        group.start_soon(wait)
        await bus.facts.say(job(2))
        await has_heard(bus.facts.ears, job(2))
        assert questions == []
        await bus.facts.say(REQUESTED)
        await until(lambda: bool(found))
    assert found == [REQUESTED]


async def test_a_fact_said_before_anybody_listened_is_found_at_once(bus: Bus) -> None:
    await bus.facts.say(REQUESTED)
    await bus.facts.ears.listen(EVERY)
    bus.facts.ears.set_clock(0.0, anyio.current_time())
    began = anyio.current_time()
    said = await bus.facts.wait(MODEL_REQUESTED, origin=NODE, job_id=JOB, generation=1)
    assert said.fact == REQUESTED
    assert anyio.current_time() - began < ears._RING_ANYWAY_S


async def test_a_first_delivery_asks_nothing_where_its_end_would_have_been_heard(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        return (downloaded(requested),)

    async def done(number: int) -> None:
        await bus.facts.say(job(number))
        with anyio.fail_after(20):
            await bus.facts.wait(MODEL_DOWNLOADED, job_id=f"job-{number}")

    async with running(bus, settings, downloader(handle)):
        await done(1)
        async with asked_of(bus, "$JS.API.DIRECT.GET.WILLIW") as questions:
            await done(2)
            assert len(questions) == 1  # it has not listened for long
            monkeypatch.setattr(ears, "_MARGIN_S", -60.0)
            await done(3)
            assert len(questions) == 1
    assert await bus.facts.count(MODEL_DOWNLOADED) == 3


@pytest.mark.parametrize("stored", [True, False])
async def test_an_end_that_was_heard_counts_only_where_it_is_stored(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch, *, stored: bool
) -> None:
    monkeypatch.setattr(ears, "_MARGIN_S", -60.0)
    handled: list[JobId] = []

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        handled.append(requested.job_id)
        return ()

    ended = JobCancelled(origin=NODE, job_id=JOB)
    async with running(bus, settings, downloader(handle)):
        # The server compares what should be there, finds nothing, and stores nothing.
        refused = {"Nats-Expected-Last-Subject-Sequence": "99"}
        headers = None if stored else refused
        await bus.client.publish(JOB_ENDED.of(ended), encode(ended), headers=headers)
        await until(lambda: bus.facts.ears.heard(JOB_ENDED.where(), JOB_ENDED.of(ended)))
        await bus.facts.say(REQUESTED)
        await acknowledged(bus)
    assert handled == ([] if stored else [JOB])
    assert await bus.facts.count(JOB_ENDED) == int(stored)


async def test_a_handler_ends_as_soon_as_the_end_of_its_job_is_heard(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No look for its own sake: only what is heard makes one.
    monkeypatch.setattr("services.runtime.attendance._LOOK_EVERY_TICKS", 1_000_000)
    began, stopped = anyio.Event(), anyio.Event()

    async def handle(_requested: ModelRequested) -> Iterable[Fact]:
        began.set()
        try:
            await anyio.sleep_forever()
        finally:
            stopped.set()
        return ()

    async with running(bus, settings, downloader(handle)):
        await bus.facts.say(REQUESTED)
        await began.wait()
        await bus.facts.say(JobCancelled(origin=NODE, job_id=JOB))
        with anyio.fail_after(10):
            await stopped.wait()
        await acknowledged(bus)


async def test_following_what_is_listened_to_takes_no_subscription_of_its_own(bus: Bus) -> None:
    await bus.facts.ears.listen(EVERY)
    before, found = len(bus.client._subs), list[Fact]()

    async def follow() -> None:
        async for said in bus.facts.follow(EVERY):
            assert len(bus.client._subs) == before
            found.append(said.fact)

    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        await bus.facts.say(job(1))
        await until(lambda: len(found) == 1)
        await bus.facts.say(job(2))
        await until(lambda: len(found) == 2)
        group.cancel_scope.cancel()
    assert found == [job(1), job(2)]
    assert not bus.facts.ears._bells


async def test_a_look_that_fails_by_a_bug_ends_neither_the_handler_nor_the_service(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    async def broken(*_: object, **__: object) -> bool:
        nonlocal looks
        looks += 1
        raise KeyError("Nats-Subject")

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        monkeypatch.setattr(over, "is_over", broken)
        await until(lambda: looks >= 2)
        return (downloaded(requested),)

    async with running(bus, settings, downloader(handle)):
        await bus.facts.say(REQUESTED)
        with anyio.fail_after(20):
            await bus.facts.wait(MODEL_DOWNLOADED, job_id=JOB)
        await acknowledged(bus)
