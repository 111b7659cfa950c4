"""The log of facts on a real server: said once, read back, waited for."""

import anyio
import msgspec

from messages.base import Fact
from messages.failures import Passing
from messages.ids import JobId, NodeId
from messages.jobs import JobCancelled, JobFailed, ModelRequest, ModelRequested
from messages.subjects import JOB_ENDED, MODEL_REQUESTED
from services.console.embedded import EmbeddedNats
from services.runtime.bus import Bus
from services.runtime.factlog import job_filter

JOB = JobId("job-1")


def requested(
    job_id: str = "job-1", origin: str = "node_001", generation: int = 1
) -> ModelRequested:
    return ModelRequested(
        origin=NodeId(origin),
        job_id=JobId(job_id),
        generation=generation,
        request=ModelRequest(model_name="org/name"),
    )


async def say_in_the_end(bus: Bus, fact: Fact) -> None:
    """Say it again while the server does not answer, as the runtime does."""
    while True:
        try:
            await bus.facts.say(fact)
        except Passing:
            continue
        return


async def test_a_second_saying_of_a_fact_returns_the_first(bus: Bus) -> None:
    first = JobFailed(origin=NodeId("node_001"), job_id=JOB, stage="download", reason="gone")
    second = JobCancelled(origin=NodeId("node_001"), job_id=JOB, reason="late")
    said = await bus.facts.say(first)
    again = await bus.facts.say(second)
    assert again.fact == first
    assert again.sequence == said.sequence
    assert await bus.facts.count(JOB_ENDED, job_id=JOB) == 1


async def test_a_job_is_accepted_by_one_origin_only(bus: Bus) -> None:
    await bus.facts.say(requested(origin="node_001"))
    said = await bus.facts.say(requested(origin="node_002"))
    assert said.fact.origin == "node_001"
    assert len(await bus.facts.read(MODEL_REQUESTED, job_id=JOB)) == 1


async def test_a_new_generation_is_another_fact(bus: Bus) -> None:
    await bus.facts.say(requested())
    await bus.facts.say(requested(generation=2))
    found = await bus.facts.read(MODEL_REQUESTED, job_id=JOB)
    assert [said.fact.generation for said in found] == [1, 2]
    assert all(said.at > 1e9 for said in found)


async def test_facts_of_many_jobs_are_read_in_order_past_one_batch(bus: Bus) -> None:
    for number in range(300):
        await bus.facts.say(requested(f"job-{number}"))
    found = await bus.facts.read(MODEL_REQUESTED)
    assert [said.fact.job_id for said in found] == [f"job-{n}" for n in range(300)]
    assert await bus.facts.count(MODEL_REQUESTED) == 300


async def test_waiting_returns_what_was_said_before_and_what_comes(bus: Bus) -> None:
    found: list[Fact] = []

    async def wait() -> None:
        found.append((await bus.facts.wait(MODEL_REQUESTED, job_id=JOB)).fact)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await bus.facts.say(requested("another"))
            await bus.facts.say(requested())
        await wait()
    assert found == [requested(), requested()]


async def test_following_a_job_misses_nothing_while_the_server_restarts(
    bus: Bus, nats_server: EmbeddedNats
) -> None:
    seen: list[Fact] = []
    ended = JobCancelled(origin=NodeId("node_001"), job_id=JOB)

    async def follow() -> None:
        async for said in bus.facts.follow(job_filter(JOB)):
            seen.append(said.fact)
            if isinstance(said.fact, JobCancelled):
                return

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            await bus.facts.say(requested())
            group.start_soon(follow)
            nats_server.kill()
            nats_server.start()
            await say_in_the_end(bus, requested(generation=2))
            await say_in_the_end(bus, ended)
    assert seen == [requested(), requested(generation=2), ended]


async def test_facts_of_an_unknown_type_are_passed_over(bus: Bus) -> None:
    await bus.facts.say(requested())
    js = bus.client.jetstream()
    await js.publish("williw.model.imagined.node_001.job-1.1", b'{"type":"ModelImagined"}')
    await js.publish("williw.model.profiled.node_001.job-1.1", b"not json")
    newer = msgspec.json.decode(msgspec.json.encode(requested(generation=2)))
    newer["a_field_of_tomorrow"] = [1, {"x": None}]
    await js.publish("williw.model.requested.node_001.job-1.2", msgspec.json.encode(newer))
    assert [said.fact for said in await bus.facts.job(JOB)] == [
        requested(),
        requested(generation=2),
    ]


async def test_the_servers_clock_is_what_facts_are_stamped_with(bus: Bus) -> None:
    before = await bus.facts.now()
    await bus.facts.say(requested())
    said = await bus.facts.last(MODEL_REQUESTED, job_id=JOB)
    assert said is not None
    assert before <= said.at <= await bus.facts.now()
