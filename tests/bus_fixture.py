"""Fixtures for a bus: a real nats-server of each test's own, and a connection to it."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
import structlog

from config import load
from config.settings import Settings
from messages.ids import NodeId
from messages.nodes import Node, NodeEntry
from services.console.embedded import EmbeddedNats
from services.runtime import provision
from services.runtime.actor import Actor
from services.runtime.bus import Bus, open_bus
from services.runtime.service import Service


@pytest.fixture(autouse=True)
def plain_logs() -> Iterator[None]:
    """What a test configures of the logs ends with it: its captured streams are closed by then."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[EmbeddedNats]:
    """A nats-server with JetStream on a free port, its store in the test's folder."""
    with EmbeddedNats(tmp_path / "nats") as server:
        yield server


@pytest.fixture
def settings(nats_server: EmbeddedNats, tmp_path: Path) -> Settings:
    """Settings of an origin on that server, with short leases and delays."""
    return settings_for(nats_server, tmp_path / "home")


def settings_for(server: EmbeddedNats, home: Path, node_id: str = "node_001") -> Settings:
    """Settings of one node; nothing of the test process's own environment."""
    bus = {"url": server.url, "lease_s": 3.0, "retry_delays_s": (0.05,), "max_deliver": 3}
    node = {"node_id": node_id, "home": str(home), "origin": True}
    return load.load(environ={}, overrides={"bus": bus, "node": node})


@pytest.fixture
async def bus(settings: Settings) -> AsyncIterator[Bus]:
    """A connection to a provisioned bus."""
    async with open_bus(settings, "test") as opened:
        await provision.provision_storage(opened, settings)
        yield opened


@asynccontextmanager
async def running(bus: Bus, settings: Settings, *services: Service) -> AsyncIterator[Actor]:
    """These services, provisioned and running within this process for the length of the block."""
    await provision.provision_consumers(bus, settings, services)
    actor = Actor(bus, settings, services)
    stop = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(actor.run, stop)
        await actor.ready.wait()
        try:
            yield actor
        finally:
            stop.set()


async def until(true: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait for a condition of this process; the test fails when it does not come true."""
    with anyio.fail_after(timeout_s):
        while not true():  # noqa: ASYNC110  # the conditions are other code's plain values
            await anyio.sleep(0.02)


def entry(node_id: str, *, origin: bool = False, disk_free_bytes: int = 0) -> NodeEntry:
    """A registry entry of a small node."""
    node = Node(node_id=NodeId(node_id), compute_gflops=100.0, memory_bytes=1 << 30)
    return NodeEntry(
        node=node, data_url="http://127.0.0.1:1", origin=origin, disk_free_bytes=disk_free_bytes
    )
