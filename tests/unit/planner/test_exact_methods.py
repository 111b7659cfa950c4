"""Every exact method agrees with trying everything, and its bound is its time."""

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messages.ids import NodeId
from services.planner import exhaustive, identical, multisets
from services.planner.chains import NO_DEMANDS, Chain, bottleneck, smallest
from services.planner.line import Line, Offer, work_cap
from services.planner.pipeline import solve
from services.planner.table import Table

Solver = Callable[[Line, Sequence[Offer]], tuple[Chain, float] | None]


def brute_force(line: Line, offers: Sequence[Offer]) -> float | None:
    """The optimum over every set, order and cut."""
    best = None
    for used in range(1, min(len(offers), len(line)) + 1):
        for order in itertools.permutations(range(len(offers)), used):
            for cuts in itertools.combinations(range(1, len(line)), used - 1):
                ends = (0, *cuts, len(line))
                ranges = list(zip(order, ends, ends[1:], strict=False))
                if all(line.fits(offers[k], i, j) for k, i, j in ranges):
                    time_s = max(line.seconds(offers[k], i, j) for k, i, j in ranges)
                    best = time_s if best is None else min(best, time_s)
    return best


def by_exhaustion(line: Line, offers: Sequence[Offer]) -> tuple[Chain, float] | None:
    def oracle(limit_s: float) -> Chain | None:
        return exhaustive.feasible(line, offers, NO_DEMANDS, limit_s)

    first = oracle(math.inf)
    return None if first is None else smallest(line, offers, oracle, 0.0, first)


def by_multisets(line: Line, offers: Sequence[Offer]) -> tuple[Chain, float] | None:
    table = Table(line, offers)
    programme = multisets.Multisets(table)
    first = programme.feasible(math.inf)
    if first is None:
        return None
    return smallest(line, offers, programme.feasible, table.lower_bound(), first)


def by_solve(line: Line, offers: Sequence[Offer]) -> tuple[Chain, float] | None:
    answer = solve(line, offers)
    return None if answer is None else (answer.chain, answer.lower_bound_s)


@st.composite
def lines(draw: st.DrawFn, *, alike: bool = False) -> Line:
    count = draw(st.integers(1, 6))
    unit = st.tuples(st.integers(0, 60), st.integers(0, 40), st.integers(0, 40))
    if alike:
        first, middle, last = draw(unit), draw(unit), draw(unit)
        units = [first, *[middle] * (count - 1), last]
    else:
        units = [draw(unit) for _ in range(count)]
    tied = [0] if alike else sorted(draw(st.sets(st.integers(0, count - 1), max_size=2)))
    ties = tuple((unit, draw(st.integers(0, units[unit][2]))) for unit in tied)
    return Line(
        works=tuple(work for work, _, _ in units),
        memory=tuple(weights + cache for _, cache, weights in units),
        disk=tuple(weights for _, _, weights in units),
        borders=tuple(range(len(units) + 1)),
        outputs=(0,) * len(units),
        ties=ties,
    )


OFFERS = st.lists(
    st.tuples(st.sampled_from([1.0, 2.5, 3.0, 7.0]), st.integers(0, 250), st.integers(0, 200)),
    min_size=1,
    max_size=4,
).map(
    lambda rows: tuple(
        Offer(NodeId(f"n{k}"), rate, memory, disk) for k, (rate, memory, disk) in enumerate(rows)
    )
)


@pytest.mark.parametrize("solver", [by_exhaustion, by_multisets, by_solve])
@given(line=lines(), offers=OFFERS)
@settings(max_examples=150, deadline=None)
def test_the_best_chain_is_found_and_proven(
    solver: Solver, line: Line, offers: tuple[Offer, ...]
) -> None:
    agrees_with_brute_force(solver, line, offers)


@given(line=lines(alike=True), offers=OFFERS)
@settings(max_examples=250, deadline=None)
def test_the_closed_form_is_exact_for_alike_blocks(line: Line, offers: tuple[Offer, ...]) -> None:
    assert identical.applies(line)
    agrees_with_brute_force(identical.best, line, offers)


def agrees_with_brute_force(solver: Solver, line: Line, offers: tuple[Offer, ...]) -> None:
    optimum, found = brute_force(line, offers), solver(line, offers)
    if optimum is None or found is None:
        assert optimum is None
        assert found is None
        return
    chain, bound_s = found
    assert [stage.start for stage in chain] == [0, *(stage.end for stage in chain[:-1])]
    assert chain[-1].end == len(line)
    assert len({stage.offer for stage in chain}) == len(chain)
    assert all(line.fits(offers[k], start, end) for k, start, end in chain)
    assert bottleneck(line, offers, chain) == optimum
    assert bound_s == optimum


@given(
    work=st.integers(0, 2**50),
    rate=st.floats(1e-3, 1e18),
)
def test_a_cap_is_the_largest_work_that_takes_no_longer(work: int, rate: float) -> None:
    limit_s = work / rate
    cap = work_cap(limit_s, rate, 2**50)
    assert cap / rate <= limit_s
    assert cap == 2**50 or (cap + 1) / rate > limit_s
