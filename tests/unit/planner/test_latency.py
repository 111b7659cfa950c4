"""Latency and wishes, held against every set, order and cut; with many nodes, against a bound."""

import itertools
import math
import random
from collections.abc import Sequence

import pytest

from messages.ids import NodeId
from services.planner import latency, pipeline
from services.planner.chains import NO_DEMANDS, Chain, Demands, Stage, bottleneck
from services.planner.line import Line, Offer


def seconds(line: Line, offers: Sequence[Offer], chain: Chain) -> float:
    """Stage times and hops of a chain; infinite where it does not fit."""
    if not all(line.fits(offers[k], start, end) for k, start, end in chain):
        return math.inf
    stages = sum(line.seconds(offers[k], start, end) for k, start, end in chain)
    return stages + sum(
        offers[k].hop_s + offers[k].byte_s * line.outputs[end - 1] for k, _, end in chain[:-1]
    )


def every_chain(line: Line, offers: Sequence[Offer]) -> list[Chain]:
    return [
        tuple(map(Stage, order, (0, *cuts), (*cuts, len(line))))
        for used in range(1, min(len(offers), len(line)) + 1)
        for order in itertools.permutations(range(len(offers)), used)
        for cuts in itertools.combinations(range(1, len(line)), used - 1)
    ]


def keeps(chain: Chain, demands: Demands) -> bool:
    ranges = {k: (start, end) for k, start, end in chain}
    order = [k for k in demands.order if k in ranges]
    return (
        demands.required <= ranges.keys()
        and all(
            k in ranges and ranges[k][0] <= first and last <= ranges[k][1]
            for k, (first, last) in demands.pins.items()
        )
        and (not demands.order or [k for k, _, _ in chain] == order)
    )


def case(chance: random.Random) -> tuple[Line, list[Offer], Demands]:
    """Up to six units and four nodes, with a pin, a required node or an order in some."""
    count, nodes = chance.randrange(1, 7), chance.randrange(1, 5)
    sizes = [chance.randrange(0, 30) for _ in range(count)]
    line = Line(
        works=tuple(chance.randrange(0, 50) for _ in range(count)),
        memory=tuple(sizes),
        disk=tuple(sizes),
        borders=tuple(range(count + 1)),
        outputs=tuple(chance.randrange(0, 9) for _ in range(count)),
        ties=((0, chance.randrange(0, sizes[0] + 1)),),
    )
    offers = [
        Offer(
            NodeId(f"n{k}"),
            chance.choice([1.0, 2.5, 7.0]),
            chance.randrange(10, 120),
            hop_s=chance.choice([0.0, 3.0]),
            byte_s=chance.choice([0.0, 1.0]),
        )
        for k in range(nodes)
    ]
    one = chance.randrange(nodes)
    start = chance.randrange(count)
    demands = chance.choice(
        [
            NO_DEMANDS,
            NO_DEMANDS,
            Demands(pins={one: (start, start + 1)}),
            Demands(required=frozenset({one})),
            Demands(order=tuple(chance.sample(range(nodes), nodes))),
        ]
    )
    return line, offers, demands


def agrees_with_trying_everything(seeds: range) -> set[str]:
    """The arguments that answered; each answer is the best of all chains, or bounded by it."""
    proofs = set()
    for seed in seeds:
        line, offers, demands = case(random.Random(seed))
        chains = [chain for chain in every_chain(line, offers) if keeps(chain, demands)]
        best_s = min((seconds(line, offers, chain) for chain in chains), default=math.inf)
        found = latency.solve(line, offers, demands, lambda: None)
        if found is None:
            assert math.isinf(best_s)
            continue
        assert keeps(found.chain, demands)
        assert seconds(line, offers, found.chain) == pytest.approx(found.bottleneck_s)
        assert found.lower_bound_s <= best_s * (1 + 1e-9)
        if found.proof != latency.BY_PRICES:
            assert found.bottleneck_s == pytest.approx(best_s)
            assert found.lower_bound_s == pytest.approx(best_s)
        proofs.add(found.proof)
    return proofs


def test_the_least_latency_of_a_few_nodes_is_found_and_proven() -> None:
    proofs = agrees_with_trying_everything(range(200))
    assert proofs == {latency.BY_ALL, latency.BY_ORDER}


def test_wishes_are_kept_by_the_best_chain_of_those_that_keep_them() -> None:
    for seed in range(200):
        line, offers, demands = case(random.Random(seed))
        times = [
            bottleneck(line, offers, chain)
            for chain in every_chain(line, offers)
            if keeps(chain, demands) and seconds(line, offers, chain) < math.inf
        ]
        found = pipeline.solve(line, offers, demands)
        assert (found is not None) == bool(times) == pipeline.exists(line, offers, demands)
        if found is not None:
            assert keeps(found.chain, demands)
            assert found.bottleneck_s == found.lower_bound_s == min(times)


def test_prices_and_the_search_agree_with_trying_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for cells in ("_FEW_CELLS", "_SOME_CELLS", "_MOST_CELLS", "_LEAST_NODES"):
        monkeypatch.setattr(latency, cells, 0)
    proofs = agrees_with_trying_everything(range(200))
    assert latency.BY_SEARCH in proofs


def test_two_dozen_nodes_are_planned_within_a_few_hundredths_of_the_bound() -> None:
    chance = random.Random(3)
    sizes = tuple(chance.randrange(100, 5_000) for _ in range(48))
    works = tuple(chance.randrange(1, 50) for _ in range(48))
    line = Line(works, sizes, sizes, tuple(range(49)), (1,) * 48)
    shares = [chance.uniform(0.3, 2) for _ in range(24)]
    rooms = [int(sum(sizes) * 2.5 * share / sum(shares)) for share in shares]
    offers = [
        Offer(NodeId(f"n{k}"), chance.uniform(10, 1000), room, hop_s=chance.uniform(0, 0.01))
        for k, room in enumerate(rooms)
    ]
    found = latency.solve(line, offers, NO_DEMANDS, lambda: None)
    assert found is not None
    assert seconds(line, offers, found.chain) == pytest.approx(found.bottleneck_s)
    assert found.lower_bound_s <= found.bottleneck_s <= 1.03 * found.lower_bound_s


def test_more_nodes_than_can_be_looked_at_and_none_of_use_is_no_chain() -> None:
    line = Line((1,) * 60, (9,) * 60, (9,) * 60, tuple(range(61)), (0,) * 60)
    offers = [Offer(NodeId(f"n{k}"), 1.0, 8) for k in range(30)]
    assert latency.solve(line, offers, NO_DEMANDS, lambda: None) is None
