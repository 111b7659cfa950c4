"""An origin and a node in this process, each service on a connection with a key of its own."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec

from config.settings import Settings
from messages.jobs import JobEnded
from services.distributor.service import build as build_distributor
from services.runtime import provision
from services.runtime.actor import Actor, Build
from services.runtime.bus import Bus, open_bus
from tests.integration.deploy.conftest import NODE, ORIGIN, LockedNats
from tests.integration.flow.house import ORIGIN_BUILDS, House

_ALL = (
    *((ORIGIN, build) for build in ORIGIN_BUILDS),
    *((n, build_distributor) for n in (ORIGIN, NODE)),
)


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


@asynccontextmanager
async def everybody(
    locked: LockedNats,
    root: Path,
    refused: list[str],
    sections: dict[str, dict[str, Any]] | None = None,
) -> AsyncIterator[tuple[House, House]]:
    """Everything runs, both nodes are in the registry: the house of the operator and a client's."""
    base = locked.settings("operator", planner={"max_cpu_percent": 100.0})
    async with AsyncExitStack() as stack:
        operator = await stack.enter_async_context(open_bus(base, "operator"))
        house = House(operator, base, root, sections or {})
        await provision.provision_storage(operator, base)
        for node_id, build in _ALL:
            own = house.of(node_id)
            await provision.provision_consumers(operator, own, [build(own, operator)])
        for node_id, build in _ALL:
            await stack.enter_async_context(acting(locked, house.of(node_id), build, refused))
        client = await stack.enter_async_context(
            open_bus(
                shown(base, locked, "client"),
                "williw-console",
                on_closed=refused.append,
                apart=True,
            )
        )
        await announced(operator)
        yield house, House(client, base, root, sections or {})


async def announced(bus: Bus) -> None:
    """Return once both nodes are in the registry."""
    with anyio.fail_after(60):
        while len(await bus.registry.nodes()) < 2:  # noqa: ASYNC110  # they announce
            await anyio.sleep(0.05)


async def job(house: House, model_name: str) -> JobEnded:
    """How the client's job ends, once both nodes are in the registry."""
    await announced(house.bus)
    return await house.bring(model_name)
