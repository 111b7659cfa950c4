"""Of a layout that is not known no cache is forgotten, and none is claimed by what only reads."""

from collections.abc import Iterable
from typing import Any

import pytest

from messages.metadata import Block, ModelMetadata
from services.checkpoint.checkpoint import StoredTensor
from services.profiler.architecture import read_architecture
from tests.unit.profiler.test_metadata import block, built, config, costs, llama, tensor

HIDDEN, KV, TOKENS = 64, 32, 512
HEAD = 2 * 300 * HIDDEN * TOKENS


def unknown(stored: Iterable[StoredTensor], **more: Any) -> ModelMetadata:
    return built(stored, config() | {"model_type": "strange"} | more)


def whole(found: ModelMetadata) -> Block:
    (only,) = found.blocks
    return only


def attention(at: str, *parts: str) -> list[StoredTensor]:
    return [tensor(f"{at}.{part}.weight", HIDDEN, HIDDEN) for part in parts]


@pytest.mark.parametrize("layers", [0, -2, True, 2.0, None, 4])
def test_a_depth_that_is_none_forgets_no_cache(layers: object) -> None:
    found = built(llama(), config() | {"num_hidden_layers": layers})
    assert whole(found).kv_bytes == 3 * TOKENS * 2 * KV * 2
    assert whole(found).kv_bytes_per_token == 3 * 2 * KV * 2


def test_its_closed_form_is_said_to_be_rough() -> None:
    (said,) = unknown(llama()).warnings
    assert "one block that is not cut, and what is not counted of it is rough" in said


def test_a_layers_window_is_its_own() -> None:
    kinds = ["sliding_attention", "full_attention", "full_attention"]
    found = unknown(llama(), layer_types=kinds, sliding_window=8)
    assert whole(found).kv_bytes == (8 + 2 * TOKENS) * 2 * KV * 2


@pytest.mark.parametrize(("turned", "side"), [(True, "in"), (False, "out")])
def test_a_fused_projection_caches_the_same_whichever_side_it_keeps_first(
    turned: bool, side: str
) -> None:
    """GPT-BigCode's c_attn is a linear layer, of one key and value for all heads, GPT-2's none."""
    wide = HIDDEN + 2 * 16
    shape = (HIDDEN, wide) if turned else (wide, HIDDEN)
    stored = [
        tensor("transformer.h.0.attn.c_attn.weight", *shape),
        tensor("transformer.h.0.attn.c_proj.weight", HIDDEN, HIDDEN),
    ]
    assert whole(unknown(stored)).kv_bytes == TOKENS * 2 * 16 * 2, side


def test_keys_and_values_of_one_projection_are_cached() -> None:
    stored = [tensor("model.layers.0.self_attention.kv_proj.weight", 2 * KV, HIDDEN)]
    assert whole(unknown(stored)).kv_bytes == TOKENS * 2 * KV * 2


def test_an_encoder_beside_a_decoder_caches_nothing_of_its_own() -> None:
    stored = [tensor("model.shared.weight", 300, HIDDEN)]
    projections = ("q_proj", "k_proj", "v_proj", "out_proj")
    for where in ("encoder.layers.0.self_attn", "decoder.layers.0.self_attn"):
        stored += attention(f"model.{where}", *projections)
    stored += attention("model.decoder.layers.0.encoder_attn", *projections)
    names = ["StrangeForConditionalGeneration"]
    found = unknown(stored, is_encoder_decoder=True, architectures=names)
    assert whole(found).kv_bytes == 2 * TOKENS * 2 * HIDDEN * 2
    assert whole(found).kv_bytes_per_token == 2 * HIDDEN * 2
    layers = {layer.name: layer for layer in found.layers}
    assert layers["model.encoder.layers.0.self_attn.q_proj.weight"].decode_compute == 0
    assert layers["model.decoder.layers.0.self_attn.q_proj.weight"].decode_compute > 0


