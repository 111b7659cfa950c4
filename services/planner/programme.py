"""The integer programme of `balanced`: how many tensors of each kind every node gets."""

from dataclasses import dataclass

import highspy
import numpy as np

from services.planner.kinds import Floats, Ints, Kinds
from services.planner.solver import quiet

_GAP = 2e-4
_MARGIN = 1e-6
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Even:
    """Counts by kind and node, perhaps not all of them, and a bound on the largest load."""

    counts: Ints | None
    bound_s: float


def even_counts(kinds: Kinds, rates: Floats, rooms: Ints, branches: int) -> Even:
    """min T: every kind placed whole in numbers, each node's work ≤ T × rate, bytes ≤ room.

    Branch and bound stops at 0.02 % or after `branches` nodes; the bound holds all the same. With
    no branches it is the linear relaxation, and the counts are its parts rounded down.
    """
    highs = quiet()
    highs.setOptionValue("mip_max_nodes", branches)
    highs.setOptionValue("mip_rel_gap", _GAP)
    model = _model(kinds, rates, rooms)
    if not branches:
        model.integrality_ = []
    highs.passModel(model)
    highs.run()
    shape = (len(kinds.count), len(rates))
    info = highs.getInfo()
    unit_s = _unit(kinds, rates)
    bound = info.mip_dual_bound if branches else info.objective_function_value
    bound_s = max(0.0, float(bound) * (1 - _MARGIN)) * unit_s
    if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        return Even(None, bound_s if np.isfinite(bound_s) else 0.0)
    values = np.array(highs.getSolution().col_value[:-1]).reshape(shape)
    counts = np.floor(values + _ROUNDING).astype(np.int64)
    kept = (counts.sum(axis=1) <= kinds.count).all() and (kinds.size @ counts <= rooms).all()
    return Even(counts if kept else None, bound_s)


def _unit(kinds: Kinds, rates: Floats) -> float:
    """T is counted in the time of all work on all nodes, so that its scale is near one."""
    return float(kinds.compute @ kinds.count / rates.sum()) or 1.0


def _model(kinds: Kinds, rates: Floats, rooms: Ints) -> highspy.HighsLp:
    """Columns: kind by node, then T. Rows: kinds placed, nodes' work, nodes' bytes."""
    n_kinds, n_nodes = len(kinds.count), len(rates)
    cells = n_kinds * n_nodes
    kind, node = np.divmod(np.arange(cells), n_nodes)
    work = kinds.compute[kind] / (rates[node] * _unit(kinds, rates))
    room = np.maximum(rooms, 1)
    size = kinds.size[kind] / room[node]
    rows = np.stack([kind, n_kinds + node, n_kinds + n_nodes + node], axis=1)
    values = np.stack([np.ones(cells), work, size], axis=1)
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = cells + 1, n_kinds + 2 * n_nodes
    lp.col_cost_ = np.concatenate([np.zeros(cells), [1.0]])
    lp.col_lower_ = np.zeros(cells + 1)
    lp.col_upper_ = np.concatenate([kinds.count[kind].astype(float), [highspy.kHighsInf]])
    least = np.concatenate([kinds.count, np.full(2 * n_nodes, -highspy.kHighsInf)])
    most = np.concatenate([kinds.count, np.zeros(n_nodes), np.where(rooms > 0, 1.0, 0.0)])
    lp.row_lower_, lp.row_upper_ = least, most
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    starts = np.concatenate([np.arange(cells + 1) * 3, [cells * 3 + n_nodes]])
    lp.a_matrix_.start_ = starts.astype(np.int32)
    index = np.concatenate([rows.ravel(), n_kinds + np.arange(n_nodes)])
    lp.a_matrix_.index_ = index.astype(np.int32)
    lp.a_matrix_.value_ = np.concatenate([values.ravel(), np.full(n_nodes, -1.0)])
    lp.integrality_ = [highspy.HighsVarType.kInteger] * cells + [highspy.HighsVarType.kContinuous]
    return lp
