"""The users of the bus as a nats-server's configuration. Pure: keys come in, text goes out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import msgspec

from services.runtime import permissions
from services.runtime.permissions import Permissions

# Longer than any endpoint takes: `williw.api.process` waits a minute for its plan.
_ANSWER_WITHIN = "5m"
# JetStream's name in deploy/nats/single.conf and leaf.conf.
HUB_DOMAIN = "williw"


@dataclass(frozen=True)
class User:
    """One key and what it may; `name` is a comment for people."""

    name: str
    public_key: str
    permissions: Permissions


def render(
    users: Iterable[User],
    apart: Mapping[str, User],
    account: str = "WILLIW",
    *,
    leaf: bool = False,
) -> str:
    """`account` works; each user `apart` has an account, `<account>_<its key>`, of its own.

    It gets what it may by exports. An asker names where its answer goes, and the server publishes
    there without asking whether the asker may: from an account apart no answer leaves it.

    Several of these in one server's `accounts { }` keep teams apart: each has its own JetStream,
    its own `williw.>`, and sees nothing of the others. For a `leaf`, a server at another site,
    JetStream stays with the hub: a server refuses a default domain for an account that has its own.
    """
    others = {f"{account}_{name}": user for name, user in apart.items()}
    services = sorted({s for user in others.values() for s in user.permissions.publish})
    exports = [
        *(
            f"    {{stream: {_text(s)}, accounts: {_names(others)}}}"
            for s in permissions.heard_by_all()
        ),
        *(f"    {_export(s, _names(_who_may(others, s)))}" for s in services),
    ]
    return "\n".join(
        [
            f"{account}: {{",
            *([] if leaf else ["  jetstream: enabled"]),
            *_users(_at_the_hub(users) if leaf else users),
            "  exports: [",
            *exports,
            "  ]",
            "}",
            *(line for name, user in others.items() for line in _apart(name, user, account)),
            "",
        ]
    )


def _apart(name: str, user: User, account: str) -> list[str]:
    """The account of one user who looks and asks."""
    return [
        f"{name}: {{",
        *_users([user]),
        "  imports: [",
        *(
            f"    {{stream: {{account: {account}, subject: {_text(s)}}}}}"
            for s in permissions.heard_by_all()
        ),
        *(
            f"    {{service: {{account: {account}, subject: {_text(s)}}}}}"
            for s in user.permissions.publish
        ),
        "  ]",
        "}",
    ]


def _who_may(others: Mapping[str, User], subject: str) -> list[str]:
    return [name for name, user in others.items() if subject in user.permissions.publish]


def _names(accounts: Iterable[str]) -> str:
    return "[" + ", ".join(accounts) + "]"


def _at_the_hub(users: Iterable[User]) -> list[User]:
    """A leaf puts the hub's domain into each JetStream request, then looks at what it may be."""
    hub = f"$JS.{HUB_DOMAIN}.API."
    return [
        replace(user, permissions=replace(may, publish=(*may.publish, *named)))
        for user in users
        for may in [user.permissions]
        for named in [[s.replace("$JS.API.", hub) for s in may.publish if s.startswith("$JS.API.")]]
    ]


def _export(subject: str, accounts: str) -> str:
    # A batched direct get is answered by many messages, everything else by one.
    several = ", response_type: Stream" if "DIRECT.GET" in subject else ""
    return f"{{service: {_text(subject)}, accounts: {accounts}{several}}}"


def _users(users: Iterable[User]) -> list[str]:
    lines = ["  users: ["]
    for user in sorted(users, key=lambda user: user.name):
        may = user.permissions
        lines += [
            f"    # {user.name}",
            f"    {{nkey: {user.public_key}, permissions: {{",
            f"      publish: {{allow: {_list(may.publish)}}}",
            f"      subscribe: {{allow: {_list(may.subscribe)}}}",
        ]
        if may.answers:
            lines.append(f'      allow_responses: {{max: 1, expires: "{_ANSWER_WITHIN}"}}')
        lines.append("    }}")
    return [*lines, "  ]"]


def _list(subjects: Iterable[str]) -> str:
    return "[" + ", ".join(map(_text, subjects)) + "]"


def _text(subject: str) -> str:
    return msgspec.json.encode(subject).decode()
