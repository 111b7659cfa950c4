"""The relay that brings the parts out: a chain or a star, by predicted finishing time.

Times assume chunks verified and sent on at once (cut-through), so a chain takes as long as its
slowest link and a star as long as the start node's upload or the slowest receiver.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from operator import truediv

from messages.ids import NodeId
from messages.plans import MegaphonePlan, RelayStep
from messages.wishes import Relay

ASSUMED_MBPS = 1000.0
_WORTH_IT = 0.95


def relay_plan(
    parts: Mapping[NodeId, tuple[str, ...]],
    sizes: Mapping[str, int],
    mbps: Mapping[NodeId, float | None],
    origin: NodeId | None,
    relay: Relay,
) -> tuple[MegaphonePlan, float]:
    """The relay of these parts (tensor names by node, in pipeline order) and its seconds.

    The origin comes first where it has a part itself. The default is a chain in pipeline order; a
    star, or a chain by falling bandwidth, is taken where it is predicted 5 % faster.
    """
    start = origin if origin is not None else next(iter(parts))
    order = sorted(parts, key=start.__ne__)
    rate = {n: (mbps.get(n) or ASSUMED_MBPS) * 1e6 / 8 for n in {start, *parts}}
    chain_s = chain_time(order, start, parts, sizes, rate)
    star_s = star_time(order, start, parts, sizes, rate)
    by_rate = sorted(order, key=rate.__getitem__, reverse=True)
    by_rate.sort(key=start.__ne__)
    by_rate_s = chain_s if by_rate == order else chain_time(by_rate, start, parts, sizes, rate)
    reason = "chain in pipeline order"
    if by_rate_s < _WORTH_IT * chain_s:
        order, chain_s, reason = by_rate, by_rate_s, "chain, fastest links first"
    if any(mbps.get(n) is None for n in rate):
        reason += f"; links that report no bandwidth are taken as {ASSUMED_MBPS:g} Mbps"
    figures = f": {chain_s:.3g} s predicted, a star {star_s:.3g} s"
    if relay == "star" or (relay == "auto" and star_s < _WORTH_IT * chain_s):
        why = "as requested" if relay == "star" else f"{chain_s:.3g} s predicted as a chain"
        steps = _star(order, start, parts)
        plan = MegaphonePlan(
            start_node=start,
            chain=steps,
            topology="star",
            reason=f"star: {star_s:.3g} s predicted, {why}",
        )
        return plan, star_s
    plan = MegaphonePlan(
        start_node=start, chain=_chain(order, parts), topology="chain", reason=reason + figures
    )
    return plan, chain_s


def chain_time(
    order: Sequence[NodeId],
    start: NodeId,
    parts: Mapping[NodeId, tuple[str, ...]],
    sizes: Mapping[str, int],
    rate: Mapping[NodeId, float],
) -> float:
    """Seconds of a chain: each link carries once whatever anybody behind it needs.

    The start node comes first where it is in `order` at all.
    """
    receivers = order[1:] if order[0] == start else order
    rates = [rate[start], *[rate[node] for node in receivers]]
    links = map(min, rates, rates[1:])
    return max(map(truediv, _needed_from(receivers, parts, sizes), links), default=0.0)


def _needed_from(
    order: Sequence[NodeId], parts: Mapping[NodeId, tuple[str, ...]], sizes: Mapping[str, int]
) -> list[int]:
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


def star_time(
    order: Sequence[NodeId],
    start: NodeId,
    parts: Mapping[NodeId, tuple[str, ...]],
    sizes: Mapping[str, int],
    rate: Mapping[NodeId, float],
) -> float:
    """Seconds of a star: the start node sends every part itself."""
    each = {n: sum([sizes.get(name, 0) for name in parts[n]]) for n in order if n != start}
    slowest = max((size / rate[n] for n, size in each.items()), default=0.0)
    return max(slowest, sum(each.values()) / rate[start])


def _chain(
    order: Sequence[NodeId], parts: Mapping[NodeId, tuple[str, ...]]
) -> tuple[RelayStep, ...]:
    return tuple(
        RelayStep(
            node_id=node,
            step=step,
            layer_names=parts[node],
            next_nodes=tuple(order[step + 1 : step + 2]),
        )
        for step, node in enumerate(order)
    )


def _star(
    order: Sequence[NodeId], start: NodeId, parts: Mapping[NodeId, tuple[str, ...]]
) -> tuple[RelayStep, ...]:
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
