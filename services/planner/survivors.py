"""Several chains after a loss: which to keep whole, and who makes up the others.

Whole chains that survived stay first, and then all but one of them; who is left makes one chain
that does the rest of the work, a mended one for each that broke, or the best grouping of its own.
Beside these the new best chains are tried, each cut to move fewest bytes. Of those that together do
enough passes a second, the one that moves fewest bytes is taken.
"""

import functools
import math
from collections.abc import Iterable, Iterator, Sequence

from services.planner.chains import Chain, Stage, bottleneck
from services.planner.moves import Loss, fewest_moves
from services.planner.pipeline import solve
from services.planner.predict import INSTANT_S
from services.planner.replicas import best_fleet

Chains = tuple[Chain, ...]
Broken = tuple[Stage | None, ...]
_FEW = 12
_MOST_ORDERS = 2
_ROUNDING = 1e-12


def regrouped(
    loss: Loss,
    olds: Sequence[Broken],
    news: Sequence[Chain],
    least_per_s: float,
    slower: float,
    count: int | None,
) -> Chains | None:
    """The chains found to move fewest bytes with `least_per_s` passes a second; None: none found.

    `olds` are the old chains, None where a node was lost; `news` the best ones without regard to
    what moves, of which each may become `slower` times as slow. `count` chains, or any number.
    """
    best: tuple[int, float, Chains] | None = None
    for chains in _candidates(loss, olds, news, least_per_s, slower, count):
        passes = passes_per_s(loss, chains)
        if passes < least_per_s * (1 - _ROUNDING) or count not in (None, len(chains)):
            continue
        moved = sum(loss.moved(chain) for chain in chains)
        if best is None or (moved, -passes) < best[:2]:
            best = moved, -passes, chains
        if not moved:
            break
    return best and best[2]


def passes_per_s(loss: Loss, chains: Iterable[Chain]) -> float:
    """Forward passes a second of all these chains."""
    times = [bottleneck(loss.line, loss.offers, chain) for chain in chains]
    return math.fsum(1 / time_s for time_s in times if time_s > INSTANT_S)


def _candidates(
    loss: Loss,
    olds: Sequence[Broken],
    news: Sequence[Chain],
    least_per_s: float,
    slower: float,
    count: int | None,
) -> Iterator[Chains]:
    whole = [chain for old in olds if (chain := _whole(loss, old))]
    for kept in _kept(whole, len(loss.offers)):
        if kept:
            yield kept
        rest = _unused(loss, kept)
        more = None if count is None else count - len(kept)
        if not rest or more == 0:
            continue
        missing = least_per_s - passes_per_s(loss, kept)
        broken = [old for old in olds if old not in kept]
        yield from _completed(loss, kept, rest, broken, missing, slower, more)
    yield tuple(_recut(loss, chain, slower) for chain in news)


def _whole(loss: Loss, old: Broken) -> Chain | None:
    """The chain if all its nodes are left and hold their part."""
    chain = tuple(stage for stage in old if stage is not None)
    fits = all(loss.line.fits(loss.offers[k], start, end) for k, start, end in chain)
    return chain if fits and len(chain) == len(old) else None


def _kept(whole: Sequence[Chain], nodes: int) -> Iterator[Chains]:
    yield tuple(whole)
    if len(whole) > 1 and nodes <= _FEW:
        for left_out in range(len(whole)):
            yield tuple(chain for place, chain in enumerate(whole) if place != left_out)
    if whole:
        yield ()


def _unused(loss: Loss, chains: Iterable[Chain]) -> list[int]:
    used = {stage.offer for chain in chains for stage in chain}
    return [k for k in range(len(loss.offers)) if k not in used]


def _completed(
    loss: Loss,
    kept: Chains,
    rest: Sequence[int],
    broken: Sequence[Broken],
    missing_per_s: float,
    slower: float,
    more: int | None,
) -> Iterator[Chains]:
    """The kept chains with others of the rest: one, as many as broke, or as many as are best."""
    if more in (None, 1):
        limit_s = 1 / missing_per_s if missing_per_s > INSTANT_S else math.inf
        for old in broken[:_MOST_ORDERS] or [()]:
            one = _made(loss, rest, old, limit_s)
            if one is not None:
                yield (*kept, one)
    mended = _mended(loss, rest, broken, slower)
    if mended:
        yield (*kept, *mended)
    if more != 1 and len(rest) > 1:
        solver = functools.partial(solve, loss.line)
        fleet = best_fleet(loss.line, [loss.offers[k] for k in rest], solver, more)
        for_all = [_renamed(chain, rest) for chain in fleet.chains] if fleet else []
        if for_all:
            yield (*kept, *[_recut(loss, chain, slower) for chain in for_all])


def _mended(loss: Loss, rest: Sequence[int], broken: Sequence[Broken], slower: float) -> Chains:
    """Each broken chain of its own survivors and whoever was in none, about as fast as it was."""
    survivors = {stage.offer for old in broken for stage in old if stage is not None}
    spare = [k for k in rest if k not in survivors]
    chains: list[Chain] = []
    for old in broken:
        own = [stage for stage in old if stage is not None]
        took_s = bottleneck(loss.line, loss.offers, tuple(own)) if own else math.inf
        used = {stage.offer for chain in chains for stage in chain}
        members = sorted({*spare, *[stage.offer for stage in own if stage.offer in rest]} - used)
        chain = _made(loss, members, old, took_s * slower) if members else None
        if chain is not None:
            chains.append(chain)
    return tuple(chains)


def _made(loss: Loss, members: Sequence[int], old: Broken, limit_s: float) -> Chain | None:
    """The chain of some of the members that moves fewest bytes."""
    newest = solve(loss.line, [loss.offers[k] for k in members])
    if newest is None:
        return None
    order = [stage.offer for stage in _renamed(newest.chain, members)]
    was = [stage.offer if stage is not None else None for stage in old]
    found = fewest_moves(loss.within(members, was, order), limit_s)
    return _renamed(found, members) if found is not None else None


def _recut(loss: Loss, chain: Chain, slower: float) -> Chain:
    """The chain's nodes in the order and with the cuts that move fewest bytes."""
    order = [stage.offer for stage in chain]
    members = sorted(order)
    held = sorted((k for k in members if k in loss.held), key=lambda k: loss.held[k])
    limit_s = bottleneck(loss.line, loss.offers, chain) * slower
    found = fewest_moves(loss.within(members, held, order), limit_s)
    return _renamed(found, members) if found is not None else chain


def _renamed(chain: Chain, members: Sequence[int]) -> Chain:
    """A chain of the members' own indices in those of all offers."""
    return tuple(Stage(members[k], start, end) for k, start, end in chain)
