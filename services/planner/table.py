"""How far each kind of node reaches from each unit, for all kinds and units at once (numpy)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.planner.bounds import least_feasible
from services.planner.chains import Chain, Stage
from services.planner.line import Line, Offer

Ints = npt.NDArray[np.int64]
Ranges = tuple[tuple[int, int, int], ...]
"""Ranges of units on kinds of nodes: (kind, start, end)."""


@dataclass(frozen=True)
class Reach:
    """The furthest ends under one limit, a row for each kind and a column for each start.

    Nodes that reach equally far from everywhere are one kind here, whatever else they are: `counts`
    says how many, `members` which offers.
    """

    ends: Ints
    counts: tuple[int, ...]
    members: tuple[tuple[int, ...], ...]

    @property
    def goal(self) -> int:
        """The end of the line."""
        return int(self.ends.shape[1])

    def staged(self, ranges: Ranges) -> Chain:
        """The stages of these ranges, each kind's members by turns."""
        members = [iter(kind) for kind in self.members]
        return tuple(Stage(next(members[kind]), start, end) for kind, start, end in ranges)


class Table:
    """One row for each kind of node (same rate, memory and disk), one column for each start.

    `members` are the offers of each kind, `held` the furthest ends within memory and disk. An offer
    with a pin is a kind of its own: its range holds the pin, and no other range touches it. A
    further start still never means a nearer end, which is all that the searches rely on.
    """

    def __init__(
        self, line: Line, offers: Sequence[Offer], pins: Mapping[int, tuple[int, int]] | None = None
    ) -> None:
        self.line = line
        self._pins = pins or {}
        grouped: dict[tuple[float, int, int, int], list[int]] = {}
        for k, offer in enumerate(offers):
            own = k if k in self._pins else -1
            grouped.setdefault((offer.rate, offer.memory, offer.disk, own), []).append(k)
        self.members = list(grouped.values())
        self.counts = tuple(len(members) for members in self.members)
        self.rates = np.array([rate for rate, _, _, _ in grouped])
        self.sums = np.array(line.work_sums, dtype=np.int64)
        self.held = np.minimum(
            _reach(line, line.memory_sums, np.array([m for _, m, _, _ in grouped], dtype=np.int64)),
            _reach(line, line.disk_sums, np.array([d for _, _, d, _ in grouped], dtype=np.int64)),
        )
        self.most = (self.sums[self.held] - self.sums[:-1]).max(axis=1)

    def caps(self, limit_s: float) -> Ints:
        """The most work of each kind under the limit, exactly as `line.work_cap`."""
        total = int(self.sums[-1])
        caps = np.minimum(limit_s * self.rates, float(total)).astype(np.int64)
        caps += ((caps + 1) / self.rates <= limit_s) & (caps < total)
        caps -= caps / self.rates > limit_s
        return caps

    def ends(self, limit_s: float) -> Ints:
        """For every kind and start the furthest end within memory, disk and the limit."""
        caps = self.caps(limit_s)
        reached = np.searchsorted(self.sums, self.sums[None, :-1] + caps[:, None], "right") - 1
        return self._fenced(np.minimum(reached, self.held))

    def reach(self, limit_s: float) -> Reach:
        """`ends`, with kinds that reach equally far from everywhere made one."""
        ends = self.ends(limit_s)
        alike: dict[bytes, list[int]] = {}
        for kind, row in enumerate(ends):
            alike.setdefault(row.tobytes(), []).append(kind)
        members = tuple(
            tuple(k for kind in kinds for k in self.members[kind]) for kinds in alike.values()
        )
        return Reach(ends[[k[0] for k in alike.values()]], tuple(map(len, members)), members)

    def _fenced(self, ends: Ints) -> Ints:
        """The ends stopped at others' pins, and a pinned offer's only where they hold its pin."""
        starts = np.arange(ends.shape[1])
        for k, (first, last) in self._pins.items():
            for kind, members in enumerate(self.members):
                row = ends[kind]
                if members == [k]:
                    row[(starts > first) | (row < last)] = 0
                    np.maximum(row, starts, out=row)
                else:
                    before = starts < first
                    row[before] = np.minimum(row[before], first)
                    row[(starts >= first) & (starts < last)] = starts[first:last]
        return ends

    def lower_bound(self) -> float:
        """The time at which the work fits when every node does any range it can hold, or more.

        And each unit must run on some node that can hold it.
        """
        total, counts = int(self.sums[-1]), np.array(self.counts)

        def enough(limit_s: float) -> bool:
            return bool((np.minimum(self.caps(limit_s), self.most) * counts).sum() >= total)

        holds = self.held > np.arange(self.held.shape[1])
        fastest = np.where(holds, self.rates[:, None], 0.0).max(axis=0)
        alone = np.array(self.line.works)[fastest > 0] / fastest[fastest > 0]
        unit_s = alone.max(initial=0.0)
        top_s = float((self.most / self.rates).max())
        if not enough(top_s):
            return float(unit_s)
        ideal_s = total / float((self.rates * counts).sum()) * (1 - 1e-12)
        work_s = least_feasible(enough, min(ideal_s, top_s), top_s, tolerance=1e-9)
        return float(max(unit_s, work_s))


def _reach(line: Line, sums: Sequence[int], rooms: Ints) -> Ints:
    """The furthest end from every start for each room; the last unit may need tied copies."""
    count = len(line)
    prefix = np.array(sums, dtype=np.int64)
    most = int(prefix[-1]) + sum(size for _, size in line.ties)
    room = np.minimum(rooms, most)[:, None]
    ends = np.searchsorted(prefix, prefix[None, :-1] + room, "right") - 1
    if line.ties:
        starts = np.arange(count)
        copies = np.array([line.tied_copy(start, count) for start in range(count)])
        over = (prefix[-1] - prefix[:-1] + copies)[None, :] > room
        ends = np.where((ends == count) & over, np.maximum(count - 1, starts), ends)
    return ends
