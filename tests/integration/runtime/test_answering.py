"""An answer that fails by a bug, or asks for what no server can count, costs a delivery only."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

import anyio
import msgspec
import pytest

from config.settings import Settings
from messages.base import Fact
from messages.failures import Permanent
from messages.ids import JobId
from messages.jobs import ModelRequested
from messages.subjects import MODEL_DOWNLOADED
from messages.wire import encode
from services.runtime import names
from services.runtime.actor import Actor
from services.runtime.bus import Bus
from services.runtime.service import NotYet
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

OTHER = msgspec.structs.replace(REQUESTED, job_id=JobId("job-2"))


class Unspeakable(Permanent):
    """An error that cannot be told."""

    @property
    def reason(self) -> str:
        raise ValueError("no words for it")

    @reason.setter
    def reason(self, _reason: str) -> None:
        """Forget it."""


class Wordless(Exception):
    """An error whose text cannot be made."""

    def __str__(self) -> str:
        raise ValueError("no words for it")


async def next_is_handled(bus: Bus, actor: Actor) -> None:
    """Another job gets its answer from a service that still runs."""
    await bus.facts.say(OTHER)
    with anyio.fail_after(30):
        await bus.facts.wait(MODEL_DOWNLOADED, job_id=OTHER.job_id)
    assert not actor.lacking()


def failing(
    error: Callable[[], Exception], begun: Counter[JobId]
) -> Callable[[ModelRequested], Awaitable[Iterable[Fact]]]:
    async def handle(requested: ModelRequested) -> Iterable[Fact]:
        begun[requested.job_id] += 1
        if requested.job_id == JOB:
            raise error()
        return (downloaded(requested),)

    return handle


@pytest.mark.parametrize("delay_s", [1e10, 1e12, 1e300, float("inf"), float("nan")])
async def test_a_delay_that_no_server_can_count_is_asked_for_again_later(
    bus: Bus, settings: Settings, delay_s: float
) -> None:
    begun: Counter[JobId] = Counter()
    service = downloader(failing(lambda: NotYet(delay_s), begun), patient=True)
    async with running(bus, settings, service) as actor:
        await bus.facts.say(REQUESTED)
        await until(lambda: begun[JOB] == 1)
        await next_is_handled(bus, actor)
        # A delay that the server cannot read is none: it would be here again at once.
        await anyio.sleep(1.0)
    assert begun[JOB] == 1
    consumer = f"downloader-model_requested-{NODE}"
    info = await bus.client.jetstream().consumer_info(names.FACTS_STREAM, consumer)
    assert (info.num_ack_pending, info.num_redelivered) == (1, 0)


@pytest.mark.parametrize("error", [lambda: Unspeakable("x"), Wordless], ids=["refusal", "bug"])
async def test_an_answer_that_cannot_be_made_ends_as_a_dead_letter_and_not_the_service(
    bus: Bus, settings: Settings, error: Callable[[], Exception]
) -> None:
    begun: Counter[JobId] = Counter()
    async with running(bus, settings, downloader(failing(error, begun))) as actor:
        await bus.facts.say(REQUESTED)
        await next_is_handled(bus, actor)
        await acknowledged(bus)
    (letter,) = await dead_letters(bus)
    assert letter.payload == encode(REQUESTED)
    assert 1 <= begun[JOB] <= settings.bus.max_deliver + 1
