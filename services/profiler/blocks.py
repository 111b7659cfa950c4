"""The blocks a pipeline may cut between, in execution order, every tensor in exactly one."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from messages.metadata import Block
from services.profiler.flops import GIGA
from services.profiler.memory import Memory, first_memory, last_memory, layer_memory, whole_memory
from services.profiler.tensors import Cost, Scene, Tensor


class Costed(NamedTuple):
    """A tensor with its costs and its bytes as stored."""

    tensor: Tensor
    cost: Cost
    size_bytes: int


class TiedHead(NamedTuple):
    """The head's product with the token embedding `token`, where no tensor of its own is stored."""

    token: str
    cost: Cost
    rows: int


def blocks_of(
    costed: Sequence[Costed], scene: Scene, tied: TiedHead | None, element_bytes: int
) -> tuple[Block, ...]:
    """Embeddings, every layer, final norm and head; an empty last part makes no block."""
    parts = _parts(costed)
    blocks = [_block("embeddings", parts.get(_FIRST, ()), first_memory(scene, element_bytes))]
    for key in sorted(key for key in parts if key[0] == 1):
        memory = layer_memory(_layer_of(parts[key]), scene, element_bytes)
        blocks.append(_block(_layer_name(key, scene), parts[key], memory))
    last = parts.get(_LAST, ())
    if last or tied is not None:
        rows = max([_rows(item) for item in last] + ([tied.rows] if tied else []), default=0)
        memory = last_memory(rows, scene, element_bytes)
        blocks.append(_block("head", last, memory, tied.cost if tied else None))
    return tuple(_together(blocks, scene))


def single_block(
    costed: Sequence[Costed], scene: Scene, tied: TiedHead | None, element_bytes: int
) -> tuple[Block, ...]:
    """A model whose layout is not known: one block that nobody may cut."""
    memory = whole_memory(_layer_of(costed), scene, element_bytes)
    return (_block("model", costed, memory, tied.cost if tied else None),)


_FIRST, _LAST = (0, 0, 0), (2, 0, 0)


def _parts(costed: Iterable[Costed]) -> Mapping[tuple[int, int, int], list[Costed]]:
    parts: dict[tuple[int, int, int], list[Costed]] = {}
    for item in costed:
        place = item.tensor.place
        key = {"first": _FIRST, "last": _LAST}.get(place.part) or (1, place.stack, place.layer)
        parts.setdefault(key, []).append(item)
    for _, stack, layer in [key for key in parts if key[2] < 0]:
        end = max(key[2] for key in parts if key[:2] == (1, stack))
        parts[1, stack, end] += parts.pop((1, stack, layer))
    return parts


def _layer_of(part: Iterable[Costed]) -> tuple[Tensor, ...]:
    return tuple(item.tensor for item in part if item.tensor.place.layer >= 0)


def _layer_name(key: tuple[int, int, int], scene: Scene) -> str:
    stacks = scene.family.stacks
    return f"{stacks[key[1]].partition('.')[0] if len(stacks) > 1 else 'layer'}.{key[2]}"


def _rows(item: Costed) -> int:
    """The outputs of a head; a pooler's or a hidden transformation's count as one too."""
    runs, matrix = item.tensor.place.runs, item.tensor.matrix
    return matrix.rows if matrix is not None and runs else 0


def _block(name: str, part: Sequence[Costed], memory: Memory, head: Cost | None = None) -> Block:
    # The product with a tied embedding is computed where the head is, not where the tensor is.
    forward = [item.cost.forward for item in part] + ([head.forward] if head else [])
    decode = [item.cost.decode for item in part] + ([head.decode] if head else [])
    return Block(
        name=name,
        tensors=tuple(item.tensor.name for item in part),
        compute_required=sum(forward) / GIGA,
        decode_compute=sum(decode) / GIGA,
        weight_bytes=sum(item.size_bytes for item in part),
        kv_bytes=memory.kv,
        kv_bytes_per_token=memory.kv_per_token,
        activation_bytes=memory.activations,
        output_bytes=memory.output,
    )


def _together(blocks: Sequence[Block], scene: Scene) -> Iterator[Block]:
    """Layers that use another's keys and values share its node; some models cannot be cut."""
    arch = scene.architecture
    own = arch.layers - arch.shared_kv_layers
    for number, block in enumerate(blocks):
        layer = number - 1
        partner: str | None = None
        if scene.family.whole and number:
            partner = blocks[0].name
        elif arch.shared_kv_layers and 0 < own <= layer < arch.layers:
            partner = blocks[1 + _kv_source(layer, own, arch.layer_types)].name
        yield msgspec.structs.replace(block, together_with=partner)


def _kv_source(layer: int, own: int, kinds: Sequence[str]) -> int:
    """The last layer of the same kind among those with keys and values of their own."""
    if layer < len(kinds):
        return next((n for n in range(own - 1, -1, -1) if kinds[n] == kinds[layer]), 0)
    return own - 1
