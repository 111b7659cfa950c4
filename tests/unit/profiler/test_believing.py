"""Counts of models that are known in part, or not at all: taken where they can be believed."""

import json
import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from services.checkpoint.checkpoint import StoredTensor
from services.profiler.counting import Counter, Counts
from services.profiler.exact import corrected
from services.profiler.study import Study, study
from services.profiler.workload import Workload

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
WORK = Workload(2, 48)
SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 300,
}
GROUPED = SMALL | {"num_key_value_heads": 2, "head_dim": 16}
MIXED = GROUPED | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LINEAR = {
    "num_hidden_layers": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "shared_expert_intermediate_size": 32,
}
ROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}
SEEING = {
    "hidden_size": 32,
    "depth": 1,
    "num_heads": 2,
    "intermediate_size": 64,
    "out_hidden_size": 64,
    "deepstack_visual_indexes": [0],
}
GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 300, "pad_token_id": 0}
BART = {
    "d_model": 64,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 96,
    "vocab_size": 300,
}
T5 = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "vocab_size": 300}
MIXTURES: dict[str, dict[str, Any]] = {
    "Qwen3VLMoeForConditionalGeneration": {
        "text_config": MIXED | {"rope_parameters": ROPE},
        "vision_config": SEEING,
    },
    "MiniMaxForCausalLM": GROUPED
    | {"num_local_experts": 4, "layer_types": ["full_attention", "linear_attention"]},
    "Qwen3NextForCausalLM": MIXED | LINEAR,
    "Qwen3_5MoeForCausalLM": MIXED | LINEAR,
    "JambaForCausalLM": GROUPED
    | {"num_experts": 4, "mamba_d_state": 8, "attn_layer_period": 2, "attn_layer_offset": 1}
    | {"use_mamba_kernels": False},
}
TIED: dict[str, dict[str, Any]] = {
    "GPTBigCodeForCausalLM": GPT2,
    "GPTNeoForCausalLM": {
        "hidden_size": 64,
        "num_layers": 2,
        "num_heads": 4,
        "vocab_size": 300,
        "attention_types": [[["global", "local"], 1]],
    },
    "PegasusForConditionalGeneration": BART,
    "MarianMTModel": BART | {"pad_token_id": 299, "decoder_start_token_id": 299},
    "UMT5ForConditionalGeneration": T5,
}
HEADS: dict[str, dict[str, Any]] = {
    "LlamaForQuestionAnswering": SMALL,
    "GPT2ForSequenceClassification": GPT2,
    "LlamaForSequenceClassification": SMALL,
    "BertForMultipleChoice": SMALL,
    "BartForSequenceClassification": BART,
    "BertLMHeadModel": SMALL | {"is_decoder": True},
}
CROSSING: dict[str, dict[str, Any]] = {
    "GPT2LMHeadModel": GPT2 | {"add_cross_attention": True},
    "BertModel": SMALL | {"is_decoder": True, "add_cross_attention": True},
}
ALL = MIXTURES | TIED | HEADS | CROSSING


class Made(NamedTuple):
    """A study in closed form, and what the counter says of the same model."""

    closed: Study
    counts: Counts

    @property
    def booked(self) -> Study:
        return corrected(self.closed, self.counts)


Make = Callable[[str], Made]


@pytest.fixture(scope="module")
def make(counter: Counter) -> Make:
    """Make a model's headers on the meta device, by the names it has there."""

    def made(kind: str) -> Made:
        found = getattr(transformers, kind)
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            model = found._from_config(found.config_class(**ALL[kind]))
        config = json.loads(model.config.to_json_string()) | {"architectures": [kind]}
        tied = set(model.all_tied_weights_keys)
        stored = [
            StoredTensor(name, "model.safetensors", "BF16", tuple(t.shape), 0, 2 * t.numel())
            for name, t in model.state_dict().items()
            if name not in tied
        ]
        counts = counter.count(config, WORK)
        assert isinstance(counts, Counts), counts
        return Made(study(stored, config, WORK), counts)

    return made


def total(found: Study) -> float:
    return sum(c.forward for c in found.costs.values()) + (
        found.tied.cost.forward if found.tied else 0.0
    )


@pytest.mark.parametrize("kind", MIXTURES)
def test_a_mixtures_count_is_taken_where_its_experts_are_counted_rightly(
    kind: str, make: Make
) -> None:
    made = make(kind)
    assert total(made.booked) == pytest.approx(made.counts.total)
    assert made.booked.warnings == made.closed.warnings
    assert {cost.source for cost in made.booked.costs.values()} == {"counted", "none"}


def test_a_count_that_misses_experts_is_not_taken_and_told(make: Make) -> None:
    closed, counts = make("Qwen3NextForCausalLM")
    modules = {
        name: flops // 4 if name.endswith(".experts") else flops
        for name, flops in counts.modules.items()
    }
    after = corrected(closed, Counts(counts.total, modules))
    assert after.costs == closed.costs
    assert "the count has 0.25 times its figure" in after.warnings[-1]


@pytest.mark.parametrize("kind", TIED)
def test_a_head_tied_in_an_unknown_layout_is_in_the_closed_form(kind: str, make: Make) -> None:
    made = make(kind)
    assert not made.closed.known
    assert total(made.closed) == pytest.approx(made.counts.total, rel=1e-3)
    assert total(made.booked) == pytest.approx(made.counts.total)


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_of_another_kind_is_counted_and_cut(kind: str, make: Make) -> None:
    made = make(kind)
    assert made.closed.known
    assert total(made.closed) == pytest.approx(made.counts.total, rel=1e-3)
    assert made.booked.warnings == ()


@pytest.mark.parametrize("kind", CROSSING)
def test_cross_attention_that_has_nothing_to_read_is_not_counted_nor_reckoned(
    kind: str, make: Make
) -> None:
    made = make(kind)
    assert total(made.closed) == pytest.approx(made.counts.total, rel=1e-3)
    (said,) = made.booked.warnings
    assert said.startswith("cross-attention is held and not computed")


def test_a_reason_is_one_short_sentence(counter: Counter) -> None:
    config = {
        "model_type": "switch_transformers",
        "architectures": ["SwitchTransformersForConditionalGeneration"],
    } | T5
    answer = counter.count(config, WORK)
    assert not isinstance(answer, Counts)
    assert "torch.fx" not in answer.reason
    assert len(answer.reason) < 200


def test_no_product_is_booked_twice_where_a_tied_heads_module_is_not_known(make: Make) -> None:
    made = make("GPTNeoForCausalLM")
    renamed = {name.replace("lm_head", "words"): n for name, n in made.counts.modules.items()}
    after = corrected(made.closed, Counts(made.counts.total, renamed))
    assert math.isclose(total(after), made.counts.total)
