"""Every set of a few nodes in every order, exactly: which positions of the line each set can reach.

Positions are bits of an integer, so that a pinned or shortened range is as easy as a full one. For
a few nodes only: time 2**nodes × nodes × units, no numpy.
"""

from collections.abc import Sequence

from services.planner.chains import Chain, Demands, Stage
from services.planner.line import Line, Offer


def steps(line: Line, offers: Sequence[Offer]) -> int:
    """How many steps one limit takes."""
    return (1 << min(len(offers), 62)) * len(offers) * len(line)


def feasible(line: Line, offers: Sequence[Offer], demands: Demands, limit_s: float) -> Chain | None:
    """The chain of fewest nodes whose stages all take at most `limit_s`, or None: there is none."""
    ends = [end_masks(line, offers, demands, k, limit_s) for k in range(len(offers))]
    goal = 1 << len(line)
    must = sum(1 << k for k in demands.must)
    reached = [1] + [0] * ((1 << len(offers)) - 1)
    best: int | None = None
    for nodes in range(1, len(reached)):
        reached[nodes] = _reached(nodes, reached, ends, demands.order)
        whole = reached[nodes] & goal and nodes & must == must
        if whole and (best is None or nodes.bit_count() < best.bit_count()):
            best = nodes
    return None if best is None else _walk_back(best, len(line), reached, ends, demands.order)


def end_masks(
    line: Line, offers: Sequence[Offer], demands: Demands, k: int, limit_s: float
) -> list[int]:
    """For each start, the bits of every end that offer `k` may stop at."""
    own = demands.pins.get(k)
    fences = sorted(pin for other, pin in demands.pins.items() if other != k)
    masks = []
    for start, reach in enumerate(line.reaches(offers[k], limit_s)):
        for fence_start, fence_end in fences:
            if start < fence_end:
                reach = min(reach, max(fence_start, start))
                break
        low = start + 1 if own is None else max(start + 1, own[1])
        allowed = reach >= low and (own is None or start <= own[0])
        masks.append((2 << reach) - (1 << low) if allowed else 0)
    return masks


def _last_candidates(nodes: int, order: Sequence[int]) -> list[int]:
    """The offers of the set that may be its last stage."""
    if order:
        return [k for k in reversed(order) if nodes >> k & 1][:1]
    return [k for k in range(nodes.bit_length()) if nodes >> k & 1]


def _reached(nodes: int, reached: list[int], ends: list[list[int]], order: Sequence[int]) -> int:
    positions = 0
    for k in _last_candidates(nodes, order):
        sources = reached[nodes ^ (1 << k)]
        while sources:
            lowest = sources & -sources
            start = lowest.bit_length() - 1
            if start < len(ends[k]):
                positions |= ends[k][start]
            sources ^= lowest
    return positions


def _walk_back(
    nodes: int, end: int, reached: list[int], ends: list[list[int]], order: Sequence[int]
) -> Chain:
    stages: list[Stage] = []
    while nodes:
        k, start = next(
            (k, start)
            for k in _last_candidates(nodes, order)
            for start in range(end)
            if reached[nodes ^ (1 << k)] >> start & 1 and ends[k][start] >> end & 1
        )
        stages.append(Stage(k, start, end))
        nodes, end = nodes ^ (1 << k), start
    return tuple(reversed(stages))
