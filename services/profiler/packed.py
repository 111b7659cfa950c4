"""Weights as they are meant: the logical matrix behind packed, quantized and scaled tensors.

What is stored is counted as stored; what is computed, by the logical shape. A packed weight whose
shape neither its header nor the configuration tells is named, never passed off as read.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from services.profiler import unpacked
from services.profiler.unpacked import Matrix, Quantization, Tensors

_COMPANION = re.compile(
    r"^(?P<base>.+?)(?:\.(?:qzeros|scales|g_idx|weight_scale|weight_scale_inv|weight_scale_2"
    r"|input_scale|input_scale_ub|output_scale|weight_zero_point|weight_shape|weight_g_idx"
    r"|weight_global_scale|input_global_scale|SCB|weight_format|weight_scales|biases|qbiases"
    r"|weight\.absmax|weight\.quant_map|weight\.nested_absmax|weight\.nested_quant_map"
    r"|weight\.quant_state\..+)"
    r"|_scales|_scale|_scale_inv)$"
)
_CARRIERS = (".qweight", ".weight_packed", ".weight", "_blocks", "")
# Weights that only one packer names so, and whose modules hold nothing but their parts.
_OWN: dict[str, Callable[[str, Tensors, Quantization], Matrix | None]] = {
    ".qweight": unpacked.of_words,
    ".weight_packed": unpacked.of_compressed,
    ".codes": unpacked.of_aqlm,
    ".W_q": unpacked.of_hqq,
    ".weight._data._data": unpacked.of_quanto,
    ".weight._data": unpacked.of_quanto,
}
_FUSED = re.compile(r"\.experts\.\w+$")
_INTEGERS = ("I8", "U8", "I16", "U16", "I32", "U32")


class Packing(NamedTuple):
    """Which tensors of a checkpoint make up one weight.

    `companions` gives, for each tensor that only accompanies a packed one (scales, zeros), the one
    it goes with; `modules`, for each weight under a packer's own name, the layer it is of; `unread`
    holds the weights whose logical shape their headers do not tell.
    """

    companions: Mapping[str, str]
    modules: Mapping[str, str]
    unread: frozenset[str]


def packing_of(tensors: Tensors, quantization: Quantization) -> Packing:
    """How the weights of a checkpoint are packed, by the names and shapes of its tensors."""
    companions = _by_name(tensors)
    modules = {module: name for name in tensors if (module := _own_module(name))}
    strange = [
        name
        for name, (shape, dtype) in tensors.items()
        if dtype in _INTEGERS and shape and not name.endswith("bias") and name not in companions
        if not _outermost(name, modules) and of_packed(name, tensors, quantization) is None
    ]
    alone = {name for name in strange if name.endswith("_blocks") or _FUSED.search(name)}
    inner = _containers(tensors) if strange else frozenset()
    for name in strange:
        module = name.rpartition(".")[0]
        if name not in alone and _is_packed(name, module, tensors, inner):
            modules.setdefault(module, name)
    carried: dict[str, str] = {}
    for module, (weight, *others) in _gather(tensors, modules).items():
        carried[weight] = module
        companions |= dict.fromkeys(others, weight)
        companions.pop(weight, None)
    unread = {n for n in carried if of_packed(n, tensors, quantization) is None} | alone
    return Packing(companions, carried, frozenset(unread))


def matrix_of(
    name: str, tensors: Tensors, quantization: Quantization, *, turned: bool
) -> Matrix | None:
    """The logical matrix that `name` carries; None where it carries none (a bias, a norm).

    `turned` says that the layer keeps its inputs a row (GPT-2's Conv1D).
    """
    shape, dtype = tensors[name]
    if dtype in _INTEGERS or _own_module(name) or f"{name}.absmax" in tensors:
        return of_packed(name, tensors, quantization)
    if len(shape) == 3:
        return Matrix(math.prod(shape), shape[1], shape[2], shape[0])
    if len(shape) != 2:
        return Matrix(math.prod(shape)) if len(shape) > 3 else None
    rows, columns = reversed(shape) if turned else shape
    return Matrix(rows * columns, rows, columns)


def of_packed(name: str, tensors: Tensors, quantization: Quantization) -> Matrix | None:
    """The logical matrix of a packed weight; None where its header does not tell."""
    for leaf, rule in _OWN.items():
        if name.endswith(leaf):
            return rule(name.removesuffix(leaf), tensors, quantization)
    if name.endswith("_blocks"):
        return unpacked.of_blocks(tensors[name])
    named = name.endswith(".weight") or _FUSED.search(name)
    return unpacked.of_bytes(name, tensors, quantization) if named else None


def _own_module(name: str) -> str:
    """The module of a weight that only one packer names so, else ""."""
    return next((name.removesuffix(leaf) for leaf in _OWN if name.endswith(leaf)), "")


def _by_name(tensors: Tensors) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in tensors:
        match = _COMPANION.match(name)
        if match is None:
            continue
        carrier = next((match["base"] + s for s in _CARRIERS if match["base"] + s in tensors), None)
        if carrier is not None and carrier != name:
            found[name] = carrier
    return found


def _containers(tensors: Iterable[str]) -> frozenset[str]:
    """Modules that hold modules with weights."""
    found: set[str] = set()
    for name in tensors:
        outer = name.rpartition(".")[0].rpartition(".")[0] if name.endswith("weight") else ""
        while outer and outer not in found:
            found.add(outer)
            outer = outer.rpartition(".")[0]
    return frozenset(found)


def _is_packed(name: str, module: str, tensors: Tensors, containers: frozenset[str]) -> bool:
    """Whether integers are a layer's weight, not numbers that stand beside one or in a block."""
    if name.endswith(".weight"):
        return True
    # VPTQ's layers hold their centroids as modules.
    return f"{module}.weight" not in tensors and (
        module not in containers or name.endswith(".indices")
    )


def _outermost(name: str, modules: Mapping[str, str]) -> str:
    """The outermost of `modules` that a tensor is in, or ""."""
    found, module = "", name.rpartition(".")[0] if modules else ""
    while module:
        found = module if module in modules else found
        module = module.rpartition(".")[0]
    return found


def _gather(tensors: Tensors, modules: Mapping[str, str]) -> dict[str, list[str]]:
    """The tensors of each packed module, its largest or only weight first; without its bias."""
    parts: dict[str, list[str]] = {}
    for name in tensors if modules else ():
        module = _outermost(name, modules)
        if module and name != f"{module}.bias":
            parts.setdefault(module, []).append(name)
    for module, names in parts.items():
        weight = modules[module]
        if not _own_module(weight):
            weight = max(names, key=lambda name: math.prod(tensors[name].shape))
        names.remove(weight)
        names.insert(0, weight)
    return parts
