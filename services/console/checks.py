"""What `williw doctor` asks the bus: each check says what is so, and what to mend."""

import json
import time
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import anyio.to_thread
import msgspec

from config.settings import Settings
from messages.failures import Passing
from messages.ids import NodeId
from services.console.building import services_of
from services.runtime import provision
from services.runtime.bus import Bus
from services.runtime.connection import BUS_TROUBLE

_CLOCK_TOLERANCE_S = 2.0
_HTTP_TIMEOUT_S = 3.0

Outcome = Literal["ok", "warning", "wrong"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at; `mend` says what to do where it is not ok."""

    name: str
    outcome: Outcome
    found: str
    mend: str = ""


async def bus_checks(bus: Bus, settings: Settings) -> list[Check]:
    """JetStream, what is provisioned, the clock, the nodes: all that the bus can tell."""
    jet = await _jetstream(bus)
    if jet.outcome == "wrong":
        return [jet]
    looks: tuple[tuple[str, Callable[[], Awaitable[Check]]], ...] = (
        ("provisioned", lambda: _provisioned(bus, settings)),
        ("clock", lambda: _clock(bus)),
        ("nodes", lambda: _nodes(bus)),
        ("durability", lambda: _durability(settings)),
    )
    return [jet, *[await _tried(name, look) for name, look in looks]]


async def _tried(name: str, look: Callable[[], Awaitable[Check]]) -> Check:
    try:
        return await look()
    except Passing as error:
        return Check(
            name=name,
            outcome="wrong",
            found=str(error),
            mend="run `williw provision`, or look at the server's log",
        )


async def _jetstream(bus: Bus) -> Check:
    try:
        info = await bus.client.jetstream(timeout=5).account_info()
    except BUS_TROUBLE as error:
        return Check(
            name="jetstream",
            outcome="wrong",
            found=f"not available ({type(error).__name__})",
            mend="start nats-server with JetStream: `jetstream {}` in its configuration, or -js",
        )
    server = bus.client.connected_server_version
    version = f"{server.major}.{server.minor}.{server.patch}"
    found = f"nats-server {version}, {info.streams} streams, {info.consumers} consumers"
    if (server.major, server.minor) < (2, 11):
        mend = "williw needs nats-server 2.11 or later"
        return Check(name="jetstream", outcome="wrong", found=found, mend=mend)
    return Check(name="jetstream", outcome="ok", found=found)


async def _provisioned(bus: Bus, settings: Settings) -> Check:
    """The consumers of the live nodes, or where none lives, of this one as an origin."""
    live = await bus.registry.nodes()
    origins = tuple(entry.node.node_id for entry in live if entry.origin)
    others = tuple(entry.node.node_id for entry in live if not entry.origin)
    if not live:
        origins = (NodeId(settings.node.node_id),)
    lacking = await provision.missing(bus, services_of(bus, settings, others, origins))
    if not lacking:
        return Check(name="provisioned", outcome="ok", found="every stream, bucket and consumer")
    return Check(
        name="provisioned",
        outcome="wrong",
        found=f"lacking {len(lacking)} consumers: {', '.join(lacking[:4])}",
        mend="run `williw provision --origin ID --node ID`",
    )


async def _clock(bus: Bus) -> Check:
    before = time.time()
    server = await bus.facts.now()
    after = time.time()
    behind = max(0.0, before - server, server - after)
    found = f"{behind:.3f} s from the server's"
    if behind <= _CLOCK_TOLERANCE_S:
        return Check(name="clock", outcome="ok", found=found)
    return Check(
        name="clock",
        outcome="wrong",
        found=found,
        mend="set this machine's clock (timedatectl set-ntp true), or the server's",
    )


async def _nodes(bus: Bus) -> Check:
    live = await bus.registry.nodes()
    if not live:
        mend = "start one: `williw run distributor`, or everything with `williw up`"
        return Check(name="nodes", outcome="warning", found="no node lives", mend=mend)
    if not any(entry.origin for entry in live):
        return Check(
            name="nodes",
            outcome="warning",
            found=f"{len(live)} live, none of them an origin",
            mend="set node.origin = true on a node whose disk may hold models",
        )
    return Check(name="nodes", outcome="ok", found=f"{len(live)} live")


async def _durability(settings: Settings) -> Check:
    """Whether acknowledged facts survive a power cut, where the server's monitoring tells."""
    mend = "set `sync_interval: always` in the jetstream block of nats-server's configuration"
    urls = await anyio.to_thread.run_sync(_monitors, settings)
    for url in urls:
        told = await anyio.to_thread.run_sync(_fetched, f"{url}/jsz?config=1")
        if told is None:
            continue
        if told.get("config", {}).get("sync_always"):
            return Check(name="durability", outcome="ok", found="sync_interval: always")
        seconds = told.get("config", {}).get("sync_interval", 0) / 1e9
        found = f"the server syncs every {seconds:g} s: a power cut loses what came since"
        return Check(name="durability", outcome="warning", found=found, mend=mend)
    found = "the server's sync_interval cannot be seen from here"
    return Check(name="durability", outcome="warning", found=found, mend=f"see to it: {mend}")


def _monitors(settings: Settings) -> list[str]:
    """Where the server may have its monitoring: as `williw up` wrote, else the usual port."""
    found: list[str] = []
    for file in (settings.home / "nats" / "ports").glob("*.ports"):
        try:
            ports = json.loads(file.read_bytes())
        except (OSError, ValueError):
            continue
        if settings.bus.url in ports.get("nats", ()):
            found += ports.get("monitoring", ())
    host = settings.bus.url.split(",")[0].rpartition("@")[2].removeprefix("nats://")
    return [*found, f"http://{host.rsplit(':', 1)[0]}:8222"]


def _fetched(url: str) -> dict[str, Any] | None:
    try:
        with urllib.request.urlopen(url, timeout=_HTTP_TIMEOUT_S) as answer:  # noqa: S310  # http to the bus's host
            told: dict[str, Any] = json.loads(answer.read(1 << 20))
    except (OSError, ValueError):
        return None
    return told
