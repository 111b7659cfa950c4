"""Who a house is made of: an account, origins, and nodes by their machines' names; as a file."""

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec.structs import replace

from config.machines import node_id_of
from messages.ids import NodeId, is_id
from services.console.failures import Usage

FILE = "members.json"
ACCOUNT = "WILLIW"
# The servers' own account in deploy/nats, and the one that each account's taps look on from.
_RESERVED = re.compile(r"SYS|.*_(TAP|CLIENT)")
_ACCOUNT = re.compile(r"[A-Z][A-Z0-9_]{0,31}")
_MACHINE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,236}[A-Za-z0-9])?")


class Members(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ids, or machines' names that ids come of; a name outlives the id made of it.

    An empty account is one that nobody has named yet.
    """

    account: str = ""
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


def named(origins: Iterable[str], nodes: Iterable[str], account: str | None = None) -> Members:
    """What one command names; Usage for an account that may not be, or two names of one id."""
    found = Members(account=account or "", origins=tuple(origins), nodes=tuple(nodes))
    if account is not None:
        _check_account(account)
    _check_distinct(found)
    return found


def joined(*several: Members) -> Members:
    """All of them, sorted, each id once: as its machine's name where one of them knows it.

    Whoever is an origin is no other node. Usage where they are of two accounts.
    """
    accounts = tuple(dict.fromkeys(each.account for each in several if each.account))
    if len(accounts) > 1:
        raise Usage(
            f"these keys are of account {accounts[0]}, and {accounts[1]} is another",
            advice=f"name a directory of its own for {accounts[1]}; where no server has these keys "
            f"yet, change `account` in {FILE}",
        )
    origins = _by_id(name for each in several for name in each.origins)
    nodes = _by_id(name for each in several for name in each.nodes)
    only = (name for node_id, name in nodes.items() if node_id not in origins)
    return Members(
        account="".join(accounts),
        origins=tuple(sorted(origins.values())),
        nodes=tuple(sorted(only)),
    )


def without(everyone: Members, names: Iterable[str]) -> Members:
    """All but these; Usage for a name that is none of them."""
    gone = set(map(id_of, names))
    strangers = gone - {*everyone.origin_ids, *everyone.node_ids}
    if strangers:
        raise Usage(f"{min(strangers)} has no key here")
    return replace(
        everyone,
        origins=tuple(name for name in everyone.origins if id_of(name) not in gone),
        nodes=tuple(name for name in everyone.nodes if id_of(name) not in gone),
    )


def is_account(name: str) -> bool:
    """Whether a server's configuration could hold an account of this name."""
    return _ACCOUNT.fullmatch(name) is not None


def _check_account(name: str) -> None:
    if not is_account(name):
        raise Usage(
            f"{name[:40]!r} is no name for an account", advice="capitals, digits and _: TEAM_A"
        )
    if _RESERVED.fullmatch(name):
        raise Usage(
            f"{name} is taken: SYS is the servers' own account, NAME_TAP and NAME_CLIENT are those "
            "of NAME's people",
            advice="choose another name: TEAM_A",
        )


def _check_distinct(found: Members) -> None:
    """A dot becomes `_` in an id, so that two machines could be one node to everybody else."""
    seen: dict[NodeId, str] = {}
    for name in (*found.origins, *found.nodes):
        other = seen.setdefault(id_of(name), name)
        if other != name:
            raise Usage(
                f"{other!r} and {name!r} both become the id {id_of(name)!r}",
                advice="give one of the two machines an id of its own: NODE_ID there, and here",
            )


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
    if found.account:
        _check_account(found.account)
    _check_distinct(found)
    return joined(found)


def write(file: Path, members: Members) -> None:
    """Write the list; it is whole at any moment."""
    making = file.with_suffix(".new")
    making.write_bytes(msgspec.json.format(msgspec.json.encode(members), indent=2) + b"\n")
    making.replace(file)
