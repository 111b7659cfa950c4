"""The names of a model's weights in several parts: `model-00001-of-00003.safetensors`."""

import re
from collections.abc import Iterable

PART = re.compile(r"^(?P<stem>.+)-(?P<k>\d+)-of-(?P<n>\d{1,6})(?P<suffix>\.\w+)$")


def missing_parts(names: Iterable[str]) -> list[str]:
    """The names of parts that are not there, of every copy in parts that `names` begin.

    Some makers count from 0, which is one part more.
    """
    copies: dict[tuple[str, str, str], set[int]] = {}
    widths: dict[tuple[str, str, str], int] = {}
    for part in filter(None, map(PART.match, names)):
        copy = part["stem"], part["n"], part["suffix"]
        copies.setdefault(copy, set()).add(int(part["k"]))
        widths[copy] = len(part["k"])
    return [
        f"{stem}-{k:0{widths[stem, n, suffix]}d}-of-{n}{suffix}"
        for (stem, n, suffix), there in copies.items()
        for k in range(1, int(n) + 1)
        if k not in there
    ]
