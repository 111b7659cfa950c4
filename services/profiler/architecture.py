"""What a model's config.json says of its architecture, under one name for each thing.

Shapes come from the checkpoint's headers wherever they can; this holds what no header says.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from services.profiler.places import NO_STACK
from services.profiler.writing import writes

Config = Mapping[str, Any]

_HEADS = re.compile(
    r"LMHead|ForCausalLM|ForMaskedLM|(?<!Electra)ForPreTraining|ForConditionalGeneration"
    r"|DoubleHeads|MTModel"
)
_PER_SEQUENCE = re.compile(r"ForSequenceClassification|ForImageClassification|ForMultipleChoice")
_ENCODER_ALONE = re.compile(r"EncoderModel$")
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
# Other names are what the attribute maps of transformers' configurations give. How many experts
# there are and how wide each is, shapes say.
_HIDDEN = ("hidden_size", "n_embd", "d_model", "dim", "hidden_dim", "embed_dim", "emb_dim")
_VISITS = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "experts_per_token",
    "top_k_experts",
    "moe_k",
    "moe_topk",
    "moe_top_k",
)
_STATES = ("mamba_d_state", "ssm_state_size", "state_size", "linear_key_head_dim")
_COUNTS = ("num_attention_heads", "n_head", "num_heads")
_CACHED = ("num_key_value_heads", "num_kv_heads", "n_head_kv")
_INNER = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
_QUANTIZATIONS = ("quantization_config", "compression_config", "quantization")  # the last: MLX's
# The families whose last layers use the keys and values of others, by how their types begin.
_SHARING = ("gemma3n", "gemma4")
_BITS = {"float64": 64, "float32": 32, "bfloat16": 16, "float16": 16}
# Activation functions that transformers writes out, a tensor for each step; the others are fused.
_WRITTEN_OUT = ("gelu_new", "gelu_fast", "quick_gelu", "gelu_accurate", "mish", "laplace")


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """`windows` gives each layer's attention window in tokens, None where it sees everything.

    `top_k` is how many routed experts each token visits, `tied` what the configuration says of the
    head and the token embedding (None: nothing), `has_head` whether the class computes one,
    `element_bytes` the size of an activation, 0 where the configuration names no dtype;
    `inner_copies` how many inner vectors an MLP's activation function holds at once. `depths` are
    the layers of an encoder and of its decoder, 0 where the configuration does not say, NO_STACK
    where its class has none;
    `source_positions` what an audio encoder reads, whatever the sequence. `passes` is how often
    each stored layer runs, empty where each runs once (ALBERT: `layers` are its groups).
    `state_width` is how many numbers a recurrent state keeps of each inner channel. `query_width`
    and `cached_width` are heads × head dimension of queries and of keys, `inner_width` an MLP's:
    for weights whose shapes cannot be read. `writes` says whether it makes a token after another,
    `is_decoder` that config.json has an encoder's family do so; `predictors` are layers stored
    beyond `layers`, each of which predicts one more token.
    """

    model_type: str
    names: tuple[str, ...]
    hidden: int
    query_width: int
    cached_width: int
    inner_width: int
    layers: int
    top_k: int
    windows: tuple[int | None, ...]
    tied: bool | None
    has_head: bool | None
    per_sequence_head: bool
    element_bytes: int
    inner_copies: int
    quantization: Mapping[str, Any]
    shared_kv_layers: int
    layer_types: tuple[str, ...]
    depths: tuple[int, int]
    source_positions: int
    passes: tuple[int, ...]
    state_width: int
    writes: bool
    is_decoder: bool
    is_encoder_decoder: bool
    predictors: int


def read_architecture(config: Config) -> Architecture:
    """The architecture that a config.json describes; a multimodal model's is its language part."""
    text = _text_part(config)
    passes = _passes(text) if text.get("model_type") == "albert" else ()
    layers = len(passes) or _number(text, *_LAYERS)
    kinds = text.get("layer_types")
    listed = config.get("architectures")
    names = tuple(map(str, listed)) if isinstance(listed, list) else ()
    dtype = text.get("dtype") or text.get("torch_dtype") or config.get("torch_dtype") or ""
    named = (part.get(key) for key in _QUANTIZATIONS for part in (config, text))
    heads = _number(text, *_COUNTS)
    width = _number(text, "head_dim") or _number(text, *_HIDDEN) // max(heads, 1)
    tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings"))
    return Architecture(
        model_type=str(config.get("model_type") or "unknown"),
        names=names,
        hidden=_number(text, *_HIDDEN),
        query_width=heads * width,
        cached_width=(_number(text, *_CACHED) or heads) * width,
        inner_width=_number(text, *_INNER),
        layers=layers,
        top_k=_most(text, *_VISITS),
        windows=tuple(_window(text, index) for index in range(min(layers, 10_000))),
        tied=tied if isinstance(tied, bool) else None,
        has_head=any(_HEADS.search(name) for name in names) if names else None,
        per_sequence_head=any(_PER_SEQUENCE.search(name) for name in names),
        element_bytes=_BITS.get(str(dtype).removeprefix("torch."), 0) // 8,
        inner_copies=4 if _activation(text) in _WRITTEN_OUT else 2,
        quantization=next((found for found in named if isinstance(found, dict) and found), {}),
        shared_kv_layers=_shared(text),
        layer_types=tuple(map(str, kinds)) if isinstance(kinds, list) else (),
        depths=(
            _number(text, "encoder_layers", "num_layers"),
            NO_STACK
            if any(_ENCODER_ALONE.search(name) for name in names)
            else _number(text, "decoder_layers", "num_decoder_layers", "num_layers"),
        ),
        source_positions=_number(text, "max_source_positions"),
        passes=passes,
        state_width=_number(text, *_STATES),
        writes=writes(config, names),
        is_decoder=config.get("is_decoder") is True,
        is_encoder_decoder=config.get("is_encoder_decoder") is True,
        predictors=_number(text, "num_nextn_predict_layers"),
    )


