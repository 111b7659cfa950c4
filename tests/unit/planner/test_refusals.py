"""A refusal names the least change to one node, after few probes."""

import functools
import random
from collections.abc import Callable, Sequence

import msgspec
import pytest

from config.settings import Planner
from messages.ids import NodeId
from messages.metadata import Block, ModelMetadata
from messages.nodes import Node
from messages.wishes import Strategy, Wishes
from services.planner import lacking
from services.planner.chains import NO_DEMANDS
from services.planner.failures import Infeasible, Undecided
from services.planner.lacking import least_change
from services.planner.line import UNLIMITED, Line, Offer
from services.planner.pipeline import exists
from services.planner.plan import plan_split

Models = Callable[..., ModelMetadata]
Nodes = Callable[..., tuple[Node, ...]]


def reachable(line: Line, offers: Sequence[Offer], start: int = 0) -> bool:
    """Whether some order of the offers reaches the end, by trying each."""
    if start == len(line):
        return True
    return any(
        reachable(line, [*offers[:k], *offers[k + 1 :]], end)
        for k, offer in enumerate(offers)
        for end in range(start + 1, len(line) + 1)
        if line.fits(offer, start, end)
    )


def short(chance: random.Random) -> tuple[Line, list[Offer]]:
    """Up to five units, and up to three nodes that are short of memory, disk or both."""
    count = chance.randrange(2, 6)
    weights = tuple(chance.randrange(1, 30) for _ in range(count))
    memory = tuple(size + chance.randrange(0, 9) for size in weights)
    line = Line((1,) * count, memory, weights, tuple(range(count + 1)), (0,) * count)
    offers = [
        Offer(
            NodeId(f"n{k}"),
            1.0,
            chance.randrange(0, 70),
            chance.choice([UNLIMITED, chance.randrange(0, 60)]),
        )
        for k in range(chance.randrange(1, 4))
    ]
    return line, offers


@pytest.mark.parametrize("constraint", ["memory", "disk", "memory and disk"])
def test_no_fewer_bytes_on_any_node_would_do(constraint: str) -> None:
    chance = random.Random(5)
    changed = 0
    for _ in range(60):
        line, offers = short(chance)
        if reachable(line, offers):
            continue
        change = least_change(
            line, offers, constraint, NO_DEMANDS, functools.partial(exists, line, thrifty=True)
        )
        enough = [
            more
            for k in range(len(offers))
            for more in range(1, 260)
            if reachable(line, grown(offers, k, constraint, more))
        ]
        assert (change.missing if change else None) == min(enough, default=None)
        assert change is None or change.least
        changed += change is not None
    assert changed >= 8


def grown(offers: Sequence[Offer], k: int, constraint: str, more: int) -> list[Offer]:
    memory = more if "memory" in constraint else 0
    disk = more if "disk" in constraint else 0
    larger = msgspec.structs.replace(
        offers[k], memory=offers[k].memory + memory, disk=offers[k].disk + disk
    )
    return [*offers[:k], larger, *offers[k + 1 :]]


def test_a_hundred_unlike_blocks_on_many_nodes_are_refused_after_few_probes() -> None:
    chance = random.Random(20)
    memory = tuple(chance.randrange(100, 5_000) for _ in range(100))
    line = Line((1,) * 100, memory, memory, tuple(range(101)), (0,) * 100)
    shares = [chance.uniform(0.3, 2) for _ in range(28)]
    rooms = [int(sum(memory) * 0.9 * share / sum(shares)) for share in shares]
    offers = [Offer(NodeId(f"n{k}"), 1.0, room) for k, room in enumerate(rooms)]
    probes = 0

    def feasible(grown: Sequence[Offer]) -> bool:
        nonlocal probes
        probes += 1
        return exists(line, grown, thrifty=True)

    change = least_change(line, offers, "memory", NO_DEMANDS, feasible)
    assert change is not None
    assert probes <= lacking._MOST_PROBES
    assert sum(memory) - sum(rooms) <= change.missing <= 0.2 * sum(memory)


def test_what_stays_undecided_is_enough_but_not_called_the_least() -> None:
    line = Line((1,) * 4, (10,) * 4, (10,) * 4, tuple(range(5)), (0,) * 4)
    offers = [Offer(NodeId("n0"), 1.0, 10), Offer(NodeId("n1"), 1.0, 15)]

    def feasible(grown: Sequence[Offer]) -> bool:
        if sum(offer.memory // 10 for offer in grown) < 6:
            raise Undecided(2, 4)
        return True

    change = least_change(line, [*offers, *offers], "memory", NO_DEMANDS, feasible)
    assert change is not None
    assert not change.least


def test_a_thousand_alike_blocks_are_refused_with_the_least_change(
    model: Models, nodes: Nodes
) -> None:
    chance = random.Random(3)
    metadata = model((3.0, 2_500), *[(10.0, 1_000)] * 298, (3.0, 2_500))
    few = nodes(*[(chance.uniform(10, 99), chance.randrange(900, 1_990)) for _ in range(200)])
    with pytest.raises(Infeasible) as refusal:
        plan_split(metadata, few, Wishes(headroom=0.0), Planner())
    assert refusal.value.advice.endswith("no node needs fewer")
    grown = [
        msgspec.structs.replace(n, memory_bytes=n.memory_bytes + refusal.value.missing)
        if n.node_id == refusal.value.node_id
        else n
        for n in few
    ]
    assert plan_split(metadata, grown, Wishes(headroom=0.0), Planner()).assignments


def test_memory_and_disk_are_both_told_as_they_are_needed(nodes: Nodes) -> None:
    metadata = ModelMetadata(
        model_name="org/model",
        blocks=(
            Block(name="b", tensors=("t",), compute_required=1.0, weight_bytes=60, kv_bytes=30),
        ),
    )
    small = msgspec.structs.replace(nodes((1.0, 100))[0], disk_bytes=20)
    with pytest.raises(Infeasible) as refusal:
        plan_split(metadata, (small,), Wishes(headroom=0.5), Planner())
    assert refusal.value.constraint == "memory and disk"
    assert "80 more bytes of memory and 40 of disk on n0" in refusal.value.advice
    assert "1 node offers 50" in refusal.value.reason


def test_where_no_one_node_suffices_alone_none_is_named(nodes: Nodes) -> None:
    metadata = ModelMetadata(
        model_name="org/model",
        blocks=tuple(
            Block(name=f"b{k}", tensors=(f"t{k}",), compute_required=1.0, weight_bytes=50)
            for k in range(2)
        ),
    )
    pair = [msgspec.structs.replace(n, disk_bytes=60) for n in nodes((1.0, 10), (1.0, 10))]
    with pytest.raises(Infeasible) as refusal:
        plan_split(metadata, pair, Wishes(headroom=0.0), Planner())
    assert refusal.value.node_id is None
    assert "no one node alone" in refusal.value.advice


@pytest.mark.parametrize("strategy", ["pipeline", "greedy", "balanced"])
def test_a_refusal_names_the_nodes_that_thresholds_left_out(
    model: Models, nodes: Nodes, strategy: Strategy
) -> None:
    small, *busy = nodes(*[(10, 100)] * 11)
    all_of_them = [small, *(msgspec.structs.replace(n, cpu_percent=97.0) for n in busy)]
    with pytest.raises(Infeasible) as refusal:
        plan_split(model((1.0, 900)), all_of_them, Wishes(strategy=strategy), Planner())
    assert "; left out: n1: cpu 97 % above 85 %; n10: cpu 97 %" in refusal.value.reason
    assert refusal.value.reason.endswith("; and 2 more")
    assert refusal.value.missing > 0
