"""`williw provision`: what services need on the bus, made before they start."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import anyio
from cyclopts import Parameter

from messages.ids import NodeId
from services.console import authorizing
from services.console import members as listing
from services.console.building import services_of
from services.console.failures import EXIT_DONE, Usage
from services.console.members import Members
from services.console.options import Asking, Reach
from services.console.output import say, say_json
from services.console.reaching import reached, settings_of
from services.runtime import names
from services.runtime import provision as making


def provision(
    *,
    node: tuple[str, ...] = (),
    origin: tuple[str, ...] = (),
    members: Path | None = None,
    auth: Path | None = None,
    account: str | None = None,
    revoke: tuple[str, ...] = (),
    kubernetes: Annotated[bool, Parameter(negative="")] = False,
    reach: Asking = None,
) -> int:
    """Create streams, buckets and durable consumers, and bring those there are to the settings.

    It says what it changed; running it again changes nothing.

    Example: williw provision --origin node-a --node node-b --node node-c

    Example: williw provision --auth /etc/nats/williw --origin node-a --node node-b

    Parameters
    ----------
    node
        Ids, or machines' names, of nodes that run a distributor only; may be given several times.
    origin
        The same of origins: every service. Without any, the node of the settings as an origin.
    members
        A file that lists them: --auth writes DIR/members.json.
    auth
        Write a key for each service of each node, for people and for taps, and the accounts for
        the server's configuration, into this directory instead. Reaches no bus. Keys and nodes
        that the directory has already stay.
    account
        With --auth, the account of the bus, one for each team: WILLIW unless it is named. A
        directory keeps the account that it was made for.
    revoke
        With --auth, take these nodes' and origins' keys away; one named by --node or --origin as
        well gets new ones. The server refuses the old ones once it has loaded its accounts again.
    kubernetes
        With --auth, write DIR/kubernetes.json too: the keys as Secrets for `kubectl apply`.
    """
    reach = reach or Reach()
    asked = listing.named(origin, node, account)
    if members is not None:
        asked = listing.joined(listing.read(members), asked)
    if auth is not None:
        settings = settings_of(reach)
        written = authorizing.write_auth(
            auth, settings, asked, revoked=revoke, kubernetes=kubernetes
        )
        return _told(written, reach)
    about_keys = {"--kubernetes": kubernetes, "--account": account is not None, "--revoke": revoke}
    for option in (option for option, given in about_keys.items() if given):
        raise Usage(f"{option} is about keys: it needs --auth DIR")
    made = anyio.run(_provision, listing.joined(asked), reach, backend="asyncio")
    if reach.json:
        say_json({"type": "Provisioned", **made})
    else:
        say("streams: " + ", ".join(made["streams"]))
        say("buckets: " + ", ".join(made["buckets"]))
        say("consumers:\n  " + "\n  ".join(made["consumers"]))
        for one in made["changed"]:
            say(f"changed: {one['name']} {one['setting']} from {one['was']} to {one['now']}")
    return EXIT_DONE


def _told(written: dict[str, Any], reach: Reach) -> int:
    if reach.json:
        say_json({"type": "Authorized", **written})
    else:
        authorizing.tell(written)
    return EXIT_DONE


async def _provision(asked: Members, reach: Reach) -> dict[str, Any]:
    settings = settings_of(reach)
    nodes, origins = asked.node_ids, asked.origin_ids
    if not nodes and not origins:
        origins = (NodeId(settings.node.node_id),)
    async with reached(reach) as bus:
        changes = await making.provision_storage(bus, settings)
        services = services_of(bus, settings, nodes, origins)
        await making.provision_consumers(bus, settings, services)
    consumers = {names.consumer_name(s.name, route) for s in services for route in s.routes}
    return {
        "streams": [names.FACTS_STREAM, names.DEAD_STREAM],
        "buckets": [names.NODES_BUCKET, names.GRANTS_BUCKET, names.DOCUMENTS_BUCKET],
        "consumers": sorted(consumers),
        "changed": [asdict(change) for change in changes],
    }
