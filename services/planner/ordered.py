"""The best cuts for a fixed order of nodes: each in turn takes as much as fits, or is skipped."""

from collections.abc import Sequence

from services.planner.chains import Chain, Demands, Stage
from services.planner.exhaustive import end_masks
from services.planner.line import Line, Offer, work_cap


def feasible(
    line: Line, offers: Sequence[Offer], demands: Demands, order: Sequence[int], limit_s: float
) -> Chain | None:
    """A chain along `order` whose stages all take at most `limit_s`, or None: there is none.

    Offers may be skipped unless they are demanded. O(nodes × units).
    """
    if not demands:
        return _greedy(line, offers, order, limit_s)
    reached = [1]
    ends = [end_masks(line, offers, demands, k, limit_s) for k in order]
    for k, masks in zip(order, ends, strict=True):
        positions = 0 if k in demands.must else reached[-1]
        for start, mask in enumerate(masks):
            if reached[-1] >> start & 1:
                positions |= mask
        reached.append(positions)
    if not reached[-1] >> len(line) & 1:
        return None
    return _walk_back(line, demands, order, reached, ends)


def _greedy(
    line: Line, offers: Sequence[Offer], order: Sequence[int], limit_s: float
) -> Chain | None:
    stages: list[Stage] = []
    at, total = 0, line.work_sums[-1]
    for k in order:
        end = line.reach(offers[k], at, work_cap(limit_s, offers[k].rate, total))
        if end > at:
            stages.append(Stage(k, at, end))
            at = end
        if at == len(line):
            return tuple(stages)
    return None


def _walk_back(
    line: Line,
    demands: Demands,
    order: Sequence[int],
    reached: list[int],
    ends: list[list[int]],
) -> Chain:
    stages: list[Stage] = []
    end = len(line)
    for place in range(len(order) - 1, -1, -1):
        k = order[place]
        if k not in demands.must and reached[place] >> end & 1:
            continue
        start = next(s for s in range(end) if reached[place] >> s & 1 and ends[place][s] >> end & 1)
        stages.append(Stage(k, start, end))
        end = start
    return tuple(reversed(stages))
