"""What metadata says of models known by their names, shapes and configuration only."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from messages.metadata import Block, ModelMetadata
from messages.wire import decode, encode
from services.checkpoint.checkpoint import StoredTensor
from services.profiler.families import FAMILIES
from services.profiler.metadata import About, build_metadata

WIDTHS = {"F32": 4, "BF16": 2, "I32": 4, "U8": 1, "F8_E4M3": 1, "I8": 1, "I16": 2}


def tensor(name: str, *shape: int, dtype: str = "BF16") -> StoredTensor:
    size = WIDTHS[dtype]
    for dimension in shape:
        size *= dimension
    return StoredTensor(name, "model.safetensors", dtype, shape, 0, size)


def llama_layer(n: int, hidden: int, kv: int, inner: int) -> Iterable[StoredTensor]:
    at = f"model.layers.{n}"
    for name, rows, columns in (
        ("self_attn.q_proj", hidden, hidden),
        ("self_attn.k_proj", kv, hidden),
        ("self_attn.v_proj", kv, hidden),
        ("self_attn.o_proj", hidden, hidden),
        ("mlp.gate_proj", inner, hidden),
        ("mlp.up_proj", inner, hidden),
        ("mlp.down_proj", hidden, inner),
    ):
        yield tensor(f"{at}.{name}.weight", rows, columns)
    yield tensor(f"{at}.input_layernorm.weight", hidden)
    yield tensor(f"{at}.post_attention_layernorm.weight", hidden)


def llama(
    hidden: int = 64, layers: int = 3, kv: int = 32, inner: int = 176, vocab: int = 300
) -> list[StoredTensor]:
    found = [tensor("model.embed_tokens.weight", vocab, hidden)]
    for n in range(layers):
        found += llama_layer(n, hidden, kv, inner)
    return [*found, tensor("model.norm.weight", hidden)]


def config(layers: int = 3, hidden: int = 64, **more: Any) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "torch_dtype": "bfloat16",
    } | more


def built(tensors: Iterable[StoredTensor], settings: dict[str, Any], **work: int) -> ModelMetadata:
    return build_metadata(tensors, settings, About("org/name"), **work)


def costs(found: ModelMetadata) -> dict[str, float]:
    return {layer.name: layer.compute_required for layer in found.layers}


def block(found: ModelMetadata, name: str) -> Block:
    return next(block for block in found.blocks if block.name == name)


def test_a_4096_projection_at_1_by_512_is_17_18_gflop() -> None:
    found = built(llama(4096, 1, 4096, 11008, 32000), config(1, 4096))
    assert costs(found)["model.layers.0.self_attn.q_proj.weight"] == pytest.approx(17.18, abs=0.01)


def test_a_1b_llama_is_what_flop_counter_mode_was_measured_to_say() -> None:
    tensors = llama(2048, 16, 512, 8192, 128_256)
    found = built(tensors, config(16, 2048, tie_word_embeddings=True))
    assert found.total_compute == pytest.approx(1299.764, rel=1e-6)


def test_a_mixtral_layer_is_408_gflop() -> None:
    hidden, inner, at = 4096, 14336, "model.layers.0"
    kept = [t for t in llama(hidden, 1, 1024, inner, 32000) if ".mlp." not in t.name]
    kept.append(tensor(f"{at}.block_sparse_moe.gate.weight", 8, hidden))
    for n in range(8):
        expert = f"{at}.block_sparse_moe.experts.{n}"
        kept.append(tensor(f"{expert}.w1.weight", inner, hidden))
        kept.append(tensor(f"{expert}.w2.weight", hidden, inner))
        kept.append(tensor(f"{expert}.w3.weight", inner, hidden))
    settings = config(1, hidden, model_type="mixtral", num_experts_per_tok=2)
    found = built(kept, settings)
    assert block(found, "layer.0").compute_required == pytest.approx(408, rel=0.002)


def test_blocks_stand_in_execution_order_and_own_every_tensor_once() -> None:
    found = built(llama(), config())
    names = [block.name for block in found.blocks]
    assert names == ["embeddings", "layer.0", "layer.1", "layer.2", "head"]
    assert sorted(n for b in found.blocks for n in b.tensors) == sorted(costs(found))
    assert all(block.together_with is None for block in found.blocks)


def test_a_tied_head_is_computed_last_and_booked_to_the_embedding() -> None:
    found = built(llama(), config(tie_word_embeddings=True))
    head = 2 * 64 * 300 * 512 / 1e9
    assert found.ties == (("model.embed_tokens.weight", "lm_head.weight"),)
    assert costs(found)["model.embed_tokens.weight"] == pytest.approx(head)
    assert block(found, "embeddings").compute_required == 0
    assert block(found, "head").compute_required == pytest.approx(head)
    assert "model.embed_tokens.weight" in block(found, "embeddings").tensors
    assert found.total_compute == pytest.approx(sum(costs(found).values()))


def test_a_tied_head_that_is_stored_all_the_same_costs_itself() -> None:
    tensors = [*llama(), tensor("lm_head.weight", 300, 64)]
    found = built(tensors, config(tie_word_embeddings=True))
    assert found.ties == (("model.embed_tokens.weight", "lm_head.weight"),)
    assert costs(found)["model.embed_tokens.weight"] == 0
    assert costs(found)["lm_head.weight"] == pytest.approx(2 * 64 * 300 * 512 / 1e9)


def test_a_bare_model_has_no_head_to_tie() -> None:
    found = built(llama(), config(tie_word_embeddings=True, architectures=["LlamaModel"]))
    assert found.ties == ()
    assert block(found, "head").compute_required == 0


def test_grouped_heads_cache_what_their_keys_and_values_are_wide() -> None:
    found = built(llama(kv=32), config(), batch_size=3, sequence_length=100)
    layer = block(found, "layer.1")
    assert layer.kv_bytes == 3 * 100 * (32 + 32) * 2
    assert layer.kv_bytes_per_token == (32 + 32) * 2
    assert block(found, "embeddings").kv_bytes == 0


def test_a_sliding_window_bounds_the_cache() -> None:
    settings = config(model_type="mistral", sliding_window=16)
    found = built(llama(), settings, sequence_length=100)
    assert block(found, "layer.0").kv_bytes == 16 * 64 * 2
    assert block(found, "layer.0").kv_bytes_per_token == 64 * 2


def test_gemma3_slides_in_five_layers_of_six() -> None:
    settings = config(7, model_type="gemma3_text", sliding_window=16)
    found = built(llama(layers=7), settings, sequence_length=100)
    caches = [block(found, f"layer.{n}").kv_bytes // (64 * 2) for n in range(7)]
    assert caches == [16, 16, 16, 16, 16, 100, 16]


def test_mla_caches_its_latent_vector_only() -> None:
    kept = [t for t in llama(layers=1) if not t.name.endswith(("k_proj.weight", "v_proj.weight"))]
    at = "model.layers.0.self_attn"
    kept.append(tensor(f"{at}.kv_a_proj_with_mqa.weight", 16 + 8, 64))
    kept.append(tensor(f"{at}.kv_b_proj.weight", 96, 16))
    found = built(kept, config(1, model_type="deepseek_v3"), sequence_length=100)
    assert block(found, "layer.0").kv_bytes == 100 * (16 + 8) * 2


def test_layers_that_share_keys_and_values_stay_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(FAMILIES, "gemma3n_text", FAMILIES["llama"])
    kinds = ["sliding_attention", "full_attention"] * 2
    settings = config(4, num_kv_shared_layers=2, layer_types=kinds, sliding_window=8)
    settings["model_type"] = "gemma3n_text"
    found = built(llama(layers=4), settings)
    assert [block.together_with for block in found.blocks] == [
        None,
        None,
        None,
        "layer.0",
        "layer.1",
        None,
    ]
    assert block(found, "layer.3").kv_bytes == 0


def test_only_families_that_share_keys_and_values_are_asked_how_many_layers_do() -> None:
    found = built(llama(layers=4), config(4, num_kv_shared_layers=2))
    assert {block.together_with for block in found.blocks} == {None}
    assert block(found, "layer.3").kv_bytes == block(found, "layer.0").kv_bytes > 0


def test_an_encoder_decoder_is_never_cut() -> None:
    hidden, tensors = 64, [tensor("shared.weight", 300, 64)]
    for stack, parts in (
        ("encoder", ["SelfAttention"]),
        ("decoder", ["SelfAttention", "EncDecAttention"]),
    ):
        for n in range(2):
            for k, part in enumerate(parts):
                at = f"{stack}.block.{n}.layer.{k}.{part}"
                tensors += [tensor(f"{at}.{p}.weight", hidden, hidden) for p in "qkvo"]
        tensors.append(tensor(f"{stack}.final_layer_norm.weight", hidden))
    settings = {"model_type": "t5", "d_model": 64, "num_layers": 2, "is_encoder_decoder": True}
    found = built(tensors, settings | {"architectures": ["T5ForConditionalGeneration"]})
    names = [block.name for block in found.blocks]
    assert names == ["embeddings", "encoder.0", "encoder.1", "decoder.0", "decoder.1", "head"]
    assert {block.together_with for block in found.blocks[1:]} == {"embeddings"}
    assert block(found, "encoder.0").kv_bytes == 0
    assert block(found, "decoder.0").kv_bytes == 2 * 2 * 512 * hidden * 2
    assert block(found, "decoder.0").kv_bytes_per_token == 2 * hidden * 2
    assert "encoder.final_layer_norm.weight" in block(found, "encoder.1").tensors


@pytest.mark.parametrize(
    ("tensors", "settings", "why"),
    [
        (llama(), config(model_type="zamba9"), "does not know this layout"),
        ([*llama(), tensor("model.strange.weight", 4, 4)], config(), "model.strange.weight"),
        (llama(layers=2), config(3), "holds 2 layers where config.json says 3"),
        ([t for t in llama() if ".layers.1." not in t.name], config(), "holds 2 layers"),
        ([], config(), "holds 0 layers"),
        (llama(), {}, "does not know this layout"),
    ],
)
def test_an_unknown_layout_is_one_block_with_a_warning(
    tensors: list[StoredTensor], settings: dict[str, Any], why: str
) -> None:
    found = built(tensors, settings)
    assert [block.name for block in found.blocks] == ["model"]
    assert found.blocks[0].tensors == tuple(t.name for t in tensors)
    assert len(found.warnings) == 1
    assert why in found.warnings[0]
    assert found.total_compute == pytest.approx(sum(costs(found).values()))


def test_layers_that_predict_several_tokens_are_held_and_not_computed() -> None:
    tensors = [*llama(layers=2), *llama_layer(2, 64, 32, 176)]
    found = built(tensors, config(2, num_nextn_predict_layers=1))
    assert [block.name for block in found.blocks] == ["embeddings", "layer.0", "layer.1", "head"]
    assert costs(found)["model.layers.2.mlp.gate_proj.weight"] == 0
    assert "model.layers.2.mlp.gate_proj.weight" in block(found, "head").tensors


def quantized(layout: str) -> tuple[list[StoredTensor], dict[str, Any]]:
    """One layer's 64 x 64 query projection in a packed layout, the rest as it was."""
    q = "model.layers.0.self_attn.q_proj"
    kept = [t for t in llama(layers=1) if not t.name.startswith(q)]
    packed = {
        "gptq": [
            tensor(f"{q}.qweight", 8, 64, dtype="I32"),
            tensor(f"{q}.qzeros", 1, 8, dtype="I32"),
            tensor(f"{q}.scales", 1, 64),
            tensor(f"{q}.g_idx", 64, dtype="I32"),
        ],
        "awq": [
            tensor(f"{q}.qweight", 64, 8, dtype="I32"),
            tensor(f"{q}.qzeros", 1, 8, dtype="I32"),
            tensor(f"{q}.scales", 1, 64),
        ],
        "bitsandbytes": [
            tensor(f"{q}.weight", 2048, 1, dtype="U8"),
            tensor(f"{q}.weight.absmax", 64, dtype="U8"),
            tensor(f"{q}.weight.quant_map", 16, dtype="F32"),
            tensor(f"{q}.weight.quant_state.bitsandbytes__nf4", 80, dtype="U8"),
        ],
        "bitsandbytes 8 bit": [
            tensor(f"{q}.weight", 64, 64, dtype="I8"),
            tensor(f"{q}.SCB", 64, dtype="F32"),
        ],
        "fp8": [
            tensor(f"{q}.weight", 64, 64, dtype="F8_E4M3"),
            tensor(f"{q}.weight_scale_inv", 1, 1, dtype="F32"),
        ],
        "compressed-tensors": [
            tensor(f"{q}.weight_packed", 64, 8, dtype="I32"),
            tensor(f"{q}.weight_scale", 64, 1),
            tensor(f"{q}.weight_shape", 2, dtype="I32"),
        ],
    }[layout]
    method = {"quant_method": layout.partition(" ")[0], "bits": 4}
    return kept + packed, config(1, quantization_config=method)


