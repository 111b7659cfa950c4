"""Keys and permissions of the bus's users, written before there is a bus to reach."""

import re
from pathlib import Path
from typing import Any

from config.settings import Settings
from services.console.building import as_node, services_of
from services.console.failures import Usage
from services.console.output import say
from services.runtime import keys
from services.runtime.bus import unconnected

_ACCOUNT = re.compile(r"[A-Z][A-Z0-9_]{0,31}")


def write_auth(
    folder: Path, settings: Settings, nodes: tuple[str, ...], origins: tuple[str, ...], account: str
) -> dict[str, Any]:
    """Write every user's key and the server's accounts below `folder`; what was made, for people.

    Nodes that `folder` already has keys for stay, so that adding one locks no other out. Usage for
    an account's name that a server's configuration could not hold, or a folder not to be written.
    """
    if not _ACCOUNT.fullmatch(account):
        raise Usage(
            f"{account[:40]!r} is no name for an account", advice="capitals, digits and _: TEAM_A"
        )
    known_origins, known_nodes = keys.known(folder)
    if not (nodes or origins or known_origins or known_nodes):
        origins = (settings.node.node_id,)
    both = set(nodes) & {*origins, *known_origins}
    if both:
        raise Usage(f"{min(both)} is an origin: its distributor has a key already")
    origins = tuple(sorted({*origins, *known_origins}))
    nodes = tuple(sorted({*nodes, *known_nodes} - set(origins)))
    asked = [((), (origin,)) for origin in origins] + [((node,), ()) for node in nodes]
    bus = unconnected()
    services = [
        (service, as_node(settings, (*own_nodes, *own_origins)[0], bool(own_origins)))
        for own_nodes, own_origins in asked
        for service in services_of(bus, settings, own_nodes, own_origins)
    ]
    try:
        *seeds, config = keys.write(folder, services, account)
    except OSError as error:
        raise Usage(f"{folder}: {error.strerror}", advice="name a directory to write in") from None
    return {
        "config": str(config),
        "keys": [str(seed) for seed in seeds],
        "origins": list(origins),
        "nodes": list(nodes),
    }


def tell(made: dict[str, Any]) -> None:
    """What was written, and what to do with it."""
    say("keys (each readable by its owner only):\n  " + "\n  ".join(made["keys"]))
    say(f"accounts for the server: {made['config']}")
    say(
        f"""
next:
  1. in the server's configuration:  accounts {{ include {made["config"]} }}
     and load it again:              nats-server --signal reload
  2. make streams and consumers:     williw provision --origin ... --node ...
                                     with WILLIW_BUS_NKEY_FILE naming operator.nk
  3. bring each node its own folder: <node>/<service>.nk, to /etc/williw/nats/ there
  4. people ask with client.nk and look on with tap.nk"""
    )
