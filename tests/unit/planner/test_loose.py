"""Greedy keeps the three rules; balanced is near the bound."""

import itertools
import random

import msgspec
import pytest

from config.settings import Planner
from messages.ids import NodeId
from messages.metadata import Block, Layer, ModelMetadata
from messages.nodes import Node
from messages.wishes import Strategy, Wishes
from services.planner import balanced, greedy
from services.planner.failures import Infeasible
from services.planner.plan import plan_split


def items(*figures: tuple[float, int]) -> tuple[greedy.Item, ...]:
    return tuple(
        greedy.Item(f"t{k}", work, size, (f"t{k}",)) for k, (work, size) in enumerate(figures)
    )


def bins(*figures: tuple[float, int]) -> tuple[greedy.Bin, ...]:
    return tuple(
        greedy.Bin(NodeId(f"n{k}"), gflops, memory) for k, (gflops, memory) in enumerate(figures)
    )


def placed(placement: greedy.Placement) -> dict[str, list[str]]:
    return {node: [item.name for item in mine] for node, mine in placement.items()}


def test_the_highest_need_goes_to_the_node_with_most_compute_left() -> None:
    found = greedy.place(
        items((3, 1), (9, 1), (5, 1), (4, 1)), bins((12, 9), (10, 9)), budget_s=1.0, margin=1.2
    )
    assert placed(found) == {"n0": ["t0", "t1"], "n1": ["t2", "t3"]}


def test_only_enough_nodes_for_the_need_and_its_margin_are_taken() -> None:
    three = bins((10, 99), (9, 99), (8, 99))
    assert len(greedy.place(items((4, 1), (4, 1)), three, budget_s=1.0, margin=1.2)) == 1
    assert len(greedy.place(items((5, 1), (5, 1)), three, budget_s=1.0, margin=1.2)) == 2


def test_another_node_joins_where_memory_does_not_suffice() -> None:
    found = greedy.place(items((1, 6), (1, 6)), bins((10, 8), (5, 8)), budget_s=1.0, margin=1.2)
    assert placed(found) == {"n0": ["t0"], "n1": ["t1"]}


@pytest.mark.parametrize(("tensor", "constraint"), [((1.0, 50), "memory"), ((50.0, 1), "compute")])
def test_a_tensor_that_fits_nowhere_is_refused(tensor: tuple[float, int], constraint: str) -> None:
    with pytest.raises(Infeasible) as refusal:
        greedy.place(items((1, 1), tensor), bins((10, 9), (5, 9)), budget_s=1.0, margin=1.2)
    assert refusal.value.constraint == constraint
    assert "t1" in refusal.value.reason
    assert refusal.value.missing > 0


def test_balanced_is_within_a_thousandth_of_its_bound_on_tensors_of_few_shapes() -> None:
    chance = random.Random(7)
    shapes = [(chance.uniform(0.5, 9), chance.randrange(1, 90)) for _ in range(7)]
    tensors = items(*(shapes[k % 7] for k in range(7 * 32)))
    three = bins((30.0, 7000), (25.0, 7000), (4.0, 7000))
    found = balanced.place(tensors, three)
    assert found.bottleneck_s <= found.lower_bound_s * 1.001
    names = sorted(item.name for mine in found.placement.values() for item in mine)
    assert names == sorted(item.name for item in tensors)


def test_balanced_keeps_memory() -> None:
    found = balanced.place(items(*[(1.0, 10)] * 9), bins((100.0, 30), (1.0, 70)))
    assert {node: len(mine) for node, mine in found.placement.items()} == {"n0": 3, "n1": 6}
    with pytest.raises(Infeasible):
        balanced.place(items(*[(1.0, 10)] * 9), bins((100.0, 30), (1.0, 50)))


@pytest.mark.parametrize("strategy", ["greedy", "balanced"])
def test_cache_and_activations_go_with_the_tensors_of_their_block(strategy: Strategy) -> None:
    layers = tuple(
        Layer(
            name=f"t{k}",
            shape=(size,),
            num_params=size,
            compute_required=1.0,
            layer_type="other",
            dtype="torch.int8",
            size_bytes=size,
        )
        for k, size in enumerate((30, 60, 10))
    )
    blocks = (
        Block(
            name="b0",
            tensors=("t0", "t1"),
            compute_required=2.0,
            weight_bytes=90,
            kv_bytes=6,
            activation_bytes=4,
        ),
        Block(name="b1", tensors=("t2",), compute_required=1.0, weight_bytes=10, kv_bytes=5),
    )
    metadata = ModelMetadata(model_name="o/m", layers=layers, blocks=blocks)
    node = Node(node_id=NodeId("n0"), compute_gflops=10.0, memory_bytes=116)
    wishes = Wishes(headroom=0.0, strategy=strategy)
    (whole,) = plan_split(metadata, (node,), wishes, Planner()).assignments
    assert whole.memory_bytes == (30 + 4) + (60 + 7) + (10 + 5)
    with pytest.raises(Infeasible):
        plan_split(metadata, (msgspec.structs.replace(node, memory_bytes=115),), wishes, Planner())


def test_balanced_agrees_with_trying_every_placement() -> None:
    chance = random.Random(11)
    for _ in range(40):
        tensors = items(*((chance.randrange(1, 9), chance.randrange(1, 30)) for _ in range(5)))
        three = bins(*((chance.choice([1.0, 2.0, 5.0]), chance.randrange(20, 90)) for _ in "abc"))
        every = [
            max(time_s(tensors, homes, three, k) for k in range(3))
            for homes in itertools.product(range(3), repeat=5)
            if all(held(tensors, homes, k) <= three[k].memory for k in range(3))
        ]
        try:
            found = balanced.place(tensors, three)
        except Infeasible:
            continue
        assert found.lower_bound_s <= min(every) * (1 + 1e-9)
        assert min(every) <= found.bottleneck_s * (1 + 1e-9)
        assert found.bottleneck_s <= 1.5 * min(every)


def time_s(
    tensors: tuple[greedy.Item, ...], homes: tuple[int, ...], of: tuple[greedy.Bin, ...], k: int
) -> float:
    mine = sum(t.compute for t, home in zip(tensors, homes, strict=True) if home == k)
    return mine / of[k].gflops


def held(tensors: tuple[greedy.Item, ...], homes: tuple[int, ...], k: int) -> int:
    return sum(t.size_bytes for t, home in zip(tensors, homes, strict=True) if home == k)
