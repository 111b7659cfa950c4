"""Shapes that config.json promises, for packed weights whose headers do not tell them."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from services.profiler.architecture import Architecture
from services.profiler.packed import Packing
from services.profiler.roles import is_returning
from services.profiler.tensors import Tensor
from services.profiler.unpacked import Matrix, matrix

_PAIRS = ("gate_up_proj", "gate_and_up_proj")
# What a weight may take, in bits: one bit in words that are not full, to float32 with its scales.
_LEAST_BITS, _MOST_BITS = 0.5, 40


class Kept(NamedTuple):
    """Tensors with the matrices that were promised, and a warning of each packer unread."""

    tensors: tuple[Tensor, ...]
    warnings: tuple[str, ...] = ()


def keep_promises(
    tensors: Sequence[Tensor],
    sizes: Mapping[str, int],
    packing: Packing,
    architecture: Architecture,
) -> Kept:
    """Give each weight that cannot be read its shape by heads and widths; `sizes` are in bytes.

    Where none is promised, or a promise cannot be what is stored, it stays as stored.
    """
    if not packing.unread:
        return Kept(tuple(tensors))
    whole: dict[str, int] = {}
    for name, size in sizes.items():
        carrier = packing.companions.get(name, name)
        whole[carrier] = whole.get(carrier, 0) + size
    found: list[Tensor] = []
    unkept = 0
    for tensor in tensors:
        if tensor.name in packing.unread:
            promise = _believed(_promise(tensor, architecture), whole[tensor.name])
            unkept += promise is None
            tensor = tensor._replace(matrix=promise or Matrix(math.prod(tensor.shape)))
        found.append(tensor)
    return Kept(tuple(found), (_warning(packing, unkept, architecture),))


def _promise(tensor: Tensor, architecture: Architecture) -> Matrix | None:
    hidden, queries = architecture.hidden, architecture.query_width
    cached, inner = architecture.cached_width, architecture.inner_width
    rest = tensor.place.rest
    match tensor.role:
        case "query":
            return matrix(queries, hidden)
        case "key_value":
            return matrix(cached, hidden)
        case "fused_qkv":
            return matrix(queries + 2 * cached, hidden)
        case "output":
            return matrix(hidden, queries)
        case "mlp" if is_returning(rest):
            return matrix(hidden, inner)
        case "mlp":
            return matrix(2 * inner if any(pair in rest for pair in _PAIRS) else inner, hidden)
        case _:
            return None


def _believed(promise: Matrix | None, stored_bytes: int) -> Matrix | None:
    if promise is None or not promise.elements:
        return None
    bits = 8 * stored_bytes / promise.elements
    return promise if _LEAST_BITS <= bits <= _MOST_BITS else None


def _warning(packing: Packing, unkept: int, architecture: Architecture) -> str:
    method = architecture.quantization.get("quant_method")
    packer = f"quantized by {method}" if method else "packed"
    several = f" and {len(packing.unread) - 1} more" if len(packing.unread) > 1 else ""
    note = (
        f"{min(packing.unread)}{several}: {packer} in a way that williw does not read;"
        " shapes are taken from config.json"
    )
    return note + (f", but for {unkept}, whose costs are not known" if unkept else "")
