"""Bounds by prices, guided search and covering agree with the exact programme, and never cheat."""

import math
import random

import pytest

from messages.ids import NodeId
from services.planner import many
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


@pytest.mark.parametrize("seed", range(6))
def test_weighed_prices_bound_what_the_exact_programme_finds(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, offers = uneven(seed, units=24, nodes=9)
    table = Table(line, offers)
    programme = Multisets(table)
    first = programme.feasible(math.inf)
    assert first is not None
    exact_s = smallest(line, offers, programme.feasible, table.lower_bound(), first)[1]
    monkeypatch.setattr(many, "_MOST_CELLS", 0)
    found = Many(table, offers).best()
    assert found is not None
    chain, low_s = found
    assert low_s <= exact_s <= bottleneck(line, offers, chain)
    assert [s.start for s in chain] == [0, *(s.end for s in chain[:-1])]
    assert chain[-1].end == len(line)
    assert all(line.fits(offers[k], start, end) for k, start, end in chain)
    assert len({s.offer for s in chain}) == len(chain)


def test_hundreds_of_uneven_nodes_are_planned_within_a_stated_gap() -> None:
    line, offers = uneven(0, units=210, nodes=205)
    found = Many(Table(line, offers), offers).best()
    assert found is not None, "the hidden chain fits"
    chain, low_s = found
    assert low_s <= bottleneck(line, offers, chain) <= 1.2 * low_s
    assert [s.start for s in chain] == [0, *(s.end for s in chain[:-1])]
    assert chain[-1].end == len(line)
    assert all(line.fits(offers[k], start, end) for k, start, end in chain)
    assert len({s.offer for s in chain}) == len(chain)


def test_nodes_that_reach_equally_far_under_a_limit_are_one_kind_there() -> None:
    line = Line((4,) * 6, (1,) * 6, (1,) * 6, tuple(range(7)), (0,) * 6)
    offers = [Offer(NodeId(f"n{k}"), 8.0 + k / 10, 50 + k) for k in range(4)]
    table = Table(line, offers)
    assert table.counts == (1, 1, 1, 1)
    reach = table.reach(1.0)
    assert reach.counts == (4,)
    assert reach.ends.tolist() == [[2, 3, 4, 5, 6, 6]]
    assert {stage.offer for stage in reach.staged(((0, 0, 2), (0, 2, 4)))} == {0, 1}
