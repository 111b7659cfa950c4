"""Why no chain exists, and the least change to one node that would make one."""

import math
from collections.abc import Sequence

from msgspec.structs import replace

from services.planner.chains import Demands
from services.planner.failures import ImpossibleWish, Infeasible, Undecided, offering
from services.planner.lacking import Change, Feasible, least_change
from services.planner.line import UNLIMITED, Line, Offer


def refusal(
    line: Line, offers: Sequence[Offer], demands: Demands, feasible: Feasible, headroom: float
) -> Infeasible | ImpossibleWish:
    """The refusal for these offers, for which no chain exists.

    `feasible` says whether one exists for others, or raises Undecided.
    """

    def known(grown: Sequence[Offer]) -> bool:
        try:
            return feasible(grown)
        except Undecided:
            return False

    if known([replace(o, memory=UNLIMITED) for o in offers]):
        constraint = "memory"
    elif known([replace(o, disk=UNLIMITED) for o in offers]):
        constraint = "disk"
    elif demands and not known([replace(o, memory=UNLIMITED, disk=UNLIMITED) for o in offers]):
        return ImpossibleWish(
            "no plan keeps the pins, the required nodes and the order, even with unlimited memory",
            advice="leave out a pin or a required node, or change the order",
        )
    else:
        constraint = "memory and disk"
    change = least_change(line, offers, constraint, demands, feasible)
    return _infeasible(line, offers, constraint, change, headroom)


def _infeasible(
    line: Line, offers: Sequence[Offer], constraint: str, change: Change | None, headroom: float
) -> Infeasible:
    on_disk = constraint == "disk"
    have = sum(o.disk if on_disk else o.memory for o in offers)
    need = line.disk_of(0, len(line)) if on_disk else line.memory_of(0, len(line))
    alone = change.missing if change else max(1, need - have)
    in_memory = math.ceil(alone / (1.0 - headroom))
    return Infeasible(
        f"no split fits: {constraint} binds: the model needs {need} bytes, "
        f"{max(line.disk if on_disk else line.memory)} in its largest block; "
        f"{offering(len(offers))} {have}",
        constraint=constraint,
        node_id=change.offer.node_id if change else None,
        missing=alone if on_disk else in_memory,
        advice=_advice(change, constraint, in_memory),
    )


def _advice(change: Change | None, constraint: str, in_memory: int) -> str:
    if change is None:
        return f"no one node alone can make it fit: give several more {constraint}, or add a node"
    wanted = {
        "memory": f"{in_memory} more bytes of memory",
        "disk": f"{change.missing} more bytes of disk",
        "memory and disk": f"{in_memory} more bytes of memory and {change.missing} of disk",
    }[constraint]
    alone = change.least and constraint != "memory and disk"
    least = ", and no node needs fewer" if alone else ""
    return f"{wanted} on {change.offer.node_id} would be enough{least}"


def too_many_copies(line: Line, offers: Sequence[Offer], wanted: int) -> Infeasible:
    """The refusal of more replicas than the nodes were found to hold."""
    need, have = wanted * line.memory_of(0, len(line)), sum(o.memory for o in offers)
    if wanted > len(offers):
        why = f"{wanted} replicas take as many nodes at least, and there are {len(offers)}"
    elif need > have:
        why = f"{wanted} replicas need {need} bytes, {offering(len(offers))} {have}"
    else:
        why = f"no grouping of {len(offers)} nodes into {wanted} whole replicas was found"
    return Infeasible(
        why,
        constraint="memory",
        advice="ask for fewer replicas, or let the planner choose (replicas auto)",
    )
