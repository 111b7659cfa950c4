"""`williw provision`: what services need on the bus, made before they start."""

import importlib

import anyio
import msgspec

from config.settings import Settings
from messages.ids import NodeId, is_id
from services.console.failures import EXIT_DONE, Usage
from services.console.household import SERVICES
from services.console.options import Asking, Reach
from services.console.output import say, say_json
from services.console.reaching import reached, settings_of
from services.runtime import names
from services.runtime import provision as making
from services.runtime.bus import Bus
from services.runtime.service import Service


def provision(
    *,
    node: tuple[str, ...] = (),
    origin: tuple[str, ...] = (),
    reach: Asking = None,
) -> int:
    """Create streams, buckets and durable consumers; running it again changes nothing.

    Example: williw provision --origin node-a --node node-b --node node-c

    Parameters
    ----------
    node
        Ids of nodes that run a distributor only; may be given several times.
    origin
        Ids of origins: every service. Without either, the node of the settings as an origin.
    """
    reach = reach or Reach()
    for node_id in (*node, *origin):
        if not is_id(node_id):
            raise Usage(f"{node_id[:80]!r} is no node id", advice="letters, digits, - and _")
    made = anyio.run(_provision, node, origin, reach, backend="asyncio")
    if reach.json:
        say_json({"type": "Provisioned", **made})
    else:
        say("streams: " + ", ".join(made["streams"]))
        say("buckets: " + ", ".join(made["buckets"]))
        say("consumers:\n  " + "\n  ".join(made["consumers"]))
    return EXIT_DONE


async def _provision(
    nodes: tuple[str, ...], origins: tuple[str, ...], reach: Reach
) -> dict[str, list[str]]:
    settings = settings_of(reach)
    if not nodes and not origins:
        origins = (settings.node.node_id,)
    async with reached(reach) as bus:
        await making.provision_storage(bus, settings)
        services = services_of(bus, settings, nodes, origins)
        await making.provision_consumers(bus, settings, services)
    consumers = {names.consumer_name(s.name, route) for s in services for route in s.routes}
    return {
        "streams": [names.FACTS_STREAM, names.DEAD_STREAM],
        "buckets": [names.NODES_BUCKET, names.GRANTS_BUCKET, names.DOCUMENTS_BUCKET],
        "consumers": sorted(consumers),
    }


def services_of(
    bus: Bus, settings: Settings, nodes: tuple[str, ...], origins: tuple[str, ...]
) -> list[Service]:
    """The services of these nodes: a distributor on each, and all the others on origins."""
    asked = [(name, node, True) for node in origins for name in SERVICES]
    asked += [("distributor", node, False) for node in nodes]
    return [
        importlib.import_module(f"services.{name}.service").build(
            _as_node(settings, node, is_origin), bus
        )
        for name, node, is_origin in asked
    ]


def _as_node(settings: Settings, node_id: str, is_origin: bool) -> Settings:
    """These settings for another node. Being an origin gives a distributor a consumer more."""
    node = msgspec.structs.replace(settings.node, node_id=NodeId(node_id), origin=is_origin)
    return msgspec.structs.replace(settings, node=node)
