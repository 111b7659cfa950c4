"""Tied tensors are counted where a second copy of them is needed, and nowhere else."""

import pytest

from config.settings import Planner
from messages.ids import NodeId
from messages.metadata import Block, Layer, ModelMetadata
from messages.nodes import Node
from messages.wishes import Wishes
from services.planner.failures import Infeasible
from services.planner.plan import plan_split

ONE = Wishes(headroom=0.0, replicas=1)
BLOCKS = tuple(
    Block(name=f"b{k}", tensors=(f"t{k}",), compute_required=10.0, weight_bytes=100)
    for k in range(5)
)
LAYERS = tuple(
    Layer(
        name=f"t{k}",
        shape=(100,),
        num_params=100,
        compute_required=10.0,
        layer_type="other",
        dtype="torch.int8",
        size_bytes=100,
    )
    for k in range(5)
)


def two_nodes(memory: int) -> tuple[Node, ...]:
    return tuple(
        Node(node_id=NodeId(name), compute_gflops=10.0, memory_bytes=memory)
        for name in ("n0", "n1")
    )


@pytest.mark.parametrize("layers", [LAYERS, ()])
def test_a_group_whose_block_the_last_stage_holds_is_not_counted_again(
    layers: tuple[Layer, ...],
) -> None:
    metadata = ModelMetadata(
        model_name="o/m", blocks=BLOCKS, layers=layers, ties=(("t0", "x"), ("t3", "y"))
    )
    plan = plan_split(metadata, two_nodes(300), ONE, Planner())
    assert [a.layer_names for a in plan.assignments] == [("t0", "t1", "t2"), ("t3", "t4", "t0")]
    assert [a.memory_bytes for a in plan.assignments] == [300, 300]


@pytest.mark.parametrize("layers", [LAYERS, ()])
def test_a_second_copy_without_room_is_refused(layers: tuple[Layer, ...]) -> None:
    metadata = ModelMetadata(model_name="o/m", blocks=BLOCKS, layers=layers, ties=(("t0", "x"),))
    with pytest.raises(Infeasible):
        plan_split(metadata, two_nodes(299), ONE, Planner())
    assert plan_split(metadata, two_nodes(300), ONE, Planner()).assignments
