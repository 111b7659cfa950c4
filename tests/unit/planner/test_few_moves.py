"""After a loss a few nodes move the fewest bytes that any chain moves within 1.05 of the best."""

import itertools
import random
from collections.abc import Callable, Sequence

import pytest

from config.settings import Planner
from messages.ids import NodeId
from messages.metadata import ModelMetadata
from messages.nodes import Node
from messages.plans import SplitPlan
from messages.wishes import Pin, Wishes
from services.planner.plan import plan_split
from services.planner.replan import SLOWER_AT_MOST, replan

Models = Callable[..., ModelMetadata]
Nodes = Callable[..., tuple[Node, ...]]
ONE = Wishes(headroom=0.0, replicas=1)


def fewest(old: SplitPlan, metadata: ModelMetadata, live: Sequence[Node], limit_s: float) -> int:
    """The bytes of every order and every cut, the least of them."""
    blocks = metadata.blocks
    held = {a.node_id: set(range(a.start_block, a.end_block)) for a in old.assignments}
    least = sum(block.weight_bytes for block in blocks) + 1
    for count in range(1, len(live) + 1):
        for cuts in itertools.combinations(range(1, len(blocks)), count - 1):
            parts = [range(*pair) for pair in itertools.pairwise((0, *cuts, len(blocks)))]
            for order in itertools.permutations(live, count):
                pairs = list(zip(order, parts, strict=True))
                if all(
                    sum(blocks[k].weight_bytes for k in part) <= node.memory_bytes
                    and sum(blocks[k].compute_required for k in part)
                    <= limit_s * node.compute_gflops
                    for node, part in pairs
                ):
                    moved = sum(
                        blocks[k].weight_bytes
                        for node, part in pairs
                        for k in part
                        if k not in held.get(node.node_id, ())
                    )
                    least = min(least, moved)
    return least


@pytest.mark.parametrize("seed", range(6))
def test_a_few_nodes_move_the_fewest_bytes_that_brute_force_finds(
    model: Models, nodes: Nodes, seed: int
) -> None:
    chance = random.Random(seed)
    metadata = model(*[(float(chance.randint(1, 9)), chance.randint(50, 150)) for _ in range(8)])
    five = nodes(*[(chance.uniform(5, 20), chance.randint(350, 600)) for _ in range(5)])
    old = plan_split(metadata, five, ONE, Planner())
    for gone in old.assignments:
        live = [node for node in five if node.node_id != gone.node_id]
        best = plan_split(metadata, live, ONE, Planner())
        new = replan(old, metadata, live, ONE, Planner())
        limit_s = best.bottleneck_s * SLOWER_AT_MOST
        assert new.bottleneck_s <= limit_s * (1 + 1e-12)
        assert new.moved_bytes == fewest(old, metadata, live, limit_s)


def test_a_pinned_node_keeps_its_pin_after_a_loss(model: Models, nodes: Nodes) -> None:
    wishes = Wishes(headroom=0.0, pins=(Pin(node_id=NodeId("n0"), start_block=0, end_block=2),))
    metadata = model(*[(1.0, 100)] * 8)
    four = nodes((10, 500), (10, 500), (10, 500), (10, 500))
    old = plan_split(metadata, four, wishes, Planner())
    gone = next(a.node_id for a in old.assignments if a.node_id != "n0")
    new = replan(old, metadata, [n for n in four if n.node_id != gone], wishes, Planner())
    first = next(a for a in new.assignments if a.node_id == "n0")
    assert (first.start_block, first.end_block >= 2) == (0, True)
