"""Connections of the bus's users, and what a server refuses them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from nats.aio.client import Client

from services.runtime import connection, provision
from services.runtime.bus import Bus
from tests.integration.deploy.conftest import NODE, ORIGIN, LockedNats, services_with_settings

USERS = {
    "tap": "williw-console",
    "client": "williw-console",
    **{
        f"{ORIGIN}/{service}": f"{service}-{ORIGIN}"
        for service in (
            "requester", "downloader", "profiler", "uploader", "planner", "splitter", "distributor",
        )
    },
    f"{NODE}/distributor": f"distributor-{NODE}",
}  # fmt: skip


@asynccontextmanager
async def opened(locked: LockedNats, user: str) -> AsyncIterator[tuple[Client, list[str]]]:
    """A connection of this user, and what the server refused it so far."""
    refused: list[str] = []
    client = await connection.connect(
        locked.settings(user).bus, USERS.get(user, "williw-console"), on_closed=refused.append
    )
    try:
        yield client, refused
    finally:
        await client.close()


@asynccontextmanager
async def provisioned(locked: LockedNats) -> AsyncIterator[Bus]:
    """The operator's connection to a bus that it has provisioned."""
    async with opened(locked, "operator") as (client, _):
        bus = Bus(client)
        await provision.provision_storage(bus, locked.settings("operator"))
        for service, own in services_with_settings(locked.url):
            await provision.provision_consumers(bus, own, [service])
        yield bus


async def refused_publish(client: Client, refused: list[str], subject: str) -> bool:
    refused.clear()
    await client.publish(subject, b"{}")
    return await _refused(client, refused, "publish")


async def refused_subscribe(client: Client, refused: list[str], subject: str) -> bool:
    refused.clear()
    await client.subscribe(subject)
    return await _refused(client, refused, "subscription")


async def _refused(client: Client, refused: list[str], what: str) -> bool:
    """The server tells of a refusal before it answers the flush; the client a moment later."""
    await client.flush()
    with anyio.move_on_after(0.5):
        while not refused:  # noqa: ASYNC110  # filled by the client's error callback
            await anyio.sleep(0.01)
    return any(f"permissions violation for {what}" in text.lower() for text in refused)
