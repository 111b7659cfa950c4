"""Attention as its projections' shapes tell it: widths, what is cached, its own products."""

from collections.abc import Iterable
from typing import NamedTuple

from services.profiler import flops
from services.profiler.roles import attention_of, is_cross
from services.profiler.tensors import Cost, Scene, Tensor
from services.profiler.unpacked import Matrix

ATTENTION = "shape+attention"


def attention_modules(tensors: Iterable[Tensor]) -> list[tuple[Tensor, ...]]:
    """The tensors that carry a matrix, by the attention module of a layer they belong to."""
    modules: dict[tuple[int, int, str], list[Tensor]] = {}
    for tensor in tensors:
        place = tensor.place
        name = attention_of(place.rest) if place.part == "layer" and place.runs else ""
        if name and tensor.matrix is not None:
            modules.setdefault((place.stack, place.layer, name), []).append(tensor)
    return [tuple(module) for module in modules.values()]


class Widths(NamedTuple):
    """Heads × head dimension of an attention: of its queries, its values, and what it caches.

    `brought` is what a latent cache is brought back to: keys without their rotary part, and values.
    """

    query: int
    value: int
    cached: int
    brought: int = 0

    @property
    def held(self) -> int:
        """What one token holds at the peak, by running it: queries, cache, values and output.

        With a latent cache queries are joined of two parts and keys are as wide as queries.
        """
        joined = 2 * self.query + self.brought if self.brought else 0
        return self.query + self.cached + 2 * self.value + joined


def attention_widths(module: Iterable[Tensor], hidden: int) -> Widths:
    """The widths of an attention by the shapes of its projections.

    The output projection reads the values of all heads. With a latent cache (MLA) queries are wider
    than values, and what is cached is the latent vector with its rotary part.
    """
    by_role = {t.role: t for t in module}
    output, query, latent = (by_role.get(r) for r in ("output", "query", "latent_kv"))
    value = _inputs(output, hidden) if output else _outputs(query, hidden)
    if latent is not None:
        brought = _outputs(by_role.get("latent_up"), hidden)
        return Widths(_outputs(query, hidden) or value, value, _outputs(latent, hidden), brought)
    fused = by_role.get("fused_qkv")
    if fused is not None:
        return Widths(value, value, max(_outputs(fused, hidden) - value, 0))
    cached = sum(_outputs(t, hidden) for t in module if t.role == "key_value")
    return Widths(value, value, cached)


def _inputs(tensor: Tensor, hidden: int) -> int:
    matrix = tensor.matrix or Matrix(0)
    return matrix.columns or matrix.elements // max(hidden, 1)


def _outputs(tensor: Tensor | None, hidden: int) -> int:
    matrix = (tensor.matrix if tensor else None) or Matrix(0)
    return matrix.rows or matrix.elements // max(hidden, 1)


def products(module: tuple[Tensor, ...], scene: Scene) -> tuple[str, Cost]:
    """The tensor that bears an attention's own products, and what they cost."""
    widths = attention_widths(module, scene.architecture.hidden)
    bearer = next((t for t in module if t.role == "output"), module[-1])
    place = bearer.place
    cross, asking = is_cross(attention_of(place.rest)), scene.read_by(place.stack)
    context = scene.source.sequence if cross else asking.sequence
    forward = flops.attention(widths.query, widths.value, asking, context)
    decoding = scene.family.decodes and place.stack == len(scene.family.stacks) - 1
    seen = context if cross else scene.window(place.layer)
    decode = flops.attention_decode(widths.query, widths.value, seen)
    return bearer.name, Cost(forward, float(decode) if decoding else 0.0, ATTENTION)
