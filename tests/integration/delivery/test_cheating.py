"""A relay that alters, truncates or withholds is found out at the next hop and routed around."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from messages.ids import NodeId
from messages.jobs import JobCompleted
from messages.shards import Access, ShardsReady
from messages.subjects import SHARDS_READY
from services.checkpoint.stage import verify
from services.distributor import transfer
from tests.integration.delivery.rig import ORIGIN, Rig, Topology, parts, plan_of, sources_of

Answer = Callable[[web.Request, int, int], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def relay_that(answer: Answer) -> AsyncIterator[str]:
    """A data server that answers every range in its own way; gives its address."""

    async def get(request: web.Request) -> web.StreamResponse:
        start, end = request.headers["Range"].removeprefix("bytes=").split("-")
        return await answer(request, int(start), int(end) + 1)

    application = web.Application()
    application.router.add_get("/v1/files/{digest}", get)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _range(start: int, end: int) -> dict[str, str]:
    return {"Content-Range": f"bytes {start}-{end - 1}/{1 << 40}"}


async def alters(_request: web.Request, start: int, end: int) -> web.StreamResponse:
    return web.Response(status=206, body=bytes(end - start), headers=_range(start, end))


async def truncates(_request: web.Request, start: int, end: int) -> web.StreamResponse:
    body = bytes((end - start) // 2)
    return web.Response(status=206, body=body, headers=_range(start, end))


async def withholds(request: web.Request, start: int, end: int) -> web.StreamResponse:
    response = web.StreamResponse(status=206, headers=_range(start, end))
    response.content_length = end - start
    await response.prepare(request)
    await asyncio.sleep(3600)
    return response


@pytest.mark.parametrize("answer", [alters, truncates, withholds])
async def test_a_cheating_relay_is_named_and_routed_around(
    rig: Rig, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer.Source.__init__, "__defaults__", (None, 0.5))
    nodes = (NodeId("b"), NodeId("c"))
    held = parts(6, nodes[:1], tied=False) * 2
    async with relay_that(answer) as url:
        rig.options["b"] = {"advertise_url": url}
        async with rig.nodes(ORIGIN, *nodes):
            await rig.plan(plan_of(nodes, held, topology="chain", copies=True))
            ended = await rig.ending()
    assert isinstance(ended, JobCompleted)
    delivered = await rig.delivered()
    silent = answer is withholds
    assert delivered["c"].distrusted == (() if silent else ("b",))
    assert delivered["c"].slow == (("b",) if silent else ())
    assert sources_of(delivered["c"]) == {"origin": delivered["c"].size_bytes}
    assert delivered["b"].distrusted == ()
    report = verify([rig.stage("c")], rig.model)
    assert report.ok, report.problems


def flips_a_bit(body: bytes) -> bytes:
    """One bit of its last chunk is another."""
    return body[:-1] + bytes([body[-1] ^ 1])


def halves(body: bytes) -> bytes:
    """The second half is missing."""
    return body[: len(body) // 2]


@asynccontextmanager
async def between(port: int, spoil: Callable[[bytes], bytes]) -> AsyncIterator[str]:
    """Hands on what is asked of a node's port, and spoils one answer; gives its address."""
    spoilt: list[str] = []

    async def answer(request: web.Request, _start: int, _end: int) -> web.StreamResponse:
        url = f"http://127.0.0.1:{port}{request.path}"
        async with session.get(url, headers=request.headers) as got:
            body = await got.read()
            if got.status == 206 and not spoilt:
                spoilt.append(request.path)
                body = spoil(body)
            ranges = {k: v for k, v in got.headers.items() if k == "Content-Range"}
            return web.Response(status=got.status, body=body, headers=ranges)

    async with aiohttp.ClientSession() as session, relay_that(answer) as url:
        yield url
    assert spoilt


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


