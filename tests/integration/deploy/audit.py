"""What users said and heard, as a nats-server's trace tells it, beside what they may."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.runtime.permissions import Permissions, covers

_LINE = re.compile(r'"\w+/nkey:(\w+)" - <<- \[(H?PUB|SUB) (\S+)')


@dataclass
class Used:
    """Subjects that one user published to and subscribed to."""

    publish: set[str] = field(default_factory=set)
    subscribe: set[str] = field(default_factory=set)


def used(log_file: Path) -> Mapping[str, Used]:
    """By the users' public keys; the server was started with `-V`."""
    found: dict[str, Used] = {}
    with log_file.open(errors="replace") as lines:
        for line in lines:
            for key, verb, subject in _LINE.findall(line):
                one = found.setdefault(key, Used())
                (one.subscribe if verb == "SUB" else one.publish).add(subject)
    return found


def needless(may: Permissions, did: Used) -> list[str]:
    """The entries without which `did` would have been allowed just the same."""
    return [
        *(f"publish {entry}" for entry in _needless(may.publish, did.publish)),
        *(f"subscribe {entry}" for entry in _needless(may.subscribe, did.subscribe)),
    ]


def _needless(allowed: Iterable[str], subjects: Iterable[str]) -> list[str]:
    alone = {tuple(e for e in allowed if covers(e, subject)) for subject in subjects}
    return [entry for entry in allowed if (entry,) not in alone]
