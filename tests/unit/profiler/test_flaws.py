"""Checkpoints that are not whole, or contradict config.json, are never planned in silence."""

from collections.abc import Iterable
from typing import Any

import pytest

from services.checkpoint.checkpoint import StoredTensor
from services.profiler.counting import Counts
from services.profiler.exact import corrected
from services.profiler.study import Study, study
from services.profiler.workload import Workload
from tests.unit.profiler.test_metadata import block, built, config, llama, llama_layer, tensor

HEAD = tensor("lm_head.weight", 300, 64)
WHOLE = [*llama(), HEAD]
LAYER = "model.layers.1."


def without(*parts: str, of: Iterable[StoredTensor] = WHOLE) -> list[StoredTensor]:
    return [t for t in of if not any(part in t.name for part in parts)]


def reshaped(name: str, *shape: int) -> list[StoredTensor]:
    return [tensor(name, *shape) if t.name == name else t for t in WHOLE]


def test_a_whole_checkpoint_has_no_flaws() -> None:
    assert built(WHOLE, config()).warnings == ()


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (without("embed_tokens"), "the token embedding (embed_tokens.weight) is not stored"),
        (without("lm_head"), "the head (lm_head.weight) is not stored"),
        (without("1.mlp.down_proj"), "layers.1.mlp.down_proj: not stored, though other layers"),
        (without("0.self_attn.q_proj"), "layers.0.self_attn.q_proj: not stored"),
        (without("1.self_attn"), "layers.1.self_attn.q_proj and 1 more: not stored"),
        (
            without("o_proj"),
            "layers.0.self_attn, layers.1.self_attn, layers.2.self_attn: attention",
        ),
        ([*WHOLE, tensor(f"{LAYER}mlp.foo.weight", 64, 64)], "layers.0.mlp.foo, layers.2.mlp.foo"),
        (
            reshaped(f"{LAYER}self_attn.q_proj.weight", 64, 999),
            "layers.1.self_attn.q_proj.weight (64 × 999): not of the width that config.json gives",
        ),
        (
            reshaped(f"{LAYER}self_attn.v_proj.weight", 16, 64),
            "layers.1.self_attn.v_proj.weight (16 × 64): not of the shape that other layers have",
        ),
        (reshaped(f"{LAYER}mlp.up_proj.weight", 176, 65), "mlp.up_proj.weight (176 × 65): not of"),
        (reshaped("lm_head.weight", 300, 32), "lm_head.weight (300 × 32): not of the width"),
        (reshaped("model.embed_tokens.weight", 300, 32), "embed_tokens.weight (300 × 32): not of"),
        (
            [*WHOLE, *llama_layer(3, 64, 32, 176)],
            "layers beyond the 3 of config.json are stored (1)",
        ),
    ],
)
def test_what_is_missing_or_does_not_fit_is_named(stored: list[StoredTensor], said: str) -> None:
    found = built(stored, config())
    assert any(said in warning for warning in found.warnings), found.warnings
    assert sum(b.weight_bytes for b in found.blocks) == sum(t.size_bytes for t in stored)


def test_every_width_is_another_than_config_says_where_all_are() -> None:
    (said,) = built(WHOLE, config(hidden=8192)).warnings
    assert "and 20 more: not of the width that config.json gives, 8192" in said


def test_a_tied_head_or_none_is_not_missed() -> None:
    assert built(without("lm_head"), config(tie_word_embeddings=True)).warnings == ()
    assert built(without("lm_head"), config(architectures=["LlamaModel"])).warnings == ()


def test_layers_of_unlike_kinds_may_have_unlike_heads() -> None:
    stored = reshaped(f"{LAYER}self_attn.v_proj.weight", 16, 64)
    kinds = ["full_attention", "sliding_attention", "full_attention"]
    assert built(stored, config(layer_types=kinds, sliding_window=8)).warnings == ()


def test_layers_that_config_announces_are_no_surplus() -> None:
    stored = [*WHOLE, *llama_layer(3, 64, 32, 176)]
    assert built(stored, config(num_nextn_predict_layers=1)).warnings == ()


def test_cross_attention_without_an_encoder_is_held_and_not_computed() -> None:
    at = "bert.encoder.layer.0."
    own = [f"{at}attention.self.{part}.weight" for part in ("query", "key", "value")]
    own += [f"{at}attention.output.dense.weight"]
    crossing = [name.replace("attention.", "crossattention.") for name in own]
    inner = [
        tensor(f"{at}intermediate.dense.weight", 176, 64),
        tensor(f"{at}output.dense.weight", 64, 176),
    ]
    table = tensor("bert.embeddings.word_embeddings.weight", 300, 64)
    plain = [table, *(tensor(name, 64, 64) for name in own), *inner]
    settings = config(1, model_type="bert", architectures=["BertLMHeadModel"], is_decoder=True)
    alone = built(plain, settings)
    found = built([*plain, *(tensor(name, 64, 64) for name in crossing)], settings)
    assert alone.warnings == ()
    assert found.warnings == (
        "cross-attention is held and not computed: the encoder that it reads is not here",
    )
    assert found.total_compute == alone.total_compute
    assert block(found, "layer.0").kv_bytes == block(alone, "layer.0").kv_bytes == 512 * 128 * 2
    assert block(found, "layer.0").decode_compute == block(alone, "layer.0").decode_compute > 0


WORK = Workload(1, 512)


def understood(stored: list[StoredTensor], **more: Any) -> tuple[Study, int]:
    """A study, and the FLOP of its closed form."""
    found = study(stored, config(**more), WORK)
    closed = sum(cost.forward for cost in found.costs.values())
    return found, round(closed + (found.tied.cost.forward if found.tied else 0))


def test_a_count_of_another_model_than_is_stored_is_told_and_not_booked() -> None:
    whole = understood(WHOLE)[1]
    found, stored = understood(without("1.mlp.down_proj"))
    after = corrected(found, Counts(whole, {"": whole}))
    assert after.costs == found.costs
    assert f"{stored / 1e9:,.6g} GFLOP" in after.warnings[-1]
    assert f"{whole / 1e9:,.6g} GFLOP" in after.warnings[-1]


def test_a_count_of_a_model_of_other_depth_is_not_booked() -> None:
    found, stored = understood(WHOLE, layers=1999)
    after = corrected(found, Counts(600 * stored, {}))
    assert after.costs == found.costs
    assert "closed form" in after.warnings[-1]


def test_a_count_stands_for_a_packer_that_cannot_be_read() -> None:
    trellis = tensor(f"{LAYER}mlp.up_proj.trellis", 4, 11, 96, dtype="I16")
    found = study([*without("1.mlp.up_proj"), trellis], config(), WORK)
    whole = understood(WHOLE)[1]
    after = corrected(found, Counts(whole, {}))
    assert len(after.warnings) == len(found.warnings) == 1
    assert sum(cost.forward for cost in after.costs.values()) == pytest.approx(whole)


def test_a_count_within_a_thousandth_is_booked_without_a_word() -> None:
    found, stored = understood(WHOLE)
    after = corrected(found, Counts(round(stored * 1.0009), {}))
    assert after.warnings == ()
    assert sum(cost.forward for cost in after.costs.values()) == pytest.approx(stored * 1.0009)
    assert {cost.source for cost in after.costs.values()} == {"counted", "none"}
