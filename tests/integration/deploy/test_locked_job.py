"""A whole job in which every service has its own key, and no more than its own permissions."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import msgspec

from config.settings import Settings
from messages.ids import NodeId
from messages.jobs import JobCompleted
from services.distributor.service import build as build_distributor
from services.runtime import connection, provision
from services.runtime.actor import Actor, Build
from services.runtime.bus import open_bus
from tests.integration.deploy.conftest import NODE, ORIGIN, LockedNats
from tests.integration.faults.tiny import write_model
from tests.integration.flow.house import ORIGIN_BUILDS, House


def shown(settings: Settings, locked: LockedNats, user: str) -> Settings:
    """These settings with another user's key."""
    key = str(locked.folder / "keys" / f"{user}.nk")
    bus = msgspec.structs.replace(settings.bus, nkey_file=key)
    return msgspec.structs.replace(settings, bus=bus)


@asynccontextmanager
async def acting(
    locked: LockedNats, settings: Settings, build: Build, refused: list[str]
) -> AsyncIterator[None]:
    """One service on a connection with its own key; the server's refusals go to `refused`."""
    name = build.__module__.split(".")[1]
    own = shown(settings, locked, f"{settings.node.node_id}/{name}")
    stop = anyio.Event()
    async with (
        open_bus(own, f"{name}-{settings.node.node_id}", on_closed=refused.append) as bus,
        anyio.create_task_group() as group,
    ):
        actor = Actor(bus, own, [build(own, bus)])
        group.start_soon(actor.run, stop)
        await actor.ready.wait()
        try:
            yield
        finally:
            stop.set()


async def test_a_job_comes_to_its_end_and_nobody_is_refused_anything(
    locked: LockedNats, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "models" / "tiny")
    roots = {"downloader": {"local_roots": (str(model.parent),)}}
    seen: list[list[str]] = []
    refused: list[str] = []
    async with AsyncExitStack() as stack:
        base = locked.settings("operator", planner={"max_cpu_percent": 100.0})
        operator = await stack.enter_async_context(open_bus(base, "operator"))
        house = House(operator, base, tmp_path / "nodes", roots)
        asked = [(ORIGIN, build) for build in (*ORIGIN_BUILDS, build_distributor)]
        asked.append((NODE, build_distributor))
        await provision.provision_storage(operator, base)
        for node_id, build in asked:
            service = build(house.of(node_id), operator)
            await provision.provision_consumers(operator, house.of(node_id), [service])
        tap = await connection.connect(shown(base, locked, "tap").bus, "williw-console")
        stack.push_async_callback(tap.close)

        async def look(message: object) -> None:
            seen.append(getattr(message, "subject", "").split(".")[1:3])

        await tap.subscribe("williw.>", cb=look)
        await tap.flush()
        for node_id, build in asked:
            await stack.enter_async_context(acting(locked, house.of(node_id), build, refused))
        client = await stack.enter_async_context(
            open_bus(shown(base, locked, "client"), "williw-console", on_closed=refused.append)
        )
        ended = await job(House(client, base, house.root, roots), str(model))
        assert not refused
    assert isinstance(ended, JobCompleted), ended
    assert house.verified("local--tiny", [NodeId(ORIGIN), NodeId(NODE)], model).problems == ()
    assert ["shard", "delivered"] in seen
    assert ["job", "ended"] in seen


async def job(house: House, model_name: str) -> object:
    """How the client's job ends, once both nodes are in the registry."""
    with anyio.fail_after(60):
        while len(await house.bus.registry.nodes()) < 2:  # noqa: ASYNC110  # they announce
            await anyio.sleep(0.05)
    return await house.bring(model_name)
