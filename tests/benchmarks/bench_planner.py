"""How near to the proven bound plans are, how long planning takes, and what moves after a loss.

    python tests/benchmarks/bench_planner.py [PART...]      parts: known random alike exact many
                                                            large loose losses; all without a name

Ratios are to each plan's own proven lower bound; the rules of accelerate and exo, written from
their documentation, stand beside it on the same instances. Times are of `plan_split`, checks,
relay, backups and all, in one process after one warm-up plan.
"""

import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from config.settings import Planner
from messages.ids import NodeId
from messages.metadata import ModelMetadata
from messages.nodes import Node
from messages.plans import SplitPlan
from messages.wishes import Wishes
from services.planner import balanced, greedy, moves
from services.planner import replan as replanning
from services.planner.chains import NO_DEMANDS
from services.planner.failures import Infeasible
from services.planner.latency import cheapest
from services.planner.line import line_of
from services.planner.pipeline import solve
from services.planner.plan import plan_split
from services.planner.replan import replan
from services.planner.selection import offers_of
from tests.benchmarks import planner_instances as made

ONE = Wishes(headroom=0.0, replicas=1)
POLICY = Planner()
_FEW = 11
Case = tuple[ModelMetadata, Sequence[Node]]


def main() -> None:
    """Run the parts named on the command line."""
    parts: dict[str, Callable[[], None]] = {
        "known": known, "random": hundred, "alike": alike, "exact": exact,
        "many": many, "large": large, "loose": loose, "losses": losses,
    }  # fmt: skip
    plan_split(made.llama_1b(), demo_nodes(), ONE, POLICY)
    for name in sys.argv[1:] or parts:
        parts[name]()


def demo_nodes() -> tuple[Node, ...]:
    """The first demo's RTX 3080 at 20 %, RTX 3090 at 30 %, and eight cores."""
    figures = ((24_000, 10e9), (25_200, 24e9), (80, 16e9))
    return tuple(
        Node(node_id=NodeId(f"node_{k:03}"), compute_gflops=gflops, memory_bytes=int(memory))
        for k, (gflops, memory) in enumerate(figures, start=1)
    )


def known() -> None:
    """The demo's nodes and twelve mixed ones, model shapes as they are."""
    twelve = tuple(
        Node(node_id=NodeId(f"n{k}"), compute_gflops=gflops, memory_bytes=int(memory))
        for k, (gflops, memory) in enumerate((*made.MACHINES, *made.MACHINES[:4]))
    )
    report("Llama-1B on the demo's three nodes", [(made.llama_1b(), demo_nodes())])
    report("Llama-70B on 12 mixed nodes", [(made.llama_70b(), twelve)])


def hundred() -> None:
    """A hundred random cases of four kinds on 3 to 16 nodes."""
    report("100 random, 3-16 nodes, 1.0-1.5 x memory", list(cases(range(100), (3, 16), (20, 100))))


def alike() -> None:
    """Language-model shapes, up to 1000 blocks on 1000 nodes."""
    for blocks, nodes in ((37, 10), (82, 100), (1000, 100), (1000, 1000)):
        found = []
        for seed in range(40):
            chance = random.Random(seed)
            shape = made.shape_of("llm", chance, blocks)
            found.append((made.model(shape), made.nodes_for(shape, nodes, chance, (1.1, 1.5))))
        report(f"LLM shape, {blocks} blocks on {nodes} nodes", found, naive=False)


def exact() -> None:
    """Any shape, 128 blocks, sixteen nodes of which no two are alike."""
    found = list(cases(range(40), (16, 16), (128, 128)))
    report("any shape, 128 blocks on 16 distinct nodes", found)


def many() -> None:
    """More nodes than sets can be listed of."""
    for kind in made.KINDS[1:]:
        found = list(cases(range(12), (24, 64), (64, 128), kinds=(kind,)))
        report(f"{kind}, 64-128 blocks on 24-64 distinct nodes", found)


