"""Prices of units where the configuration LP is too large to solve: multiplicative weights.

The prices y of the LP's dual minimise Σ over nodes of the most that one interval earns, a convex
function; its slope at a unit is how many of the nodes' best intervals hold it. Each round makes the
units that too many hold cheaper and the others dearer (an entropic Polyak step towards the sum at
which a limit is refused). Any prices are a valid bound, so only its tightness rests on the rounds.
"""

import numpy as np

from services.planner.covering import Floats, Prices
from services.planner.table import Ints, Reach

_CELLS = 40_000_000
_FEWEST, _MOST = 150, 400
_REFUSED = 1 - 1e-8
_TARGET = 0.995
_LEAST_STEP = 1e-3
_BEND = 0.75
_PATIENCE = 5
_SLOWER = 1.5
_SHARE_OF_ALL = 1e-3
_NOTHING = 1e-300


def weighed(reach: Reach, start: Prices) -> Prices:
    """Prices at which all nodes together earn as little as a bounded number of rounds brings."""
    counts = np.array(reach.counts, dtype=np.float64)
    units = np.diff(start.sums)
    units = units / max(np.sum(units), _NOTHING) + _SHARE_OF_ALL / len(units)
    units = units / np.sum(units)
    best, least, pace, waited = units, np.inf, 1.0, 0
    for _ in range(max(_FEWEST, min(_MOST, _CELLS // reach.ends.size))):
        earned, held = _earned(reach.ends, counts, units)
        if earned < least:
            best, least, waited = units, earned, 0
        else:
            waited += 1
            if waited == _PATIENCE:
                pace, waited = pace / _SLOWER, 0
        if least < _REFUSED:
            break
        slope = held - earned
        step = pace * max(earned - _TARGET, _LEAST_STEP) / max(1e-12, np.sum(units * slope * slope))
        units = units * (1 - np.clip(step * slope, -_BEND, _BEND))
        units = units / np.sum(units)
    return Prices(np.concatenate([[0.0], np.cumsum(best)]))


def _earned(ends: Ints, counts: Floats, units: Floats) -> tuple[float, Floats]:
    """What all nodes earn at most, and by how many of their best intervals each unit is held."""
    sums = np.concatenate([[0.0], np.cumsum(units)])
    earned = sums[ends] - sums[:-1]
    starts = earned.argmax(axis=1)
    kinds = np.arange(len(counts))
    width = ends.shape[1] + 1
    edges = np.bincount(starts, counts, width) - np.bincount(ends[kinds, starts], counts, width)
    return float(np.sum(earned[kinds, starts] * counts)), np.cumsum(edges)[:-1]