@pytest.mark.parametrize(
    "settings",
    [
        {"model_type": "electra", "architectures": ["ElectraForPreTraining"]},
        {"model_type": "modernbert", "architectures": ["ModernBertForMaskedLM"]},
        {"model_type": "clip", "architectures": ["CLIPModel"]},
        {"model_type": "deberta-v2", "architectures": ["DebertaV2Model"]},
        {"model_type": "t5", "architectures": ["T5EncoderModel"], "is_encoder_decoder": True},
        {"model_type": "umt5", "architectures": ["UMT5EncoderModel"]},
        {"model_type": "strange", "architectures": ["StrangeForMaskedLM"]},
    ],
)
def test_what_only_reads_keeps_no_cache_and_decodes_nothing(settings: dict[str, Any]) -> None:
    found = built(llama(), config() | settings)
    assert (whole(found).kv_bytes, whole(found).kv_bytes_per_token) == (0, 0)
    assert whole(found).decode_compute == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"architectures": ["StrangeForCausalLM"]},
        {"architectures": ["StrangeModel"]},
        {"architectures": None},
        {"model_type": "electra", "architectures": ["ElectraForCausalLM"]},
        {"model_type": "electra", "architectures": None, "is_decoder": True},
    ],
)
def test_what_writes_or_may_write_keeps_one(settings: dict[str, Any]) -> None:
    found = unknown(llama(), **settings)
    assert whole(found).kv_bytes == 3 * TOKENS * 2 * KV * 2
    assert whole(found).decode_compute > 0


@pytest.mark.parametrize(
    ("table", "tied"),
    [
        ("transformer.wte.weight", None),
        ("model.shared.weight", True),
        ("model.decoder.embed_tokens.weight", None),
    ],
)
def test_a_head_that_nobody_stored_is_tied_unless_config_denies_it(
    table: str, tied: bool | None
) -> None:
    stored = [*attention("model.layers.0.self_attn", "q_proj"), tensor(table, 300, HIDDEN)]
    found = unknown(stored, tie_word_embeddings=tied)
    assert costs(found)[table] * 1e9 == HEAD
    assert found.ties == ((table, "lm_head.weight"),)
    denied = unknown(stored, tie_word_embeddings=False)
    bare = unknown(stored, architectures=["StrangeModel"])
    assert costs(denied)[table] == costs(bare)[table] == 0


@pytest.mark.parametrize("head", ["lm_head.weight", "embed_out.weight", "decoder.weight"])
def test_a_head_that_is_stored_is_computed_once(head: str) -> None:
    stored = [*llama(), tensor(head, 300, HIDDEN)]
    found = unknown(stored)
    assert costs(found)["model.embed_tokens.weight"] == 0
    assert costs(found)[head] * 1e9 == HEAD


def test_what_looks_at_pictures_beside_a_text_is_held_and_not_computed() -> None:
    seeing = attention("visual.blocks.0.attn", "q_proj", "k_proj", "v_proj", "proj")
    found, alone = unknown([*llama(), *seeing]), unknown(llama())
    assert found.total_compute == alone.total_compute
    assert whole(found).kv_bytes == whole(alone).kv_bytes
    assert whole(found).weight_bytes > whole(alone).weight_bytes


def test_an_encoder_that_is_told_to_write_keeps_a_cache() -> None:
    at = "bert.encoder.layer.0"
    stored = [
        tensor("bert.embeddings.word_embeddings.weight", 300, HIDDEN),
        *attention(f"{at}.attention.self", "query", "key", "value"),
        *attention(f"{at}.attention.output", "dense"),
    ]
    settings = config(1, model_type="bert", architectures=["BertModel"])
    reads, writes = built(stored, settings), built(stored, settings | {"is_decoder": True})
    assert block(reads, "layer.0").kv_bytes == block(reads, "layer.0").decode_compute == 0
    assert block(writes, "layer.0").kv_bytes == TOKENS * 2 * HIDDEN * 2
    assert block(writes, "layer.0").decode_compute > 0


def test_transformers_names_of_encoders_are_known() -> None:
    auto = pytest.importorskip("transformers.models.auto.modeling_auto")
    reading = set(auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES)
    writing = set(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    writing |= set(auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)

    def writes(kind: str) -> bool:
        return read_architecture({"model_type": kind}).writes

    assert {kind for kind in writing - reading if not writes(kind)} == set()
    told = {kind for kind in reading - writing if writes(kind)}
    assert len(told) < len(reading - writing) / 4, told
