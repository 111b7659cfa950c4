"""No secret leaves its place: not in a good job, not where the Hub, the bus or a node says no."""

import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

import config.logging
import config.settings
from config.settings import Settings
from messages.api import JobQuery, NodesQuery
from messages.base import Message
from messages.ids import JobId
from messages.jobs import JobCompleted, JobFailed
from messages.subjects import (
    API_NODES,
    API_PLAN,
    API_STATUS,
    MODEL_DOWNLOADED,
    MODEL_REQUESTED,
    Api,
)
from messages.wire import encode
from services.distributor.service import build as build_distributor
from services.runtime import connection, names, provision
from services.runtime.bus import Bus, Refused, open_bus
from tests.bus_fixture import until
from tests.integration.deploy.conftest import NODE, ORIGIN, LockedNats
from tests.integration.deploy.conftest import locked as locked  # a fixture
from tests.integration.deploy.locked_house import acting, job, shown
from tests.integration.faults.tiny import write_model
from tests.integration.flow.house import ORIGIN_BUILDS, House
from tests.loopback_hub.faults import Fault
from tests.loopback_hub.server import LoopbackHub

# No pattern of the masking knows these: it may not be what keeps them out.
HUB_TOKEN = "sentinel-of-the-hub-4711"
PASSWORD = "sentinel-of-the-bus-0815"
SHOWN_TOKEN = "sentinel-shown-to-a-node-42"
FILES = {"config.json": b"{}", "model.safetensors": b"x" * 64}
STORES = (names.FACTS_STREAM, names.DEAD_STREAM, "KV_williw_nodes", "OBJ_williw_documents")


@dataclass
class Seen:
    """Everything that could be read by somebody who should not know a secret, by where."""

    texts: dict[str, list[bytes]] = field(default_factory=dict)

    def add(self, where: str, body: bytes) -> None:
        """Keep what was read there."""
        self.texts.setdefault(where, []).append(body)

    def holding(self, secret: str) -> list[str]:
        """Where a secret is, also as base64 of a dead letter's payload and as JSON writes it."""
        forms = {secret.encode(), json.dumps(secret)[1:-1].encode()}
        return [
            where
            for where, bodies in self.texts.items()
            if any(form in whole for body in bodies for form in forms for whole in _layers(body))
        ]


