"""How published checkpoints pack the weight of a linear layer: leaves, dtypes and shapes."""

from collections.abc import Callable, Iterator
from typing import Any

GROUP = 128
Entry = tuple[str, str, tuple[int, ...]]
Layout = Callable[[int, int], Iterator[Entry]]


def plain(rows: int, columns: int) -> Iterator[Entry]:
    yield "weight", "BF16", (rows, columns)


def gptq(rows: int, columns: int) -> Iterator[Entry]:
    """Packed along the inputs, eight to a word; some makers store a bias of noughts."""
    yield "qweight", "I32", (columns // 8, rows)
    yield "qzeros", "I32", (columns // GROUP, rows // 8)
    yield "scales", "F16", (columns // GROUP, rows)
    yield "g_idx", "I32", (columns,)
    yield "bias", "F16", (rows,)


def gptq_8(rows: int, columns: int) -> Iterator[Entry]:
    yield "qweight", "I32", (columns // 4, rows)
    yield "qzeros", "I32", (columns // GROUP, rows // 4)
    yield "scales", "F16", (columns // GROUP, rows)
    yield "g_idx", "I32", (columns,)


def awq(rows: int, columns: int) -> Iterator[Entry]:
    """Packed along the outputs."""
    yield "qweight", "I32", (columns, rows // 8)
    yield "qzeros", "I32", (columns // GROUP, rows // 8)
    yield "scales", "F16", (columns // GROUP, rows)


def nf4(rows: int, columns: int) -> Iterator[Entry]:
    """Two to a byte in one column; scales of 64 are quantized again in blocks of 256."""
    scales = rows * columns // 64
    yield "weight", "U8", (rows * columns // 2, 1)
    yield "weight.absmax", "U8", (scales,)
    yield "weight.nested_absmax", "F32", (scales // 256,)
    yield "weight.nested_quant_map", "F32", (256,)
    yield "weight.quant_map", "F32", (16,)
    yield "weight.quant_state.bitsandbytes__nf4", "U8", (88,)


def fp4(rows: int, columns: int) -> Iterator[Entry]:
    yield "weight", "U8", (rows * columns // 2, 1)
    yield "weight.absmax", "F32", (rows * columns // 64,)
    yield "weight.quant_map", "F32", (16,)
    yield "weight.quant_state.bitsandbytes__fp4", "U8", (71,)


def int8(rows: int, columns: int) -> Iterator[Entry]:
    yield "weight", "I8", (rows, columns)
    yield "SCB", "F32", (rows,)
    yield "weight_format", "U8", ()


def fp8_blocks(rows: int, columns: int) -> Iterator[Entry]:
    """DeepSeek-V3's: a scale for each block of 128 by 128."""
    yield "weight", "F8_E4M3", (rows, columns)
    yield "weight_scale_inv", "F32", (-(-rows // 128), -(-columns // 128))


def fbgemm(rows: int, columns: int) -> Iterator[Entry]:
    """Llama-3.1-405B-FP8's: a scale a row, and a bound for those of the inputs."""
    yield "weight", "F8_E4M3", (rows, columns)
    yield "weight_scale", "F32", (rows, 1)
    yield "input_scale_ub", "F32", (1,)


def fp8_tensor(rows: int, columns: int) -> Iterator[Entry]:
    yield "weight", "F8_E4M3", (rows, columns)
    yield "weight_scale", "BF16", (1,)
    yield "input_scale", "BF16", (1,)


def pack_quantized(rows: int, columns: int) -> Iterator[Entry]:
    yield "weight_packed", "I32", (rows, columns // 8)
    yield "weight_scale", "BF16", (rows, columns // GROUP)
    yield "weight_zero_point", "I32", (rows // 8, columns // GROUP)
    yield "weight_shape", "I64", (2,)
    yield "weight_g_idx", "I32", (columns,)


def nvfp4_packed(rows: int, columns: int) -> Iterator[Entry]:
    yield "weight_packed", "U8", (rows, columns // 2)
    yield "weight_scale", "F8_E4M3", (rows, columns // 16)
    yield "weight_global_scale", "F32", (1,)
    yield "input_global_scale", "F32", (1,)


def nvfp4(rows: int, columns: int) -> Iterator[Entry]:
    """ModelOpt's, under the name of the plain weight."""
    yield "weight", "U8", (rows, columns // 2)
    yield "weight_scale", "F8_E4M3", (rows, columns // 16)
    yield "weight_scale_2", "F32", ()
    yield "input_scale", "F32", ()


def gptq_3(rows: int, columns: int) -> Iterator[Entry]:
    """Weights cross the borders of words: 32 in three of them."""
    yield "qweight", "I32", (3 * columns // 32, rows)
    yield "qzeros", "I32", (columns // GROUP, 3 * rows // 32)
    yield "scales", "F16", (columns // GROUP, rows)


def awq_gemv(rows: int, columns: int) -> Iterator[Entry]:
    """Packed along the inputs, an output a row; zero points fill whole words."""
    words = -(-columns // GROUP // 8)
    yield "qweight", "I32", (rows, columns // 8)
    yield "qzeros", "I32", (rows, words)
    yield "scales", "F16", (rows, 8 * words)


def awq_gemv_fast(rows: int, columns: int) -> Iterator[Entry]:
    groups = 8 * -(-columns // GROUP // 8)
    yield "qweight", "I16", (rows // 4, columns)
    yield "qzeros", "F16", (groups, rows)
    yield "scales", "F16", (groups, rows)


def nf4_in_bf16(rows: int, columns: int) -> Iterator[Entry]:
    """As QLoRA over several GPUs keeps it: the bytes are called bfloat16."""
    yield "weight", "BF16", (rows * columns // 4, 1)
    yield "weight.absmax", "F32", (rows * columns // 64,)
    yield "weight.quant_map", "F32", (16,)
    yield "weight.quant_state.bitsandbytes__nf4", "U8", (88,)


def aqlm(rows: int, columns: int) -> Iterator[Entry]:
    """A code for each eight inputs of an output."""
    yield "codes", "I16", (rows, columns // 8, 1)
    yield "codebooks", "F16", (1, 65536, 1, 8)
    yield "scales", "F16", (rows, 1, 1, 1)


def hqq(rows: int, columns: int) -> Iterator[Entry]:
    """A group of 64 a row, two rows in one; the settings stand beside it as tensors."""
    yield "W_q", "U8", (rows * columns // 128, 64)
    yield "scale", "F16", (rows * columns // 64, 1)
    yield "zero", "F16", (rows * columns // 64, 1)
    yield "shape", "I64", (2,)
    yield "nbits", "I32", ()
    yield "packing", "U8", (7,)


def hqq_3(rows: int, columns: int) -> Iterator[Entry]:
    """Ten rows in one of int32, the last filled up."""
    yield "W_q", "I32", (-(-rows * columns // 640), 64)
    yield "scale", "F16", (rows * columns // 64, 1)
    yield "zero", "F16", (rows * columns // 64, 1)


def hqq_columns(rows: int, columns: int) -> Iterator[Entry]:
    yield "W_q", "U8", (32, rows * columns // 64)
    yield "scale", "F16", (1, rows * columns // 64)
    yield "zero", "F16", (1, rows * columns // 64)


def quanto_8(rows: int, columns: int) -> Iterator[Entry]:
    yield "weight._data", "I8", (rows, columns)
    yield "weight._scale", "BF16", (rows, 1)
    yield "input_scale", "BF16", ()
    yield "output_scale", "BF16", ()


def quanto_4(rows: int, columns: int) -> Iterator[Entry]:
    """A group of 128 a row, two rows in one."""
    yield "weight._data._data", "U8", (rows * columns // 256, 128)
    yield "weight._scale", "BF16", (rows * columns // 128, 1)
    yield "weight._shift", "BF16", (rows * columns // 128, 1)
    yield "input_scale", "BF16", ()
    yield "output_scale", "BF16", ()


def mlx(rows: int, columns: int) -> Iterator[Entry]:
    yield "weight", "U32", (rows, columns // 8)
    yield "scales", "BF16", (rows, columns // 64)
    yield "biases", "BF16", (rows, columns // 64)


def mlx_6(rows: int, columns: int) -> Iterator[Entry]:
    yield "weight", "U32", (rows, 6 * columns // 32)
    yield "scales", "BF16", (rows, columns // 64)
    yield "biases", "BF16", (rows, columns // 64)


def mlx_mxfp4(rows: int, columns: int) -> Iterator[Entry]:
    yield "weight", "U32", (rows, columns // 8)
    yield "scales", "U8", (rows, columns // 32)


def bitnet(rows: int, columns: int) -> Iterator[Entry]:
    """Four outputs of three values each in a byte."""
    yield "weight", "U8", (rows // 4, columns)
    yield "weight_scale", "BF16", (1,)


def eetq(rows: int, columns: int) -> Iterator[Entry]:
    """An input a row."""
    yield "weight", "I8", (columns, rows)
    yield "weight_scales", "F16", (rows,)


def mxfp4(rows: int, columns: int) -> Iterator[Entry]:
    """Quark's, under the name of the plain weight."""
    yield "weight", "U8", (rows, columns // 2)
    yield "weight_scale", "U8", (rows, columns // 32)


GROUPS = {"config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": GROUP}}}}
AUTO_AWQ = {"packing_format": "auto_round:auto_awq"}
HQQ = {"quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64, "axis": 0}}}
LAYOUTS: dict[str, tuple[Layout, dict[str, Any]]] = {
    "gptq": (gptq, {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": True}),
    "gptq, 8 bit": (gptq_8, {"quant_method": "gptq", "bits": 8, "group_size": GROUP}),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "version": "gemm", "zero_point": True}),
    "nf4": (nf4, {"quant_method": "bitsandbytes", "load_in_4bit": True}),
    "fp4": (fp4, {"quant_method": "bitsandbytes", "load_in_4bit": True}),
    "int8": (int8, {"quant_method": "bitsandbytes", "load_in_8bit": True}),
    "fp8, blocks": (fp8_blocks, {"quant_method": "fp8", "weight_block_size": [128, 128]}),
    "fp8, fbgemm": (fbgemm, {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}),
    "fp8, a tensor": (fp8_tensor, {"quant_method": "compressed-tensors"}),
    "pack-quantized": (pack_quantized, {"quant_method": "compressed-tensors"} | GROUPS),
    "nvfp4-pack-quantized": (nvfp4_packed, {"quant_method": "compressed-tensors"} | GROUPS),
    "nvfp4": (nvfp4, {"quant_method": "modelopt", "quant_algo": "NVFP4"}),
    "gptq, 3 bit": (gptq_3, {"quant_method": "gptq", "bits": 3, "group_size": GROUP}),
    "auto-round, 3 bit": (gptq_3, {"quant_method": "auto-round", "bits": 3}),
    "auto-round as awq": (awq, {"quant_method": "auto-round", "bits": 4} | AUTO_AWQ),
    "auto-round, nothing said": (awq, {"quant_method": "auto-round"}),
    "awq, gemv": (awq_gemv, {"quant_method": "awq", "bits": 4, "version": "gemv"}),
    "awq, gemv_fast": (awq_gemv_fast, {"quant_method": "awq", "version": "gemv_fast"}),
    "nf4 in bfloat16": (nf4_in_bf16, {"quant_method": "bitsandbytes", "load_in_4bit": True}),
    "aqlm": (aqlm, {"quant_method": "aqlm", "nbits_per_codebook": 16}),
    "hqq": (hqq, {"quant_method": "hqq"}),
    "hqq, 3 bit": (hqq_3, {"quant_method": "hqq"}),
    "hqq, groups in columns": (hqq_columns, {"quant_method": "hqq"} | HQQ),
    "quanto, 8 bit": (quanto_8, {"quant_method": "quanto", "weights": "int8"}),
    "quanto, 4 bit": (quanto_4, {"quant_method": "quanto", "weights": "int4"}),
    "mlx": (mlx, {"group_size": 64, "bits": 4}),
    "mlx, 6 bit": (mlx_6, {"group_size": 64, "bits": 6, "mode": "affine"}),
    "mlx, mxfp4": (mlx_mxfp4, {"group_size": 32, "bits": 4, "mode": "mxfp4"}),
    "bitnet": (bitnet, {"quant_method": "bitnet"}),
    "eetq": (eetq, {"quant_method": "eetq", "weights": "int8"}),
    "mxfp4": (mxfp4, {"quant_method": "quark"}),
}
