"""Messages and facts that no message can hold, and a document of more than a megabyte."""

from collections.abc import Iterable

import anyio
import pytest

from messages.base import Fact
from messages.failures import Permanent
from messages.ids import JobId, NodeId
from messages.jobs import JobCompleted, JobFailed, ModelRequest, ModelRequested
from messages.models import MetadataReady, ModelDownloaded
from messages.subjects import JOB_ENDED, METADATA_READY, MODEL_REQUEST, MODEL_REQUESTED
from services.runtime import names
from services.runtime.bus import Bus
from services.runtime.graveyard import Graveyard
from services.runtime.service import Route, Service
from tests.bus_fixture import running
from tests.integration.faults.house import House, wall_s
from tests.integration.faults.promise import ask, ended, kept, settled
from tests.integration.faults.table import Record, row

pytestmark = pytest.mark.xdist_group("faults")
NODE, JOB = NodeId("node_001"), JobId("job-1")
REQUESTED = ModelRequested(origin=NODE, job_id=JOB, request=ModelRequest(model_name="org/name"))
MIB = 1 << 20


def downloaded(**fields: object) -> ModelDownloaded:
    whole: dict[str, object] = {
        "request": REQUESTED.request,
        "revision": "r",
        "model_path": "/x",
        "files_downloaded": (),
        "total_size_bytes": 0,
        "total_size_mb": 0.0,
    }
    return ModelDownloaded(origin=NODE, job_id=JOB, **(whole | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fact", "reason"),
    [
        (downloaded(model_path="/" + "x" * MIB), "more than a message"),
        (downloaded(total_size_mb=float("nan")), "not a ModelDownloaded"),
    ],
    ids=["too large", "not a number"],
)
async def test_a_fact_that_cannot_be_said_fails_the_job_and_not_the_service(
    house: House, bus: Bus, record_property: Record, fact: Fact, reason: str
) -> None:
    async def handle(_: ModelRequested) -> Iterable[Fact]:
        return (fact,)

    route = Route(MODEL_REQUESTED, handle, where={"origin": NODE})
    began = wall_s()
    async with running(bus, house.settings, Service("downloader", routes=(route,))) as actor:
        await bus.facts.say(REQUESTED)
        ending = await ended(bus, JOB)
        assert actor.consumers[0].bound
    assert isinstance(ending, JobFailed)
    assert reason in ending.reason
    row(record_property, f"a fact that cannot be said: {reason}", ending, wall_s() - began)


async def test_an_error_that_quotes_a_megabyte_still_fails_the_job(house: House, bus: Bus) -> None:
    async def handle(_: ModelRequested) -> Iterable[Fact]:
        raise Permanent("x" * 2 * MIB)

    route = Route(MODEL_REQUESTED, handle, where={"origin": NODE})
    async with running(bus, house.settings, Service("downloader", routes=(route,))):
        await bus.facts.say(REQUESTED)
        assert isinstance(await ended(bus, JOB), JobFailed)


async def test_a_message_too_large_for_a_letter_is_buried_by_reference(
    house: House, bus: Bus, record_property: Record
) -> None:
    async def handle(_: ModelRequest) -> Iterable[Fact]:
        return ()

    body = b"x" * (MIB - 512)
    began = wall_s()
    service = Service("requester", routes=(Route(MODEL_REQUEST, handle),))
    async with running(bus, house.settings, service):
        ack = await bus.client.jetstream().publish("williw.model.request", body)
        with anyio.fail_after(20):
            while not (letters := await Graveyard(bus.client).letters()):  # noqa: ASYNC110
                await anyio.sleep(0.05)
    (one,) = letters
    assert one.letter is not None
    assert (one.letter.payload, one.letter.stream_sequence) == (b"", ack.seq)
    original = await bus.client.jetstream().get_msg(names.FACTS_STREAM, ack.seq)
    assert original.data == body
    row(record_property, "a message of 1 MiB that nobody can read", one.letter, wall_s() - began)


async def test_metadata_of_more_than_a_message_goes_through_every_service(
    house: House, bus: Bus, record_property: Record
) -> None:
    house.start_all()
    model = house.model("wide", layers=800, hidden=8)
    began = wall_s()
    ending = await ended(bus, await ask(bus, model, "job-wide"))
    seconds = wall_s() - began
    await settled(bus)
    assert isinstance(await kept(house, bus, JobId("job-wide"), model), JobCompleted)
    said = await bus.facts.last(METADATA_READY, job_id="job-wide")
    assert said is not None
    assert isinstance(said.fact, MetadataReady)
    assert said.fact.size_bytes > MIB
    row(record_property, "metadata of more than 1 MiB", ending, seconds, f"{said.fact.size_bytes}")


async def test_an_outsiders_message_over_the_limit_is_refused_by_the_server_and_harms_nobody(
    house: House, bus: Bus
) -> None:
    house.start("requester")
    before = await bus.facts.count(JOB_ENDED)
    with pytest.raises(Exception, match=r"(?i)maximum payload"):
        await bus.client.publish("williw.model.request", b"x" * (MIB + 1))
    await ask(bus, house.model("after"), "job-after")
    with anyio.fail_after(20):
        await bus.facts.wait(MODEL_REQUESTED, job_id=JobId("job-after"))
    assert await bus.facts.count(JOB_ENDED) == before
