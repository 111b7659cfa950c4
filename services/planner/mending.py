"""A chain over many nodes made quicker part by part: every set and order of a few neighbours.

A stretch of the chain is cut anew among its own nodes and some that are unused, exactly; the rest
stays. It is done for one stretch after another until none becomes quicker.
"""

from collections.abc import Sequence

from services.planner.chains import Chain, Stage
from services.planner.windows import Window, cells, quickest

_CELLS = 300_000
_MOST_STRETCH = 7
_MOST_SWEEPS = 6
_LEAST_GAIN = 1e-9


def mended(chain: Chain, windows: Sequence[Window], must: frozenset[int]) -> Chain:
    """The chain, or a quicker one that differs from it in some stretches."""
    for _ in range(_MOST_SWEEPS):
        before = chain
        at = 0
        while at < len(chain):
            chain = _again(chain, at, windows, must)
            at += max(1, _MOST_STRETCH // 2)
        if chain == before:
            break
    return chain


def seconds(chain: Sequence[Stage], windows: Sequence[Window]) -> float:
    """The latency of these stages, their hops included."""
    return sum(float(windows[k].seconds(start)[end]) for k, start, end in chain)


def _again(chain: Chain, at: int, windows: Sequence[Window], must: frozenset[int]) -> Chain:
    """The chain with the stretch from stage `at` on cut anew, if that is quicker."""
    stretch = chain[at : at + _MOST_STRETCH]
    start, end = stretch[0].start, stretch[-1].end
    used = {stage.offer for stage in chain}
    spare = [k for k in range(len(windows)) if k not in used]
    spare.sort(key=lambda k: (windows[k].done[-1], k))
    chosen = [stage.offer for stage in stretch]
    while spare and cells(end - start, len(chosen) + 1) <= _CELLS:
        chosen.append(spare.pop(0))
    needed = sum(1 << place for place, k in enumerate(chosen) if k in must)
    ranges, time_s = quickest([windows[k].between(start, end) for k in chosen], needed)
    if not time_s < seconds(stretch, windows) * (1 - _LEAST_GAIN):
        return chain
    anew = [Stage(chosen[place], start + low, start + high) for place, low, high in ranges]
    return (*chain[:at], *anew, *chain[at + _MOST_STRETCH :])
