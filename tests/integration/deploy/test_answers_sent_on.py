"""Who asks names where the answer goes: no key makes a fact, a grant or an entry of that."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from messages.ids import JobId, NodeId, PlanId
from messages.jobs import JobCompleted
from messages.subjects import API_NODES, API_STATUS, JOB_ENDED, MODEL_REQUEST, SHARD_DELIVERED
from messages.wire import Undecodable, encode
from services.requester.service import build as build_requester
from services.runtime import names, stored
from services.runtime.bus import Bus
from tests.integration.deploy.conftest import NODE, ORIGIN, LockedNats
from tests.integration.deploy.locked_house import acting
from tests.integration.deploy.users import opened, provisioned, refused_publish

ENDED = JOB_ENDED.where(origin=ORIGIN, job_id="job-9", generation=1)
GRANT = f"$KV.{names.GRANTS_BUCKET}.{ORIGIN}.job-9"
ENTRY = f"$KV.{names.NODES_BUCKET}.{ORIGIN}"
PLACES = (ENDED, GRANT, ENTRY)
FACTS, GRANTS = names.FACTS_STREAM, f"KV_{names.GRANTS_BUCKET}"


FORGED = JobCompleted(
    origin=NodeId(ORIGIN), job_id=JobId("job-9"), generation=1, plan_id=PlanId("evil"), nodes=()
)
CARRIER = SHARD_DELIVERED.where(node_id=NODE, job_id="carrier", generation=1)


@pytest.fixture
async def operator(locked: LockedNats) -> AsyncIterator[Bus]:
    """The operator, who has provisioned."""
    async with provisioned(locked) as bus:
        yield bus


async def standing(bus: Bus, stream: str, subject: str) -> bytes:
    """What stands on a subject, once something does."""
    with anyio.fail_after(30):
        while True:
            found = await stored.newest(bus.client, stream, subject)
            if found is not None:
                return found.data
            await anyio.sleep(0.02)


async def counts(bus: Bus) -> dict[str, int]:
    """How many messages each stream holds."""
    infos = await bus.client.jetstream().streams_info()
    return {str(info.config.name): int(info.state.messages) for info in infos}


async def test_a_node_cannot_have_what_it_said_itself_stored_as_another_s_fact(
    locked: LockedNats, operator: Bus
) -> None:
    async with opened(locked, f"{NODE}/distributor") as (client, refused):
        await client.publish(CARRIER, encode(FORGED))
        for read in (f"{FACTS}.{CARRIER}", FACTS, f"KV_{names.NODES_BUCKET}.{ENTRY}"):
            assert await refused_publish(client, refused, f"$JS.API.DIRECT.GET.{read}"), read
        question = b'{"last_by_subj": "' + CARRIER.encode() + b'"}'
        await client.publish(f"$JS.API.STREAM.MSG.GET.{FACTS}", question, reply=ENDED)
        await client.flush()
    # It stands there as JSON about a message, which nobody takes for one.
    assert b"williw.shard.delivered" in await standing(operator, FACTS, ENDED)
    with pytest.raises(Undecodable):
        await operator.facts.last(JOB_ENDED, job_id="job-9")


async def test_a_fact_that_was_sent_on_is_not_believed_whoever_sent_it(
    locked: LockedNats, operator: Bus
) -> None:
    await operator.client.publish(CARRIER, encode(FORGED))
    await standing(operator, FACTS, CARRIER)
    await operator.client.publish(f"$JS.API.DIRECT.GET.{FACTS}.{CARRIER}", b"", reply=ENDED)
    assert await standing(operator, FACTS, ENDED) == encode(FORGED)
    with pytest.raises(Undecodable, match="sent on"):
        await operator.facts.last(JOB_ENDED, job_id="job-9")


async def test_a_node_cannot_plant_a_token_that_it_knows(locked: LockedNats, operator: Bus) -> None:
    own = await operator.grants.grant(NodeId(NODE), JobId("job-1"))
    mine = f"$JS.API.DIRECT.GET.{GRANTS}.$KV.{names.GRANTS_BUCKET}.{NODE}.job-1"
    async with opened(locked, f"{NODE}/distributor") as (client, _):
        await client.publish(mine, b"", reply=GRANT)
        await client.flush()
    assert await standing(operator, GRANTS, GRANT) == own.encode()
    async with opened(locked, f"{ORIGIN}/splitter") as (client, refused):
        granted = await Bus(client).grants.grant(NodeId(ORIGIN), JobId("job-9"))
        assert not refused
    assert granted != own
    assert await standing(operator, GRANTS, GRANT) == granted.encode()


async def test_a_client_s_answers_stay_in_its_own_account(
    locked: LockedNats, operator: Bus, tmp_path: Path
) -> None:
    refusals: list[str] = []
    request = b'{"model_name": "a/b", "job_id": "job-9"}'
    await operator.client.jetstream().publish(MODEL_REQUEST.where(), request)
    settings = locked.settings(f"{ORIGIN}/requester")
    async with (
        acting(locked, settings, build_requester, refusals),
        opened(locked, "client") as (client, refused),
    ):
        bus = Bus(client, apart=True)
        await bus.ask(API_NODES, API_NODES.question())
        before = await counts(operator)
        for place in PLACES:
            await client.publish(API_STATUS.subject, b"{}", reply=place)
            read = f"$JS.API.DIRECT.GET.{FACTS}.{MODEL_REQUEST.where()}"
            await client.publish(read, b"", reply=place)
        await bus.ask(API_NODES, API_NODES.question())
        # The acknowledgement of a command is an answer, too: the command alone is stored.
        await client.publish(MODEL_REQUEST.where(), request, reply=ENDED)
        await bus.ask(API_NODES, API_NODES.question())
        assert not refused
    after = await counts(operator)
    assert after == {**before, FACTS: before[FACTS] + 1}
    assert await operator.facts.last(JOB_ENDED, job_id="job-9") is None
