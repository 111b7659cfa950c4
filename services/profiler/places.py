"""Where each tensor stands in the forward pass of a family, by its name alone."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from services.profiler.families import Family
from services.profiler.roles import attention_of, is_cross

NO_STACK = -1
"""Layers of a stack that the class of the model does not have."""


class Place(NamedTuple):
    """`part` before, in or after the layers; `rest` is the name within the part.

    `runs` is False for tensors that a text forward pass does not use (a vision tower, the extra
    layers that predict several tokens at once, cross-attention where there is no encoder).
    """

    part: Literal["first", "layer", "last"]
    stack: int
    layer: int
    rest: str
    runs: bool = True


class Unplaced(NamedTuple):
    """A tensor that the family's layout has no place for; `why` is a sentence's end.

    `denied` says that the layers stored are not those of config.json.
    """

    name: str
    why: str
    denied: bool = False


def place_all(
    names: Iterable[str], family: Family, depths: Sequence[int]
) -> Mapping[str, Place] | Unplaced:
    """The place of every tensor, or the first that has none.

    `depths` are the layers of each stack. Layers beyond those of a single stack belong to the last
    part and do not run.
    """
    names = tuple(names)
    prefix = _prefix_of(names, family)
    places: dict[str, Place] = {}
    for name in names:
        place = _place(name, name.removeprefix(prefix), family, depths[0])
        if place is None:
            return Unplaced(name, "is not part of the layout")
        places[name] = place
    return _whole_stacks(places, family, depths) or places


def _prefix_of(names: tuple[str, ...], family: Family) -> str:
    starts = tuple(f"{stack}." for stack in family.stacks)
    for prefix in family.prefixes:
        if any(
            name.startswith(prefix) and name[len(prefix) :].startswith(starts) for name in names
        ):
            return prefix
    return ""


def _place(name: str, short: str, family: Family, layers: int) -> Place | None:
    for number, stack in enumerate(family.stacks):
        if short.startswith(f"{stack}."):
            index, _, rest = short[len(stack) + 1 :].partition(".")
            if not (index.isdecimal() and index.isascii() and len(index) < 7 and rest):
                return None
            layer = int(index)
            if len(family.stacks) == 1 and layer >= layers:
                return Place("last", number, layer, rest, runs=False)
            return Place("layer", number, layer, rest, is_run(rest, len(family.stacks)))
    for start, stack in family.closing:
        if short.startswith(start):
            return Place("layer", family.stacks.index(stack), -1, short)
    if name.startswith(family.apart or ("\0",)):
        return Place("first", 0, -1, name, runs=False)
    if name.startswith(family.beyond or ("\0",)):
        return Place("last", 0, -1, name, runs=False)
    if short.startswith(family.first):
        return Place("first", 0, -1, short)
    return Place("last", 0, -1, short) if short.startswith(family.last) else None


def is_run(rest: str, stacks: int) -> bool:
    """Whether a text forward pass runs this: not what would attend to an encoder that is none."""
    return stacks > 1 or not is_cross(attention_of(rest))


def _whole_stacks(
    places: Mapping[str, Place], family: Family, depths: Sequence[int]
) -> Unplaced | None:
    """Every stack must hold layers 0 to n - 1, as many as config.json says."""
    for number, stack in enumerate(family.stacks):
        found = {p.layer for p in places.values() if p.part == "layer" and p.stack == number}
        found.discard(-1)
        if depths[number] == NO_STACK and not found:
            continue
        wanted = max(depths[number], 0) or (0 if len(family.stacks) == 1 else len(found))
        if not found or len(found) != wanted or max(found) != wanted - 1:
            why = f"holds {len(found)} layers where config.json says {wanted}"
            return Unplaced(stack, why, denied=True)
    return None
