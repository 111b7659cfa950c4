"""Work in hand on a real server: held, cancelled, superseded, shared, and outliving a kill."""

from collections.abc import Iterable

import anyio
import msgspec
import pytest
from nats.aio.msg import Msg

from config.settings import Settings
from messages.base import Fact
from messages.failures import Passing
from messages.ids import JobId
from messages.jobs import JobCancelled, JobFailed, ModelRequested
from messages.subjects import MODEL_DOWNLOADED
from services.console.embedded import EmbeddedNats
from services.runtime.attendance import Attendance
from services.runtime.bus import Bus, open_bus
from services.runtime.service import Service
from tests.bus_fixture import running, until
from tests.integration.runtime.acting import (
    JOB,
    NODE,
    REQUESTED,
    acknowledged,
    dead_letters,
    downloaded,
    downloader,
)


async def test_a_slow_handler_keeps_its_lease(bus: Bus, settings: Settings) -> None:
    began: list[float] = []
    release = anyio.Event()

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        began.append(anyio.current_time())
        await release.wait()
        return (downloaded(requested),)

    async with running(bus, settings, downloader(handle, slots=4)):
        await bus.facts.say(REQUESTED)
        await until(lambda: bool(began))
        # Past two leases a message that was not kept would have come again.
        await until(lambda: anyio.current_time() > began[0] + 2 * settings.bus.lease_s + 1)
        release.set()
        with anyio.fail_after(10):
            await bus.facts.wait(MODEL_DOWNLOADED, job_id=JOB)
        await acknowledged(bus)
    assert len(began) == 1


async def test_deliveries_that_meet_the_work_in_hand_are_not_tries(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(_: Attendance) -> None:
        """Renewals that go nowhere, as to a server that is cut off."""

    came = 0
    tries: list[ModelRequested] = []
    renew = Attendance.renew

    def counted(self: Attendance, msg: Msg) -> None:
        nonlocal came
        came += 1
        renew(self, msg)

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        tries.append(requested)
        if len(tries) == 1:
            await until(lambda: came > settings.bus.max_deliver)
            raise Passing("the bus did not answer")
        return (downloaded(requested),)

    monkeypatch.setattr(Attendance, "_hold", lost)
    monkeypatch.setattr(Attendance, "renew", counted)
    short = msgspec.structs.replace(settings, bus=msgspec.structs.replace(settings.bus, lease_s=1))
    async with running(bus, short, downloader(handle, slots=2)):
        await bus.facts.say(REQUESTED)
        with anyio.fail_after(40):
            await bus.facts.wait(MODEL_DOWNLOADED, job_id=JOB)
        await acknowledged(bus)
    assert len(tries) == 2
    assert await dead_letters(bus) == []


async def test_cancelling_a_job_stops_its_handler_within_two_seconds_and_no_other(
    bus: Bus, settings: Settings
) -> None:
    at_work: set[str] = set()
    stopped: dict[str, float] = {}

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        at_work.add(requested.job_id)
        try:
            await anyio.sleep_forever()
        finally:
            stopped[requested.job_id] = anyio.current_time()
        return ()

    other = msgspec.structs.replace(REQUESTED, job_id=JobId("job-2"))
    async with running(bus, settings, downloader(handle, slots=2)) as actor:
        await bus.facts.say(REQUESTED)
        await bus.facts.say(other)
        await until(lambda: at_work == {"job-1", "job-2"})
        said_at = anyio.current_time()
        await bus.facts.say(JobCancelled(origin=NODE, job_id=JOB))
        await until(lambda: "job-1" in stopped)
        assert stopped["job-1"] - said_at < 2
        assert "job-2" not in stopped
        await bus.facts.say(JobCancelled(origin=NODE, job_id=other.job_id))
        await until(lambda: actor.consumers[0].in_flight == 0)
        await acknowledged(bus)


async def test_work_of_an_older_generation_is_dropped(bus: Bus, settings: Settings) -> None:
    handled: list[int] = []

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        handled.append(requested.generation)
        return (downloaded(requested),)

    await bus.facts.say(REQUESTED)
    await bus.facts.say(JobFailed(origin=NODE, job_id=JOB, stage="x", reason="y"))
    await bus.facts.say(msgspec.structs.replace(REQUESTED, generation=2))
    async with running(bus, settings, downloader(handle)):
        with anyio.fail_after(10):
            await bus.facts.wait(MODEL_DOWNLOADED, job_id=JOB, generation=2)
        await acknowledged(bus)
    assert handled == [2]


async def test_a_server_killed_while_a_handler_works_costs_nothing(
    bus: Bus, settings: Settings, nats_server: EmbeddedNats
) -> None:
    began = anyio.Event()
    release = anyio.Event()

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        began.set()
        await release.wait()
        return (downloaded(requested),)

    async with running(bus, settings, downloader(handle)):
        await bus.facts.say(REQUESTED)
        await began.wait()
        nats_server.kill()
        release.set()
        nats_server.start()
        with anyio.fail_after(30):
            await bus.facts.wait(MODEL_DOWNLOADED, job_id=JOB)
        await acknowledged(bus)
    assert await bus.facts.count(MODEL_DOWNLOADED) == 1


async def test_two_copies_of_a_service_share_one_consumer_and_say_each_fact_once(
    bus: Bus, settings: Settings
) -> None:
    by: dict[str, list[str]] = {"a": [], "b": []}

    def copy(name: str) -> Service:
        async def handle(requested: ModelRequested) -> Iterable[Fact]:
            by[name].append(requested.job_id)
            await anyio.sleep(0.01)
            return (downloaded(requested, name),)

        return downloader(handle)

    async with (
        open_bus(settings, "second") as second,
        running(bus, settings, copy("a")),
        running(second, settings, copy("b")),
    ):
        for number in range(20):
            await bus.facts.say(msgspec.structs.replace(REQUESTED, job_id=JobId(f"job-{number}")))
        await acknowledged(bus)
    assert sorted(by["a"] + by["b"]) == sorted(f"job-{n}" for n in range(20))
    assert by["a"]
    assert by["b"]
    assert await bus.facts.count(MODEL_DOWNLOADED) == 20
