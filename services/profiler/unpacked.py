"""The logical matrix of each packed layout, from the shapes of the tensors that make it up.

Sources: the packers of AutoGPTQ, AutoAWQ, AutoRound, AQLM, HQQ, quanto, MLX, BitNet and EETQ. What
the shapes do not tell is None, never a guess.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from services.checkpoint.dtypes import BITS


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


Tensors = Mapping[str, Stored]
Quantization = Mapping[str, Any]
_NOTHING = Stored((), "")
_WORD_BITS = 32
_WORDS = {"I8": 8, "I16": 16, "I32": _WORD_BITS, "U32": _WORD_BITS, "I64": 64}


def of_words(base: str, tensors: Tensors, quantization: Quantization) -> Matrix | None:
    """GPTQ packs along the inputs, AWQ along the outputs, AWQ's `gemv` along turned inputs.

    Which it is, and in how many bits, the scales and zero points say: whoever packs names it in
    ways of its own.
    """
    shape, dtype = tensors[f"{base}.qweight"]
    scales = tensors.get(f"{base}.scales", _NOTHING).shape
    word = _WORDS.get(dtype)
    if len(shape) != 2 or len(scales) not in (0, 2) or word is None:
        return None
    if tensors.get(f"{base}.qzeros", _NOTHING).dtype.startswith(("F", "BF")):
        # `gemv_fast` has four outputs interleaved in a row, and zero points as they are.
        return matrix(scales[1], shape[1]) if scales and scales[1] == 4 * shape[0] else None
    bits = _bits(base, tensors, quantization, word)
    if scales and scales[0] == shape[0] and scales[1] != shape[1]:
        return matrix(shape[0], shape[1] * word // bits) if bits else None
    if scales and scales[1] > shape[1]:
        return matrix(scales[1], shape[0]) if shape[1] * word % scales[1] == 0 else None
    if not scales and quantization.get("quant_method") == "awq":
        return matrix(shape[1] * word // bits, shape[0]) if bits else None
    inputs = _inputs(base, tensors, word, bits)
    return matrix(shape[1], inputs) if inputs and scales[1:] in ((), shape[1:]) else None


def _inputs(base: str, tensors: Tensors, word: int, bits: int) -> int:
    """Inputs of a layer that packs them: as many as have a group, or fill the words; 0 unknown."""
    stored = tensors[f"{base}.qweight"].shape[0] * word
    groups = tensors.get(f"{base}.g_idx", _NOTHING).shape
    if len(groups) == 1 and groups[0] <= stored < (word + 1) * groups[0]:
        return groups[0]
    return stored // bits if bits else 0


def _bits(base: str, tensors: Tensors, quantization: Quantization, word: int) -> int:
    """Bits of a weight: a zero point of as many stands beside every scale; 0 unknown."""
    zeros = tensors.get(f"{base}.qzeros", _NOTHING).shape
    scales = tensors.get(f"{base}.scales", _NOTHING).shape
    if len(zeros) == 2 and len(scales) == 2 and zeros[0] == scales[0] and scales[1]:
        return min(max(round(word * zeros[1] / scales[1]), 1), word)
    named = quantization.get("bits", quantization.get("w_bit"))
    return named if isinstance(named, int) and 1 <= named <= word else 0


def of_compressed(base: str, tensors: Tensors, quantization: Quantization) -> Matrix | None:
    """compressed-tensors: whole rows in int32, or two FP4 in a byte."""
    shape, dtype = tensors[f"{base}.weight_packed"]
    if len(shape) != 2:
        return None
    rows, words = shape
    if dtype != "I32":
        return matrix(rows, 2 * words)
    scales = tensors.get(f"{base}.weight_scale", _NOTHING).shape
    groups = scales[1] if len(scales) == 2 else 0
    for bits, size in _groups(quantization):
        columns = groups * size if size > 0 and groups > 1 else words * (_WORD_BITS // bits)
        if -(-columns // (_WORD_BITS // bits)) == words:
            return matrix(rows, columns)
    return None


def _groups(quantization: Quantization) -> Iterator[tuple[int, int]]:
    """Bits and group size, 0 where there are none, of each of compressed-tensors' schemes."""
    groups = quantization.get("config_groups")
    listed = groups.values() if isinstance(groups, dict) else ()
    schemes = [group.get("weights") for group in listed if isinstance(group, dict)]
    for scheme in (*schemes, {"num_bits": quantization.get("bits")}):
        if isinstance(scheme, dict):
            bits = scheme.get("num_bits")
            if isinstance(bits, int) and 1 <= bits <= 16:
                yield bits, _group_size(scheme)


