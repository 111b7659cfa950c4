"""The `greedy` strategy: highest need first, to the node with the most compute left.

No node goes over its compute (power × budget) or its memory; a tensor that fits nowhere is a
refusal. Nodes are taken strongest first until they cover the need times a margin.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import accumulate
from typing import Literal

from messages.ids import NodeId
from services.planner.failures import Infeasible

_AT_ONCE = 100


@dataclass(frozen=True)
class Item:
    """What is placed whole: GFLOP of one forward pass, bytes, and the tensors it consists of."""

    name: str
    compute: float
    size_bytes: int
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class Bin:
    """A node to fill: GFLOPS, and the bytes that it takes, which its memory or its disk limits.

    Of memory a share, `headroom`, is left free.
    """

    node_id: NodeId
    gflops: float
    memory: int
    limit: Literal["memory", "disk"] = "memory"
    headroom: float = 0.0

    def more(self, missing: int) -> int:
        """How many bytes more the node must have, to take so many more."""
        return math.ceil(missing / (1.0 - self.headroom)) if self.limit == "memory" else missing


Placement = dict[NodeId, tuple[Item, ...]]


def place(
    items: Sequence[Item], bins: Sequence[Bin], *, budget_s: float, margin: float
) -> Placement:
    """Every item on one node, by the three rules; Infeasible names the first that fits nowhere.

    Where the nodes that cover the need do not fit everything, the next strongest joins; of more
    than a hundred, the next hundredth of them at once.
    """
    ranked = sorted(bins, key=lambda b: (-b.gflops, b.node_id))
    need = math.fsum(item.compute for item in items) * margin
    count = max(_enough(ranked, need / budget_s), _large_enough(ranked, items))
    while True:
        try:
            return _fill(items, ranked[:count], budget_s)
        except Infeasible:
            if count == len(ranked):
                raise
            count = min(len(ranked), count + 1 + count // _AT_ONCE)


def _enough(ranked: Sequence[Bin], gflops: float) -> int:
    """How many of the strongest nodes cover the need; all of them where they do not."""
    covered = 0.0
    for count, bin_ in enumerate(ranked, start=1):
        covered += bin_.gflops
        if covered >= gflops:
            return count
    return len(ranked)


def _large_enough(ranked: Sequence[Bin], items: Sequence[Item]) -> int:
    """How many of the strongest nodes have the bytes; all of them where they have not."""
    need = sum(item.size_bytes for item in items)
    short = sum(held < need for held in accumulate(b.memory for b in ranked))
    return min(len(ranked), short + 1)


def _fill(items: Sequence[Item], bins: Sequence[Bin], budget_s: float) -> Placement:
    heap = [(-b.gflops * budget_s, b.node_id, b.memory) for b in bins]
    heapify(heap)
    placed: dict[NodeId, list[Item]] = {b.node_id: [] for b in bins}
    passed_over: list[tuple[float, NodeId, int]] = []
    too_large = 0
    for item in sorted(items, key=lambda i: (-i.compute, -i.size_bytes, i.name)):
        if item.size_bytes < too_large:
            while passed_over:
                heappush(heap, passed_over.pop())
        too_large = item.size_bytes
        while heap and heap[0][2] < item.size_bytes:
            passed_over.append(heappop(heap))
        if not heap or -heap[0][0] < item.compute:
            raise _refusal(item, heap + passed_over, {b.node_id: b for b in bins})
        left, node_id, memory = heappop(heap)
        placed[node_id].append(item)
        heappush(heap, (left + item.compute, node_id, memory - item.size_bytes))
    order = {item.name: k for k, item in enumerate(items)}
    return {
        node_id: tuple(sorted(mine, key=lambda i: order[i.name]))
        for node_id, mine in placed.items()
        if mine
    }


def _refusal(
    item: Item, state: Sequence[tuple[float, NodeId, int]], bins: Mapping[NodeId, Bin]
) -> Infeasible:
    left, node_id, memory = min(state, key=lambda e: (max(0, item.size_bytes - e[2]), e[0], e[1]))
    short_bytes = item.size_bytes - memory
    if short_bytes > 0:
        limit, missing = bins[node_id].limit, bins[node_id].more(short_bytes)
        return Infeasible(
            f"{item.name} ({item.size_bytes} bytes) fits in no node's {limit}; "
            f"{node_id} has {memory} bytes left",
            constraint=limit,
            node_id=node_id,
            missing=missing,
            advice=f"at least {missing} bytes more of {limit} on {node_id} are needed; add a node, "
            "or use pipeline",
        )
    short = math.ceil(item.compute + left)
    return Infeasible(
        f"{item.name} ({item.compute:g} GFLOP) goes over every node's compute; "
        f"{node_id} has {-left:g} GFLOP left of its budget",
        constraint="compute",
        node_id=node_id,
        missing=max(1, short),
        advice="raise budget_s in [planner], add a node, or use the pipeline strategy",
    )
