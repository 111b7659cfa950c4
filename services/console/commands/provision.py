"""`williw provision`: what services need on the bus, made before they start."""

from pathlib import Path

import anyio

from messages.ids import is_id
from services.console import authorizing
from services.console.building import services_of
from services.console.failures import EXIT_DONE, Usage
from services.console.options import Asking, Reach
from services.console.output import say, say_json
from services.console.reaching import reached, settings_of
from services.runtime import names
from services.runtime import provision as making


def provision(
    *,
    node: tuple[str, ...] = (),
    origin: tuple[str, ...] = (),
    auth: Path | None = None,
    account: str = "WILLIW",
    reach: Asking = None,
) -> int:
    """Create streams, buckets and durable consumers; running it again changes nothing.

    Example: williw provision --origin node-a --node node-b --node node-c

    Example: williw provision --auth /etc/nats/williw --origin node-a --node node-b

    Parameters
    ----------
    node
        Ids of nodes that run a distributor only; may be given several times.
    origin
        Ids of origins: every service. Without either, the node of the settings as an origin.
    auth
        Write a key for each service of each node, for people and for taps, and the accounts for
        the server's configuration, into this directory instead. Reaches no bus. Keys and nodes
        that the directory has already stay.
    account
        With --auth, the account of the bus: one for each team.
    """
    reach = reach or Reach()
    for node_id in (*node, *origin):
        if not is_id(node_id):
            raise Usage(f"{node_id[:80]!r} is no node id", advice="letters, digits, - and _")
    if auth is not None:
        return _authorize(auth, node, origin, account, reach)
    made = anyio.run(_provision, node, origin, reach, backend="asyncio")
    if reach.json:
        say_json({"type": "Provisioned", **made})
    else:
        say("streams: " + ", ".join(made["streams"]))
        say("buckets: " + ", ".join(made["buckets"]))
        say("consumers:\n  " + "\n  ".join(made["consumers"]))
    return EXIT_DONE


def _authorize(
    folder: Path, nodes: tuple[str, ...], origins: tuple[str, ...], account: str, reach: Reach
) -> int:
    written = authorizing.write_auth(folder, settings_of(reach), nodes, origins, account)
    if reach.json:
        say_json({"type": "Authorized", **written})
    else:
        authorizing.tell(written)
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