@pytest.mark.parametrize(
    "layout",
    ["gptq", "awq", "bitsandbytes", "bitsandbytes 8 bit", "fp8", "compressed-tensors"],
)
def test_a_packed_weight_is_held_as_stored_and_computed_as_meant(layout: str) -> None:
    tensors, settings = quantized(layout)
    found, plain = built(tensors, settings), built(llama(layers=1), config(1))
    assert found.total_compute == pytest.approx(plain.total_compute)
    assert found.total_size_bytes == sum(t.size_bytes for t in tensors)
    layers = {layer.name: layer for layer in found.layers}
    q = "model.layers.0.self_attn.q_proj"
    carrier = next(n for n in layers if n in (f"{q}.weight", f"{q}.qweight", f"{q}.weight_packed"))
    scales = [n for n in layers if n.startswith(q) and n != carrier]
    assert {layers[name].assigned_with for name in scales} == {carrier}
    assert {layers[name].compute_required for name in scales} == {0}
    assert layers[carrier].assigned_with is None


def test_mxfp4_experts_are_computed_by_their_logical_shape() -> None:
    at = "model.layers.0.mlp.experts"
    kept = [t for t in llama(layers=1) if ".mlp." not in t.name]
    settings = config(1, model_type="gpt_oss", num_experts_per_tok=2)
    packed = [
        tensor(f"{at}.gate_up_proj_blocks", 4, 96, 2, 16, dtype="U8"),
        tensor(f"{at}.gate_up_proj_scales", 4, 96, 2, dtype="U8"),
    ]
    found = built([*kept, *packed], settings)
    assert costs(found)[f"{at}.gate_up_proj_blocks"] * 1e9 == 2 * 96 * 64 * 512 * 2
    assert found.layers[-1].assigned_with == f"{at}.gate_up_proj_blocks"


