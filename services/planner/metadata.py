"""Metadata checked for what its types cannot say, and blocks where a file has none."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from messages.metadata import Block, Layer, ModelMetadata
from services.planner.failures import BadMetadata

_MOST_GFLOP = 1e18
_MOST_BYTES = 1 << 60
_WIDTH = {
    "float64": 8, "int64": 8, "complex64": 8, "float32": 4, "int32": 4, "uint32": 4,
    "float16": 2, "bfloat16": 2, "int16": 2, "uint16": 2,
}  # fmt: skip
_INDEX = re.compile(r"(?:^|\.)(\d+)\.")
_FIRST = re.compile(r"embed|\bwte\b|\bwpe\b|shared\.weight")


def check(metadata: ModelMetadata) -> None:
    """BadMetadata with the field where the file contradicts itself or holds absurd figures."""
    if not metadata.layers and not metadata.blocks:
        raise BadMetadata("layers", "the file has neither layers nor blocks: nothing to place")
    _unique("layers", (layer.name for layer in metadata.layers))
    _unique("blocks", (block.name for block in metadata.blocks))
    _unique("blocks.tensors", (name for block in metadata.blocks for name in block.tensors))
    _plausible(metadata)
    _check_blocks(metadata)
    _check_ties(metadata)


def blocks_of(metadata: ModelMetadata) -> tuple[Block, ...]:
    """The file's blocks, or blocks derived from its layers (see `derived_blocks`)."""
    return metadata.blocks or derived_blocks(metadata.layers)


def layer_bytes(layer: Layer) -> int:
    """The bytes of a tensor: as reported, else parameters times the width of the dtype."""
    return layer.size_bytes or layer.num_params * _WIDTH.get(layer.dtype.rpartition(".")[2], 1)


class Copy(NamedTuple):
    """Tied tensors stored in block `block`, which a last stage without that block needs as well."""

    block: int
    names: tuple[str, ...]
    size_bytes: int


