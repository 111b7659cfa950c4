"""The `latency` objective: the least sum of stage times and hops, within memory.

Exact over every set and order of up to ten nodes, and along a given order. With more, the better of
two: the ten that hold most work fastest, and the chain with the best throughput cut anew; against a
bound: all work done by the fastest nodes, each with no more than it can hold.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from services.planner.chains import Answer, Chain, Demands, Stage
from services.planner.exhaustive import end_masks
from services.planner.line import Line, Offer

_MOST_NODES = 10
Floats = npt.NDArray[np.float64]


def solve(
    line: Line, offers: Sequence[Offer], demands: Demands, another: Callable[[], Chain | None]
) -> Answer | None:
    """The chain with the least latency found; `bottleneck_s` of the answer is that latency.

    `another` gives some chain within the demands, if there is any; it is asked where not every set
    of nodes can be looked at. None where no chain exists.
    """
    chosen = _considered(line, offers, demands)
    chain, latency_s = _over(line, offers, demands, chosen)
    if demands.order or len(chosen) == len(offers):
        proof = "order given: dynamic programme" if demands.order else "every set and order"
        return None if chain is None else Answer(chain, latency_s, latency_s, proof)
    order = tuple(stage.offer for stage in another() or ())
    if order:
        again, again_s = _over(line, offers, replace(demands, order=order), order)
        if again_s < latency_s:
            chain, latency_s = again, again_s
    if chain is None:
        return None
    bound_s = min(_bound(line, offers), latency_s)
    return Answer(chain, latency_s, bound_s, "all work on the fastest nodes")


def _over(
    line: Line, offers: Sequence[Offer], demands: Demands, chosen: Sequence[int]
) -> tuple[Chain | None, float]:
    return cheapest(line, demands, chosen, [_costs(line, offers, demands, k) for k in chosen])


def _considered(line: Line, offers: Sequence[Offer], demands: Demands) -> tuple[int, ...]:
    """At most ten offers: the demanded ones, then the fastest and largest by turns."""
    if demands.order:
        return demands.order
    if len(offers) <= _MOST_NODES:
        return tuple(range(len(offers)))
    fast = sorted(range(len(offers)), key=lambda k: (-offers[k].rate, k))
    large = sorted(range(len(offers)), key=lambda k: (-offers[k].memory, k))
    ranked = [k for pair in zip(fast, large, strict=True) for k in pair]
    useful = [k for k in ranked if any(line.reach(offers[k], u) > u for u in range(len(line)))]
    return tuple(dict.fromkeys([*sorted(demands.must), *useful]))[:_MOST_NODES]


def _costs(line: Line, offers: Sequence[Offer], demands: Demands, k: int) -> Floats:
    """Seconds of [start, end) on offer k, the hop away from it included; infinite where barred."""
    offer, count = offers[k], len(line)
    sums = np.array(line.work_sums, dtype=np.float64)
    costs = (sums[None, :] - sums[:, None]) / offer.rate
    leaving = [offer.hop_s + offer.byte_s * out for out in line.outputs[:-1]]
    costs[:, 1:count] += np.array(leaving)[None, :] if leaving else 0.0
    allowed = np.zeros((count + 1, count + 1), dtype=bool)
    for start, mask in enumerate(end_masks(line, offers, demands, k, math.inf)):
        bits = np.array([mask >> end & 1 for end in range(count + 1)], dtype=bool)
        allowed[start] = bits
    return np.where(allowed, costs, np.inf)


def cheapest(
    line: Line, demands: Demands, chosen: Sequence[int], costs: Sequence[Floats]
) -> tuple[Chain | None, float]:
    """The chain over `chosen` whose ranges cost least in all, and what it costs.

    `costs` are by start and end, for each of `chosen`, infinite where a range is barred. Exact:
    over sets in rising order the least to each position; an order allows one last. Of equals the
    chain with fewer stages.
    """
    count = len(line)
    must = sum(1 << place for place, k in enumerate(chosen) if k in demands.must)
    if demands.order:
        return _along(line, demands, chosen, costs)
    start = np.full(count + 1, np.inf)
    start[0] = 0.0
    reached: list[Floats] = [start]
    best, best_s, fewest = 0, math.inf, 0
    for nodes in range(1, 1 << len(chosen)):
        times = np.full(count + 1, np.inf)
        for place, cost in enumerate(costs):
            if nodes >> place & 1:
                before = reached[nodes ^ (1 << place)]
                np.minimum(times, (before[:, None] + cost).min(axis=0), out=times)
        reached.append(times)
        rank = (float(times[count]), nodes.bit_count())
        if rank < (best_s, fewest) and nodes & must == must:
            best, (best_s, fewest) = nodes, rank
    if math.isinf(best_s):
        return None, best_s
    stages: list[Stage] = []
    at, nodes = count, best
    while nodes:
        place, source = _came_from(reached, costs, nodes, at)
        stages.append(Stage(chosen[place], source, at))
        at, nodes = source, nodes ^ (1 << place)
    return tuple(reversed(stages)), best_s


def _came_from(
    reached: Sequence[Floats], costs: Sequence[Floats], nodes: int, at: int
) -> tuple[int, int]:
    """The last stage's offer and start, of a set that reached `at` at its least time."""
    times = {
        (float(before[source] + cost[source, at]), place, int(source))
        for place, cost in enumerate(costs)
        if nodes >> place & 1
        for before in (reached[nodes ^ (1 << place)],)
        for source in (int(np.argmin(before + cost[:, at])),)
    }
    _, place, source = min(times)
    return place, source


def _along(
    line: Line, demands: Demands, chosen: Sequence[int], costs: Sequence[Floats]
) -> tuple[Chain | None, float]:
    """The best chain along a given order; offers that need not be there may be skipped."""
    count = len(line)
    times = np.full(count + 1, np.inf)
    times[0] = 0.0
    came: list[npt.NDArray[np.int64]] = []
    for k, cost in zip(chosen, costs, strict=True):
        through = times[:, None] + cost
        source = through.argmin(axis=0)
        after = through.min(axis=0)
        kept = np.full(count + 1, np.inf) if k in demands.must else times
        came.append(np.where(after < kept, source, -1))
        times = np.minimum(after, kept)
    if math.isinf(times[count]):
        return None, math.inf
    stages: list[Stage] = []
    at = count
    for place in range(len(chosen) - 1, -1, -1):
        source_at = int(came[place][at])
        if source_at >= 0:
            stages.append(Stage(chosen[place], source_at, at))
            at = source_at
    return tuple(reversed(stages)), float(times[count])


def _bound(line: Line, offers: Sequence[Offer]) -> float:
    """All work on the fastest nodes, each with no more than its largest range; hops are free."""
    left, seconds = line.work_sums[-1], 0.0
    for offer in sorted(offers, key=lambda o: -o.rate):
        most = max(line.work(start, line.reach(offer, start)) for start in range(len(line)))
        done = min(left, most)
        seconds += done / offer.rate
        left -= done
    return seconds * (1 - 1e-12)
