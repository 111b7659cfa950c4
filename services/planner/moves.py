"""What moves after a loss, and the chain that moves the fewest bytes under a limit on each stage.

With a few nodes it is found exactly, over every set and order. With more, orders considered are:
the survivors' own, with spare nodes where one was lost; the best plan's; and the one that a beam
search finds to keep most in place. For each of them the cuts that move the fewest bytes are found
by a dynamic programme.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from messages.ids import NodeId
from messages.plans import Assignment
from services.planner.chains import NO_DEMANDS, Chain, Demands, Stage
from services.planner.keeping import Keeping
from services.planner.latency import cheapest
from services.planner.line import Line, Offer, work_cap

_MOST_SPARES = 6
_FEW = 16
_MOST_STEPS = 12_000_000
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Loss:
    """Who is left, the units that each of them holds, and the order of the old chain.

    `chain` names offers by index, None where a node was lost. `newest` is the order of the best
    chain without regard to what moves.
    """

    line: Line
    offers: tuple[Offer, ...]
    held: dict[int, tuple[int, int]]
    chain: tuple[int | None, ...]
    newest: tuple[int, ...]
    demands: Demands = NO_DEMANDS

    def within(
        self, members: Sequence[int], chain: Sequence[int | None], newest: Sequence[int]
    ) -> "Loss":
        """The loss as it is for some of the offers alone, by indices of their own."""
        own = {k: place for place, k in enumerate(members)}
        return Loss(
            self.line,
            tuple(self.offers[k] for k in members),
            held={own[k]: units for k, units in self.held.items() if k in own},
            chain=tuple(own.get(k) if k is not None else None for k in chain),
            newest=tuple(own[k] for k in newest),
        )

    def moved(self, chain: Chain) -> int:
        """The bytes of weights that the chain's nodes do not hold."""
        sums, moved = self.line.disk_sums, 0
        for offer, start, end in chain:
            low, high = self.held.get(offer, (end, end))
            low, high = max(low, start), min(high, end)
            moved += sums[end] - sums[start] - max(0, sums[max(low, high)] - sums[low])
        return moved


def held_units(
    line: Line, stages: Iterable[Assignment], index: Mapping[NodeId, int]
) -> dict[int, tuple[int, int]]:
    """The units that surviving offers hold."""
    unit = {border: u for u, border in enumerate(line.borders)}
    return {
        index[a.node_id]: (unit[a.start_block], unit[a.end_block])
        for a in stages
        if a.node_id in index and a.start_block in unit and a.end_block in unit
    }


def move_costs(line: Line, offer: Offer, held: tuple[int, int] | None, limit_s: float) -> Floats:
    """Bytes that move for each range [start, end) on the offer; infinite where it does not fit."""
    count = len(line)
    sums = np.array(line.disk_sums, dtype=np.float64)
    starts, ends = np.arange(count + 1)[:, None], np.arange(count + 1)[None, :]
    bytes_in = sums[None, :] - sums[:, None]
    if held is not None:
        low, high = np.maximum(starts, held[0]), np.minimum(ends, held[1])
        bytes_in = bytes_in - np.maximum(0.0, sums[np.maximum(low, high)] - sums[low])
    cap = work_cap(limit_s, offer.rate, line.work_sums[-1])
    reach = np.array([*(line.reach(offer, s, cap) for s in range(count)), count])[:, None]
    return np.where((ends > starts) & (ends <= reach), bytes_in, np.inf)


def fewest_moves(loss: Loss, limit_s: float) -> Chain | None:
    """The chain found to move fewest bytes, no stage longer than the limit; None: none found."""
    line, offers = loss.line, loss.offers
    costs = {k: move_costs(line, o, loss.held.get(k), limit_s) for k, o in enumerate(offers)}
    chain: Chain | None
    if len(offers) << min(len(offers), _FEW) <= _MOST_STEPS // (len(line) + 1) ** 2:
        chain, _ = cheapest(line, loss.demands, tuple(costs), tuple(costs.values()))
    else:
        found = [f for order in orders(loss, limit_s) if (f := along(line, order, costs))]
        chain = min(found, key=lambda f: f[:2])[2] if found else None
    if chain is None or (loss.demands and not _keeps(chain, loss.demands)):
        return None
    return chain


def orders(loss: Loss, limit_s: float) -> Iterable[Sequence[int]]:
    """The survivors' order, with no, one or two spares where nodes were lost, or at any gap.

    Then the best chain's order, and the one that keeps most in place.
    """
    chain = loss.chain
    kept = [k for k in chain if k is not None]
    gaps = sorted({sum(k is not None for k in chain[:p]) for p, k in enumerate(chain) if k is None})
    spares = [k for k in range(len(loss.offers)) if k not in set(kept)]
    wanted = [k for k in loss.newest if k in set(spares)]
    largest = sorted(spares, key=lambda k: -loss.offers[k].memory)
    tried = list(dict.fromkeys([*wanted[:_MOST_SPARES], *spares[:2], *largest[:2]]))
    yield kept
    yield loss.newest
    for spare, gap in itertools.product(tried, gaps):
        yield [*kept[:gap], spare, *kept[gap:]]
    for gap in gaps:
        for one, two in itertools.permutations(tried[:4], 2):
            yield [*kept[:gap], one, two, *kept[gap:]]
    if gaps and wanted:
        yield [*kept[: gaps[0]], *wanted, *kept[gaps[0] :]]
    if len(kept) <= _FEW:
        for spare, gap in itertools.product(tried[:2], range(len(kept) + 1)):
            yield [*kept[:gap], spare, *kept[gap:]]
    most = Keeping(loss.line, loss.offers, loss.held, limit_s).order()
    if most:
        yield most


def along(
    line: Line, order: Sequence[int], costs: Mapping[int, Floats]
) -> tuple[float, int, Chain] | None:
    """The cuts along the order that cost least, as (cost, stages, chain); offers may be skipped."""
    count = len(line)
    best = np.full(count + 1, np.inf)
    best[0] = 0.0
    came = []
    for k in order:
        through = best[:, None] + costs[k]
        source = through.argmin(axis=0)
        after = through[source, np.arange(count + 1)]
        came.append(np.where(after < best, source, -1))
        best = np.minimum(best, after)
    if np.isinf(best[count]):
        return None
    stages: list[Stage] = []
    at = count
    for k, sources in zip(reversed(order), reversed(came), strict=True):
        if sources[at] >= 0:
            stages.append(Stage(k, int(sources[at]), at))
            at = int(sources[at])
    return float(best[count]), len(stages), tuple(reversed(stages))


def _keeps(chain: Chain, demands: Demands) -> bool:
    ranges = {stage.offer: (stage.start, stage.end) for stage in chain}
    return demands.must <= ranges.keys() and all(
        ranges[k][0] <= start and end <= ranges[k][1] for k, (start, end) in demands.pins.items()
    )
