"""Why no chain exists, and the least change to one node that would make one."""

import math
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from services.planner.chains import Demands
from services.planner.failures import ImpossibleWish, Infeasible
from services.planner.line import UNLIMITED, Line, Offer

Feasible = Callable[[Sequence[Offer]], bool]


def refusal(
    line: Line, offers: Sequence[Offer], demands: Demands, feasible: Feasible, headroom: float
) -> Infeasible | ImpossibleWish:
    """The refusal for these offers, for which `feasible` was just found to be False."""
    if feasible([replace(o, memory=UNLIMITED) for o in offers]):
        constraint, unit_needs = "memory", max(line.memory)
    elif feasible([replace(o, disk=UNLIMITED) for o in offers]):
        constraint, unit_needs = "disk", max(line.disk)
    elif demands:
        return ImpossibleWish(
            "no plan keeps the pins, the required nodes and the order, even with unlimited memory",
            advice="leave out a pin or a required node, or change the order",
        )
    else:
        constraint, unit_needs = "memory and disk", max(line.memory)
    node, missing = _least_change(line, offers, constraint, feasible)
    missing = math.ceil(missing / (1.0 - headroom)) if constraint == "memory" else missing
    have = sum(o.disk if constraint == "disk" else o.memory for o in offers)
    need = line.disk_of(0, len(line)) if constraint == "disk" else line.memory_of(0, len(line))
    return Infeasible(
        f"no split fits: {constraint} binds: the model needs {need} bytes, "
        f"{unit_needs} in its largest block; {len(offers)} nodes offer {have}",
        constraint=constraint,
        node_id=node.node_id,
        missing=missing,
        advice=f"{missing} more bytes of {constraint} on {node.node_id} would be enough",
    )


def too_many_copies(
    line: Line, offers: Sequence[Offer], wanted: int, headroom: float
) -> Infeasible:
    """The refusal of more replicas than the nodes were found to hold."""
    need, have = wanted * line.memory_of(0, len(line)), sum(o.memory for o in offers)
    largest = max(offers, key=lambda o: (o.memory, o.node_id))
    missing = math.ceil(max(1, need - have) / (1.0 - headroom))
    return Infeasible(
        f"{wanted} replicas need {need} bytes, {len(offers)} nodes offer {have}",
        constraint="memory",
        node_id=largest.node_id,
        missing=missing,
        advice="ask for fewer replicas, or let the planner choose (replicas auto)",
    )


def _least_change(
    line: Line, offers: Sequence[Offer], constraint: str, feasible: Feasible
) -> tuple[Offer, int]:
    """The node that needs the fewest more bytes for a plan to exist, and how many."""
    total = line.memory_of(0, len(line)) + line.tie_bytes
    best, least = offers[0], total + 1
    for k in sorted(range(len(offers)), key=lambda k: (-offers[k].memory, offers[k].node_id)):

        def enough(more: int, k: int = k) -> bool:
            return feasible([*offers[:k], _grown(offers[k], constraint, more), *offers[k + 1 :]])

        if not enough(least - 1):
            continue
        low, high = 0, least - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        best, least = offers[k], high
    return best, least


def _grown(offer: Offer, constraint: str, more: int) -> Offer:
    memory = offer.memory + more if "memory" in constraint else offer.memory
    disk = offer.disk + more if "disk" in constraint else offer.disk
    return replace(offer, memory=memory, disk=disk)
