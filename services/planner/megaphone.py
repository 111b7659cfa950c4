"""The relay that brings the parts out: whose bytes go hand to hand, and whose straight.

Times count the bytes that each node sends and receives over its bandwidth. Chunks are verified and
sent on at once (cut-through), so the busiest link decides. `mixed`, fastest links first, is never
later than a chain in any order, whose links carry as much and what they pass through, nor than a
star, where the origin sends what several need to each: who hands on sends no more than it received,
and to nobody faster than itself.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from operator import truediv
from typing import Literal, NamedTuple

from messages.ids import NodeId
from messages.plans import MegaphonePlan, RelayStep
from messages.wishes import Relay

ASSUMED_MBPS = 1000.0
_WORTH_IT = 0.95
_ROUNDING = 1 + 1e-9
_ELSEWHERE = NodeId("")
"""Whoever has the model, where it is not known who that is: none of the receivers."""

Parts = Mapping[NodeId, tuple[str, ...]]


class Traffic(NamedTuple):
    """What one shape of the relay takes: seconds until all is there, bytes over all links."""

    seconds: float
    carried_bytes: int


class _Shape(NamedTuple):
    topology: Literal["chain", "star", "mixed"]
    how: str
    order: list[NodeId]
    traffic: Traffic


def relay_plan(
    parts: Parts,
    sizes: Mapping[str, int],
    mbps: Mapping[NodeId, float | None],
    origin: NodeId | None,
    relay: Relay,
) -> tuple[MegaphonePlan, float]:
    """The relay of these parts (tensor names by node, in pipeline order) and its seconds.

    The origin comes first where it has a part itself; None is somebody without a part. `auto` takes
    the shape that is predicted soonest; of those alike the one that sends fewest bytes, and a chain
    before `mixed` before a star. A chain goes in pipeline order, or by falling bandwidth where that
    is predicted 5 % faster.
    """
    start = _ELSEWHERE if origin is None else origin
    rate = {n: (mbps.get(n) or ASSUMED_MBPS) * 1e6 / 8 for n in {start, *parts}}
    order = sorted(parts, key=start.__ne__)
    by_rate = sorted(order, key=rate.__getitem__, reverse=True)
    by_rate.sort(key=start.__ne__)
    chain = _chain_shape(order, by_rate, start, parts, sizes, rate)
    mixed = _Shape(
        "mixed",
        "what one node needs from the origin, what several need handed on, fastest links first",
        by_rate,
        mixed_traffic(by_rate, start, parts, sizes, rate),
    )
    star = _Shape("star", "as requested", order, star_traffic(order, start, parts, sizes, rate))
    shapes = (chain, mixed, star)
    taken = {"chain": chain, "star": star}.get(relay) or _least(shapes)
    told = "; ".join(f"{shape.topology} {_figures(shape.traffic)}" for shape in shapes)
    reason = f"{taken.topology}, {taken.how}; predicted: {told}"
    if any(mbps.get(n) is None for n in rate):
        reason += f"; links that report no bandwidth are taken as {ASSUMED_MBPS:g} Mbps"
    steps = (_star if taken is star else _chain)(taken.order, start, parts)
    plan = MegaphonePlan(
        start_node=taken.order[0] if origin is None else origin,
        chain=steps,
        topology=taken.topology,
        reason=reason,
    )
    return plan, taken.traffic.seconds


def _chain_shape(
    order: list[NodeId],
    by_rate: list[NodeId],
    start: NodeId,
    parts: Parts,
    sizes: Mapping[str, int],
    rate: Mapping[NodeId, float],
) -> _Shape:
    traffic = chain_traffic(order, start, parts, sizes, rate)
    if by_rate != order:
        faster = chain_traffic(by_rate, start, parts, sizes, rate)
        if faster.seconds < _WORTH_IT * traffic.seconds:
            return _Shape("chain", "fastest links first", by_rate, faster)
    return _Shape("chain", "in pipeline order", order, traffic)


def _least(shapes: Sequence[_Shape]) -> _Shape:
    """The soonest; of those that are as soon, the first of those that send fewest bytes."""
    soonest = min(shape.traffic.seconds for shape in shapes)
    as_soon = [shape for shape in shapes if shape.traffic.seconds <= soonest * _ROUNDING]
    return min(as_soon, key=lambda shape: shape.traffic.carried_bytes)


def _figures(traffic: Traffic) -> str:
    return f"{traffic.seconds:.3g} s and {traffic.carried_bytes / 1e6:.4g} MB in all"


def chain_traffic(
    order: Sequence[NodeId],
    start: NodeId,
    parts: Parts,
    sizes: Mapping[str, int],
    rate: Mapping[NodeId, float],
) -> Traffic:
    """A chain: each link carries once whatever anybody behind it needs.

    The start node comes first where it is in `order` at all.
    """
    receivers = order[1:] if order[0] == start else order
    rates = [rate[start], *[rate[node] for node in receivers]]
    carried = _needed_from(receivers, parts, sizes)
    seconds = max(map(truediv, carried, map(min, rates, rates[1:])), default=0.0)
    return Traffic(seconds, sum(carried))


def _needed_from(order: Sequence[NodeId], parts: Parts, sizes: Mapping[str, int]) -> list[int]:
    """For each node the bytes that it and those after it need, each tensor once."""
    seen: set[str] = set()
    own = []
    for node in reversed(order):
        mine = parts[node]
        if not seen.isdisjoint(mine):
            mine = tuple([name for name in mine if name not in seen])
        seen.update(mine)
        own.append(sum([sizes.get(name, 0) for name in mine]))
    return list(accumulate(own))[::-1]


def mixed_traffic(
    order: Sequence[NodeId],
    start: NodeId,
    parts: Parts,
    sizes: Mapping[str, int],
    rate: Mapping[NodeId, float],
) -> Traffic:
    """What several need goes along those who need it, in this order; all else from the start."""
    sent = dict.fromkeys((start, *order), 0)
    received = dict.fromkeys(order, 0)
    holder: dict[str, NodeId] = {}
    for node in order:
        if node == start:
            continue
        mine = parts[node]
        received[node] = sum([sizes.get(name, 0) for name in mine])
        if holder.keys().isdisjoint(mine):
            sent[start] += received[node]
        else:
            for name in mine:
                sent[holder.get(name, start)] += sizes.get(name, 0)
        holder.update(dict.fromkeys(mine, node))
    busy = [size / rate[node] for ends in (sent, received) for node, size in ends.items()]
    return Traffic(max(busy, default=0.0), sum(received.values()))


def star_traffic(
    order: Sequence[NodeId],
    start: NodeId,
    parts: Parts,
    sizes: Mapping[str, int],
    rate: Mapping[NodeId, float],
) -> Traffic:
    """A star: the start node sends every part itself."""
    each = {n: sum([sizes.get(name, 0) for name in parts[n]]) for n in order if n != start}
    slowest = max((size / rate[n] for n, size in each.items()), default=0.0)
    carried = sum(each.values())
    return Traffic(max(slowest, carried / rate[start]), carried)


def _chain(order: Sequence[NodeId], _start: NodeId, parts: Parts) -> tuple[RelayStep, ...]:
    return tuple(
        RelayStep(
            node_id=node,
            step=step,
            layer_names=parts[node],
            next_nodes=tuple(order[step + 1 : step + 2]),
        )
        for step, node in enumerate(order)
    )


def _star(order: Sequence[NodeId], start: NodeId, parts: Parts) -> tuple[RelayStep, ...]:
    others = tuple(node for node in order if node != start)
    return tuple(
        RelayStep(
            node_id=node,
            step=0 if node == start else 1,
            layer_names=parts[node],
            next_nodes=others if node == start else (),
        )
        for node in order
    )
