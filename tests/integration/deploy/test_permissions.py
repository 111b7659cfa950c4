"""Permissions on a real server: enough for a whole job, and not one subject more."""

import json
import socket
from collections.abc import AsyncIterator

import anyio
import pytest

from messages.ids import JobId, NodeId
from messages.subjects import API_NODES, JOB_ENDED, MODEL_REQUEST, SHARD_DELIVERED
from services.runtime import names
from services.runtime.bus import Bus
from tests.bus_fixture import entry
from tests.integration.deploy.conftest import NODE, ORIGIN, LockedNats
from tests.integration.deploy.users import (
    USERS,
    opened,
    provisioned,
    refused_publish,
    refused_subscribe,
)


@pytest.fixture
async def operator(locked: LockedNats) -> AsyncIterator[Bus]:
    """The operator, who has provisioned."""
    async with provisioned(locked) as bus:
        yield bus


@pytest.mark.parametrize("user", sorted(USERS))
async def test_each_user_is_refused_what_is_not_its_own(
    locked: LockedNats, operator: Bus, user: str
) -> None:
    foreign = [
        "williw.shard.delivered.node_099.job-1.1",
        "williw.anything.else",
        "$KV.williw_nodes.node_099",
        f"$JS.API.DIRECT.GET.KV_williw_grants.$KV.{names.GRANTS_BUCKET}.>",
        "$JS.API.DIRECT.GET.KV_williw_grants",
        "$JS.API.STREAM.MSG.GET.KV_williw_grants",
        "$JS.API.CONSUMER.CREATE.WILLIW",
        "$JS.API.CONSUMER.CREATE.KV_williw_grants",
        "$JS.API.STREAM.DELETE.WILLIW",
        "$JS.API.STREAM.PURGE.WILLIW",
        "$JS.API.STREAM.UPDATE.WILLIW",
        "$JS.API.STREAM.SNAPSHOT.KV_williw_grants",
        "$JS.API.CONSUMER.MSG.NEXT.WILLIW.distributor-node_assigned-node_099",
        "_INBOX_distributor-node_099.x",
    ]
    async with opened(locked, user) as (client, refused):
        for subject in foreign:
            if user.endswith("splitter") and subject.endswith(".MSG.GET.KV_williw_grants"):
                continue  # it makes the grants
            assert await refused_publish(client, refused, subject), subject
        for subject in ("$KV.>", "_INBOX_distributor-node_099.>", "$JS.>", ">"):
            assert await refused_subscribe(client, refused, subject), subject


def test_a_stranger_is_refused_at_the_door(locked: LockedNats) -> None:
    with socket.create_connection(("127.0.0.1", locked.port), timeout=5) as link:
        link.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
        answered = b"".join(iter(lambda: link.recv(4096), b""))
    assert b"-ERR 'Authorization Violation'" in answered
    assert b"PONG" not in answered


async def test_a_node_speaks_for_itself_and_reads_its_own_token(
    locked: LockedNats, operator: Bus
) -> None:
    own = await operator.grants.grant(NodeId(NODE), JobId("job-1"))
    await operator.grants.grant(NodeId(ORIGIN), JobId("job-1"))
    async with opened(locked, f"{NODE}/distributor") as (client, refused):
        bus = Bus(client)
        await bus.registry.announce(entry(NODE))
        assert await bus.grants.token(NodeId(NODE), JobId("job-1")) == own
        assert not refused
        others = f"$JS.API.DIRECT.GET.KV_williw_grants.$KV.williw_grants.{ORIGIN}.job-1"
        assert await refused_publish(client, refused, others)
        wild = "$JS.API.DIRECT.GET.KV_williw_grants.$KV.williw_grants.*.job-1"
        assert await refused_publish(client, refused, wild)
        theirs = SHARD_DELIVERED.where(node_id=ORIGIN, job_id="job-1", generation=1)
        assert await refused_publish(client, refused, theirs)
        mine = SHARD_DELIVERED.where(node_id=NODE, job_id="job-1", generation=1)
        assert not await refused_publish(client, refused, mine)


async def test_a_plain_node_s_key_ends_no_job(locked: LockedNats, operator: Bus) -> None:
    async with opened(locked, f"{NODE}/distributor") as (client, refused):
        for origin in (ORIGIN, NODE):
            ending = JOB_ENDED.where(origin=origin, job_id="job-1", generation=1)
            assert await refused_publish(client, refused, ending)
    async with opened(locked, f"{ORIGIN}/distributor") as (client, refused):
        own = JOB_ENDED.where(origin=ORIGIN, job_id="job-1", generation=1)
        assert not await refused_publish(client, refused, own)
        others = JOB_ENDED.where(origin=NODE, job_id="job-1", generation=1)
        assert await refused_publish(client, refused, others)


async def test_a_tap_sees_everything_and_cannot_publish_even_by_having_the_server_answer(
    locked: LockedNats, operator: Bus
) -> None:
    await operator.client.jetstream().publish(MODEL_REQUEST.where(), b'{"model_name":"a/b"}')
    await operator.registry.announce(entry(NODE))
    before = await _stored(operator)
    async with opened(locked, "tap") as (client, refused):
        bus = Bus(client, apart=True)
        heard: list[str] = []

        async def hear(message: object) -> None:
            heard.append(getattr(message, "subject", ""))

        await client.subscribe("williw.>", cb=hear)
        await client.flush()
        # Said again until it is heard: core NATS promises nothing to a subscription that another
        # account's publisher may not know of yet.
        with anyio.fail_after(30):
            while not heard:
                await operator.client.publish("williw.progress.a.node_001.job-1", b"{}")
                await anyio.sleep(0.05)
        assert [e.node.node_id for e in await bus.registry.nodes()] == [NODE]
        assert await bus.facts.all_jobs() == ()
        assert not refused
        assert await refused_publish(client, refused, MODEL_REQUEST.where())
        bounce = f"$JS.API.DIRECT.GET.{names.FACTS_STREAM}.{MODEL_REQUEST.where()}"
        await client.publish(bounce, b"", reply=MODEL_REQUEST.where())
        await client.publish("williw.api.status", b"{}", reply=MODEL_REQUEST.where())
        await client.flush()
        assert await bus.facts.all_jobs() == ()
    assert await _stored(operator) == before


async def test_a_client_asks_and_the_services_answer_it_alone(
    locked: LockedNats, operator: Bus
) -> None:
    async with (
        opened(locked, "client") as (client, refused),
        opened(locked, f"{ORIGIN}/requester") as (requester, wrong),
    ):

        async def answer(message: object) -> None:
            await requester.publish(getattr(message, "reply", ""), b'{"nodes":[]}')

        await requester.subscribe(API_NODES.subject, cb=answer)
        await requester.flush()
        found = await client.request(API_NODES.subject, b"{}", timeout=5)
        assert json.loads(found.data) == {"nodes": []}
        assert not refused
        assert not wrong
        assert await refused_publish(requester, wrong, "_INBOX_williw-console.unasked")


async def _stored(bus: Bus) -> int:
    info = await bus.client.jetstream().stream_info(names.FACTS_STREAM)
    return int(info.state.messages)
