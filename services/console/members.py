"""Who a house is made of: origins, and nodes by their machines' names, kept beside their keys."""

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from config.machines import node_id_of
from messages.ids import NodeId, is_id
from services.console.failures import Usage

FILE = "members.json"
_MACHINE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,236}[A-Za-z0-9])?")


class Members(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ids, or machines' names that ids come of; a name outlives the id made of it."""

    origins: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()

    @property
    def origin_ids(self) -> tuple[NodeId, ...]:
        """The origins' node ids, in the order of `origins`."""
        return tuple(map(id_of, self.origins))

    @property
    def node_ids(self) -> tuple[NodeId, ...]:
        """The other nodes' ids, in the order of `nodes`."""
        return tuple(map(id_of, self.nodes))


def id_of(name: str) -> NodeId:
    """The node id of an id or a machine's name; Usage for a text that is neither."""
    if is_id(name):
        return NodeId(name)
    if not _MACHINE.fullmatch(name):
        raise Usage(
            f"{name[:80]!r} is no node id and no machine's name",
            advice="letters, digits, - and _; in a machine's name dots too",
        )
    return node_id_of(name)


def joined(*several: Members) -> Members:
    """All of them, sorted, each id once: as its machine's name where one of them knows it.

    Whoever is an origin is no other node.
    """
    origins = _by_id(name for each in several for name in each.origins)
    nodes = _by_id(name for each in several for name in each.nodes)
    only = (name for node_id, name in nodes.items() if node_id not in origins)
    return Members(origins=tuple(sorted(origins.values())), nodes=tuple(sorted(only)))


def _by_id(names: Iterable[str]) -> dict[NodeId, str]:
    found: dict[NodeId, str] = {}
    for name in names:
        node_id = id_of(name)
        if node_id not in found or name != node_id:
            found[node_id] = name
    return found


def read(file: Path) -> Members:
    """The members that a file lists, names checked; Usage where it cannot be read."""
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Members)
    except OSError as error:
        raise Usage(
            f"{file}: {error.strerror}", advice=f"`williw provision --auth DIR` writes DIR/{FILE}"
        ) from None
    except msgspec.DecodeError as error:
        raise Usage(f"{file} lists no members: {error}") from None
    return joined(found)


def write(file: Path, members: Members) -> None:
    """Write the list; it is whole at any moment."""
    making = file.with_suffix(".new")
    making.write_bytes(msgspec.json.format(msgspec.json.encode(members), indent=2) + b"\n")
    making.replace(file)
