"""Strategies that place tensors one by one: greedy, and balanced. Hops are what they cost."""

import math
from collections.abc import Sequence
from itertools import pairwise

from messages.ids import NodeId
from messages.nodes import Node
from messages.plans import Assignment
from services.planner import greedy
from services.planner import metadata as meta
from services.planner.case import Case, Placed
from services.planner.line import UNLIMITED, memory_bytes


def place_greedy(case: Case) -> Placed:
    """The seed's rules; Infeasible where a tensor fits nowhere."""
    items = items_of(case)
    nodes = case.selection.nodes
    placement = greedy.place(
        items,
        bins_of(case),
        budget_s=case.policy.budget_s,
        margin=case.policy.compute_margin,
    )
    assignments = assignments_of(placement, items, nodes)
    return Placed(
        assignments=assignments,
        lower_bound_s=compute_bound(items, nodes),
        proof="all work over all compute",
        hops=hops_of(assignments, items),
    )


def place_balanced(case: Case) -> Placed:
    """The most even placement of single tensors; Infeasible where they do not fit."""
    from services.planner import balanced

    items = items_of(case)
    balance = balanced.place(items, bins_of(case))
    assignments = assignments_of(balance.placement, items, case.selection.nodes)
    return Placed(
        assignments=assignments,
        lower_bound_s=balance.lower_bound_s,
        proof=balance.proof,
        hops=hops_of(assignments, items),
    )


def bins_of(case: Case) -> tuple[greedy.Bin, ...]:
    """The eligible nodes with the bytes each can be given: memory, or disk where that is less.

    What needs no disk (cache, activations) counts against it here: cautious, never too little.
    """
    return tuple(_bin(case, node) for node in case.selection.nodes)


def _bin(case: Case, node: Node) -> greedy.Bin:
    memory = case.offered[node.node_id]
    disk = UNLIMITED if node.disk_bytes is None else node.disk_bytes
    return greedy.Bin(
        node.node_id,
        node.compute_gflops,
        min(memory, disk),
        "disk" if disk < memory else "memory",
        case.headroom,
    )


def items_of(case: Case) -> tuple[greedy.Item, ...]:
    """The tensors in execution order; a file without layers has its blocks placed whole.

    A block's cache and activations go with its tensors, to each by its bytes and rounded up: all of
    them together are never less than what the block needs.
    """
    if not case.metadata.layers:
        return tuple(
            greedy.Item(b.name, b.compute_required, memory_bytes(b), b.tensors) for b in case.blocks
        )
    layers = {layer.name: layer for layer in case.metadata.layers}
    items = []
    for block in case.blocks:
        sizes = {name: meta.layer_bytes(layers[name]) for name in block.tensors}
        beside, whole = block.kv_bytes + block.activation_bytes, sum(sizes.values())
        for name, size in sizes.items():
            share = -(-beside * size // whole) if whole else -(-beside // len(sizes))
            items.append(greedy.Item(name, layers[name].compute_required, size + share, (name,)))
    return tuple(items)


def compute_bound(items: Sequence[greedy.Item], nodes: Sequence[Node]) -> float:
    """All work over all compute, and the largest item on the fastest node: seconds."""
    total = math.fsum(item.compute for item in items) / math.fsum(n.compute_gflops for n in nodes)
    largest = max(item.compute for item in items) / max(n.compute_gflops for n in nodes)
    return max(total * (1 - 1e-12), largest)


def assignments_of(
    placement: greedy.Placement, items: Sequence[greedy.Item], nodes: Sequence[Node]
) -> tuple[Assignment, ...]:
    """One stage for each node, in the order in which execution first reaches it."""
    gflops = {node.node_id: node.compute_gflops for node in nodes}
    order = {item.name: k for k, item in enumerate(items)}
    ranked = sorted(placement.items(), key=lambda entry: order[entry[1][0].name])
    return tuple(
        _assignment(node_id, stage, mine, gflops[node_id])
        for stage, (node_id, mine) in enumerate(ranked)
    )


def hops_of(assignments: Sequence[Assignment], items: Sequence[greedy.Item]) -> int:
    """How often execution goes from one node to another, tensor by tensor."""
    home = {name: a.node_id for a in assignments for name in a.layer_names}
    places = [home[name] for item in items for name in item.tensors[:1]]
    return sum(a != b for a, b in pairwise(places))


def _assignment(
    node_id: NodeId, stage: int, mine: Sequence[greedy.Item], gflops: float
) -> Assignment:
    compute = math.fsum(item.compute for item in mine)
    return Assignment(
        node_id=node_id,
        stage=stage,
        start_block=0,
        end_block=0,
        layer_names=tuple(name for item in mine for name in item.tensors),
        compute_required=compute,
        memory_bytes=sum(item.size_bytes for item in mine),
        stage_s=compute / gflops,
    )
