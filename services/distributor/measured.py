"""What was measured of a machine, kept in its home; and what of it is free under a load. Pure.

Loads are shares from 0 to 1.
"""

import msgspec

_REMEASURE_S = 7 * 86_400.0
_SETTLED_S = 600.0
_BUSY = 0.5


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """The rate of matrix products in `dtype` and of memory copies, of whatever `machine` names.

    `load` is how busy it was just before, `at` Unix seconds.
    """

    machine: str
    compute_gflops: float
    copy_gbps: float
    at: float
    load: float = 0.0
    dtype: str = "float32"


def due(known: Measured | None, machine: str, load: float, now: float) -> bool:
    """Whether to measure: for the first time, after a week, or as it was busy and is not, or is.

    A load that comes or goes is followed ten minutes after the last measurement at the earliest.
    """
    if known is None or known.machine != machine:
        return True
    age_s = now - known.at
    changed = (known.load >= _BUSY) != (load >= _BUSY)
    return not 0 <= age_s < _REMEASURE_S or (changed and age_s >= _SETTLED_S)


def free_gflops(figures: Measured, load: float) -> float:
    """What is left under a load, of which only what was not there as it was measured counts.

    In steps of a tenth: nodes that are alike and idle are then alike to the planner.
    """
    now, then = round(min(load, 1.0), 1), round(min(figures.load, 0.9), 1)
    return figures.compute_gflops * min(1.0, (1.0 - now) / (1.0 - then))