def test_decoding_one_token_costs_a_linear_layer_twice_its_weights() -> None:
    found = built(llama(), config(tie_word_embeddings=True), batch_size=4, sequence_length=100)
    layers = {layer.name: layer.decode_compute * 1e9 for layer in found.layers}
    assert layers["model.layers.0.mlp.gate_proj.weight"] == pytest.approx(2 * 64 * 176)
    own = 2 * 100 * (64 + 64)
    assert layers["model.layers.0.self_attn.o_proj.weight"] == pytest.approx(2 * 64 * 64 + own)
    assert block(found, "head").decode_compute * 1e9 == pytest.approx(2 * 64 * 300)


def test_metadata_travels_with_every_key_of_the_format() -> None:
    found = built(llama(), config())
    kept = {"model_name", "model_type", "batch_size", "sequence_length", "layers"}
    kept |= {"total_compute", "total_layers"}
    body = encode(found)
    assert decode(body, ModelMetadata) == found
    read = json.loads(body)
    assert kept <= read.keys()
    assert {"name", "shape", "num_params", "compute_required", "layer_type", "dtype"} <= read[
        "layers"
    ][0].keys()


SIZES = st.integers(1, 6)


@given(SIZES, SIZES, SIZES, SIZES, st.integers(1, 4), st.integers(1, 200), st.booleans())
def test_costs_grow_with_tokens_and_never_go_missing(
    hidden: int, layers: int, kv: int, inner: int, batch: int, sequence: int, tied: bool
) -> None:
    tensors = llama(8 * hidden, layers, 8 * kv, 8 * inner, 40)
    tensors += [] if tied else [tensor("lm_head.weight", 40, 8 * hidden)]
    settings = config(layers, 8 * hidden, tie_word_embeddings=tied)
    found = built(tensors, settings, batch_size=batch, sequence_length=sequence)
    twice = built(tensors, settings, batch_size=2 * batch, sequence_length=sequence)
    assert found.warnings == ()
    assert twice.total_compute == pytest.approx(2 * found.total_compute)
    assert sum(costs(found).values()) == pytest.approx(found.total_compute)
    assert sum(b.weight_bytes for b in found.blocks) == sum(t.size_bytes for t in tensors)
    assert sorted(n for b in found.blocks for n in b.tensors) == sorted(t.name for t in tensors)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = [
    "hidden_size", "num_hidden_layers", "layer_types", "architectures", "text_config",
    "quantization_config", "sliding_window", "num_experts_per_tok", "tie_word_embeddings",
    "torch_dtype", "use_sliding_window", "sliding_window_pattern", "num_kv_shared_layers",
    "is_decoder", "is_encoder_decoder", "num_nextn_predict_layers",
]  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(KEYS), JSON),
    st.sampled_from(["llama", "gemma3", "qwen2", "t5", "vit", "mixtral", "nothing"]),
)
@example({"architectures": True, "num_hidden_layers": 2**39}, "llama")
@example({"layer_types": [[], {}, None], "text_config": {"layer_types": 3}}, "gemma3")
def test_no_configuration_whatever_makes_it_fall_over(values: dict[str, Any], kind: str) -> None:
    found = built(llama(), config() | values | {"model_type": kind})
    assert sum(b.weight_bytes for b in found.blocks) == found.total_size_bytes
    assert decode(encode(found), ModelMetadata) == found
