"""A durable consumer that somebody deletes while its service runs is made again."""

from collections.abc import Iterable

import anyio
import msgspec
import pytest
from nats.js.api import DeliverPolicy
from nats.js.errors import NotFoundError

from config.settings import Settings
from messages.base import Fact
from messages.ids import JobId
from messages.jobs import ModelRequested
from messages.subjects import MODEL_DOWNLOADED, MODEL_REQUESTED
from services.runtime import consumer, names, provision
from services.runtime.bus import Bus
from services.runtime.service import Service
from tests.bus_fixture import running, until
from tests.integration.runtime.acting import NODE, REQUESTED, acknowledged, downloaded, downloader

NAME = f"downloader-model_requested-{NODE}"


def job(number: int) -> ModelRequested:
    return msgspec.structs.replace(REQUESTED, job_id=JobId(f"job-{number}"))


def counting(handled: list[JobId]) -> Service:
    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        handled.append(requested.job_id)
        return (downloaded(requested),)

    return downloader(handle)


async def done(bus: Bus, number: int) -> None:
    with anyio.fail_after(60):
        await bus.facts.wait(MODEL_DOWNLOADED, job_id=f"job-{number}")


async def test_a_deleted_consumer_is_made_again_and_loses_no_message(
    bus: Bus, settings: Settings
) -> None:
    handled: list[JobId] = []
    js = bus.client.jetstream()
    async with running(bus, settings, counting(handled)) as actor:
        await bus.facts.say(job(1))
        await done(bus, 1)
        await js.delete_consumer(names.FACTS_STREAM, NAME)
        await bus.facts.say(job(2))
        await done(bus, 2)
        await until(lambda: not actor.lacking())
        await acknowledged(bus)
    assert set(handled) == {"job-1", "job-2"}


async def test_what_was_acknowledged_long_ago_is_not_done_again_after_it(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "_LOOK_S", 0.1)
    handled: list[JobId] = []
    js = bus.client.jetstream()
    async with running(bus, settings, counting(handled)) as actor:
        for number in range(5):
            await bus.facts.say(job(number))
        await acknowledged(bus)
        binding = actor.consumers[0]._binding
        last = (await bus.facts.read(MODEL_REQUESTED))[-1].sequence
        await until(lambda: binding._floor >= last)
        await js.delete_consumer(names.FACTS_STREAM, NAME)
        await bus.facts.say(job(5))
        await done(bus, 5)
        await acknowledged(bus)
    assert handled == [f"job-{number}" for number in range(6)]
    info = await js.consumer_info(names.FACTS_STREAM, NAME)
    assert info.config.deliver_policy == DeliverPolicy.BY_START_SEQUENCE
    await provision.provision_consumers(bus, settings, [counting([])])


async def test_work_in_hand_when_its_consumer_is_deleted_is_finished_once(
    bus: Bus, settings: Settings
) -> None:
    began, go = anyio.Event(), anyio.Event()
    handled: list[JobId] = []

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        handled.append(requested.job_id)
        began.set()
        await go.wait()
        return (downloaded(requested),)

    js = bus.client.jetstream()
    async with running(bus, settings, downloader(handle, slots=2)):
        await bus.facts.say(job(1))
        with anyio.fail_after(30):
            await began.wait()
        await js.delete_consumer(names.FACTS_STREAM, NAME)
        with anyio.fail_after(60):
            while not await _exists(bus):  # noqa: ASYNC110
                await anyio.sleep(0.1)
            # Delivered anew, it finds its message in hand.
            while not (await js.consumer_info(names.FACTS_STREAM, NAME)).num_ack_pending:  # noqa: ASYNC110
                await anyio.sleep(0.05)
        go.set()
        await done(bus, 1)
        await acknowledged(bus)
    assert handled == ["job-1"]


async def test_a_service_says_while_its_consumer_is_gone_that_it_does_not_consume(
    bus: Bus, settings: Settings
) -> None:
    async with running(bus, settings, counting([])) as actor:
        assert not actor.lacking()
        await bus.client.jetstream().delete_stream(names.FACTS_STREAM)
        await until(lambda: NAME in actor.lacking(), timeout_s=60)
        await provision.provision_storage(bus, settings)
        await until(lambda: not actor.lacking(), timeout_s=60)
        await bus.facts.say(job(1))
        await done(bus, 1)


async def _exists(bus: Bus) -> bool:
    try:
        await bus.client.jetstream().consumer_info(names.FACTS_STREAM, NAME)
    except NotFoundError:
        return False
    return True
