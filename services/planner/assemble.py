"""From stages on nodes to the plan file: shares, relay, backups, rejections and predictions."""

import hashlib
import operator

import msgspec

from messages.ids import NodeId, PlanId
from messages.nodes import Node
from messages.plans import Assignment, NodeShare, Rejection, SelectedNode, SplitPlan
from services.planner import metadata as meta
from services.planner.backups import backups_of
from services.planner.case import Case, Placed
from services.planner.megaphone import relay_plan
from services.planner.predict import forecast

PROVEN_GAP = 1e-9
"""A gap below this is rounding: the bound is proven in integers, the gap printed from floats."""
_FLEETING = {"disk_bytes", "gpu_percent", "cpu_percent", "memory_percent", "battery_percent"}
_lasting = operator.attrgetter(*[f for f in Node.__struct_fields__ if f not in _FLEETING])


def assemble(case: Case, placed: Placed) -> SplitPlan:
    """The plan of these stages; generation, url and revision are the caller's to fill in."""
    used = {a.node_id for a in placed.assignments}
    nodes = {node.node_id: node for node in case.nodes}
    spare = [node for node in case.selection.nodes if node.node_id not in used]
    expected = forecast(placed.assignments, case, nodes)
    relay, transfer_s = relay_plan(
        {a.node_id: a.layer_names for a in placed.assignments},
        _tensor_bytes(case),
        {node.node_id: node.bandwidth_mbps for node in case.nodes},
        case.origin,
        case.relay,
    )
    latency = case.wishes.objective == "latency" and case.strategy == "pipeline"
    reached_s = expected.latency_s if latency else expected.bottleneck_s
    bound_s, gap = _bound_and_gap(reached_s, placed.lower_bound_s)
    return SplitPlan(
        plan_id=plan_id_of(case),
        model_name=case.metadata.model_name,
        model_url="",
        selected_nodes=tuple(
            SelectedNode(node_id=a.node_id, compute_power=nodes[a.node_id].compute_gflops)
            for a in placed.assignments
        ),
        split_plan={a.node_id: _share(a, nodes[a.node_id], case) for a in placed.assignments},
        megaphone_plan=relay,
        strategy=case.strategy,
        objective=case.wishes.objective,
        assignments=placed.assignments,
        backups=backups_of(placed.assignments, spare, case.offered),
        rejected=_rejections(case, spare, placed.proof),
        replicas=len({a.replica for a in placed.assignments}),
        bottleneck_s=expected.bottleneck_s,
        latency_s=expected.latency_s,
        decode_bottleneck_s=expected.decode_bottleneck_s,
        decode_latency_s=expected.decode_latency_s,
        lower_bound_s=bound_s,
        gap=gap,
        proof=placed.proof,
        hops_per_token=placed.hops,
        throughput_per_s=expected.throughput_per_s,
        decode_tokens_per_s=expected.decode_tokens_per_s,
        transfer_s=transfer_s,
        warnings=(*case.metadata.warnings, *case.selection.warnings, *placed.warnings),
    )


def plan_id_of(case: Case) -> PlanId:
    """The digest of all that a plan depends on; the order in which nodes are listed is no part.

    Nor is the time at which the metadata was written, nor how busy or full a node happens to be:
    such figures decide which nodes may be used, and which those are is part of the digest.
    """
    metadata = msgspec.structs.replace(case.metadata, generated_at=None)
    usable = {node.node_id for node in case.selection.nodes}
    nodes = [(_lasting(node), node.node_id in usable) for node in case.nodes]
    body = msgspec.msgpack.encode((metadata, nodes, case.wishes, case.policy, case.origin or ""))
    return PlanId(hashlib.sha256(body).hexdigest()[:32])


def _bound_and_gap(reached_s: float, bound_s: float) -> tuple[float, float]:
    if bound_s >= reached_s * (1 - PROVEN_GAP):
        return reached_s, 0.0
    return bound_s, reached_s / bound_s - 1 if bound_s > 0 else 0.0


def _share(a: Assignment, node: Node, case: Case) -> NodeShare:
    return NodeShare(
        layer_names=a.layer_names,
        total_compute=a.compute_required,
        compute_utilization=a.compute_required / (node.compute_gflops * case.policy.budget_s),
    )


def _rejections(case: Case, spare: list[Node], proof: str) -> tuple[Rejection, ...]:
    reasons: dict[NodeId, tuple[str, ...]] = dict(case.selection.rejected)
    reasons.update(
        {node.node_id: (f"not needed: no better plan with it ({proof})",) for node in spare}
    )
    return tuple(Rejection(node_id=node, reasons=why) for node, why in sorted(reasons.items()))


def _tensor_bytes(case: Case) -> dict[str, int]:
    """Bytes by tensor; without layers a block's weights are spread over its tensors' names."""
    if case.metadata.layers:
        return {layer.name: meta.layer_bytes(layer) for layer in case.metadata.layers}
    return {
        name: block.weight_bytes // len(block.tensors)
        for block in case.blocks
        for name in block.tensors
    }
