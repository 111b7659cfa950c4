"""The configuration LP: a bound on any chain of many nodes, and prices that guide a search.

Under a limit every kind of node offers one interval for each start, as long as it fits. A chain is
a cover of the line by intervals, each node used once. The linear programme uses the nodes to a
share λ as small as can be; λ > 1 proves that no chain keeps the limit. The proof is read off its
dual, prices y of units: if even at every node's best interval the nodes together earn less than
the line costs, no cover exists. That is checked here in plain sums, whatever the solver said.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
import numpy.typing as npt

from services.planner.solver import quiet
from services.planner.table import Ints

Floats = npt.NDArray[np.float64]
_MARGIN = 1e-9
_ITERATIONS = 200_000
_HALF = 0.5


@dataclass(frozen=True)
class Prices:
    """Prices of units (their sums from the left, `sums`) that make the line cost 1 in all."""

    sums: Floats

    def earned(self, ends: Ints) -> Floats:
        """The most that one node of each kind can earn with one interval."""
        earned: Floats = (self.sums[ends] - self.sums[:-1]).max(axis=1)
        return earned

    def refuse(self, ends: Ints, counts: Sequence[int]) -> bool:
        """Whether these prices prove that no chain has intervals within `ends`."""
        return bool(self.earned(ends) @ np.array(counts) < self.sums[-1] * (1 - _MARGIN))


def prices_of(ends: Ints, counts: Sequence[int]) -> Prices | None:
    """The prices of the LP's dual, or None where some unit fits on no node."""
    kinds, starts = _undominated(ends)
    tops = ends[kinds, starts]
    if len(tops) == 0 or not _covers(starts, tops, ends.shape[1]):
        return None
    duals = _solve(ends.shape[1], np.array(counts), kinds, starts, tops)
    units = np.maximum(duals, 0.0)
    if units.sum() <= 0:
        return None
    return Prices(np.concatenate([[0.0], np.cumsum(units / units.sum())]))


def _undominated(ends: Ints) -> tuple[Ints, Ints]:
    """The intervals (kind, start) that no interval of the same kind contains."""
    width = ends.shape[1]
    longer = ends > np.concatenate([np.zeros((len(ends), 1), ends.dtype), ends[:, :-1]], axis=1)
    kinds, starts = np.nonzero(longer & (ends > np.arange(width)))
    return kinds, starts


def _covers(starts: Ints, tops: Ints, width: int) -> bool:
    covered = np.zeros(width + 1, dtype=np.int64)
    np.add.at(covered, starts, 1)
    np.add.at(covered, tops, -1)
    return bool((np.cumsum(covered)[:-1] > 0).all())


def _solve(width: int, counts: Ints, kinds: Ints, starts: Ints, tops: Ints) -> Floats:
    """The duals of the units' rows in: min λ, every unit covered, each kind used ≤ λ × count."""
    highs = quiet()
    highs.setOptionValue("simplex_iteration_limit", _ITERATIONS)
    highs.passModel(_model(width, counts, kinds, starts, tops))
    highs.run()
    return np.array(highs.getSolution().row_dual[:width])


@dataclass(frozen=True)
class Cover:
    """Intervals (kind, start, end) that cover the line; None with `proven`: there are none."""

    intervals: tuple[tuple[int, int, int], ...] | None
    proven: bool


def cover(ends: Ints, counts: Sequence[int], most_nodes: int) -> Cover:
    """A cover by whole intervals, by branch and bound over at most `most_nodes` nodes."""
    kinds, starts = _undominated(ends)
    tops = ends[kinds, starts]
    if len(tops) == 0 or not _covers(starts, tops, ends.shape[1]):
        return Cover(None, proven=True)
    model = _model(ends.shape[1], np.array(counts), kinds, starts, tops)
    columns = len(tops)
    model.col_cost_ = np.concatenate([np.ones(columns), [0.0]])
    model.col_upper_ = np.concatenate([np.array(counts, dtype=float)[kinds], [1.0]])
    model.col_lower_ = np.concatenate([np.zeros(columns), [1.0]])
    model.integrality_ = [highspy.HighsVarType.kInteger] * columns + [
        highspy.HighsVarType.kContinuous
    ]
    highs = quiet()
    highs.setOptionValue("mip_max_nodes", most_nodes)
    highs.setOptionValue("mip_max_improving_sols", 1)
    highs.passModel(model)
    highs.run()
    if highs.getModelStatus() == highspy.HighsModelStatus.kInfeasible:
        return Cover(None, proven=True)
    if highs.getInfo().primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        return Cover(None, proven=False)
    chosen = np.nonzero(np.array(highs.getSolution().col_value[:columns]) > _HALF)[0]
    return Cover(tuple((int(kinds[c]), int(starts[c]), int(tops[c])) for c in chosen), proven=False)


def _model(width: int, counts: Ints, kinds: Ints, starts: Ints, tops: Ints) -> Any:
    """The LP in columns: the intervals, then λ; its rows: the units, then the kinds."""
    lengths = tops - starts
    columns, rows = len(starts) + 1, width + len(counts)
    edges = np.concatenate([[0], np.cumsum(lengths + 1), [int((lengths + 1).sum()) + len(counts)]])
    index = np.empty(edges[-1], dtype=np.int32)
    inside = np.arange(edges[-2]) - np.repeat(edges[:-2], lengths + 1)
    last = inside == np.repeat(lengths, lengths + 1)
    index[: edges[-2]] = np.where(
        last, np.repeat(width + kinds, lengths + 1), np.repeat(starts, lengths + 1) + inside
    )
    index[edges[-2] :] = width + np.arange(len(counts))
    value = np.ones(edges[-1])
    value[edges[-2] :] = -counts
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = columns, rows
    lp.col_cost_ = np.concatenate([np.zeros(columns - 1), [1.0]])
    lp.col_lower_ = np.zeros(columns)
    lp.col_upper_ = np.full(columns, highspy.kHighsInf)
    lp.row_lower_ = np.concatenate([np.ones(width), np.full(len(counts), -highspy.kHighsInf)])
    lp.row_upper_ = np.concatenate([np.full(width, highspy.kHighsInf), np.zeros(len(counts))])
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_ = edges.astype(np.int32)
    lp.a_matrix_.index_ = index
    lp.a_matrix_.value_ = value
    return lp