def large() -> None:
    """Hundreds of nodes, memory tight, no closed form."""
    for blocks, nodes in ((400, 300), (1000, 1000)):
        for kind in made.KINDS[1:]:
            gaps, times, proven = [], [], 0
            for metadata, live in cases(
                range(3), (nodes, nodes), (blocks, blocks), kinds=(kind,), slack=(1.0, 1.5)
            ):
                start = time.perf_counter()
                plan = plan_split(metadata, live, ONE, POLICY)
                times.append(time.perf_counter() - start)
                gaps.append(plan.gap)
                proven += plan.gap == 0
            each = ", ".join(f"{gap * 100:.2f} %" for gap in gaps)
            print(
                f"{kind}, {blocks} blocks on {nodes} nodes: {proven} of {len(gaps)} proven, "
                f"gaps {each}; {max(times):.1f} s at most",
                flush=True,
            )


def cases(
    seeds: Sequence[int],
    nodes: tuple[int, int],
    blocks: tuple[int, int],
    kinds: Sequence[str] = made.KINDS,
    slack: tuple[float, float] = (1.0, 1.5),
) -> Iterator[Case]:
    """Random cases, one a seed, kinds by turns."""
    for seed in seeds:
        chance = random.Random(seed)
        shape = made.shape_of(kinds[seed % len(kinds)], chance, chance.randint(*blocks))
        yield made.model(shape), made.nodes_for(shape, chance.randint(*nodes), chance, slack)


def loose() -> None:
    """Single tensors: greedy's and balanced's largest load over the proven bound."""
    for shapes, each, nodes in (
        (7, 16, 3),
        (7, 80, 12),
        (9, 80, 40),
        (300, 1, 16),
        (40, 2500, 10_000),
    ):
        ratios: dict[str, list[float]] = {"greedy": [], "balanced": []}
        times = []
        for seed in range(5 if nodes < 1000 else 1):
            items, bins = tensors(random.Random(seed), shapes, each, nodes)
            start = time.perf_counter()
            even = balanced.place(items, bins)
            times.append(time.perf_counter() - start)
            ratios["balanced"].append(even.bottleneck_s / even.lower_bound_s)
            rates = {b.node_id: b.gflops for b in bins}
            placed = greedy.place(items, bins, budget_s=1e9, margin=1.2)
            slowest = max(sum(i.compute for i in mine) / rates[n] for n, mine in placed.items())
            ratios["greedy"].append(slowest / even.lower_bound_s)
        print(
            f"{shapes * each} tensors of {shapes} shapes on {nodes} nodes: balanced max "
            f"{max(ratios['balanced']):.5f}, greedy max {max(ratios['greedy']):.3f} x the bound; "
            f"balanced {max(times):.2f} s at most"
        )


def tensors(
    chance: random.Random, shapes: int, each: int, nodes: int
) -> tuple[list[greedy.Item], list[greedy.Bin]]:
    """Tensors of a few shapes, and nodes that hold 1.6 times as much."""
    kinds = [(chance.uniform(0.01, 10), chance.randrange(1, 100) * 10**6) for _ in range(shapes)]
    items = [
        greedy.Item(f"t{k}.{j}", work, size, (f"t{k}.{j}",))
        for k, (work, size) in enumerate(kinds)
        for j in range(each)
    ]
    weights = [chance.uniform(1, 50) for _ in range(nodes)]
    need = sum(item.size_bytes for item in items) * 1.6 / sum(weights)
    bins = [
        greedy.Bin(NodeId(f"n{k}"), weight, int(need * weight) + 10**8)
        for k, weight in enumerate(weights)
    ]
    return items, bins


def losses() -> None:
    """A node of the plan is lost, memory being tight, and ample."""
    lose("tight", (1.0, 1.5))
    lose("ample", (1.5, 2.5))