def _layers(body: bytes) -> Iterator[bytes]:
    """The bytes, and those that base64 within their JSON holds, at any depth."""
    yield body
    try:
        values: list[Any] = [msgspec.json.decode(body)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    while values:
        value = values.pop()
        if isinstance(value, dict):
            values += value.values()
        elif isinstance(value, list):
            values += value
        elif isinstance(value, str) and len(value) > 8:
            try:
                inner = msgspec.convert(value, bytes)
            except msgspec.ValidationError:
                continue
            yield from _layers(inner)


@dataclass
class Open:
    """A house of an origin and a node on a locked bus, and what was heard of it."""

    operator: Bus
    house: House
    seen: Seen


@asynccontextmanager
async def opened(locked: LockedNats, root: Path, seen: Seen) -> AsyncIterator[Open]:
    """Every service with its own key; the operator reads everything that travels."""
    async with AsyncExitStack() as stack:
        base = locked.settings("operator", planner={"max_cpu_percent": 100.0})
        roots = {"downloader": {"local_roots": (str(root / "models"),), "keep_free_bytes": 0}}
        operator = await stack.enter_async_context(open_bus(base, "operator"))
        house = House(operator, base, root / "nodes", roots)
        asked = [(ORIGIN, build) for build in (*ORIGIN_BUILDS, build_distributor)]
        asked.append((NODE, build_distributor))
        await provision.provision_storage(operator, base)
        for node_id, build in asked:
            service = build(house.of(node_id), operator)
            await provision.provision_consumers(operator, house.of(node_id), [service])

        async def look(message: Any) -> None:
            seen.add(message.subject, message.data + repr(message.headers).encode())

        await operator.client.subscribe("williw.>", cb=look)
        for node_id, build in asked:
            await stack.enter_async_context(acting(locked, house.of(node_id), build, []))
        client = await stack.enter_async_context(
            open_bus(shown(base, locked, "client"), "williw-console", apart=True)
        )
        yield Open(operator, House(client, base, house.root, roots), seen)


async def read_stores(bus: Bus, seen: Seen) -> None:
    """Every message that the server keeps, but for the grants themselves."""
    js = bus.client.jetstream()
    for stream in STORES:
        last = (await js.stream_info(stream)).state.last_seq
        for sequence in range(last, 0, -1):  # a heartbeat soon replaces the newest
            try:
                kept = await js.get_msg(stream, seq=sequence)
            except connection.BUS_TROUBLE:  # deleted, or replaced by a newer value
                continue
            seen.add(f"{stream} {kept.subject}", kept.data or b"")
            seen.add(f"{stream} {kept.subject}", repr(kept.headers).encode())


async def grants(bus: Bus) -> list[str]:
    """Every capability token there is."""
    bucket = await bus.client.jetstream().key_value(names.GRANTS_BUCKET)
    entries = [await bucket.get(key) for key in await bucket.keys()]
    return [entry.value.decode() for entry in entries if entry.value]


async def ask_everything(house: House, job_id: JobId, seen: Seen) -> None:
    """What the API answers about a job."""
    questions: tuple[tuple[Api[Any, Any], Message], ...] = (
        (API_STATUS, JobQuery(job_id=job_id)),
        (API_PLAN, JobQuery(job_id=job_id)),
        (API_NODES, NodesQuery()),
    )
    for api, question in questions:
        try:
            seen.add(api.subject, encode(await house.bus.ask(api, question)))
        except Refused as refused:
            seen.add(api.subject, f"{refused.reason} {refused.advice}".encode())


async def a_bus_that_refuses(settings: Settings, port: int, seen: Seen) -> None:
    """A wrong password, in the URL."""
    url = f"nats://somebody:{PASSWORD}@127.0.0.1:{port}"
    bus = msgspec.structs.replace(settings.bus, url=url, nkey_file="", connect_timeout_s=2.0)
    with pytest.raises(connection.BusUnreachable) as refused:
        await connection.connect(bus, "stranger")
    seen.add("the refusal of the bus", repr(refused.value).encode())


async def a_node_that_refuses(bus: Bus, job_id: JobId, seen: Seen) -> None:
    """A wrong token, shown to every node."""
    headers = {"Authorization": f"Bearer {SHOWN_TOKEN}", "Williw-Job": job_id}
    async with aiohttp.ClientSession() as session:
        for entry in await bus.registry.nodes():
            url = f"{entry.data_url}/v1/files/{'0' * 64}"
            async with session.get(url, headers={**headers, "Range": "bytes=0-9"}) as got:
                assert got.status == 403
                seen.add("a node's answer", await got.read())


async def a_hub_that_refuses(house: House, hub: LoopbackHub) -> list[JobId]:
    """Jobs that fail at the Hub: hidden, gated, and a token that it does not take.

    One is of a model that the token opens, which shows that it was sent; its weights are nonsense.
    """
    hub.add("org/readable", FILES, private=True, reader_token=HUB_TOKEN)
    hub.add("org/hidden", FILES, private=True)
    hub.add("org/gated", FILES, gated=True)
    hub.add("org/denied", FILES)
    hub.fail(Fault("org/denied", status=401, times=99))
    jobs = [await house.ask(f"org/{name}") for name in ("readable", "hidden", "gated", "denied")]
    for job_id in jobs:
        assert isinstance(await house.end(job_id), JobFailed)
    assert await house.bus.facts.last(MODEL_DOWNLOADED, job_id=jobs[0])
    return jobs


async def test_no_secret_is_in_any_log_fact_document_dead_letter_progress_or_answer(
    locked: LockedNats,
    hub: LoopbackHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("HF_TOKEN", HUB_TOKEN)
    caplog.set_level(logging.DEBUG)
    settings = config.settings.Logging(level="debug", format="json")
    config.logging.setup(settings, terminal=False)
    model = write_model(tmp_path / "models" / "tiny")
    seen = Seen()
    async with opened(locked, tmp_path, seen) as standing:
        house = standing.house
        ended = await job(house, str(model))
        assert isinstance(ended, JobCompleted), ended
        jobs = [ended.job_id, *await a_hub_that_refuses(house, hub)]
        await a_bus_that_refuses(house.settings, locked.port, seen)
        await a_node_that_refuses(standing.operator, ended.job_id, seen)
        garbage = MODEL_REQUESTED.where(origin=ORIGIN, job_id="job-garbage", generation=1)
        await standing.operator.client.jetstream().publish(garbage, b"{")
        await until(lambda: any(where.startswith("williw.dead.") for where in seen.texts))
        for job_id in jobs:
            await ask_everything(house, job_id, seen)
        await read_stores(standing.operator, seen)
        tokens = await grants(standing.operator)
    seen.add("the services' log", capfd.readouterr().err.encode())
    seen.add("the libraries' log", caplog.text.encode())
    seeds = [file.read_text().strip() for file in (locked.folder / "keys").rglob("*.nk")]
    assert len(tokens) >= 2
    assert len(seeds) > 8
    for secret in (HUB_TOKEN, PASSWORD, SHOWN_TOKEN, *tokens, *seeds):
        assert seen.holding(secret) == []
    # The search finds what is there: a node's name in each kind of place, and the Hub was asked.
    places = " ".join(seen.holding(ORIGIN))
    for place in (*STORES[:3], "the services' log", "williw.dead.", API_STATUS.subject):
        assert place in places


def test_the_search_finds_what_was_planted_in_any_wrapping() -> None:
    letter = msgspec.json.encode({"payload": msgspec.json.encode({"body": PASSWORD.encode()})})
    for body in (PASSWORD.encode(), json.dumps({"a": [f"x{PASSWORD}"]}).encode(), letter):
        seen = Seen()
        seen.add("here", b"nothing")
        assert seen.holding(PASSWORD) == []
        seen.add("here", body)
        assert seen.holding(PASSWORD) == ["here"]