@dataclass(frozen=True)
class Tie:
    """The second copies that the last stage may need: one for each block that stores any."""

    copies: tuple[Copy, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All tensors that may be there twice."""
        return tuple(name for copy in self.copies for name in copy.names)

    @property
    def size_bytes(self) -> int:
        """What they need in all, where the last stage holds none of their blocks."""
        return sum(copy.size_bytes for copy in self.copies)

    def needed_from(self, start: int) -> tuple[str, ...]:
        """The tensors that a last stage from block `start` on holds beside its own."""
        return tuple(name for copy in self.copies if copy.block < start for name in copy.names)


def tie_of(metadata: ModelMetadata, blocks: Sequence[Block]) -> Tie:
    """What the last stage needs a second copy of.

    A tied group with exactly one stored name is stored where that name is and needed by the head.
    A group with several stored names needs nothing more. Where no layers are listed a tensor is
    taken to be as large as its block, which is never too little.
    """
    home = {name: k for k, block in enumerate(blocks) for name in block.tensors}
    size = {layer.name: layer_bytes(layer) for layer in metadata.layers}
    stored: dict[int, list[str]] = {}
    for group in metadata.ties:
        names = [name for name in group if name in home]
        if len(names) == 1 and len(group) > 1 and home[names[0]] != len(blocks) - 1:
            stored.setdefault(home[names[0]], []).append(names[0])
    copies = []
    for k, names in sorted(stored.items()):
        known = sum(size[name] for name in set(names) if name in size)
        unknown = not size.keys() >= set(names)
        size_bytes = blocks[k].weight_bytes if unknown else known
        copies.append(Copy(k, tuple(dict.fromkeys(names)), size_bytes))
    return Tie(tuple(copies))


def derived_blocks(layers: Sequence[Layer]) -> tuple[Block, ...]:
    """Blocks by the number in tensor names, `model.layers.7.…`; one block a tensor without any.

    What carries no number goes to the first block where its name says embedding, else to the last.
    """
    indexed: dict[tuple[str, int], list[Layer]] = {}
    first: list[Layer] = []
    last: list[Layer] = []
    for layer in layers:
        found = _INDEX.search(layer.name)
        if found:
            stack = layer.name[: found.start(1)]
            indexed.setdefault((stack, int(found[1])), []).append(layer)
        elif _FIRST.search(layer.name):
            first.append(layer)
        else:
            last.append(layer)
    if not indexed:
        return tuple(_block(layer.name, (layer,)) for layer in layers)
    stacks = list(dict.fromkeys(stack for stack, _ in indexed))
    keys = sorted(indexed, key=lambda key: (stacks.index(key[0]), key[1]))
    groups = [(f"{stack}{index}", indexed[stack, index]) for stack, index in keys]
    groups[0] = (groups[0][0], first + groups[0][1])
    groups[-1] = (groups[-1][0], groups[-1][1] + last)
    return tuple(_block(name, group) for name, group in groups)


def _block(name: str, layers: Sequence[Layer]) -> Block:
    return Block(
        name=name,
        tensors=tuple(layer.name for layer in layers),
        compute_required=math.fsum(layer.compute_required for layer in layers),
        decode_compute=math.fsum(layer.decode_compute for layer in layers),
        weight_bytes=sum(layer_bytes(layer) for layer in layers),
    )


def _unique(field: str, names: Iterable[str]) -> None:
    listed = list(names)
    if len(set(listed)) < len(listed):
        twice = next(name for name, times in Counter(listed).items() if times > 1)
        raise BadMetadata(field, f"{twice!r} is there more than once")


def _plausible(metadata: ModelMetadata) -> None:
    for layer in metadata.layers:
        if layer.compute_required > _MOST_GFLOP:
            raise BadMetadata(f"layers[{layer.name!r}].compute_required", "more than 1e18 GFLOP")
        if layer_bytes(layer) > _MOST_BYTES:
            raise BadMetadata(f"layers[{layer.name!r}].size_bytes", "more than 2**60 bytes")
    for block in metadata.blocks:
        if block.compute_required > _MOST_GFLOP:
            raise BadMetadata(f"blocks[{block.name!r}].compute_required", "more than 1e18 GFLOP")
        if max(block.weight_bytes, block.kv_bytes, block.activation_bytes) > _MOST_BYTES:
            raise BadMetadata(f"blocks[{block.name!r}]", "more than 2**60 bytes")
    if sum(b.weight_bytes + b.kv_bytes + b.activation_bytes for b in metadata.blocks) > _MOST_BYTES:
        raise BadMetadata("blocks", "more than 2**60 bytes in all")
    if sum(layer_bytes(layer) for layer in metadata.layers) > _MOST_BYTES:
        raise BadMetadata("layers", "more than 2**60 bytes in all")


def _check_blocks(metadata: ModelMetadata) -> None:
    names = {block.name for block in metadata.blocks}
    for block in metadata.blocks:
        if block.together_with is not None and block.together_with not in names:
            field = f"blocks[{block.name!r}].together_with"
            raise BadMetadata(field, f"there is no block {block.together_with!r}")
    if not metadata.layers or not metadata.blocks:
        return
    held = {name for block in metadata.blocks for name in block.tensors}
    listed = {layer.name for layer in metadata.layers}
    for missing in sorted(listed - held):
        raise BadMetadata("blocks.tensors", f"tensor {missing!r} is in no block")
    for unknown in sorted(held - listed):
        raise BadMetadata("blocks.tensors", f"{unknown!r} is no tensor of layers")


def _check_ties(metadata: ModelMetadata) -> None:
    if not metadata.ties:
        return
    stored = {layer.name for layer in metadata.layers}
    stored.update(name for block in metadata.blocks for name in block.tensors)
    for group in metadata.ties:
        if not any(name in stored for name in group):
            raise BadMetadata("ties", f"none of {', '.join(group) or 'an empty group'} is a tensor")
