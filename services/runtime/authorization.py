"""The users of the bus as a nats-server's configuration. Pure: keys come in, text goes out."""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from services.runtime import permissions
from services.runtime.permissions import Permissions

# Longer than any endpoint takes: `williw.api.process` waits a minute for its plan.
_ANSWER_WITHIN = "5m"


@dataclass(frozen=True)
class User:
    """One key and what it may; `name` is a comment for people."""

    name: str
    public_key: str
    permissions: Permissions


def render(users: Iterable[User], taps: Iterable[User], account: str = "WILLIW") -> str:
    """Two accounts: `account` works, `<account>_TAP` looks on, by exports of what may be seen.

    Several of these in one server's `accounts { }` keep teams apart: each has its own JetStream,
    its own `williw.>`, and sees nothing of the others.
    """
    tap = f"{account}_TAP"
    return "\n".join(
        [
            f"{account}: {{",
            "  jetstream: enabled",
            *_users(users),
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