def lose(title: str, slack: tuple[float, float]) -> None:
    """Bytes that move over the bytes that the lost node held, and over the fewest; and the time."""
    moved, slower, times = [], [], []
    over_least: list[float] = []
    for metadata, nodes in cases(range(100), (5, 16), (20, 90), slack=slack):
        old = plan_split(metadata, nodes, ONE, POLICY)
        for gone in old.assignments:
            live = [node for node in nodes if node.node_id != gone.node_id]
            try:
                best = plan_split(metadata, live, ONE, POLICY)
            except Infeasible:
                continue
            start = time.perf_counter()
            new = replan(old, metadata, live, ONE, POLICY)
            times.append(time.perf_counter() - start)
            moved.append((new.moved_bytes or 0) / max(1, gone.memory_bytes))
            slower.append(new.bottleneck_s / best.bottleneck_s)
            if len(live) <= _FEW:
                least = fewest_bytes(old, best, metadata, live)
                over_least.append((new.moved_bytes or 0) / max(1.0, least))
            if len(moved) == 298:
                break
        if len(moved) == 298:
            break
    print(
        f"{len(moved)} losses, memory {title}: bytes moved over the lost node's, median "
        f"{statistics.median(moved):.2f}, p90 {percentile(moved, 90):.2f}; bottleneck at most "
        f"{max(slower):.3f} x the new best; {times_of(times)}"
    )
    print(
        f"    {len(over_least)} of them leave {_FEW} nodes or fewer: bytes moved over the fewest "
        f"that any plan moves, median {statistics.median(over_least):.2f}, "
        f"p90 {percentile(over_least, 90):.2f}, max {max(over_least):.2f}"
    )


def fewest_bytes(
    old: SplitPlan, best: SplitPlan, metadata: ModelMetadata, live: Sequence[Node]
) -> float:
    """The fewest bytes that any chain within 1.05 times the best moves: every set and order."""
    line = line_of(metadata.blocks)
    offers = offers_of(live, line.scale, lambda n: n.memory_bytes)
    held = moves.held_units(line, old.assignments, {o.node_id: k for k, o in enumerate(offers)})
    limit_s = best.bottleneck_s * replanning.SLOWER_AT_MOST
    costs = [moves.move_costs(line, offer, held.get(k), limit_s) for k, offer in enumerate(offers)]
    return cheapest(line, NO_DEMANDS, range(len(offers)), costs)[1]


def report(title: str, found: Sequence[Case], *, naive: bool = True) -> None:
    """Plan each case and print ratios and times."""
    times, searches, ratios, proven = [], [], [], 0
    fit: list[float] = []
    share: list[float] = []
    refused = invalid = 0
    for metadata, nodes in found:
        start = time.perf_counter()
        plan = plan_split(metadata, nodes, ONE, POLICY)
        times.append(time.perf_counter() - start)
        line = line_of(metadata.blocks)
        offers = offers_of(nodes, line.scale, lambda n: n.memory_bytes)
        start = time.perf_counter()
        solve(line, offers)
        searches.append(time.perf_counter() - start)
        ratios.append(1 + plan.gap)
        proven += plan.gap == 0
        if naive:
            first, shared, valid = beside(metadata, nodes, plan)
            refused += first is None
            invalid += not valid
            fit += [first] if first is not None else []
            share.append(shared)
    print(f"{title}: {proven} of {len(found)} proven optimal, worst {max(ratios):.5f} x the bound;")
    print(f"    plan_split {times_of(times)}; the search alone {times_of(searches)}")
    if naive:
        fits = f"median {statistics.median(fit):.2f}, worst {max(fit):.1f}" if fit else "none"
        print(
            f"    memory first-fit (accelerate): {fits} x, {refused} not placed; RAM share (exo): "
            f"median {statistics.median(share):.2f} x, {invalid} over a node's memory"
        )


def beside(
    metadata: ModelMetadata, nodes: Sequence[Node], plan: SplitPlan
) -> tuple[float | None, float, bool]:
    """The other rules' bottleneck over ours, and whether the share of RAM fits."""
    line = line_of(metadata.blocks)
    offers = {o.node_id: o for o in offers_of(nodes, line.scale, lambda n: n.memory_bytes)}
    listed = [offers[node.node_id] for node in nodes]
    first = made.memory_first_fit(line, listed)
    shared, valid = made.ram_share(line, listed)
    best = plan.bottleneck_s
    return None if first is None else first / best, shared / best, valid


def times_of(times: Sequence[float]) -> str:
    """Percentiles in milliseconds."""
    p50, p95, top = (percentile(times, p) * 1e3 for p in (50, 95, 100))
    return f"p50 {p50:.1f} ms, p95 {p95:.1f} ms, max {top:.1f} ms"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` percent of the values do not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * share / 100))]


if __name__ == "__main__":
    main()
