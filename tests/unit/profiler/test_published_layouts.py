"""Headers as published quantized checkpoints have them: names, dtypes and shapes of a real size."""

from collections.abc import Iterator

import pytest

from tests.unit.profiler.packers import LAYOUTS, Entry, fp8_blocks, plain
from tests.unit.profiler.published import (
    HIDDEN,
    LINEAR,
    LLAMA,
    check_companions,
    llama,
    profiled,
)


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
    [
        ("gptq", 4.17),
        ("gptq, 3 bit", 3.15),
        ("awq", 4.16),
        ("nf4", 4.13),
        ("int8", 8),
        ("fp8, blocks", 8),
        ("nvfp4", 4.5),
        ("aqlm", 2.27),
        ("hqq", 4.5),
        ("mlx", 4.5),
        ("bitnet", 2),
    ],
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
