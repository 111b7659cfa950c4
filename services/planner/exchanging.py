"""Groups of nodes made better by moving or swapping one node at a time, with few solved chains."""

from collections.abc import Callable, Iterable, Sequence

Groups = tuple[tuple[int, ...], ...]
Passes = Callable[[tuple[int, ...]], float]
_MOST_SOLVED = 160
_LEAST_GAIN = 1e-9


def regrouped(groups: Groups, nodes: int, passes: Passes) -> Groups:
    """The groups after the best exchanges of a node between two of them, or with those in none.

    `passes` are a group's passes a second, 0 where it forms no chain; so many groups as before are
    kept. Ends where no exchange helps, or after enough different groups were asked about.
    """
    solved: dict[tuple[int, ...], float] = {}

    def rate(group: tuple[int, ...]) -> float:
        if group not in solved:
            solved[group] = passes(group) if group else 0.0
        return solved[group]

    idle = tuple(k for k in range(nodes) if all(k not in group for group in groups))
    parts = (*groups, idle)
    while len(solved) < _MOST_SOLVED:
        best, gained = parts, _LEAST_GAIN
        for a, b, one, other in _exchanges(parts):
            if len(solved) >= _MOST_SOLVED:
                break
            before = sum(rate(parts[g]) for g in (a, b) if g < len(groups))
            after = [rate(part) for g, part in ((a, one), (b, other)) if g < len(groups)]
            if min(after) > 0 and sum(after) / before - 1 > gained:
                gained = sum(after) / before - 1
                best = tuple(
                    one if g == a else other if g == b else part for g, part in enumerate(parts)
                )
        if best == parts:
            break
        parts = best
    return tuple(sorted(parts[:-1]))


def _exchanges(
    parts: Sequence[tuple[int, ...]],
) -> Iterable[tuple[int, int, tuple[int, ...], tuple[int, ...]]]:
    """Two parts and what they are after a node of the first moved, or was swapped for another."""
    for a in range(len(parts)):
        for b in range(len(parts)):
            if a == b:
                continue
            for k in parts[a]:
                for i in (None, *parts[b]) if a < b else (None,):
                    one = {*parts[a], *(() if i is None else (i,))} - {k}
                    other = ({*parts[b], k}) - ({i} if i is not None else set())
                    yield a, b, tuple(sorted(one)), tuple(sorted(other))
