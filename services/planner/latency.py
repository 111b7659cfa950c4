"""The `latency` objective: the least sum of stage times and hops, within memory.

Exact over every set and order of some thirteen to seventeen nodes, and along a given order. With
more, prices of nodes bound it and guide a search; where ranges are too many to list, all work on
the fastest nodes, each with no more than it can hold, is the bound.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from services.planner.chains import Answer, Chain, Demands, Stage
from services.planner.following import Following
from services.planner.line import Line, Offer
from services.planner.mending import mended, seconds
from services.planner.priced import Priced, applies
from services.planner.windows import Window, along, cells, quickest, window_of

BY_SEARCH = "complete search under prices of nodes"
BY_PRICES = "prices of nodes"
BY_ALL = "every set and order"
BY_ORDER = "order given: dynamic programme"
_FEW_CELLS, _SOME_CELLS, _MOST_CELLS = 2_000_000, 8_000_000, 70_000_000
_LEAST_NODES = 8
_TURNS = 2
_SAFE = 1 - 1e-12
Floats = npt.NDArray[np.float64]


class Known(NamedTuple):
    """The best chain known, or an empty one, and its latency."""

    chain: Chain
    latency_s: float


def solve(
    line: Line, offers: Sequence[Offer], demands: Demands, another: Callable[[], Chain | None]
) -> Answer | None:
    """The chain with the least latency found; `bottleneck_s` of the answer is that latency.

    `another` gives some chain within the demands, if there is any; it is asked where not every set
    of nodes can be looked at and no search found one. None where no chain exists.
    """
    everyone = tuple(range(len(offers)))
    looked_at = cells(len(line), len(offers))
    if demands.order:
        return _exact(*_along(line, offers, demands, demands.order), BY_ORDER)
    if looked_at <= _SOME_CELLS:
        return _exact(*_over(line, offers, demands, everyone), BY_ALL)
    known = Known(*_over(line, offers, demands, _considered(line, offers, demands)))
    found = _searched(line, offers, demands, known) if applies(line, offers) else None
    if found is not None and found.proof == BY_SEARCH:
        return found
    if looked_at <= _MOST_CELLS:
        return _exact(*_over(line, offers, demands, everyone), BY_ALL)
    if found is not None:
        return found
    if not known.chain:
        order = tuple(stage.offer for stage in another() or ())
        known = Known(*_along(line, offers, demands, order)) if order else known
    bound_s = min(_bound(line, offers), known.latency_s)
    return Answer(*known, bound_s, "all work on the fastest nodes") if known.chain else None


def _exact(chain: Chain, latency_s: float, proof: str) -> Answer | None:
    return Answer(chain, latency_s, latency_s, proof) if chain else None


def _searched(line: Line, offers: Sequence[Offer], demands: Demands, known: Known) -> Answer | None:
    """Prices and searches by turns, each of which helps the other; None where no chain was found.

    The nodes of the best chain and the dearest ones besides are looked at in every set and order.
    """
    prices = Priced(line, offers, demands)
    windows = [window_of(line, offers, demands, k) for k in range(len(offers))]
    known = _mended(known, windows, demands)
    for _ in range(_TURNS):
        prices.raise_prices(known.latency_s)
        found = Following(prices, known.latency_s).search()
        if found.chain is not None:
            known = Known(found.chain, found.latency_s)
        if found.complete:
            return _exact(*known, BY_SEARCH)
        better = _mended(known, windows, demands)
        if found.chain is None and better == known:
            break
        known = better
    if not known.chain:
        return None
    bound_s = min(max(prices.bound_s * _SAFE, _bound(line, offers)), known.latency_s)
    return Answer(known.chain, known.latency_s, bound_s, BY_PRICES)


def _mended(known: Known, windows: Sequence[Window], demands: Demands) -> Known:
    if not known.chain:
        return known
    chain = mended(known.chain, windows, demands.must)
    return Known(chain, seconds(chain, windows))


def _over(
    line: Line, offers: Sequence[Offer], demands: Demands, chosen: Sequence[int]
) -> tuple[Chain, float]:
    """The best chain over the chosen offers, in every set and order; empty where there is none."""
    if not chosen:
        return (), math.inf
    must = sum(1 << place for place, k in enumerate(chosen) if k in demands.must)
    ranges, latency_s = quickest([window_of(line, offers, demands, k) for k in chosen], must)
    return tuple([Stage(chosen[place], start, end) for place, start, end in ranges]), latency_s


def _along(
    line: Line, offers: Sequence[Offer], demands: Demands, order: Sequence[int]
) -> tuple[Chain, float]:
    windows = [window_of(line, offers, demands, k) for k in order]
    return along(windows, order, demands.must)


def _considered(line: Line, offers: Sequence[Offer], demands: Demands) -> tuple[int, ...]:
    """Ten offers or so: the demanded ones, then the fastest and largest by turns."""
    most = sum(cells(len(line), n) <= _FEW_CELLS for n in range(1, len(offers) + 1))
    fast = sorted(range(len(offers)), key=lambda k: (-offers[k].rate, k))
    large = sorted(range(len(offers)), key=lambda k: (-offers[k].memory, k))
    ranked = [k for pair in zip(fast, large, strict=True) for k in pair]
    useful = [k for k in ranked if any(line.reach(offers[k], u) > u for u in range(len(line)))]
    return tuple(dict.fromkeys([*sorted(demands.must), *useful]))[: max(most, _LEAST_NODES)]


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
        return _along_costs(line, demands, chosen, costs)
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


def _along_costs(
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
