"""What keeps a node of a plan from taking one more block."""

from typing import Literal

from messages.plans import Assignment, SplitPlan
from services.planner.case import Case, weights_of
from services.planner.goal import objective_of
from services.planner.line import memory_bytes

Binding = Literal["compute", "memory", "disk", "neighbours"]
_AT_BOTTLENECK = 1e-3


def binding(plan: SplitPlan, case: Case, a: Assignment) -> tuple[Binding, str]:
    """What stops the node from taking the lighter of the blocks beside its own."""
    soon = objective_of(plan) == "latency"
    if not soon and a.stage_s >= plan.bottleneck_s * (1 - _AT_BOTTLENECK):
        return "compute", "it is the bottleneck"
    beside = [k for k in (a.start_block - 1, a.end_block) if 0 <= k < len(case.blocks)]
    if not beside or not a.end_block:
        return "neighbours", "it holds all there is to hold"
    place = min(beside, key=lambda k: memory_bytes(case.blocks[k]))
    block = case.blocks[place]
    offered, more = case.offered.get(a.node_id, 0), a.memory_bytes + memory_bytes(block)
    if more > offered:
        return "memory", f"{block.name} would need {more - offered} bytes more than it offers"
    node = next((n for n in case.nodes if n.node_id == a.node_id), None)
    weights = weights_of(a, case.blocks, case.tie) + block.weight_bytes
    if node is not None and node.disk_bytes is not None and weights > node.disk_bytes:
        return "disk", f"{block.name} would not fit on its disk"
    here_s = block.compute_required / node.compute_gflops if node else 0.0
    if soon:
        there_s = block.compute_required * _seconds_a_gflop(plan, a, place)
        if here_s > there_s:
            return "compute", f"{block.name} takes {here_s:.4g} s here, {there_s:.4g} s where it is"
    elif a.stage_s + here_s > plan.bottleneck_s:
        longer = a.stage_s + here_s
        return "compute", f"{block.name} would make it the bottleneck at {longer:.4g} s"
    return "neighbours", "it could take one more block, and nothing would be faster"


def _seconds_a_gflop(plan: SplitPlan, a: Assignment, block: int) -> float:
    """Of the node that holds this block in the same chain."""
    power = {one.node_id: one.compute_power for one in plan.selected_nodes}
    return next(
        1.0 / power[other.node_id]
        for other in plan.assignments
        if other.replica == a.replica and other.start_block <= block < other.end_block
    )
