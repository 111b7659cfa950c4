"""The planner's benchmark instances, made from seeds alone, and the rules it is set beside."""

import random
from collections.abc import Sequence
from itertools import pairwise

from messages.ids import NodeId
from messages.metadata import Block, ModelMetadata
from messages.nodes import Node
from services.planner.line import Line, Offer

GB = 1e9
KINDS = ("llm", "moe", "hybrid", "adversarial")
# GFLOPS and memory as sold; an instance takes each at 60 to 100 %.
MACHINES = (
    (80_000, 24 * GB), (50_000, 16 * GB), (36_000, 24 * GB), (30_000, 10 * GB),
    (20_000, 8 * GB), (312_000, 80 * GB), (125_000, 32 * GB), (8_000, 16 * GB),
)  # fmt: skip
Shape = list[tuple[float, float]]


def model(shape: Shape) -> ModelMetadata:
    """A model of blocks (GFLOP, bytes)."""
    blocks = tuple(
        Block(name=f"b{k}", tensors=(f"t{k}",), compute_required=work, weight_bytes=int(size))
        for k, (work, size) in enumerate(shape)
    )
    return ModelMetadata(model_name="bench/model", blocks=blocks)


def llama_1b() -> ModelMetadata:
    """Llama-3.2-1B at 1×512: 16 layers, the head counted in the last block."""
    layer = (62.3, 121.6e6)
    return model([(62.3, 647e6), *[layer] * 14, (331.3, 121.7e6)])


def llama_70b() -> ModelMetadata:
    """Llama-70B at 1×512: 80 layers between the embedding and the head."""
    return model([(0.1, 2.1e9), *[(876.0, 1.71e9)] * 80, (1076.0, 2.1e9)])


def shape_of(kind: str, chance: random.Random, blocks: int) -> Shape:
    """About `blocks` blocks of a kind."""
    if kind == "llm":
        return [(100, 1 * GB), *[(500, 1 * GB)] * (blocks - 2), (800, 1.2 * GB)]
    if kind == "moe":
        dense = chance.randint(1, 3)
        return [
            (100, 1 * GB), *[(500, 0.4 * GB)] * dense,
            *[(600, 6 * GB)] * (blocks - dense - 2), (800, 1 * GB),
        ]  # fmt: skip
    if kind == "hybrid":
        period = chance.choice([4, 6, 8])
        inner = [
            (900.0, 0.8 * GB) if k % period == period // 2 else
            (500.0, 0.6 * GB) if k % 2 else (700.0, 3 * GB)
            for k in range(blocks - 2)
        ]  # fmt: skip
        return [(100, 1 * GB), *inner, (800, 1 * GB)]
    return [(10 ** chance.uniform(1, 3.5), 10 ** chance.uniform(8, 9.7)) for _ in range(blocks)]


def nodes_for(
    shape: Shape, count: int, chance: random.Random, slack: tuple[float, float]
) -> tuple[Node, ...]:
    """Nodes whose memory was cut along a hidden chain, so that a plan exists, then shuffled."""
    used = min(count, len(shape), chance.randint(max(1, count // 2), count))
    cuts = [0, *sorted(chance.sample(range(1, len(shape)), used - 1)), len(shape)]
    memory = [
        sum(size for _, size in shape[start:end]) * chance.uniform(*slack)
        for start, end in pairwise(cuts)
    ]
    memory += [chance.choice(memory) * chance.uniform(0.3, 1) for _ in range(count - used)]
    chance.shuffle(memory)
    return tuple(
        Node(
            node_id=NodeId(f"n{k}"),
            compute_gflops=chance.choice(MACHINES)[0] * chance.uniform(0.6, 1),
            memory_bytes=int(size) + 1,
        )
        for k, size in enumerate(memory)
    )


def memory_first_fit(line: Line, offers: Sequence[Offer]) -> float | None:
    """accelerate's rule: devices in their order, each filled with layers while memory lasts."""
    at, slowest = 0, 0.0
    for offer in offers:
        end = line.reach(offer, at)
        if end > at:
            slowest = max(slowest, line.seconds(offer, at, end))
            at = end
    return slowest if at == len(line) else None


def ram_share(line: Line, offers: Sequence[Offer]) -> tuple[float, bool]:
    """exo's rule: the largest memory first, layers by share of memory; and whether they fit."""
    ranked = sorted(offers, key=lambda o: -o.memory)
    total = sum(o.memory for o in ranked)
    start, share, slowest, valid = 0, 0.0, 0.0, True
    for offer in ranked:
        share += offer.memory / total
        end = min(len(line), round(share * len(line)))
        if end > start:
            slowest = max(slowest, line.seconds(offer, start, end))
            valid = valid and line.fits(offer, start, end)
            start = end
    return slowest, valid
