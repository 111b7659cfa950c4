"""Several chains instead of one, where the nodes hold several copies: which nodes form which.

Every chain is solved exactly. The grouping of up to eight nodes is the best of all; with more it is
chosen among a few rules, bettered by exchanges of single nodes, and judged by the forward passes a
second of all chains together, which no grouping can bring above all compute over all work.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from services.planner.chains import Answer, Chain, Stage
from services.planner.exchanging import Groups, regrouped
from services.planner.line import Line, Offer
from services.planner.predict import INSTANT_S

Solver = Callable[[Sequence[Offer]], Answer | None]
_TIE = 1e-9
_WORTH_IT = 0.01
_MOST_SOLOS = 16
_FEW = 8
_MOST_REGROUPED = 16
_STARTS = 2


@dataclass(frozen=True)
class Fleet:
    """Chains over disjoint nodes; `gap` compares their passes a second with all compute's.

    `slowest_s` is the largest stage time of all, `pass_s` the compute of one pass on the chain
    that takes longest.
    """

    chains: tuple[Chain, ...]
    passes_per_s: float
    slowest_s: float
    pass_s: float
    proof: str
    gap: float


def best_fleet(
    line: Line, offers: Sequence[Offer], solver: Solver, count: int | None
) -> Fleet | None:
    """The best chains found: `count` of them, or as many as are best; None where none was found.

    With one chain the gap and proof are the chain's own. Of equals, more chains need fewer hops.
    """
    best: Fleet | None = None
    several: dict[int, tuple[float, Groups]] = {}
    for groups in _candidates(line, offers, solver, count):
        fleet = _fleet(line, offers, solver, groups)
        if fleet and (best is None or _better(fleet, best)):
            best = fleet
        if fleet and len(groups) > 1:
            found = (fleet.passes_per_s, groups)
            several[len(groups)] = max(found, several.get(len(groups), found))
    ideal = math.fsum(offer.rate for offer in offers) / max(1, line.work_sums[-1])
    if best is None or ideal <= best.passes_per_s * (1 + _WORTH_IT):
        return best
    if _FEW < len(offers) <= _MOST_REGROUPED:
        # Exchanges keep the number of chains: the two that promise most are both tried.
        for _, start in sorted(several.values(), reverse=True)[:_STARTS]:
            groups = regrouped(start, len(offers), lambda g: _passes(offers, solver, _mask(g)))
            fleet = _fleet(line, offers, solver, groups)
            if fleet and _better(fleet, best):
                best = fleet
    return best


def _better(fleet: Fleet, best: Fleet) -> bool:
    """More passes by a hundredth at least, or as many and each as soon: else it is not worth it."""
    gain = fleet.passes_per_s / best.passes_per_s if best.passes_per_s else 1.0
    sooner = fleet.pass_s <= best.pass_s * (1 + _TIE)
    return gain > 1 + _WORTH_IT or (gain >= 1 - _TIE and sooner)


def copies(line: Line, offers: Sequence[Offer]) -> int:
    """How many copies the nodes' memory holds at most."""
    needed = line.memory_of(0, len(line))
    room = sum(min(offer.memory, needed) for offer in offers)
    return min(len(offers), room // needed if needed else len(offers))


def _candidates(
    line: Line, offers: Sequence[Offer], solver: Solver, count: int | None
) -> Iterable[Groups]:
    if count is None or count == 1:
        yield (tuple(range(len(offers))),)
    if count == 1:
        return
    most = copies(line, offers)
    if len(offers) <= _FEW and most > 1:
        yield from _best_grouping(offers, solver, count)
        return
    counts = [count] if count is not None else sorted({2, 3, 4, most // 2, most})
    for wanted in counts:
        if 2 <= wanted <= most:
            yield _dealt(offers, wanted, lambda offer: offer.rate)
            yield _dealt(offers, wanted, lambda offer: float(offer.memory))
            yield _filled(offers, wanted, solver)
    alone = [k for k, offer in enumerate(offers) if line.fits(offer, 0, len(line))]
    if len(alone) > 1 or (alone and count is None):
        yield from _around(offers, alone, count)


def _best_grouping(offers: Sequence[Offer], solver: Solver, count: int | None) -> Iterable[Groups]:
    """The grouping with most passes a second of all there are, if any has `count` chains, or two.

    Over sets of nodes in rising order: the node of the set's lowest bit is in no chain, or in one
    with some of the others.
    """
    passes = {mask: _passes(offers, solver, mask) for mask in range(1, 1 << len(offers))}
    best: dict[int, dict[int, tuple[float, tuple[int, ...]]]] = {0: {0: (0.0, ())}}
    for nodes in range(1, 1 << len(offers)):
        lowest = nodes & -nodes
        others = nodes ^ lowest
        best[nodes] = dict(best[others])
        friends = others
        while True:
            chain = friends | lowest
            for chains, (rate, groups) in best[nodes ^ chain].items() if passes[chain] else ():
                found = (rate + passes[chain], (chain, *groups))
                if (
                    found[0] > best[nodes].get(chains + 1, found)[0]
                    or chains + 1 not in best[nodes]
                ):
                    best[nodes][chains + 1] = found
            if not friends:
                break
            friends = (friends - 1) & others
    wanted = [found for chains, found in best[-1 + (1 << len(offers))].items() if chains > 1]
    if count is not None:
        wanted = [found for found in wanted if len(found[1]) == count]
    if wanted:
        masks = max(wanted, key=lambda found: found[0])[1]
        yield tuple(_members(mask) for mask in sorted(masks, key=_members))


def _passes(offers: Sequence[Offer], solver: Solver, mask: int) -> float:
    """Passes a second of the best chain of these nodes; 0 where there is none."""
    found = solver([offers[k] for k in _members(mask)])
    return 1 / found.bottleneck_s if found and found.bottleneck_s > INSTANT_S else 0.0


def _mask(group: Sequence[int]) -> int:
    return sum(1 << k for k in group)


def _members(mask: int) -> tuple[int, ...]:
    return tuple(k for k in range(mask.bit_length()) if mask >> k & 1)


def _dealt(offers: Sequence[Offer], count: int, size: Callable[[Offer], float]) -> Groups:
    """Largest first, each to the group that has least so far."""
    groups: list[list[int]] = [[] for _ in range(count)]
    sums = [0.0] * count
    for k in sorted(range(len(offers)), key=lambda k: (-size(offers[k]), k)):
        least = min(range(count), key=lambda g: (sums[g], g))
        groups[least].append(k)
        sums[least] += size(offers[k])
    return tuple(tuple(sorted(group)) for group in groups)


def _filled(offers: Sequence[Offer], count: int, solver: Solver) -> Groups:
    """Nodes by falling memory into one group after another, each closed when it holds a copy."""
    groups: list[tuple[int, ...]] = []
    group: list[int] = []
    for k in sorted(range(len(offers)), key=lambda k: (-offers[k].memory, k)):
        group.append(k)
        if len(groups) < count - 1 and solver([offers[i] for i in group]) is not None:
            groups.append(tuple(sorted(group)))
            group = []
    return (*groups, tuple(sorted(group)))


def _around(offers: Sequence[Offer], alone: Sequence[int], count: int | None) -> Iterable[Groups]:
    """Whoever holds a whole copy for itself; the others form a chain, or help the slowest."""
    rest = [k for k in range(len(offers)) if k not in set(alone)]
    solos = [[k] for k in alone]
    strongest = sorted(alone, key=lambda k: (-offers[k].rate, k))
    for taken in range(1, len(strongest) + 1) if count is None else (count,):
        if taken <= min(len(strongest), _MOST_SOLOS) or taken == len(strongest):
            yield tuple((k,) for k in sorted(strongest[:taken]))
    if rest and count in (None, len(solos) + 1):
        yield (*((k,) for k in alone), tuple(rest))
    if rest and count in (None, len(solos)):
        for k in rest:
            min(solos, key=lambda g: sum(offers[i].rate for i in g)).append(k)
        yield tuple(tuple(sorted(group)) for group in solos)


def _fleet(line: Line, offers: Sequence[Offer], solver: Solver, groups: Groups) -> Fleet | None:
    answers = []
    for group in groups:
        found = solver([offers[k] for k in group]) if group else None
        if found is None:
            return None
        answers.append(found)
    passes = math.fsum(1 / a.bottleneck_s for a in answers if a.bottleneck_s > INSTANT_S)
    slowest_s = max(a.bottleneck_s for a in answers)
    chains = tuple(_renamed(a.chain, group) for group, a in zip(groups, answers, strict=True))
    pass_s = max(_compute_s(line, offers, chain) for chain in chains)
    if len(answers) == 1:
        only = answers[0]
        gap = only.bottleneck_s / only.lower_bound_s - 1 if only.lower_bound_s > 0 else 0.0
        return Fleet(chains, passes, slowest_s, pass_s, only.proof, gap)
    ideal = math.fsum(offer.rate for offer in offers) / max(1, line.work_sums[-1])
    proof = f"{len(answers)} chains, each the best of its nodes; together against all compute"
    gap = max(0.0, ideal / passes - 1) if passes else 0.0
    return Fleet(chains, passes, slowest_s, pass_s, proof, gap)


def _renamed(chain: Chain, group: Sequence[int]) -> Chain:
    """A chain of a group's own indices in those of all offers."""
    if group[-1] == len(group) - 1:
        return chain
    return tuple([Stage(group[k], start, end) for k, start, end in chain])


def _compute_s(line: Line, offers: Sequence[Offer], chain: Chain) -> float:
    sums = line.work_sums
    return sum([(sums[end] - sums[start]) / offers[k].rate for k, start, end in chain])
