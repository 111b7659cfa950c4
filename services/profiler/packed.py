"""Weights as they are meant: the logical matrix behind packed, quantized and scaled tensors.

Layouts: GPTQ and AWQ (int4 in int32), compressed-tensors, bitsandbytes 4 and 8 bit, FP8 with
scales, MXFP4, NVFP4. What is stored is counted as stored; what is computed, by the logical shape.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple


class Stored(NamedTuple):
    """A tensor's shape and safetensors dtype."""

    shape: tuple[int, ...]
    dtype: str


class Matrix(NamedTuple):
    """The logical weight a tensor carries: `elements`, and rows × columns where they are known.

    A linear layer's matrix has an output a row and an input a column; `stack` counts the experts of
    a fused one.
    """

    elements: int
    rows: int = 0
    columns: int = 0
    stack: int = 1


_COMPANION = re.compile(
    r"^(?P<base>.+?)(?:\.(?:qzeros|scales|g_idx|weight_scale|weight_scale_inv|weight_scale_2"
    r"|input_scale|input_scale_ub|output_scale|weight_zero_point|weight_shape|weight_g_idx"
    r"|weight_global_scale|input_global_scale|SCB|weight_format|weight\.absmax|weight\.quant_map"
    r"|weight\.nested_absmax|weight\.nested_quant_map|weight\.quant_state\..+)"
    r"|_scales|_scale|_scale_inv)$"
)
_CARRIERS = (".qweight", ".weight_packed", ".weight", "_blocks", "")


def carriers(tensors: Mapping[str, Stored]) -> dict[str, str]:
    """For each tensor that only accompanies a packed one (scales, zeros): the one it goes with."""
    found: dict[str, str] = {}
    for name in tensors:
        match = _COMPANION.match(name)
        if match is None:
            continue
        carrier = next((match["base"] + s for s in _CARRIERS if match["base"] + s in tensors), None)
        if carrier is not None and carrier != name:
            found[name] = carrier
    return found


def matrix_of(
    name: str, tensors: Mapping[str, Stored], quantization: Mapping[str, Any], *, turned: bool
) -> Matrix | None:
    """The logical matrix that `name` carries; None where it carries none (a bias, a norm).

    `turned` says that the layer keeps its inputs a row (GPT-2's Conv1D).
    """
    shape, dtype = tensors[name]
    if name.endswith(".qweight"):
        return _int32_packed(shape, quantization)
    if name.endswith(".weight_packed"):
        factor = 32 // _bits(quantization) if dtype == "I32" else 2
        rows, columns = _two(shape)
        return Matrix(rows * columns * factor, rows, columns * factor)
    if name.endswith("_blocks") and dtype == "U8" and len(shape) == 4:
        stack, rows, groups, half = shape
        return Matrix(stack * rows * groups * half * 2, rows, groups * half * 2, stack)
    if dtype == "U8" and len(shape) == 2 and f"{name}_scale_2" in tensors:
        return Matrix(2 * shape[0] * shape[1], shape[0], 2 * shape[1])
    if f"{name}.absmax" in tensors:
        return Matrix(2 * math.prod(shape))
    if len(shape) == 3:
        return Matrix(math.prod(shape), shape[1], shape[2], shape[0])
    if len(shape) != 2:
        return Matrix(math.prod(shape)) if len(shape) > 3 else None
    rows, columns = reversed(shape) if turned else shape
    return Matrix(rows * columns, rows, columns)


def _int32_packed(shape: tuple[int, ...], quantization: Mapping[str, Any]) -> Matrix:
    """GPTQ packs along the inputs (the rows as stored), AWQ along the outputs (the columns)."""
    inputs, outputs = _two(shape)
    factor = 32 // _bits(quantization)
    if quantization.get("quant_method") == "awq":
        outputs *= factor
    else:
        inputs *= factor
    return Matrix(inputs * outputs, outputs, inputs)


def _bits(quantization: Mapping[str, Any]) -> int:
    bits = quantization.get("bits", quantization.get("w_bit"))
    groups = quantization.get("config_groups")
    if bits is None and isinstance(groups, dict):
        first: object = next(iter(groups.values()), None)
        weights = first.get("weights") if isinstance(first, dict) else None
        bits = weights.get("num_bits") if isinstance(weights, dict) else None
    return bits if isinstance(bits, int) and bits in (1, 2, 4, 8, 16) else 4


def _two(shape: tuple[int, ...]) -> tuple[int, int]:
    return (shape[0], shape[1]) if len(shape) == 2 else (math.prod(shape), 1)
