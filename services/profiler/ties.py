"""Which names of a checkpoint are one tensor: the token embedding, its copies, and the head."""

from collections.abc import Collection
from typing import NamedTuple

from services.profiler.architecture import Architecture
from services.profiler.families import Family


class Ties(NamedTuple):
    """`groups` of names of which at least one is stored.

    `token` is the stored token embedding that a head without a tensor of its own multiplies; None
    where the head is stored, or the model's class has none.
    """

    groups: tuple[tuple[str, ...], ...] = ()
    token: str | None = None


def find_ties(names: Collection[str], family: Family, architecture: Architecture) -> Ties:
    """The ties of a checkpoint that stores `names`."""
    token = _stored(names, family.table)
    if token is None:
        return Ties()
    head = _stored(names, family.head) or family.head
    tied = family.tied if architecture.tied is None else architecture.tied
    has_head = tied if architecture.has_head is None else architecture.has_head
    group = [token]
    start = token.removesuffix(family.table)
    group += [start + name for name in family.copies]
    if tied and has_head:
        group.append(head)
    groups = (tuple(group),) if len(group) > 1 else ()
    return Ties(groups, token if tied and has_head and head not in names else None)


def _stored(names: Collection[str], short: str) -> str | None:
    if not short:
        return None
    if short in names:
        return short
    return next((name for name in names if name.endswith(f".{short}")), None)
