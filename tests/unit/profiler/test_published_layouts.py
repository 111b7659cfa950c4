"""Headers as published quantized checkpoints have them: names, dtypes and shapes of a real size."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from messages.metadata import ModelMetadata
from services.checkpoint.checkpoint import Checkpoint
from services.checkpoint.headers import parse_header
from services.profiler.metadata import About, build_metadata

WIDTHS = {
    "BF16": 2,
    "F16": 2,
    "F32": 4,
    "F8_E4M3": 1,
    "I8": 1,
    "I32": 4,
    "I64": 8,
    "U8": 1,
}
HIDDEN, INNER, CACHED, VOCABULARY, GROUP = 4096, 14336, 1024, 128256, 128
LINEAR = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (CACHED, HIDDEN),
    "self_attn.v_proj": (CACHED, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}
LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "torch_dtype": "bfloat16",
}
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


GROUPS = {"config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": GROUP}}}}
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
}


def llama(layout: Layout) -> Iterator[Entry]:
    """Llama-3.1-8B's tensors, two layers of them."""
    yield "model.embed_tokens.weight", "BF16", (VOCABULARY, HIDDEN)
    for number in range(2):
        at = f"model.layers.{number}"
        for module, (rows, columns) in LINEAR.items():
            for leaf, dtype, shape in layout(rows, columns):
                yield f"{at}.{module}.{leaf}", dtype, shape
        yield f"{at}.input_layernorm.weight", "BF16", (HIDDEN,)
        yield f"{at}.post_attention_layernorm.weight", "BF16", (HIDDEN,)
    yield "model.norm.weight", "BF16", (HIDDEN,)
    yield "lm_head.weight", "BF16", (VOCABULARY, HIDDEN)


def profiled(entries: Iterator[Entry], config: dict[str, Any]) -> ModelMetadata:
    """The metadata of a file with this header, read as any file's is."""
    header, reached = {}, 0
    for name, dtype, shape in entries:
        size = WIDTHS[dtype]
        for dimension in shape:
            size *= dimension
        offsets = [reached, reached + size]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        reached += size
    body = json.dumps(header).encode()
    file = parse_header(body, 8 + len(body) + reached, "model.safetensors")
    return build_metadata(Checkpoint({"model.safetensors": file}), config, About("org/name"))


def check_companions(found: ModelMetadata, companions: set[str]) -> None:
    """Every companion is with its carrier in one block, and every byte in exactly one."""
    home = {name: block.name for block in found.blocks for name in block.tensors}
    layers = {layer.name: layer for layer in found.layers}
    assert home.keys() == layers.keys()
    for name in companions:
        carrier = layers[name].assigned_with
        assert carrier is not None, name
        assert layers[carrier].assigned_with is None
        assert layers[carrier].compute_required > 0, carrier
        assert home[name] == home[carrier]
        assert layers[name].compute_required == 0
    for block in found.blocks:
        assert block.weight_bytes == sum(layers[name].size_bytes for name in block.tensors)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_packed_tensor_is_with_its_companions_and_costs_what_it_means(name: str) -> None:
    layout, quantization = LAYOUTS[name]
    found = profiled(llama(layout), LLAMA | {"quantization_config": quantization})
    meant = profiled(llama(plain), LLAMA)
    assert found.warnings == ()
    leaves = [leaf for leaf, _, _ in layout(HIDDEN, HIDDEN)][1:]
    companions = {
        f"model.layers.{number}.{module}.{leaf}"
        for number in range(2)
        for module in LINEAR
        for leaf in leaves
        if leaf != "bias"
    }
    check_companions(found, companions)
    assert {x.name for x in found.layers if x.assigned_with} == companions
    assert found.total_compute == pytest.approx(meant.total_compute)
    for mine, theirs in zip(found.blocks, meant.blocks, strict=True):
        assert mine.compute_required == pytest.approx(theirs.compute_required)
        assert mine.decode_compute == pytest.approx(theirs.decode_compute)
        assert (mine.kv_bytes, mine.output_bytes) == (theirs.kv_bytes, theirs.output_bytes)
        assert mine.activation_bytes == theirs.activation_bytes


@pytest.mark.parametrize(
    ("name", "bits"),
    [("gptq", 4.17), ("awq", 4.16), ("nf4", 4.13), ("int8", 8), ("fp8, blocks", 8), ("nvfp4", 4.5)],
)
def test_a_layer_is_as_many_bits_as_it_is_stored_in(name: str, bits: float) -> None:
    layout, quantization = LAYOUTS[name]
    found = profiled(llama(layout), LLAMA | {"quantization_config": quantization})
    weights = sum(rows * columns for rows, columns in LINEAR.values())
    layer = next(block for block in found.blocks if block.name == "layer.0")
    assert 8 * layer.weight_bytes / weights == pytest.approx(bits, rel=0.005)


