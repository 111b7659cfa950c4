"""The guided search in parts, for lines too large for branch and bound.

One set of prices for the whole line lets the search spend the nodes that fit anywhere first and end
with those that fit nowhere. So it stops after each part of the line, takes the thriftiest set, and
weighs new prices for the units and nodes that are left.
"""

import numpy as np

from services.planner.covering import Prices
from services.planner.guided import Guided
from services.planner.table import Ranges, Reach
from services.planner.weighing import weighed

_PARTS = 8


def rolled(reach: Reach, prices: Prices, width: int) -> Ranges | None:
    """The (kind, start, end) ranges of a chain, if the search comes upon one."""
    ranges: Ranges = ()
    left, sums, at = np.array(reach.counts), prices.sums, 0
    part = -(-reach.goal // _PARTS)
    while at < reach.goal:
        kinds = np.nonzero(left)[0]
        rest = Reach(reach.ends[kinds, at:] - at, tuple(left[kinds].tolist()), ())
        priced = weighed(rest, Prices(sums - sums[0]))
        if priced.refuse(rest.ends, rest.counts):
            return None
        found = Guided(rest, priced, width).search(min(part, rest.goal)).ranges
        if found is None:
            return None
        for kind, _, _ in found:
            left[kinds[kind]] -= 1
        ranges += tuple((int(kinds[kind]), at + start, at + end) for kind, start, end in found)
        moved = found[-1][2]
        sums, at = priced.sums[moved:], at + moved
    return ranges
