"""What an origin makes of its nodes' words: one ending, by whoever hears the last."""

from collections.abc import Sequence

import anyio
import pytest

from messages.base import Fact
from messages.documents import Document
from messages.failures import Passing
from messages.ids import JobId, NodeId, PlanId, Sha256
from messages.jobs import JobCompleted, JobFailed, ModelRequest
from messages.plans import SplitPlanned
from messages.shards import ShardDelivered, ShardFailed
from messages.subjects import SHARD_DELIVERED
from services.distributor import ending
from services.distributor.ending import Endings
from services.runtime.bus import Bus
from tests.integration.runtime.asking import READS, asked_of

ORIGIN, JOB = NodeId("node_001"), JobId("job-1")
NODES = (ORIGIN, NodeId("node_002"), NodeId("node_003"))


def planned(generation: int = 1) -> SplitPlanned:
    return SplitPlanned(
        origin=ORIGIN,
        job_id=JOB,
        generation=generation,
        request=ModelRequest(model_name="org/name"),
        plan_id=PlanId("plan"),
        model_name="org--name",
        revision="r",
        strategy="pipeline",
        node_ids=NODES,
        bottleneck_s=1.0,
        plan=Document.of_small(b"{}"),
        metadata=Document.of_small(b"{}"),
    )


def delivered(node_id: NodeId, origin: NodeId = ORIGIN) -> ShardDelivered:
    return ShardDelivered(
        origin=origin,
        job_id=JOB,
        node_id=node_id,
        plan_id=PlanId("plan"),
        stage=NODES.index(node_id) if node_id in NODES else 0,
        stage_dir=f"/models/{node_id}",
        stage_sha256=Sha256("0" * 64),
        size_bytes=1,
        shard_size_mb=0.0,
        total_params=1,
        received=(),
        wall_s=0.0,
    )


def lost(node_id: NodeId) -> ShardFailed:
    return ShardFailed(
        origin=ORIGIN,
        job_id=JOB,
        node_id=node_id,
        stage="distributor",
        reason="no room",
        advice="make some",
    )


async def told(bus: Bus, endings: Endings, node_id: NodeId) -> Sequence[Fact]:
    fact = delivered(node_id)
    await bus.facts.say(fact)
    return await endings.conclude(fact)


async def test_the_last_part_completes_the_job_with_all_parts_in_the_pipelines_order(
    bus: Bus,
) -> None:
    endings = Endings(bus, ORIGIN)
    await bus.facts.say(planned())
    assert await told(bus, endings, NODES[2]) == ()
    assert await told(bus, endings, NODES[0]) == ()
    (completed,) = await told(bus, endings, NODES[1])
    assert isinstance(completed, JobCompleted)
    assert [part.node_id for part in completed.nodes] == list(NODES)
    assert completed.nodes[2].stage_dir == "/models/node_003"


async def test_parts_told_at_once_end_the_job_once_and_ask_for_its_plan_alone(bus: Bus) -> None:
    endings = Endings(bus, ORIGIN)
    await bus.facts.say(planned())
    said: list[Fact] = []

    async def conclude(node_id: NodeId) -> None:
        said.extend(await endings.conclude(delivered(node_id)))

    for node_id in NODES:
        await bus.facts.say(delivered(node_id))
    async with asked_of(bus) as questions:
        async with anyio.create_task_group() as group:
            for node_id in NODES:
                group.start_soon(conclude, node_id)
        # The plan, and whether the job was planned anew meanwhile.
        assert questions == [READS[0]] * 2
    assert [type(fact) for fact in said] == [JobCompleted]


async def test_two_copies_find_what_only_the_other_was_told(bus: Bus) -> None:
    one, other = Endings(bus, ORIGIN), Endings(bus, ORIGIN)
    await bus.facts.say(planned())
    assert await told(bus, one, NODES[0]) == ()
    assert await told(bus, other, NODES[1]) == ()
    assert [type(fact) for fact in await told(bus, one, NODES[2])] == [JobCompleted]


async def test_a_process_that_comes_after_finds_what_was_told_before(bus: Bus) -> None:
    await bus.facts.say(planned())
    for node_id in NODES[:2]:
        assert await told(bus, Endings(bus, ORIGIN), node_id) == ()
    assert [type(f) for f in await told(bus, Endings(bus, ORIGIN), NODES[2])] == [JobCompleted]


async def test_it_knows_of_few_jobs_and_asks_again_for_those_it_forgot(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "_JOBS_KEPT", 0)
    endings = Endings(bus, ORIGIN)
    await bus.facts.say(planned())
    assert await told(bus, endings, NODES[0]) == ()
    assert await told(bus, endings, NODES[1]) == ()
    assert [type(fact) for fact in await told(bus, endings, NODES[2])] == [JobCompleted]
    assert not endings._jobs


async def test_a_job_that_was_planned_anew_is_not_completed_by_its_older_plan(bus: Bus) -> None:
    endings = Endings(bus, ORIGIN)
    await bus.facts.say(planned())
    await bus.facts.say(planned(generation=2))
    for node_id in NODES:
        assert await told(bus, endings, node_id) == ()


async def test_a_part_that_failed_after_its_job_was_planned_anew_fails_nothing(bus: Bus) -> None:
    await bus.facts.say(planned())
    await bus.facts.say(planned(generation=2))
    assert await Endings(bus, ORIGIN).conclude(lost(NODES[1])) == ()


async def test_an_ending_that_was_not_stored_is_given_again_for_the_same_message(bus: Bus) -> None:
    endings = Endings(bus, ORIGIN)
    await bus.facts.say(planned())
    for node_id in NODES[:2]:
        await told(bus, endings, node_id)
    first = await told(bus, endings, NODES[2])
    assert [type(fact) for fact in first] == [JobCompleted]
    assert await endings.conclude(delivered(NODES[2])) == first
    assert await endings.conclude(delivered(NODES[0])) == ()


async def test_a_part_that_failed_fails_the_job_and_nothing_completes_it_after(bus: Bus) -> None:
    endings = Endings(bus, ORIGIN)
    await bus.facts.say(planned())
    assert await told(bus, endings, NODES[0]) == ()
    word = lost(NODES[1])
    await bus.facts.say(word)
    (failed,) = await endings.conclude(word)
    assert isinstance(failed, JobFailed)
    assert (failed.reason, failed.node_id) == ("no room", NODES[1])
    assert await told(bus, endings, NODES[2]) == ()


async def test_a_node_without_a_part_and_another_origins_jobs_end_nothing(bus: Bus) -> None:
    endings = Endings(bus, ORIGIN)
    stranger = NodeId("node_009")
    assert await endings.conclude(delivered(NODES[0])) == ()  # nothing is planned
    await bus.facts.say(planned())
    await bus.facts.say(delivered(NODES[0]))
    await bus.facts.say(delivered(NODES[1]))
    assert await endings.conclude(delivered(stranger)) == ()
    assert await endings.conclude(delivered(NODES[2], origin=stranger)) == ()
    assert [type(fact) for fact in await told(bus, endings, NODES[2])] == [JobCompleted]


async def test_a_part_that_nobody_can_read_is_waited_for(bus: Bus) -> None:
    endings = Endings(bus, ORIGIN)
    await bus.facts.say(planned())
    junk = SHARD_DELIVERED.of(delivered(NODES[1]))
    await bus.client.jetstream().publish(junk, b"no fact")
    with pytest.raises(Passing, match="node_002"):
        await told(bus, endings, NODES[0])