async def test_in_a_chain_of_five_the_next_hop_finds_a_spoilt_chunk_and_nobody_else_suffers(
    rig: Rig,
) -> None:
    nodes = tuple(NodeId(f"n{k}") for k in range(5))
    held = parts(6, nodes[:1], tied=False) * len(nodes)
    async with AsyncExitStack() as stack:
        for node, spoil in (("n1", halves), ("n3", flips_a_bit)):
            port = free_port()
            url = await stack.enter_async_context(between(port, spoil))
            rig.options[node] = {"port": port, "advertise_url": url}
        async with rig.nodes(ORIGIN, *nodes):
            await rig.plan(plan_of(nodes, held, topology="chain", copies=True))
            ended = await rig.ending()
    assert isinstance(ended, JobCompleted), ended
    delivered = await rig.delivered()
    found = {node: fact.distrusted for node, fact in delivered.items() if fact.distrusted}
    assert found == {"n2": ("n1",), "n4": ("n3",)}
    for node in nodes:
        assert sum(sources_of(delivered[node]).values()) == delivered[node].size_bytes
        assert [*rig.models(node).glob(".stages/.arriving/*")] == []
        report = verify([rig.stage(node)], rig.model)
        assert report.ok, report.problems


async def test_a_token_opens_the_files_of_its_plan_and_nothing_else(rig: Rig) -> None:
    nodes = (NodeId("b"),)
    async with rig.nodes(ORIGIN, *nodes):
        await rig.plan(plan_of(nodes, parts(6, nodes, tied=False)))
        await rig.ending()
        entry = await rig.bus.registry.node(ORIGIN)
        token = await rig.bus.grants.token(NodeId("b"), rig.job_id)
        assert entry is not None
        assert token is not None
        assert token not in repr(await rig.bus.facts.job(rig.job_id))
        async with aiohttp.ClientSession(entry.data_url) as session:
            for shown in ("", "Bearer wrong", f"Bearer {token}x", f"Bearer {token}"):
                headers = {"Authorization": shown, "Williw-Job": rig.job_id, "Range": "bytes=0-9"}
                async with session.get(f"/v1/files/{'0' * 64}", headers=headers) as got:
                    assert got.status == 403
            async with session.get("/v1/files/../../etc/passwd") as got:
                assert got.status == 404


async def _opened(rig: Rig, asker: NodeId, owner: NodeId) -> set[int]:
    """What each node answers to `asker`'s token for the files that `owner` alone needs."""
    said = await rig.bus.facts.last(SHARDS_READY, job_id=rig.job_id)
    token = await rig.bus.grants.token(asker, rig.job_id)
    assert said is not None
    assert isinstance(said.fact, ShardsReady)
    assert said.fact.access is not None
    files = (await rig.bus.documents.load(said.fact.access, Access)).files
    others = {digest for node, held in files.items() if node != owner for digest in held}
    own = set(files[owner]) - others
    assert own
    headers = {
        "Authorization": f"Bearer {token}",
        "Williw-Job": rig.job_id,
        "Williw-For": owner,
        "Range": "bytes=0-9",
    }
    answers = set()
    for entry in await rig.bus.registry.nodes():
        if entry.node.node_id not in (ORIGIN, owner):
            continue
        async with aiohttp.ClientSession(entry.data_url) as session:
            for digest in own:
                async with session.get(f"/v1/files/{digest}", headers=headers) as got:
                    answers.add(got.status)
    return answers


@pytest.mark.parametrize("topology", ["chain", "star"])
async def test_a_token_opens_its_nodes_files_and_those_it_relays(
    rig: Rig, topology: Topology
) -> None:
    first, second, last = nodes = (NodeId("b"), NodeId("c"), NodeId("d"))
    async with rig.nodes(ORIGIN, *nodes):
        await rig.plan(plan_of(nodes, parts(6, nodes, tied=False), topology=topology))
        assert isinstance(await rig.ending(), JobCompleted)
        for node in nodes:
            assert await _opened(rig, node, node) == {206}
        relayed = {206} if topology == "chain" else {403}
        assert await _opened(rig, first, second) == relayed
        assert await _opened(rig, first, last) == relayed
        assert await _opened(rig, last, first) == {403}
        assert await _opened(rig, second, first) == {403}
