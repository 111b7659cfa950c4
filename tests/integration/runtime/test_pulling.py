"""Requests for messages: several for one, over when the server says so or is gone."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import anyio
import msgspec
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig

from config.settings import Settings
from messages.base import Fact
from messages.ids import JobId
from messages.jobs import ModelRequested
from messages.subjects import MODEL_DOWNLOADED
from services.console.embedded import EmbeddedNats
from services.runtime import names
from services.runtime.bus import Bus
from services.runtime.pulling import Pull
from tests.bus_fixture import running, until
from tests.integration.runtime.acting import NODE, REQUESTED, acknowledged, downloaded, downloader
from tests.integration.runtime.asking import asked_of

NAME = f"downloader-model_requested-{NODE}"
NEXT = f"$JS.API.CONSUMER.MSG.NEXT.{names.FACTS_STREAM}.{NAME}"


def job(number: int) -> ModelRequested:
    return msgspec.structs.replace(REQUESTED, job_id=JobId(f"job-{number}"))


class Pulled:
    """A pull, what it took and why it was refused."""

    def __init__(self, bus: Bus, consumer: str = "reader") -> None:
        self.taken: list[Msg] = []
        self.refusals: list[str] = []
        self.pull = Pull(
            bus.client, names.FACTS_STREAM, consumer, self.taken.append, self.refusals.append
        )


class Crowd:
    """Handlers that wait for `go`: how many are at work, and the most that ever were."""

    def __init__(self) -> None:
        self.go, self.at_work, self.most = anyio.Event(), 0, 0

    async def handle(self, requested: ModelRequested) -> Iterable[Fact]:
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        await self.go.wait()
        self.at_work -= 1
        return (downloaded(requested),)


@asynccontextmanager
async def pulling(bus: Bus) -> AsyncIterator[Pulled]:
    config = ConsumerConfig(durable_name="reader", ack_policy="explicit")
    await bus.client.jetstream().add_consumer(names.FACTS_STREAM, config)
    pulled = Pulled(bus)
    await pulled.pull.open()
    yield pulled
    await pulled.pull.close()


async def test_one_request_brings_as_many_messages_as_it_asks_for(bus: Bus) -> None:
    for number in range(5):
        await bus.facts.say(job(number))
    async with pulling(bus) as pulled:
        await pulled.pull.ask(3)
        await until(lambda: len(pulled.taken) == 3)
        assert pulled.pull.due == 0
        await pulled.pull.ask(3)
        await until(lambda: len(pulled.taken) == 5)
        assert pulled.pull.due == 1
        await bus.facts.say(job(5))
        await until(lambda: len(pulled.taken) == 6)
    assert pulled.refusals == []


async def test_a_request_that_brings_nothing_is_over_by_itself(bus: Bus) -> None:
    async with pulling(bus) as pulled:
        await pulled.pull.ask(3)
        assert pulled.pull.due == 3
        await until(lambda: bool(pulled.refusals))
        assert pulled.pull.due == 0
    assert pulled.refusals == [""]


async def test_a_request_to_a_server_that_dies_is_over_at_last(
    bus: Bus, nats_server: EmbeddedNats
) -> None:
    async with pulling(bus) as pulled:
        await pulled.pull.ask(3)
        await bus.client.flush()
        nats_server.kill()
        assert 0 < pulled.pull.left_s < 2
        await until(lambda: pulled.pull.due == 0)
        assert pulled.pull.left_s == 0
        nats_server.start()
        await until(lambda: bus.client.is_connected)
    assert pulled.refusals == []


async def test_a_request_to_a_consumer_that_is_not_there_is_refused_with_a_reason(bus: Bus) -> None:
    pulled = Pulled(bus, "nobody")
    await pulled.pull.open()
    await pulled.pull.ask(1)
    await until(lambda: bool(pulled.refusals))
    assert pulled.refusals[0].startswith("503")
    assert pulled.pull.due == 0


async def test_messages_that_come_in_a_burst_take_few_requests(
    bus: Bus, settings: Settings
) -> None:
    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        return (downloaded(requested),)

    for number in range(64):
        await bus.facts.say(job(number))
    async with (
        asked_of(bus, NEXT) as requests,
        running(bus, settings, downloader(handle, slots=16)),
    ):
        with anyio.fail_after(30):
            for number in range(64):
                await bus.facts.wait(MODEL_DOWNLOADED, job_id=f"job-{number}")
        made = len(requests)
    assert await bus.facts.count(MODEL_DOWNLOADED) == 64
    assert 4 <= made < 32


async def test_no_more_are_in_hand_than_there_are_slots(bus: Bus, settings: Settings) -> None:
    crowd = Crowd()
    async with running(bus, settings, downloader(crowd.handle, slots=3)):
        for number in range(10):
            await bus.facts.say(job(number))
        await until(lambda: crowd.at_work == 3)
        crowd.go.set()
        await acknowledged(bus)
    assert crowd.most == 3
    assert await bus.facts.count(MODEL_DOWNLOADED) == 10


async def test_what_comes_to_a_service_that_stops_is_handed_back(
    bus: Bus, settings: Settings
) -> None:
    handled: list[JobId] = []

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        handled.append(requested.job_id)
        return (downloaded(requested),)

    js = bus.client.jetstream()
    async with running(bus, settings, downloader(handle)) as actor:
        actor.consumers[0]._stopping = True
        await bus.facts.say(job(1))
        with anyio.fail_after(20):
            while not (await js.consumer_info(names.FACTS_STREAM, NAME)).num_redelivered:  # noqa: ASYNC110
                await anyio.sleep(0.05)
        assert handled == []
        actor.consumers[0]._stopping = False
        await acknowledged(bus)
    assert handled == ["job-1"]


async def test_requests_that_are_served_after_all_fill_no_slot_twice(
    bus: Bus, settings: Settings
) -> None:
    crowd = Crowd()
    async with running(bus, settings, downloader(crowd.handle)) as actor:
        consumer = actor.consumers[0]
        for number in range(6):
            await bus.facts.say(job(number))
        await until(lambda: crowd.at_work == 1)
        await consumer._pull.ask(4)
        await until(lambda: len(consumer._waiting) == 4)
        crowd.go.set()
        await acknowledged(bus)
    assert crowd.most == 1
    assert await bus.facts.count(MODEL_DOWNLOADED) == 6
