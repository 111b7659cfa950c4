"""Small models of every family, made by transformers with random weights and saved as it saves."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.profiler.counting import Counter

_SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 176,
    "vocab_size": 300,
}
_GROUPED = _SMALL | {"num_key_value_heads": 2}
_WIDE = _GROUPED | {"head_dim": 32}
_MOE = _GROUPED | {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_SEEN = {k: v for k, v in _SMALL.items() if k != "vocab_size"}
_T5 = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 3, "num_heads": 4, "vocab_size": 300}
_BART = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 96,
    "vocab_size": 300,
}
_TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
_MLA = _SMALL | {
    "num_key_value_heads": 4,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}

DENSE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", _GROUPED),
    "llama tied": ("LlamaForCausalLM", "LlamaConfig", _GROUPED | {"tie_word_embeddings": True}),
    "llama, bare": ("LlamaModel", "LlamaConfig", _GROUPED),
    "mistral": ("MistralForCausalLM", "MistralConfig", _GROUPED | {"sliding_window": 8}),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", _GROUPED),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", _WIDE),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", _WIDE),
    "gemma2, narrow": ("Gemma2ForCausalLM", "Gemma2Config", _WIDE | {"sliding_window": 8}),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", _WIDE),
    "gpt2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {"n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 300},
    ),
    "opt": ("OPTForCausalLM", "OPTConfig", _SMALL | {"ffn_dim": 128, "word_embed_proj_dim": 32}),
    "phi": ("PhiForCausalLM", "PhiConfig", _SMALL),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", _GROUPED | {"pad_token_id": 0}),
    "neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", _SMALL),
    "bert": ("BertModel", "BertConfig", _SMALL),
    "bert, masked": ("BertForMaskedLM", "BertConfig", _SMALL),
    "bert, a label a sequence": ("BertForSequenceClassification", "BertConfig", _SMALL),
    "bert, a label a token": ("BertForTokenClassification", "BertConfig", _SMALL),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig", _SMALL),
    "distilbert": (
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        {"dim": 64, "n_layers": 3, "n_heads": 4, "hidden_dim": 128, "vocab_size": 300},
    ),
    "albert": ("AlbertModel", "AlbertConfig", _SMALL | {"embedding_size": 32}),
    "albert, masked": ("AlbertForMaskedLM", "AlbertConfig", _SMALL | {"embedding_size": 32}),
    "albert, two groups": (
        "AlbertForMaskedLM",
        "AlbertConfig",
        _SMALL | {"embedding_size": 32, "num_hidden_groups": 2, "inner_group_num": 2},
    ),
    "bart": ("BartForConditionalGeneration", "BartConfig", _BART),
    "bart, bare": ("BartModel", "BartConfig", _BART),
    "mbart": ("MBartForConditionalGeneration", "MBartConfig", _BART),
    "whisper": (
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        _BART | _TOKENS | {"num_mel_bins": 8, "max_source_positions": 60, "pad_token_id": 0},
    ),
    "t5": ("T5ForConditionalGeneration", "T5Config", _T5),
    "mt5": ("MT5ForConditionalGeneration", "MT5Config", _T5),
    "vit": ("ViTForImageClassification", "ViTConfig", _SEEN | {"image_size": 64, "patch_size": 8}),
}
ROUTED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", _GROUPED | {"num_local_experts": 8}),
    "qwen2 moe": (
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        _MOE | {"shared_expert_intermediate_size": 48},
    ),
    "qwen3 moe": ("Qwen3MoeForCausalLM", "Qwen3MoeConfig", _MOE | {"head_dim": 16}),
    "deepseek v2": (
        "DeepseekV2ForCausalLM",
        "DeepseekV2Config",
        _MLA | {"n_group": 1, "q_lora_rank": None},
    ),
    "deepseek v3": (
        "DeepseekV3ForCausalLM",
        "DeepseekV3Config",
        _MLA | {"n_group": 2, "q_lora_rank": 16},
    ),
    "gpt-oss": (
        "GptOssForCausalLM",
        "GptOssConfig",
        _GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16},
    ),
}
FAMILIES = DENSE | ROUTED


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Any]]:
    """Make a family's small model: its directory, and the model itself; each made once."""
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    made: dict[str, tuple[Path, Any]] = {}

    def make(family: str) -> tuple[Path, Any]:
        if family not in made:
            kind, config, settings = FAMILIES[family]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = getattr(transformers, kind)(getattr(transformers, config)(**settings))
                folder = tmp_path_factory.mktemp("model")
                model.save_pretrained(folder)
            made[family] = (folder, model)
        return made[family]

    return make


@pytest.fixture(scope="session")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counter]:
    """A counter with a warm child of its own."""
    pytest.importorskip("transformers")
    counting = Counter(tmp_path_factory.mktemp("flops"))
    yield counting
    counting.close()
