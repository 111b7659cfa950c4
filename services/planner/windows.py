"""The least latency over every set of a few nodes, or along an order: windows instead of all cuts.

A node's seconds for [start, end) are a difference of sums, and the starts that it may have for one
end are neighbours. So the best start is the smallest value in a window, found for all ends of all
sets of as many nodes at once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.planner.chains import Chain, Demands, Stage
from services.planner.exhaustive import end_masks
from services.planner.line import Line, Offer

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_MOST_AT_ONCE = 1 << 21


@dataclass(frozen=True)
class Window:
    """One offer: `done` is the seconds of all work before a unit, `leaving` those of the hop there.

    For each end the starts `first` to `last` are allowed; none where `last` is smaller.
    """

    done: Floats
    leaving: Floats
    first: Ints
    last: Ints

    def seconds(self, start: int) -> Floats:
        """Seconds from the start to each end, the hop included; infinite where it is barred."""
        through = self.done - self.done[start] + self.leaving
        allowed = (self.first <= start) & (start <= self.last)
        return np.where(allowed, through, np.inf)

    def between(self, start: int, end: int) -> "Window":
        """The window of a part of the line."""
        part = slice(start, end + 1)
        first = np.maximum(self.first[part], start) - start
        last = np.minimum(self.last[part], end) - start
        return Window(self.done[part], self.leaving[part], first, last)

    def after(self, reached: Floats) -> Floats:
        """The least seconds to each end, in rows, with this offer's range as the last one."""
        values = reached - self.done
        width = self.last - self.first + 1
        open_ = width > 0
        level = np.zeros(len(width), dtype=np.int64)
        level[open_] = np.log2(width[open_]).astype(np.int64)
        least = np.full(values.shape, np.inf)
        for power in range(int(level.max(initial=0)) + 1):
            step = 1 << power
            if power:
                half = step >> 1
                values = np.minimum(values[:, :-half], values[:, half:])
            ends = np.nonzero(open_ & (level == power))[0]
            if len(ends):
                left, right = self.first[ends], self.last[ends] - step + 1
                least[:, ends] = np.minimum(values[:, left], values[:, right])
        least += self.done + self.leaving
        return least


def window_of(line: Line, offers: Sequence[Offer], demands: Demands, k: int) -> Window:
    """The window of offer k, within memory, disk and pins."""
    count, offer = len(line), offers[k]
    first = np.full(count + 1, count + 1, dtype=np.int64)
    last = np.full(count + 1, -1, dtype=np.int64)
    for start, mask in enumerate(end_masks(line, offers, demands, k, math.inf)):
        if mask:
            low, high = (mask & -mask).bit_length() - 1, mask.bit_length()
            first[low:high] = np.minimum(first[low:high], start)
            last[low:high] = start
    leaving = np.zeros(count + 1)
    leaving[1:count] = [offer.hop_s + offer.byte_s * out for out in line.outputs[:-1]]
    done = np.array(line.work_sums, dtype=np.float64) / offer.rate
    return Window(done, leaving, first, last)


def cells(units: int, nodes: int) -> int:
    """How much there is to look at over every set of so many nodes."""
    return (nodes << nodes) * (units + 1)


def quickest(
    windows: Sequence[Window], must: int
) -> tuple[tuple[tuple[int, int, int], ...], float]:
    """The ranges (window, start, end) with the least seconds that use all of `must`, and these.

    Over sets by their number of nodes; of equals the chain with fewer stages. Empty where none is.
    """
    count, goal = len(windows), len(windows[0].done) - 1
    reached = np.full((1 << count, goal + 1), np.inf)
    reached[0, 0] = 0.0
    sets = np.arange(1 << count, dtype=np.int64)
    sizes = np.zeros_like(sets)
    for place in range(count):
        sizes += (sets >> place) & 1
    for size in range(1, count + 1):
        level = sets[sizes == size]
        for place, window in enumerate(windows):
            rows = level[(level >> place) & 1 == 1]
            for part in np.array_split(rows, 1 + len(rows) * (goal + 1) // _MOST_AT_ONCE):
                through = window.after(reached[part ^ (1 << place)])
                reached[part] = np.minimum(reached[part], through)
    whole = np.where(sets & must == must, reached[:, goal], np.inf)
    best_s = float(whole.min())
    if math.isinf(best_s):
        return (), best_s
    equal = np.nonzero(whole == best_s)[0]
    chosen = int(equal[np.argmin(sizes[equal])])
    return _walk_back(windows, reached, chosen), best_s


def _walk_back(
    windows: Sequence[Window], reached: Floats, nodes: int
) -> tuple[tuple[int, int, int], ...]:
    stages: list[tuple[int, int, int]] = []
    end = reached.shape[1] - 1
    while nodes:
        ways = []
        for place, window in enumerate(windows):
            low, high = int(window.first[end]), int(window.last[end]) + 1
            if nodes >> place & 1 and low < high:
                before = reached[nodes ^ (1 << place), low:high] - window.done[low:high]
                start = int(np.argmin(before))
                through = float(before[start] + window.done[end] + window.leaving[end])
                ways.append((through, place, low + start))
        _, place, start = min(ways)
        stages.append((place, start, end))
        nodes, end = nodes ^ (1 << place), start
    return tuple(reversed(stages))


def along(
    windows: Sequence[Window], order: Sequence[int], must: frozenset[int]
) -> tuple[Chain, float]:
    """The best chain along an order of offers, one window each; those not in `must` may be skipped.

    Empty where there is none.
    """
    goal = len(windows[0].done) - 1
    times = np.full(goal + 1, np.inf)
    times[0] = 0.0
    before: list[Floats] = []
    skipped: list[npt.NDArray[np.bool_]] = []
    for k, window in zip(order, windows, strict=True):
        before.append(times)
        after = window.after(times[None, :])[0]
        kept = np.full(goal + 1, np.inf) if k in must else times
        skipped.append(kept <= after)
        times = np.minimum(after, kept)
    if math.isinf(times[goal]):
        return (), math.inf
    stages: list[Stage] = []
    end = goal
    for place in range(len(order) - 1, -1, -1):
        if not skipped[place][end]:
            window = windows[place]
            low, high = int(window.first[end]), int(window.last[end]) + 1
            start = low + int(np.argmin(before[place][low:high] - window.done[low:high]))
            stages.append(Stage(order[place], start, end))
            end = start
    return tuple(reversed(stages)), float(times[goal])