def _shared(config: Config) -> int:
    kind = str(config.get("model_type") or "")
    return _number(config, "num_kv_shared_layers") if kind.startswith(_SHARING) else 0


def _passes(config: Config) -> tuple[int, ...]:
    """How often each of ALBERT's groups runs: its layers in order, the first share the first."""
    layers = min(_number(config, *_LAYERS), 10_000)
    groups = max(_number(config, "num_hidden_groups"), 1)
    runs = [index * groups // layers for index in range(layers)]
    return tuple(runs.count(group) for group in range(min(groups, layers)))


def _text_part(config: Config) -> Config:
    for key in ("text_config", "llm_config", "language_config", "thinker_config"):
        part = config.get(key)
        if isinstance(part, dict):
            return part
    return config


def _activation(config: Config) -> str:
    keys = ("hidden_act", "activation_function", "hidden_activation")
    named = next((config[key] for key in keys if isinstance(config.get(key), str)), None)
    return named or ("gelu_new" if config.get("model_type") == "gpt2" else "")


def _number(config: Config, *keys: str) -> int:
    """The first of `keys` that is a whole number of zero or more; 0 where none is."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40:
            return value
    return 0


def _most(config: Config, *keys: str) -> int:
    """The same, where a list may give a number for each layer: the largest of it."""
    for key in keys:
        value = config.get(key)
        listed = value if isinstance(value, list) else [value]
        found = max((_number({key: item}, key) for item in listed), default=0)
        if found:
            return found
    return 0


def _window(config: Config, index: int) -> int | None:
    kinds = config.get("layer_types")
    kind = str(config.get("model_type", ""))
    if isinstance(kinds, list) and index < len(kinds):
        if kinds[index] == "chunked_attention":
            return _number(config, "attention_chunk_size") or None
        sliding = kinds[index] == "sliding_attention"
    else:
        sliding = _slides(config, kind, index)
    default = 4096 if kind.startswith("gemma") else 0
    return (_number(config, "sliding_window") or default or None) if sliding else None


def _slides(config: Config, kind: str, index: int) -> bool:
    """Which layers slide where `layer_types` does not say: transformers' defaults by model type."""
    if kind == "gemma2":
        return index % 2 == 0
    if kind in ("gemma3", "gemma3_text", "cohere2"):
        default = 4 if kind == "cohere2" else 6
        return (index + 1) % (_number(config, "sliding_window_pattern") or default) != 0
    if kind.startswith("qwen"):
        return bool(config.get("use_sliding_window")) and index >= _number(
            config, "max_window_layers"
        )
    return kind in ("mistral", "mixtral", "phi3", "starcoder2", "phimoe", "ministral")
