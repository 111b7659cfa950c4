"""Every plan is checked before it is said: coverage, contiguity, memory, blocks kept together."""

from collections import Counter
from collections.abc import Mapping, Sequence

from messages.ids import NodeId
from messages.metadata import Block
from messages.plans import Assignment, SplitPlan
from services.planner.case import Case
from services.planner.failures import InvalidPlan
from services.planner.metadata import Tie


def check_plan(plan: SplitPlan, case: Case) -> None:
    """InvalidPlan where the plan breaks a promise."""
    _check_memory(plan.assignments, case.offered)
    replicas: dict[int, list[Assignment]] = {}
    for assignment in plan.assignments:
        replicas.setdefault(assignment.replica, []).append(assignment)
    for chain in replicas.values():
        if plan.strategy == "pipeline":
            _check_contiguous(chain, case.blocks)
        _check_coverage(chain, case.blocks, case.tie)
    if len({a.node_id for a in plan.assignments}) != len(plan.assignments):
        raise InvalidPlan("a node has two stages")
    shares = {a.node_id: a.layer_names for a in plan.assignments}
    if {node: share.layer_names for node, share in plan.split_plan.items()} != shares:
        raise InvalidPlan("split_plan and assignments differ")
    if {step.node_id for step in plan.megaphone_plan.chain} != shares.keys():
        raise InvalidPlan("the relay does not bring every node its part")
    if plan.lower_bound_s > max(plan.bottleneck_s, plan.latency_s):
        raise InvalidPlan("the bound is above the plan's own time")


def _check_memory(assignments: Sequence[Assignment], offered: Mapping[NodeId, int]) -> None:
    for a in assignments:
        if a.memory_bytes > offered[a.node_id]:
            raise InvalidPlan(
                f"{a.node_id} is given {a.memory_bytes} bytes and offers {offered[a.node_id]}"
            )


def _check_contiguous(chain: Sequence[Assignment], blocks: Sequence[Block]) -> None:
    at = 0
    for stage, a in enumerate(chain):
        if a.start_block != at or a.end_block <= at or a.stage != stage:
            raise InvalidPlan(f"stage {a.stage} does not follow on block {at}")
        at = a.end_block
    if at != len(blocks):
        raise InvalidPlan(f"the chain ends at block {at} of {len(blocks)}")
    if all(block.together_with is None for block in blocks):
        return
    home = [a.node_id for a in chain for _ in range(a.start_block, a.end_block)]
    place = {block.name: k for k, block in enumerate(blocks)}
    for k, block in enumerate(blocks):
        if block.together_with is not None and home[k] != home[place[block.together_with]]:
            raise InvalidPlan(f"{block.name} and {block.together_with} are on two nodes")


def _check_coverage(chain: Sequence[Assignment], blocks: Sequence[Block], tie: Tie) -> None:
    wanted = Counter(name for block in blocks for name in block.tensors)
    given = Counter(name for a in chain for name in a.layer_names)
    if dict.__eq__(given, wanted):
        return
    if given - wanted - Counter(tie.names):
        raise InvalidPlan(f"placed twice: {min(given - wanted)}")
    if wanted - given:
        raise InvalidPlan(f"placed nowhere: {min(wanted - given)}")
