"""What the stream's limits do to history: old facts go, running jobs and their services do not."""

from collections.abc import Iterable

import anyio
import msgspec

from config.settings import Settings
from messages.base import Fact
from messages.failures import Passing
from messages.ids import JobId
from messages.jobs import ModelRequested
from messages.subjects import MODEL_DOWNLOADED, MODEL_REQUESTED
from services.runtime import names, provision
from services.runtime.bus import Bus
from tests.bus_fixture import running
from tests.integration.runtime.acting import JOB, REQUESTED, acknowledged, downloaded, downloader


async def test_facts_past_their_age_are_gone_and_their_job_may_be_asked_for_anew(
    bus: Bus, settings: Settings
) -> None:
    short = msgspec.structs.replace(
        settings, bus=msgspec.structs.replace(settings.bus, max_age_s=4.0)
    )
    await provision.provision_storage(bus, short)

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        return (downloaded(requested),)

    async with running(bus, short, downloader(handle)) as actor:
        first = await bus.facts.say(REQUESTED)
        with anyio.fail_after(30):
            await bus.facts.wait(MODEL_DOWNLOADED, job_id=JOB)
        with anyio.fail_after(60):
            while await bus.facts.job(JOB):  # noqa: ASYNC110
                await anyio.sleep(0.1)
        again = await bus.facts.say(REQUESTED)
        assert again.sequence > first.sequence
        with anyio.fail_after(30):
            said = await bus.facts.wait(MODEL_DOWNLOADED, job_id=JOB)
        assert said.sequence > again.sequence
        await acknowledged(bus)
        assert not actor.lacking()


async def test_a_full_stream_drops_nothing_and_a_running_job_goes_on_when_there_is_room(
    bus: Bus, settings: Settings
) -> None:
    small = msgspec.structs.replace(
        settings, bus=msgspec.structs.replace(settings.bus, max_bytes=64 << 10)
    )
    await provision.provision_storage(bus, small)
    refused = anyio.Event()

    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        await refused.wait()
        return (downloaded(requested),)

    async with running(bus, small, downloader(handle)):
        await bus.facts.say(REQUESTED)
        number = await _fill(bus)
        refused.set()
        with anyio.move_on_after(1):
            await bus.facts.wait(MODEL_DOWNLOADED, job_id=JOB)
            raise AssertionError("there was room")
        assert len(await bus.facts.read(MODEL_REQUESTED)) == number + 1
        await provision.provision_storage(bus, settings)
        with anyio.fail_after(60):
            await bus.facts.wait(MODEL_DOWNLOADED, job_id=JOB)
        assert len(await bus.facts.read(MODEL_REQUESTED)) == number + 1


async def _fill(bus: Bus) -> int:
    """Say facts of another origin until the stream takes no more; how many it took."""
    for number in range(10_000):
        name = JobId(f"job-of-another-origin-{number}")
        fact = msgspec.structs.replace(REQUESTED, job_id=name, origin="node_009")
        try:
            await bus.facts.say(fact)
        except Passing:
            return number
    info = await bus.client.jetstream().stream_info(names.FACTS_STREAM)
    raise AssertionError(f"never full: {info.state}")
