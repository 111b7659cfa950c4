"""Explanations hold for a plan that runs, and speak of what the plan was made best in."""

from collections.abc import Callable

import msgspec
import pytest

from config.settings import Planner
from messages.ids import NodeId
from messages.metadata import Block, ModelMetadata
from messages.nodes import Node
from messages.wishes import Wishes
from services.planner.explain import explain
from services.planner.picture import svg, text
from services.planner.plan import plan_split

Models = Callable[..., ModelMetadata]
Nodes = Callable[..., tuple[Node, ...]]
ONE = Wishes(headroom=0.0, replicas=1)
SOON = Wishes(headroom=0.0, objective="latency")
BUSY = {"cpu_percent": 95.0, "memory_percent": 95.0}


@pytest.mark.parametrize("wishes", [ONE, msgspec.structs.replace(ONE, require=(NodeId("n0"),))])
def test_an_explanation_is_the_same_once_the_plan_keeps_its_nodes_busy(
    model: Models, nodes: Nodes, wishes: Wishes
) -> None:
    metadata = model(*[(10.0, 100)] * 8)
    calm = nodes((10, 500), (11, 500), (12, 500))
    plan = plan_split(metadata, calm, wishes, Planner())
    busy = tuple(msgspec.structs.replace(node, compute_gflops=1.0, **BUSY) for node in calm)
    told = explain(plan, metadata, busy, wishes, Planner())
    assert {stage.offered_bytes for stage in told.stages} == {500}
    assert told.next_best is not None
    assert all(not more.refused for more in told.one_more)
    assert told == explain(plan, metadata, calm, wishes, Planner())


@pytest.mark.parametrize(("disk_bytes", "binds"), [(399, "disk"), (400, "compute")])
def test_weights_alone_are_held_against_the_disk(nodes: Nodes, disk_bytes: int, binds: str) -> None:
    """The cache is not kept there."""
    block = Block(name="", tensors=(), compute_required=1.0, weight_bytes=100, kv_bytes=900)
    four = [msgspec.structs.replace(block, name=f"b{k}", tensors=(f"t{k}",)) for k in range(4)]
    metadata = ModelMetadata(model_name="org/model", blocks=tuple(four))
    slow, fast = nodes((10, 9000), (35, 9000))
    both = (slow, msgspec.structs.replace(fast, disk_bytes=disk_bytes))
    plan = plan_split(metadata, both, ONE, Planner())
    held = explain(plan, metadata, both, ONE, Planner()).stages
    assert {s.node_id: (s.end_block - s.start_block) for s in held} == {"n0": 1, "n1": 3}
    assert [s.binds for s in held if s.node_id == "n1"] == [binds]


def test_for_the_least_latency_what_ifs_are_told_and_ranked_by_latency(
    model: Models, nodes: Nodes
) -> None:
    """Without n0 a pass takes longer, and the chain's bottleneck is smaller all the same."""
    metadata = model(*[(10.0, 100)] * 8)
    three = nodes((100, 500), (90, 500), (10, 900))
    plan = plan_split(metadata, three, SOON, Planner())
    strong = Node(node_id=NodeId("new"), compute_gflops=1000.0, memory_bytes=900)
    told = explain(plan, metadata, three, SOON, Planner(), add=(strong,))
    assert told.objective == "latency"
    assert told.asked is not None
    assert told.asked.faster == pytest.approx(plan.latency_s / 0.08)
    others = [
        plan_split(metadata, [n for n in three if n.node_id != a.node_id], SOON, Planner())
        for a in plan.assignments
    ]
    assert told.next_best is not None
    assert told.next_best.latency_s == min(other.latency_s for other in others)
    written = text(told)
    assert f"latency {plan.latency_s:.4g} s" in written
    assert "as asked: with new: latency 0.08 s" in written
    assert "bottleneck" not in written
    assert "latency" in svg(plan)


def test_for_the_least_latency_a_node_takes_no_block_that_another_computes_sooner(
    model: Models, nodes: Nodes
) -> None:
    metadata = model(*[(10.0, 100)] * 8)
    two = nodes((100, 500), (90, 900))
    plan = plan_split(metadata, two, SOON, Planner())
    told = explain(plan, metadata, two, SOON, Planner())
    binds = {stage.node_id: (stage.binds, stage.why) for stage in told.stages}
    assert binds[NodeId("n0")][0] == "memory"
    # Either may come first: both orders take as long.
    (slow,) = (a for a in plan.assignments if a.node_id == "n1")
    beside = slow.end_block if slow.start_block == 0 else slow.start_block - 1
    assert binds[NodeId("n1")] == ("compute", f"b{beside} takes 0.1111 s here, 0.1 s where it is")
