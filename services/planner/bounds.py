"""Times below which no chain can be: cheap bounds, and bisection down to neighbouring doubles."""

from collections.abc import Callable, Sequence

from services.planner.line import Line, Offer, work_cap


def lower_bound(line: Line, offers: Sequence[Offer]) -> float:
    """The time at which the work fits when every node takes any range it can hold, or more.

    A node does at most its time's worth, and at most the most work of a range within its memory;
    the largest unit must run on some node that can hold it.
    """
    total = line.work_sums[-1]
    most = [_largest_range(line, offer) for offer in offers]

    def enough(limit_s: float) -> bool:
        return total <= sum(
            min(work_cap(limit_s, offer.rate, total), work)
            for offer, work in zip(offers, most, strict=True)
        )

    holders = [o.rate for o in offers if line.reach(o, _heaviest(line)) > _heaviest(line)]
    unit_s = max(line.works) / max(holders) if holders else 0.0
    if sum(most) < total:
        return unit_s
    top_s = max(work / offer.rate for offer, work in zip(offers, most, strict=True))
    ideal_s = total / sum(offer.rate for offer in offers) * (1 - 1e-12)
    return max(unit_s, least_feasible(enough, min(ideal_s, top_s), top_s, tolerance=1e-12))


def least_feasible(
    feasible: Callable[[float], bool], low_s: float, high_s: float, *, tolerance: float = 0.0
) -> float:
    """The smallest time in (low_s, high_s] that is feasible, where high_s is; to the last bit.

    With a tolerance a time that is not feasible, at most that share below the smallest one.
    """
    low, high = low_s, high_s
    while True:
        middle = low + (high - low) / 2
        if middle <= low or middle >= high:
            return low if tolerance else high
        if high - low <= tolerance * high:
            return low
        if feasible(middle):
            high = middle
        else:
            low = middle


def _heaviest(line: Line) -> int:
    return max(range(len(line)), key=lambda u: (line.works[u], -u))


def _largest_range(line: Line, offer: Offer) -> int:
    """The most work of any range that the offer can hold."""
    return max(line.work(start, line.reach(offer, start)) for start in range(len(line)))
