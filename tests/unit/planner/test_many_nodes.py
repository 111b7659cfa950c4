"""Bounds by prices, guided search and covering agree with the exact programme, and never cheat."""

import math
import random

import pytest

from messages.ids import NodeId
from services.planner.chains import bottleneck, smallest
from services.planner.line import Line, Offer
from services.planner.many import Many
from services.planner.multisets import Multisets
from services.planner.table import Table


def uneven(seed: int, units: int, nodes: int) -> tuple[Line, list[Offer]]:
    """A line of uneven units and nodes that can hold it: memory is cut from a hidden chain."""
    chance = random.Random(seed)
    works = [chance.randrange(1, 1000) for _ in range(units)]
    memory = [chance.randrange(1, 1000) for _ in range(units)]
    line = Line(tuple(works), tuple(memory), tuple(memory), tuple(range(units + 1)), (0,) * units)
    cuts = [0, *sorted(chance.sample(range(1, units), nodes - 1)), units]
    offers = [
        Offer(
            NodeId(f"n{k}"),
            chance.uniform(1, 30),
            int(line.memory_of(cuts[k], cuts[k + 1]) * chance.uniform(1, 1.4)),
        )
        for k in range(nodes)
    ]
    return line, sorted(offers, key=lambda o: -o.rate)


@pytest.mark.parametrize("seed", range(12))
def test_large_case_methods_find_the_optimum_of_the_exact_programme(seed: int) -> None:
    line, offers = uneven(seed, units=24, nodes=9)
    table = Table(line, offers)
    programme = Multisets(table)
    first = programme.feasible(math.inf)
    assert first is not None
    exact, bound_s = smallest(line, offers, programme.feasible, table.lower_bound(), first)
    assert bound_s == bottleneck(line, offers, exact)
    found = Many(table, offers).best()
    assert found is not None
    chain, low_s = found
    assert low_s <= bound_s, "the bound of a large case is a bound"
    assert bottleneck(line, offers, chain) <= bound_s * 1.001
    assert [s.start for s in chain] == [0, *(s.end for s in chain[:-1])]
    assert all(line.fits(offers[k], start, end) for k, start, end in chain)


@pytest.mark.parametrize("seed", range(4))
def test_what_does_not_fit_is_refused_by_the_large_case_methods_too(seed: int) -> None:
    line, offers = uneven(seed, units=24, nodes=9)
    largest = max(range(len(offers)), key=lambda k: offers[k].memory)
    fewer = [o for k, o in enumerate(offers) if k != largest]
    table = Table(line, fewer)
    exact = Multisets(table).feasible(math.inf)
    assert (Many(table, fewer).best() is None) == (exact is None)


def test_forty_uneven_nodes_are_proven_optimal() -> None:
    line, offers = uneven(3, units=60, nodes=40)
    found = Many(Table(line, offers), offers).best()
    assert found is not None
    assert found[1] >= bottleneck(line, offers, found[0]) / 1.001
