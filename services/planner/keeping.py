"""Which orders of nodes leave most bytes where they are: a beam search over sets of nodes.

A state is a set of nodes and the unit it reached. It can keep at most what it kept so far and what
the unused survivors hold beyond that unit; states for which the unused nodes cannot do the rest
under the limit are dropped, and of the others those that can keep most stay.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from services.planner.line import Line, Offer, work_cap

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_WIDTH = 128
_ENDS = 5
_BITS = 62


class Keeping:
    """One loss: who can reach how far under the limit, and what each survivor holds."""

    def __init__(
        self,
        line: Line,
        offers: Sequence[Offer],
        held: Mapping[int, tuple[int, int]],
        limit_s: float,
    ) -> None:
        count, total = len(line), line.work_sums[-1]
        self.goal = count
        sums = np.array(line.disk_sums, dtype=np.float64)
        caps = [work_cap(limit_s, offer.rate, total) for offer in offers]
        self.caps = np.array(caps, dtype=np.float64)
        self.rest = total - np.array(line.work_sums, dtype=np.float64)
        borders = sorted({b for pair in held.values() for b in pair})
        self.ends = np.zeros((len(offers), count + 1, _ENDS), dtype=np.int64)
        # held_from[k, p]: bytes that offer k holds at or after unit p.
        self.held_from = np.zeros((len(offers), count + 1))
        for k, offer in enumerate(offers):
            own = held.get(k)
            if own is not None:
                low = np.clip(np.arange(count + 1), own[0], own[1])
                self.held_from[k] = sums[own[1]] - sums[low]
            for start in range(count):
                reach = line.reach(offer, start, caps[k])
                wanted = {reach, *[b for b in borders if start < b < reach][-2:]}
                wanted |= {b for b in own or () if start < b <= reach}
                chosen = sorted(wanted, reverse=True)[:_ENDS]
                self.ends[k, start] = (chosen * _ENDS)[:_ENDS]

    def order(self) -> list[int] | None:
        """The offers in the order of the chain that keeps most, or None where none was found."""
        nodes = len(self.caps)
        if nodes > _BITS:
            return None
        used = np.zeros(1, dtype=np.int64)
        at, kept = np.zeros(1, dtype=np.int64), np.zeros(1)
        trail: list[tuple[Ints, Ints]] = []
        best: tuple[float, int, int] | None = None
        bits = np.left_shift(np.int64(1), np.arange(nodes, dtype=np.int64))
        while len(at) and len(trail) < nodes:
            parent, node = np.nonzero((used[:, None] & bits) == 0)
            parent, node = np.repeat(parent, _ENDS), np.repeat(node, _ENDS)
            end = self.ends[node[::_ENDS], at[parent[::_ENDS]]].ravel()
            start = at[parent]
            now = kept[parent] + self.held_from[node, start] - self.held_from[node, end]
            mask = used[parent] | bits[node]
            free = (mask[:, None] & bits) == 0
            able = (end > start) & (free @ self.caps >= self.rest[end])
            could = now + (free * self.held_from[:, end].T).sum(axis=1)
            order = np.lexsort((-end, -could))
            order = order[able[order]]
            chosen = _different(mask[order], end[order])
            order = order[chosen][:_WIDTH]
            trail.append((parent[order], node[order]))
            used, at, kept = mask[order], end[order], now[order]
            done = np.nonzero(at == self.goal)[0]
            if len(done):
                first = int(done[np.argmax(kept[done])])
                if best is None or kept[first] > best[0]:
                    best = (float(kept[first]), len(trail), first)
        return None if best is None else _walk_back(trail[: best[1]], best[2])


def _different(mask: Ints, end: Ints) -> Ints:
    """The places of the first of each pair, in their order."""
    pairs = mask * 4099 + end
    return np.sort(np.unique(pairs, return_index=True)[1])


def _walk_back(trail: Sequence[tuple[Ints, Ints]], state: int) -> list[int]:
    order = []
    for parents, nodes in reversed(trail):
        order.append(int(nodes[state]))
        state = int(parents[state])
    return order[::-1]