def of_blocks(stored: Stored) -> Matrix | None:
    """MXFP4 as gpt-oss has it: experts × rows × groups × 16 bytes of two each."""
    if stored.dtype != "U8" or len(stored.shape) != 4:
        return None
    stack, rows, groups, half = stored.shape
    return Matrix(stack * rows * groups * half * 2, rows, groups * half * 2, stack)


def of_aqlm(base: str, tensors: Tensors, _quantization: Quantization) -> Matrix | None:
    """AQLM: a code stands for a block of outputs × inputs, which its codebooks have."""
    codes = tensors[f"{base}.codes"].shape
    books = tensors.get(f"{base}.codebooks", _NOTHING).shape
    if len(codes) != 3 or len(books) != 4:
        return None
    return matrix(codes[0] * books[2], codes[1] * books[3])


def of_hqq(base: str, tensors: Tensors, quantization: Quantization) -> Matrix | None:
    """HQQ: groups in a row of their own, so that the header says how many weights, not how wide."""
    packed = tensors[f"{base}.W_q"]
    named = (tensors.get(f"{base}.{leaf}") for leaf in ("scale", "meta.scale"))
    scales = next((found.shape for found in named if found), ())
    if len(scales) != 2 or len(packed.shape) != 2:
        return None
    if scales[1] == 1 and packed.dtype in ("U8", "I32"):
        return Matrix(scales[0] * packed.shape[1])
    # Groups in columns: how long they are only the configuration says.
    for key in ("quant_config", "weight_quant_params"):
        inner = quantization.get(key)
        quantization = inner if isinstance(inner, dict) else quantization
    size = _group_size(quantization)
    fits = size in [packed.shape[0] * each for each in (1, 2, 4, 8)] or (
        packed.dtype == "I32" and -(-size // 10) == packed.shape[0]
    )
    return Matrix(size * scales[1]) if fits and scales == (1, packed.shape[1]) else None


def of_quanto(base: str, tensors: Tensors, _quantization: Quantization) -> Matrix | None:
    """quanto: bytes as they are, or packed in groups, of which there are as many as scales."""
    inner = tensors.get(f"{base}.weight._data")
    if inner is not None:
        return matrix(*inner.shape) if len(inner.shape) == 2 else None
    packed = tensors[f"{base}.weight._data._data"].shape
    scales = tensors.get(f"{base}.weight._scale", _NOTHING).shape
    if len(packed) != 2 or len(scales) != 2 or scales[1] != 1:
        return None
    return Matrix(scales[0] * packed[1])


def of_bytes(name: str, tensors: Tensors, quantization: Quantization) -> Matrix | None:
    """Integers under the name of the plain weight: bitsandbytes, ModelOpt, BitNet, EETQ, MLX."""
    shape, dtype = tensors[name]
    base = name.removesuffix(".weight")
    if f"{name}.absmax" in tensors:  # two in a byte, of whatever type the bytes are kept as
        return Matrix(2 * math.prod(shape) * BITS[dtype] // 8)
    if len(shape) not in (2, 3):
        return None
    stack, (rows, columns) = math.prod(shape[:-2]), shape[-2:]
    if dtype in ("U32", "I32"):
        width = _affine_columns(base, tensors, quantization)
        return Matrix(stack * rows * width, rows, width, stack) if width else None
    if dtype == "I8":
        turned = f"{name}_scales" in tensors  # EETQ keeps an input a row
        rows, columns = (columns, rows) if turned else (rows, columns)
        return Matrix(math.prod(shape), rows, columns, stack)
    if dtype != "U8":
        return None
    scales = tensors.get(f"{name}_scale", _NOTHING).shape
    if f"{name}_scale_2" in tensors or scales == (*shape[:-1], columns // 16):
        return Matrix(2 * math.prod(shape), rows, 2 * columns, stack)
    if quantization.get("quant_method") == "bitnet":
        return Matrix(4 * math.prod(shape), 4 * rows, columns, stack)
    return None


def _affine_columns(base: str, tensors: Tensors, quantization: Quantization) -> int:
    """MLX's inputs: a scale for each group of them, whose size only the configuration says."""
    shape = tensors[f"{base}.weight"].shape if f"{base}.weight" in tensors else ()
    scales = tensors.get(f"{base}.scales", _NOTHING).shape
    own = quantization.get(base)
    size = _group_size(own if isinstance(own, dict) else quantization)
    columns = size * scales[-1] if scales and scales[:-1] == shape[:-1] else 0
    whole = columns and shape[-1] * _WORD_BITS % columns == 0
    return columns if whole and shape[-1] * _WORD_BITS // columns <= 8 else 0


def _group_size(settings: Quantization) -> int:
    found = settings.get("group_size")
    return found if isinstance(found, int) and found > 0 else 0


def matrix(rows: int, columns: int) -> Matrix:
    """A linear layer's."""
    return Matrix(rows * columns, rows, columns)
