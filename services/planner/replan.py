"""A new plan after nodes were lost: nearly as fast as the best, with the fewest bytes moved.

With a few nodes the plan that moves the fewest bytes under 1.05 times the best bottleneck is found
exactly, over every set and order. With more, orders considered are: the survivors' own, with spare
nodes where one was lost; the best plan's; and the one that a beam search finds to keep most in
place. For each of them the cuts that move the fewest bytes are found by a dynamic programme.
"""

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from messages.ids import NodeId, PlanId
from messages.metadata import ModelMetadata
from messages.nodes import Node
from messages.plans import Assignment, SplitPlan
from messages.wishes import Wishes
from services.planner import contiguous
from services.planner.assemble import assemble
from services.planner.case import Case, Placed, case_of
from services.planner.chains import Chain, Stage
from services.planner.keeping import Keeping
from services.planner.latency import cheapest
from services.planner.line import Line, Offer, line_of, work_cap
from services.planner.plan import place
from services.planner.selection import Policy, offers_of
from services.planner.validate import check_plan

SLOWER_AT_MOST = 1.05
_MOST_SPARES = 6
_FEW = 16
_MOST_STEPS = 12_000_000
Floats = npt.NDArray[np.float64]


def replan(
    old: SplitPlan,
    metadata: ModelMetadata,
    nodes: Sequence[Node],
    wishes: Wishes,
    policy: Policy,
    *,
    origin: NodeId | None = None,
    generation: int = 2,
) -> SplitPlan:
    """The plan of generation `generation` for the nodes that live now; raises as `plan_split`.

    Its bottleneck is at most 1.05 times the best, and among the orders considered it moves the
    fewest bytes; `moved_bytes` are the weights that a node needs and did not hold under `old`.
    """
    case = case_of(metadata, nodes, wishes, policy, origin, running=old)
    best = assemble(case, place(case))
    plan = best
    if best.strategy == "pipeline" and best.replicas == old.replicas == 1 and not wishes.order:
        plan = _with_fewest_moves(case, old, best)
    check_plan(plan, case)
    return msgspec.structs.replace(
        plan,
        plan_id=_plan_id(old, plan),
        generation=generation,
        model_url=old.model_url,
        revision=old.revision,
        metadata_sha256=old.metadata_sha256,
        replaces=old.plan_id,
        moved_bytes=moved_bytes(case, old.assignments, plan.assignments),
    )


def moved_bytes(case: Case, before: Sequence[Assignment], after: Sequence[Assignment]) -> int:
    """The weights that nodes of `after` need and did not hold in `before`."""
    size = {n: b.weight_bytes / max(1, len(b.tensors)) for b in case.blocks for n in b.tensors}
    held = {a.node_id: set(a.layer_names) for a in before}
    return round(
        sum(
            size.get(name, 0.0)
            for a in after
            for name in a.layer_names
            if name not in held.get(a.node_id, ())
        )
    )


def _with_fewest_moves(case: Case, old: SplitPlan, best: SplitPlan) -> SplitPlan:
    line = line_of(case.blocks, case.tie.size_bytes, case.tie.block)
    offers = offers_of(case.selection.nodes, line.scale, lambda node: case.offered[node.node_id])
    index = {offer.node_id: k for k, offer in enumerate(offers)}
    held = held_units(line, old, index)
    limit_s = best.bottleneck_s * SLOWER_AT_MOST
    costs = {k: move_costs(line, offers[k], held.get(k), limit_s) for k in range(len(offers))}
    demands = contiguous.demands_of(case.wishes, line, offers)
    if len(offers) << min(len(offers), _FEW) <= _MOST_STEPS // (len(line) + 1) ** 2:
        chain, _ = cheapest(line, demands, tuple(costs), tuple(costs.values()))
    else:
        orders = [*_orders(old, index, offers, [index[a.node_id] for a in best.assignments])]
        orders += [order for order in [Keeping(line, offers, held, limit_s).order()] if order]
        found = [f for order in orders if (f := _cheapest(line, order, costs)) is not None]
        chain = min(found, key=lambda f: f[:2])[2] if found else None
    if chain is None or (demands and not _keeps(chain, demands.pins, demands.must)):
        return best
    bound_s = best.lower_bound_s
    placed: Placed = contiguous.placed_chains(case, line, offers, (chain,), bound_s, best.proof)
    return assemble(case, placed)


def held_units(
    line: Line, old: SplitPlan, index: Mapping[NodeId, int]
) -> dict[int, tuple[int, int]]:
    """The units that surviving offers hold."""
    unit = {border: u for u, border in enumerate(line.borders)}
    return {
        index[a.node_id]: (unit[a.start_block], unit[a.end_block])
        for a in old.assignments
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


def _orders(
    old: SplitPlan, index: Mapping[NodeId, int], offers: Sequence[Offer], newest: list[int]
) -> Iterable[list[int]]:
    """The survivors' order, with no, one or two spares where nodes were lost, or at any gap."""
    chain = [index.get(a.node_id) for a in old.assignments]
    kept = [k for k in chain if k is not None]
    gaps = sorted({sum(k is not None for k in chain[:p]) for p, k in enumerate(chain) if k is None})
    spares = [k for k in range(len(offers)) if k not in set(kept)]
    wanted = [k for k in newest if k in set(spares)]
    largest = sorted(spares, key=lambda k: -offers[k].memory)
    tried = list(dict.fromkeys([*wanted[:_MOST_SPARES], *spares[:2], *largest[:2]]))
    yield kept
    yield newest
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


def _cheapest(
    line: Line, order: Sequence[int], costs: Mapping[int, Floats]
) -> tuple[float, int, Chain] | None:
    """The cuts along the order that move fewest bytes, as (bytes, stages, chain)."""
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


def _keeps(chain: Chain, pins: Mapping[int, tuple[int, int]], must: frozenset[int]) -> bool:
    ranges = {stage.offer: (stage.start, stage.end) for stage in chain}
    return must <= ranges.keys() and all(
        ranges[k][0] <= start and end <= ranges[k][1] for k, (start, end) in pins.items()
    )


def _plan_id(old: SplitPlan, plan: SplitPlan) -> PlanId:
    """Of the old plan and of the new one's inputs and ranges: the same loss, the same id."""
    ranges = [(a.node_id, a.start_block, a.end_block) for a in plan.assignments]
    body = msgspec.json.encode((old.plan_id, plan.plan_id, ranges))
    return PlanId(hashlib.sha256(body).hexdigest()[:32])
