"""What a plan will do: seconds and hops of a forward pass and of a generated token."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from messages.ids import NodeId
from messages.metadata import Block
from messages.nodes import Node
from messages.plans import Assignment
from services.planner.case import Case

INSTANT_S = 1e-300
"""Anything sooner has no rate: its inverse is no number."""


@dataclass(frozen=True)
class Forecast:
    """Predicted figures of all replicas together; latency is that of the slowest replica."""

    bottleneck_s: float
    latency_s: float
    throughput_per_s: float
    decode_bottleneck_s: float
    decode_latency_s: float
    decode_tokens_per_s: float


def hop_s(node: Node, size_bytes: int) -> float:
    """Seconds to hand `size_bytes` of activations on: the sender's latency and bandwidth."""
    sending_s = size_bytes * 8e-6 / node.bandwidth_mbps if node.bandwidth_mbps else 0.0
    return (node.latency_s or 0.0) + sending_s


def decode_s(node: Node, blocks: Sequence[Block], batch_size: int) -> float:
    """Seconds for one token of each sequence: compute, or reading weights and cache if slower."""
    compute_s = batch_size * sum([b.decode_compute for b in blocks]) / node.compute_gflops
    if node.copy_gbps is None:
        return compute_s
    read = sum(b.weight_bytes + b.kv_bytes for b in blocks)
    return max(compute_s, read / (node.copy_gbps * 1e9))


def forecast(
    assignments: Sequence[Assignment], case: Case, nodes: Mapping[NodeId, Node]
) -> Forecast:
    """The figures of these stages; stages without a block range count no hops."""
    chains: dict[int, list[Assignment]] = {}
    for a in assignments:
        chains.setdefault(a.replica, []).append(a)
    each = [_chain_times(chain, case, nodes) for chain in chains.values()]
    slowest = max(e.stage_s for e in each)
    return Forecast(
        bottleneck_s=slowest,
        latency_s=max(e.latency_s for e in each),
        throughput_per_s=math.fsum(1 / e.stage_s for e in each if e.stage_s > INSTANT_S),
        decode_bottleneck_s=max(e.token_s for e in each),
        decode_latency_s=max(e.token_latency_s for e in each),
        decode_tokens_per_s=math.fsum(
            case.metadata.batch_size / e.token_s for e in each if e.token_s > INSTANT_S
        ),
    )


@dataclass(frozen=True)
class _Times:
    stage_s: float
    latency_s: float
    token_s: float
    token_latency_s: float


def _chain_times(chain: Sequence[Assignment], case: Case, nodes: Mapping[NodeId, Node]) -> _Times:
    """A token's activations are 1/sequence_length of a pass's."""
    parts = [case.blocks[a.start_block : a.end_block] for a in chain]
    tokens = [
        decode_s(nodes[a.node_id], part, case.metadata.batch_size)
        for a, part in zip(chain, parts, strict=True)
    ]
    hops_s = tokens_hops_s = 0.0
    for a, part in zip(chain[:-1], parts, strict=False):
        node = nodes[a.node_id]
        if node.latency_s is None and node.bandwidth_mbps is None:
            continue
        out = part[-1].output_bytes if part else 0
        hops_s += hop_s(node, out)
        tokens_hops_s += hop_s(node, out // case.metadata.sequence_length)
    return _Times(
        stage_s=max([a.stage_s for a in chain]),
        latency_s=sum([a.stage_s for a in chain]) + hops_s,
        token_s=max(tokens),
        token_latency_s=sum(tokens) + tokens_hops_s,
    )
