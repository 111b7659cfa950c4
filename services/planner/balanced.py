"""The `balanced` strategy: independent tensors, the smallest largest load, within memory.

Tensors alike in compute and bytes are one kind. Kinds are poured over the nodes, heaviest first,
each level as low as it goes; where that is not within 0.1 % of the bound, an integer programme over
how many of each kind a node gets improves it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from messages.ids import NodeId
from services.planner.bounds import least_feasible
from services.planner.evening import evened
from services.planner.failures import Infeasible, offering
from services.planner.greedy import Bin, Item, Placement
from services.planner.kinds import Floats, Ints, Kinds, kinds_of

CLOSE_ENOUGH = 1e-3
_LINEAR_CELLS = 60_000
_INTEGER_CELLS = 1_000
_BRANCHES = 60
_STEPS = 400
_TOLERANCE = 1e-12
_NEGLIGIBLE = 1e-15


@dataclass(frozen=True)
class Balance:
    """A placement with its largest load and a proven lower bound, in seconds."""

    placement: Placement
    bottleneck_s: float
    lower_bound_s: float
    proof: str


def place(items: Sequence[Item], bins: Sequence[Bin]) -> Balance:
    """The most even placement found; Infeasible where the tensors are found not to fit."""
    kinds = kinds_of(items)
    rates = np.array([b.gflops for b in bins])
    rooms = np.array([b.memory for b in bins], dtype=np.int64)
    bound_s, proof = _simple_bound(kinds, rates), "all work over all compute"
    nothing = np.zeros((len(kinds.count), len(bins)), dtype=np.int64)
    counts = _poured(kinds, rates, rooms, nothing)
    time_s = np.inf if counts is None else _time(kinds, rates, counts)
    for most_cells, branches in ((_LINEAR_CELLS, 0), (_INTEGER_CELLS, _BRANCHES)):
        if time_s <= bound_s * (1 + CLOSE_ENOUGH) or nothing.size > most_cells:
            break
        from services.planner.programme import even_counts

        found = even_counts(kinds, rates, rooms, branches)
        if found.bound_s > bound_s:
            bound_s, proof = found.bound_s, "integer programme over kinds of tensors"
        rounded = None if found.counts is None else _poured(kinds, rates, rooms, found.counts)
        if rounded is not None and _time(kinds, rates, rounded) < time_s:
            counts, time_s = rounded, _time(kinds, rates, rounded)
    if counts is not None and time_s > bound_s * (1 + CLOSE_ENOUGH):
        counts = evened(kinds, rates, rooms, counts, bound_s * (1 + CLOSE_ENOUGH / 2), _STEPS)
        time_s = _time(kinds, rates, counts)
    if counts is None:
        raise _refusal(items, bins)
    return Balance(_placement(items, bins, kinds, counts), time_s, min(bound_s, time_s), proof)


def _simple_bound(kinds: Kinds, rates: Floats) -> float:
    total = float(kinds.compute @ kinds.count / rates.sum()) * (1 - _TOLERANCE)
    return max(total, float(kinds.compute.max() / rates.max()))


def _time(kinds: Kinds, rates: Floats, counts: Ints) -> float:
    return float(((kinds.compute @ counts) / rates).max())


def _poured(kinds: Kinds, rates: Floats, rooms: Ints, placed: Ints) -> Ints | None:
    """How many of each kind each node gets: what is placed already, then the rest, heaviest first.

    None where one does not fit.
    """
    negligible = float(kinds.compute @ kinds.count) * _NEGLIGIBLE
    loads, left = kinds.compute @ placed, rooms - kinds.size @ placed
    counts, rest = placed.copy(), kinds.count - placed.sum(axis=1)
    for k, (compute, size, count) in enumerate(
        zip(kinds.compute.tolist(), kinds.size.tolist(), rest.tolist(), strict=True)
    ):
        if count == 0:
            continue
        fitting = np.minimum(left // size, count) if size else np.full(len(rates), count)
        if int(fitting.sum()) < count:
            return None
        weightless = compute <= negligible
        taken = (
            _first(fitting, count) if weightless else _level(loads, rates, fitting, compute, count)
        )
        counts[k] += taken
        loads += taken * compute
        left -= taken * size
    return counts


def _level(loads: Floats, rates: Floats, fitting: Ints, compute: float, count: int) -> Ints:
    """`count` things alike over the nodes so that the highest level is as low as it can be."""

    def taken(limit_s: float) -> Ints:
        room = np.floor((limit_s * rates - loads) / compute * (1 + _TOLERANCE))
        return np.clip(room, 0, fitting).astype(np.int64)

    top_s = float(((loads + fitting * compute) / rates).max()) * (1 + 1e-9)
    limit_s = least_feasible(lambda t: int(taken(t).sum()) >= count, 0.0, top_s)
    chosen = taken(limit_s)
    for _ in range(int(chosen.sum()) - count):
        levels = np.where(chosen > 0, (loads + chosen * compute) / rates, -np.inf)
        chosen[int(np.argmax(levels))] -= 1
    return chosen


def _first(fitting: Ints, count: int) -> Ints:
    before = np.concatenate([[0], np.cumsum(fitting)[:-1]])
    first: Ints = np.clip(count - before, 0, fitting)
    return first


def _placement(items: Sequence[Item], bins: Sequence[Bin], kinds: Kinds, counts: Ints) -> Placement:
    """Things alike go to nodes in execution order, so that neighbours tend to stay together."""
    placed: dict[NodeId, list[int]] = {b.node_id: [] for b in bins}
    for members, row in zip(kinds.members, counts.tolist(), strict=True):
        at = 0
        for bin_, count in zip(bins, row, strict=True):
            placed[bin_.node_id].extend(members[at : at + count])
            at += count
    return {
        node_id: tuple(items[k] for k in sorted(mine)) for node_id, mine in placed.items() if mine
    }


def _refusal(items: Sequence[Item], bins: Sequence[Bin]) -> Infeasible:
    need, have = sum(item.size_bytes for item in items), sum(b.memory for b in bins)
    largest_item = max(items, key=lambda item: item.size_bytes)
    largest = max(bins, key=lambda b: (b.memory, b.node_id))
    missing = largest.more(max(1, need - have, largest_item.size_bytes - largest.memory))
    return Infeasible(
        f"the tensors need {need} bytes, {largest_item.name} alone {largest_item.size_bytes}; "
        f"{offering(len(bins))} {have}, {largest.node_id} most with {largest.memory}",
        constraint=largest.limit,
        node_id=largest.node_id,
        missing=missing,
        advice=f"{missing} more bytes of {largest.limit} on {largest.node_id} are needed at least",
    )
