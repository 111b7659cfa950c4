"""Bytes a block needs besides its weights: the key-value cache, and activations at their peak."""

from collections.abc import Iterable
from typing import NamedTuple

from services.profiler.attention import attention_modules, attention_widths
from services.profiler.experts import routed_bytes
from services.profiler.places import Place
from services.profiler.roles import attention_of, is_cross, is_returning
from services.profiler.states import state_bytes, state_inner
from services.profiler.tensors import Scene, Tensor


class Memory(NamedTuple):
    """Bytes: the cache at the workload, of one more token, the peak while running, the output."""

    kv: int = 0
    kv_per_token: int = 0
    activations: int = 0
    output: int = 0


def layer_memory(tensors: tuple[Tensor, ...], scene: Scene, element_bytes: int) -> Memory:
    """The memory of one layer.

    Cache: batch × min(sequence, window) × cached width × bytes, for every attention of a decoding
    layer, and the recurrent state; a cross-attention caches once and grows no more. Activations:
    tokens × bytes × (residual and normed input + the wider of attention's queries, keys, values and
    output, and the inner vectors of the MLP or the recurrence), or what its routed experts hold, if
    that is more; attention is taken as fused, without a matrix of scores.
    """
    kept, grows, attention = 0, 0, 0
    place = next((t.place for t in tensors), Place("layer", 0, 0, ""))
    for module in attention_modules(tensors):
        widths = attention_widths(module, scene.architecture.hidden)
        attention = max(attention, widths.held)
        if not _caches(module[0].place, scene):
            continue
        if is_cross(attention_of(module[0].place.rest)):
            kept += widths.cached * scene.source.sequence
        else:
            kept += widths.cached * scene.window(module[0].place.layer)
            grows += widths.cached
    keepers = [t for t in tensors if _caches(t.place, scene)]
    state = state_bytes(keepers, scene, element_bytes)
    work = scene.read_by(place.stack)
    widest = max(attention, _inner(tensors, scene), state_inner(tensors, scene))
    width = 2 * scene.architecture.hidden + widest
    return Memory(
        kv=(element_bytes * kept + state) * work.batch,
        kv_per_token=element_bytes * grows,
        activations=max(
            element_bytes * work.tokens * width,
            routed_bytes(tensors, scene, element_bytes, work.tokens),
        ),
        output=element_bytes * work.tokens * scene.architecture.hidden,
    )


def first_memory(scene: Scene, element_bytes: int) -> Memory:
    """The memory of the embeddings: the looked-up vectors and their sum."""
    output = element_bytes * scene.work.tokens * scene.architecture.hidden
    return Memory(activations=2 * output, output=output)


def last_memory(head_rows: int, scene: Scene, element_bytes: int) -> Memory:
    """The memory of the final norm and a head of `head_rows` outputs: logits of every token."""
    tokens, hidden = scene.work.tokens, scene.architecture.hidden
    output = element_bytes * tokens * (head_rows or hidden)
    return Memory(activations=2 * element_bytes * tokens * hidden + output, output=output)


def whole_memory(tensors: tuple[Tensor, ...], scene: Scene, element_bytes: int) -> Memory:
    """The memory of a model whose layers are not known: every cache, the widest of its vectors."""
    caches = layer_memory(tensors, scene, element_bytes)
    widest = max((t.matrix.rows for t in tensors if t.matrix), default=0)
    width = 3 * scene.architecture.hidden + 2 * widest
    least = element_bytes * scene.work.tokens * width
    return caches._replace(activations=max(caches.activations, least))


def _caches(place: Place, scene: Scene) -> bool:
    shared = scene.architecture.shared_kv_layers
    if not scene.family.decodes or place.stack != len(scene.family.stacks) - 1:
        return False
    return not shared or place.layer < scene.architecture.layers - shared


def _inner(tensors: Iterable[Tensor], scene: Scene) -> int:
    """Inner vectors of the MLP a token: what reads the hidden vector, and their product."""
    hidden, inner = scene.architecture.hidden, 0
    for tensor in tensors:
        matrix = tensor.matrix
        if matrix is None or tensor.role != "mlp":
            continue
        if matrix.columns == hidden:
            inner += matrix.rows
        elif not matrix.columns and not is_returning(tensor.place.rest):
            # A packed matrix whose shape is not in its header (bitsandbytes, 4 bit).
            inner += matrix.elements // max(hidden, 1)
    return scene.architecture.inner_copies * inner
