"""The users of the bus as a nats-server's configuration. Pure: keys come in, text goes out."""

from collections.abc import Iterable
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
    users: Iterable[User], taps: Iterable[User], account: str = "WILLIW", *, leaf: bool = False
) -> str:
    """Two accounts: `account` works, `<account>_TAP` looks on, by exports of what may be seen.

    Several of these in one server's `accounts { }` keep teams apart: each has its own JetStream,
    its own `williw.>`, and sees nothing of the others. For a `leaf`, a server at another site,
    JetStream stays with the hub: a server refuses a default domain for an account that has its own.
    """
    tap = f"{account}_TAP"
    return "\n".join(
        [
            f"{account}: {{",
            *([] if leaf else ["  jetstream: enabled"]),
            *_users(_at_the_hub(users) if leaf else users),
            "  exports: [",
            *(f"    {{stream: {_text(s)}, accounts: [{tap}]}}" for s in permissions.heard_by_all()),
            *(f"    {_export(s, tap)}" for s in permissions.of_tap().publish),
            "  ]",
            "}",
            f"{tap}: {{",
            *_users(taps),
            "  imports: [",
            *(
                f"    {{stream: {{account: {account}, subject: {_text(s)}}}}}"
                for s in permissions.heard_by_all()
            ),
            *(
                f"    {{service: {{account: {account}, subject: {_text(s)}}}}}"
                for s in permissions.of_tap().publish
            ),
            "  ]",
            "}",
            "",
        ]
    )


def _at_the_hub(users: Iterable[User]) -> list[User]:
    """A leaf puts the hub's domain into each JetStream request, then looks at what it may be."""
    hub = f"$JS.{HUB_DOMAIN}.API."
    return [
        replace(user, permissions=replace(may, publish=(*may.publish, *named)))
        for user in users
        for may in [user.permissions]
        for named in [[s.replace("$JS.API.", hub) for s in may.publish if s.startswith("$JS.API.")]]
    ]


def _export(subject: str, tap: str) -> str:
    # A batched direct get is answered by many messages, everything else by one.
    several = ", response_type: Stream" if "DIRECT.GET" in subject else ""
    return f"{{service: {_text(subject)}, accounts: [{tap}]{several}}}"


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
