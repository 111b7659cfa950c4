"""Keys and permissions of the bus's users, written before there is a bus to reach."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from config.settings import Settings
from services.console import cluster_secrets, members
from services.console.building import as_node, services_of
from services.console.failures import Usage
from services.console.members import Members
from services.console.output import say
from services.runtime import keys
from services.runtime.bus import unconnected
from services.runtime.service import Service


def write_auth(
    folder: Path,
    settings: Settings,
    asked: Members,
    *,
    revoked: Sequence[str] = (),
    kubernetes: bool = False,
) -> dict[str, Any]:
    """Write every user's key and the server's accounts below `folder`; what was made, for people.

    Nodes that `folder` already has keys for stay, and so does its account, so that adding one
    locks no other out; with `kubernetes` all of them as Secrets too. The `revoked` lose theirs, and
    one that is asked for as well gets another. Usage for another account than the folder's, or a
    folder not to be written.
    """
    known = members.without(_known(folder), revoked)
    if not (asked.origins or asked.nodes or known.origins or known.nodes):
        if revoked:
            raise Usage("nobody would be left", advice=f"without a house, remove {folder} itself")
        asked = replace(asked, origins=(settings.node.node_id,))
    both = set(asked.node_ids) & {*asked.origin_ids, *known.origin_ids}
    if both:
        raise Usage(f"{min(both)} is an origin: its distributor has a key already")
    everyone = members.joined(known, asked)
    everyone = everyone if everyone.account else replace(everyone, account=members.ACCOUNT)
    try:
        for node_id in map(members.id_of, revoked):
            shutil.rmtree(folder / node_id)
        *seeds, config = keys.write(folder, _services(settings, everyone), everyone.account)
        members.write(folder / members.FILE, everyone)
        secrets = [cluster_secrets.write(folder, everyone)] if kubernetes else []
    except OSError as error:
        raise Usage(f"{folder}: {error.strerror}", advice="name a directory to write in") from None
    return {
        "account": everyone.account,
        "config": str(config),
        "keys": [str(seed) for seed in seeds],
        "members": str(folder / members.FILE),
        "kubernetes": [str(file) for file in secrets],
        "origins": list(everyone.origin_ids),
        "nodes": list(everyone.node_ids),
        "revoked": sorted(map(members.id_of, revoked)),
    }


def _known(folder: Path) -> Members:
    """Whose keys `folder` has, by their machines' names where it has those too."""
    origins, nodes = keys.known(folder)
    file = folder / members.FILE
    listed = members.read(file) if file.exists() else Members()
    account = listed.account or _account(folder)
    return members.joined(Members(account=account, origins=origins, nodes=nodes), listed)


def _account(folder: Path) -> str:
    """The account of the keys in `folder` whose list does not name it, as lists once did not."""
    try:
        name = (folder / keys.CONFIG_FILE).read_text().partition(": {")[0]
    except OSError:
        return ""
    return name if members.is_account(name) else ""


def _services(settings: Settings, everyone: Members) -> list[tuple[Service, Settings]]:
    """Every service of every node, with the settings it was built with."""
    bus = unconnected()
    asked = [((), (origin,)) for origin in everyone.origin_ids]
    nodes = [((node,), ()) for node in everyone.node_ids]
    return [
        (service, as_node(settings, (*own_nodes, *own_origins)[0], bool(own_origins)))
        for own_nodes, own_origins in (*asked, *nodes)
        for service in services_of(bus, settings, own_nodes, own_origins)
    ]


def tell(made: dict[str, Any]) -> None:
    """What was written, and what to do with it."""
    say("keys (each readable by its owner only):\n  " + "\n  ".join(made["keys"]))
    say(f"accounts for the server, {made['account']} and its taps': {made['config']}")
    for node_id in made["revoked"]:
        say(f"revoked: the keys of {node_id} as they were, once the server has loaded this")
    for file in made["kubernetes"]:
        say(f"Secrets: kubectl -n williw apply --server-side -f {file}")
    say(
        f"""
next:
  1. in the server's configuration:  accounts {{ include {keys.CONFIG_FILE} }}
     (its path from the configuration's directory), and load it again: nats-server --signal reload
  2. make streams and consumers:     williw provision --members {made["members"]}
                                     with WILLIW_BUS_NKEY_FILE naming operator.nk
  3. bring each node its own folder: <node>/<service>.nk, to /etc/williw/nats/ there
  4. people ask with client.nk and look on with tap.nk"""
    )
