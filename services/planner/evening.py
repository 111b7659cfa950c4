"""Local improvement of `balanced`: move or swap tensors off the fullest node, one by one."""

import numpy as np

from services.planner.kinds import Floats, Ints, Kinds

_MOST_CELLS = 4_000_000
_LEAST_GAIN = 1e-9


def evened(
    kinds: Kinds, rates: Floats, rooms: Ints, counts: Ints, enough_s: float, steps: int
) -> Ints:
    """Counts whose largest load is no more than before, after at most `steps` exchanges.

    A step takes the best exchange of one tensor of the fullest node for one or none of another
    node, within memory; it ends where none helps or the largest load is at most `enough_s`.
    """
    counts = counts.copy()
    # Nothing is a kind as well: exchanging something for nothing is a move.
    compute = np.concatenate([kinds.compute, [0.0]])
    size = np.concatenate([kinds.size, [0]])
    loads, left = kinds.compute @ counts, rooms - kinds.size @ counts
    for _ in range(steps):
        times = loads / rates
        full = int(np.argmax(times))
        mine = np.nonzero(counts[:, full])[0]
        if times[full] <= enough_s or len(mine) * len(compute) * len(rates) > _MOST_CELLS:
            break
        given = compute[mine][:, None] - compute[None, :]
        bytes_given = size[mine][:, None] - size[None, :]
        here = (loads[full] - given) / rates[full]
        there = (loads[None, None, :] + given[:, :, None]) / rates
        worst = np.maximum(here[:, :, None], there)
        held = np.concatenate([counts > 0, np.ones((1, len(rates)), dtype=bool)])
        fits = (bytes_given[:, :, None] <= left) & (left[full] + bytes_given >= 0)[:, :, None]
        worst = np.where(fits & held[None, :, :] & (given > 0)[:, :, None], worst, np.inf)
        worst[:, :, full] = np.inf
        a, b, node = np.unravel_index(int(np.argmin(worst)), worst.shape)
        if not worst[a, b, node] < times[full] * (1 - _LEAST_GAIN):
            break
        kind = int(mine[a])
        counts[kind, full] -= 1
        counts[kind, node] += 1
        if b < len(kinds.compute):
            counts[b, node] -= 1
            counts[b, full] += 1
        loads, left = kinds.compute @ counts, rooms - kinds.size @ counts
    return counts