def gpt_oss() -> Iterator[Entry]:
    """gpt-oss-20b's tensors, two layers of them: experts in MXFP4, all else in BF16."""
    hidden, experts = 2880, 32
    yield "model.embed_tokens.weight", "BF16", (201088, hidden)
    for number in range(2):
        at = f"model.layers.{number}"
        for part, rows, columns in (
            ("q", 4096, hidden),
            ("k", 512, hidden),
            ("v", 512, hidden),
            ("o", hidden, 4096),
        ):
            yield f"{at}.self_attn.{part}_proj.weight", "BF16", (rows, columns)
            yield f"{at}.self_attn.{part}_proj.bias", "BF16", (rows,)
        yield f"{at}.self_attn.sinks", "BF16", (64,)
        for part, rows in (("gate_up_proj", 2 * hidden), ("down_proj", hidden)):
            of = f"{at}.mlp.experts.{part}"
            yield f"{of}_blocks", "U8", (experts, rows, hidden // 32, 16)
            yield f"{of}_scales", "U8", (experts, rows, hidden // 32)
            yield f"{of}_bias", "BF16", (experts, rows)
        yield f"{at}.mlp.router.weight", "BF16", (experts, hidden)
        yield f"{at}.mlp.router.bias", "BF16", (experts,)
        yield f"{at}.input_layernorm.weight", "BF16", (hidden,)
        yield f"{at}.post_attention_layernorm.weight", "BF16", (hidden,)
    yield "model.norm.weight", "BF16", (hidden,)
    yield "lm_head.weight", "BF16", (201088, hidden)


def test_mxfp4_blocks_are_with_their_scales() -> None:
    config = {
        "model_type": "gpt_oss",
        "architectures": ["GptOssForCausalLM"],
        "hidden_size": 2880,
        "num_hidden_layers": 2,
        "num_experts_per_tok": 4,
        "quantization_config": {"quant_method": "mxfp4"},
    }
    found = profiled(gpt_oss(), config)
    assert found.warnings == ()
    parts = ("gate_up_proj", "down_proj")
    scales = {f"model.layers.{n}.mlp.experts.{p}_scales" for n in range(2) for p in parts}
    check_companions(found, scales)
    costs = {layer.name: layer.compute_required * 1e9 for layer in found.layers}
    down = costs["model.layers.0.mlp.experts.down_proj_blocks"]
    assert down == pytest.approx(2 * 2880 * 2880 * 4 * 512)


def deepseek(experts: int = 8) -> Iterator[Entry]:
    """DeepSeek-V3's layers in FP8, a dense one and one of experts (8 of its 256)."""
    hidden, inner = 7168, 2048
    attention = {
        "q_a_proj": (1536, hidden),
        "q_b_proj": (24576, 1536),
        "kv_a_proj_with_mqa": (576, hidden),
        "kv_b_proj": (32768, 512),
        "o_proj": (hidden, 16384),
    }
    yield "model.embed_tokens.weight", "BF16", (129280, hidden)
    for number, width in ((0, 18432), (1, inner)):
        at = f"model.layers.{number}"
        modules = {f"self_attn.{name}": shape for name, shape in attention.items()}
        places = [f"mlp.experts.{n}" for n in range(experts)] + ["mlp.shared_experts"]
        for place in places if number else ["mlp"]:
            modules |= {f"{place}.{part}_proj": (width, hidden) for part in ("gate", "up")}
            modules[f"{place}.down_proj"] = (hidden, width)
        for module, (rows, columns) in modules.items():
            for leaf, dtype, shape in fp8_blocks(rows, columns):
                yield f"{at}.{module}.{leaf}", dtype, shape
        for norm, size in (("q_a_layernorm", 1536), ("kv_a_layernorm", 512)):
            yield f"{at}.self_attn.{norm}.weight", "BF16", (size,)
        yield f"{at}.input_layernorm.weight", "BF16", (hidden,)
        yield f"{at}.post_attention_layernorm.weight", "BF16", (hidden,)
    yield "model.layers.1.mlp.gate.weight", "BF16", (experts, hidden)
    yield "model.layers.1.mlp.gate.e_score_correction_bias", "F32", (experts,)
    yield "model.norm.weight", "BF16", (hidden,)
    yield "lm_head.weight", "BF16", (129280, hidden)


def test_every_experts_weight_is_with_its_scales() -> None:
    config = {
        "model_type": "deepseek_v3",
        "architectures": ["DeepseekV3ForCausalLM"],
        "hidden_size": 7168,
        "num_hidden_layers": 2,
        "num_experts_per_tok": 8,
        "torch_dtype": "bfloat16",
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    }
    found = profiled(deepseek(), config)
    assert found.warnings == ()
    scales = {x.name for x in found.layers if x.name.endswith("_scale_inv")}
    check_companions(found, scales)
    assert len(scales) == 5 + 3 + 5 + 3 * 9
