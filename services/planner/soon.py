"""The chain that moves the fewest bytes with a latency under a limit.

A best-first search over (set of nodes, unit reached), by the bytes that must move at least: the
first chain that comes out moves fewest. Of one state's ways a later one moves no less, so only a
faster one counts. Where the search takes too many steps, orders of nodes are tried instead, with
bytes and seconds weighed against each other.
"""

import heapq
import math
from typing import NamedTuple

import numpy as np

from services.planner.chains import Chain, Stage
from services.planner.exhaustive import end_masks
from services.planner.line import Offer
from services.planner.moves import Floats, Loss, along, move_costs, orders

_MOST_CELLS = 20_000_000
_MOST_STEPS = 40_000
_MOST_ORDERS = 24
_LEAST_S = 1e-9
_WEIGHTS = (0.03, 0.3, 3.0, 30.0)


class _Range(NamedTuple):
    """Units up to `end` on an offer: bytes that move and seconds, the hop onward included."""

    offer: int
    end: int
    moved: float
    seconds: float


def fewest_moves_soon(loss: Loss, limit_s: float) -> Chain | None:
    """The chain found to move fewest bytes in at most `limit_s` seconds; None: none found.

    Nor is one looked for where there are more than millions of ranges on nodes.
    """
    if len(loss.offers) * (len(loss.line) + 1) ** 2 > _MOST_CELLS:
        return None
    moved, seconds = _matrices(loss)
    found = _search(loss, moved, seconds, limit_s)
    return _weighed(loss, moved, seconds, limit_s) if found is None else found


def _matrices(loss: Loss) -> tuple[list[Floats], list[Floats]]:
    """Bytes and seconds of every range on every offer; infinite where it may not be."""
    count = len(loss.line)
    moved, seconds = [], []
    for k, offer in enumerate(loss.offers):
        masks = end_masks(loss.line, loss.offers, loss.demands, k, math.inf)
        may = np.zeros((count + 1, count + 1), dtype=bool)
        for start, mask in enumerate(masks):
            may[start] = [bool(mask >> end & 1) for end in range(count + 1)]
        costs = move_costs(loss.line, offer, loss.held.get(k), math.inf)
        moved.append(np.where(may, costs, np.inf))
        seconds.append(np.where(may, _all_seconds(loss, offer), np.inf))
    return moved, seconds


def _all_seconds(loss: Loss, offer: Offer) -> Floats:
    sums = np.array(loss.line.work_sums, dtype=np.float64)
    hops = [0.0, *(offer.hop_s + offer.byte_s * out for out in loss.line.outputs[:-1]), 0.0]
    times: Floats = (sums[None, :] - sums[:, None]) / offer.rate + np.array(hops)[None, :]
    return times


def _to_go(costs: list[Floats]) -> Floats:
    """At least what is left from each unit on, if every node could be used again."""
    least = np.stack(costs).min(axis=0)
    left = np.full(len(least), np.inf)
    left[-1] = 0.0
    for start in range(len(left) - 2, -1, -1):
        left[start] = (least[start] + left).min()
    return left


def _search(loss: Loss, moved: list[Floats], seconds: list[Floats], limit_s: float) -> Chain | None:
    """Exact where it ends within its steps: None then says that there is no such chain."""
    goal, left, left_s = len(loss.line), _to_go(moved), _to_go(seconds)
    must = sum(1 << k for k in loss.demands.must)
    ranges = [_ranges(start, moved, seconds, left_s, limit_s) for start in range(goal)]
    soonest: dict[tuple[int, int], float] = {}
    heap: list[tuple[float, float, int, int, Chain]] = [(float(left[0]), 0.0, 0, 0, ())]
    steps = 0
    while heap and steps < _MOST_STEPS:
        least, spent_s, at, used, chain = heapq.heappop(heap)
        if at == goal:
            return chain
        if spent_s >= soonest.get((used, at), math.inf):
            continue
        soonest[used, at] = spent_s
        for offer, end, more, more_s in ranges[at]:
            steps += 1
            now_s = spent_s + more_s
            if used >> offer & 1 or now_s + left_s[end] > limit_s:
                continue
            mask = used | 1 << offer
            if end == goal and mask & must != must:
                continue
            bytes_so_far = least - left[at] + more + left[end]
            step = (*chain, Stage(offer, at, end))
            heapq.heappush(heap, (float(bytes_so_far), now_s, end, mask, step))
    return None


def _ranges(
    start: int, moved: list[Floats], seconds: list[Floats], left_s: Floats, limit_s: float
) -> list[_Range]:
    return [
        _Range(k, end, float(moved[k][start, end]), float(times[start, end]))
        for k, times in enumerate(seconds)
        for end in np.nonzero(times[start] + left_s <= limit_s)[0].tolist()
    ]


def _weighed(
    loss: Loss, moved: list[Floats], seconds: list[Floats], limit_s: float
) -> Chain | None:
    """The best of some orders, cut for the least of bytes and weighted seconds together."""
    whole = max(1.0, float(loss.line.disk_sums[-1]))
    best: tuple[int, Chain] | None = None
    tried = [order for _, order in zip(range(_MOST_ORDERS), orders(loss, math.inf), strict=False)]
    for weight in _WEIGHTS:
        costs = {
            k: bytes_in / whole + weight * (times / max(limit_s, _LEAST_S))
            for k, (bytes_in, times) in enumerate(zip(moved, seconds, strict=True))
        }
        for order in tried:
            found = along(loss.line, order, costs)
            if found is None or sum(seconds[k][i, j] for k, i, j in found[2]) > limit_s:
                continue
            if loss.demands.must <= {stage.offer for stage in found[2]}:
                candidate = (loss.moved(found[2]), found[2])
                best = candidate if best is None else min(best, candidate)
    return best and best[1]
