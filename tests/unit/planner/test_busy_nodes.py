"""A node that a running plan keeps busy, or whose disk it filled, keeps its place in that plan."""

from collections.abc import Callable

import msgspec
import pytest

from config.settings import Planner
from messages.ids import NodeId
from messages.metadata import ModelMetadata
from messages.nodes import Node
from messages.wishes import Wishes
from services.planner.failures import Infeasible, NoNodes
from services.planner.plan import plan_split
from services.planner.replan import replan
from services.planner.selection import select

Models = Callable[..., ModelMetadata]
Nodes = Callable[..., tuple[Node, ...]]
ONE = Wishes(headroom=0.0, replicas=1)
BUSY = {"cpu_percent": 99.0, "gpu_percent": 99.0, "memory_percent": 99.0, "battery_percent": 1.0}


def test_no_threshold_applies_to_nodes_that_are_kept(nodes: Nodes) -> None:
    busy = tuple(msgspec.structs.replace(n, **BUSY) for n in nodes((10, 100), (10, 100)))
    kept = select(busy, Wishes(), Planner(), {NodeId("n0")})
    assert [node.node_id for node in kept.nodes] == ["n0"]
    assert len(kept.rejected[NodeId("n1")]) == 4
    with pytest.raises(NoNodes):
        select(busy, Wishes(exclude=(NodeId("n0"),)), Planner(), {NodeId("n0")})


def test_a_survivor_that_is_busy_keeps_its_part_after_a_loss(model: Models, nodes: Nodes) -> None:
    metadata = model(*[(10.0, 100)] * 12)
    five = nodes(*[(10, 600)] * 5)
    old = plan_split(metadata, five, ONE, Planner())
    lost = old.assignments[0].node_id
    calm = [node for node in five if node.node_id != lost]
    used = set(old.split_plan)
    busy = [
        msgspec.structs.replace(n, compute_gflops=1.0, **BUSY) if n.node_id in used else n
        for n in calm
    ]
    as_calm = replan(old, metadata, calm, ONE, Planner())
    assert as_calm.moved_bytes == 300
    assert replan(old, metadata, busy, ONE, Planner()) == as_calm


def test_a_busy_node_that_the_plan_does_not_use_is_still_rejected(
    model: Models, nodes: Nodes
) -> None:
    metadata = model(*[(10.0, 100)] * 6)
    three = nodes((10, 400), (10, 400), (10, 600))
    old = plan_split(metadata, three[:2], ONE, Planner())
    with pytest.raises(Infeasible):
        replan(old, metadata, [three[0], msgspec.structs.replace(three[2], **BUSY)], ONE, Planner())
    new = replan(old, metadata, [three[0], three[2]], ONE, Planner())
    assert new.moved_bytes == 300


def test_a_disk_that_its_own_part_filled_holds_it_still(model: Models, nodes: Nodes) -> None:
    metadata = model(*[(10.0, 100)] * 9)
    four = tuple(msgspec.structs.replace(n, disk_bytes=300) for n in nodes(*[(10, 300)] * 4))
    old = plan_split(metadata, four, ONE, Planner())
    lost = old.assignments[1].node_id
    used = set(old.split_plan)
    full = [
        msgspec.structs.replace(n, disk_bytes=0) if n.node_id in used else n
        for n in four
        if n.node_id != lost
    ]
    new = replan(old, metadata, full, ONE, Planner())
    assert new.moved_bytes == 300
