"""Greedy keeps the three rules; balanced is near the bound."""

import random

import pytest

from messages.ids import NodeId
from services.planner import balanced, greedy
from services.planner.failures import Infeasible


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
