"""The layouts williw knows: where each tensor of a checkpoint belongs in the forward pass.

A layout is known by its model type AND by its names: one tensor without a place, and the model is
one uncuttable block. Prefixes are optional, since a checkpoint may hold the bare model.
"""

from typing import NamedTuple

# Heads of transformers' classes: of the vocabulary, of a sequence, of each token, of an answer.
_HEADS = ("lm_head.", "score.", "classifier.", "qa_outputs.")


class Family(NamedTuple):
    """Name prefixes of the parts of a model, in execution order.

    `prefixes` are those of the bare model within a larger one; `stacks` the lists of layers, the
    names below a prefix; `first` and `last` the parts before and after them; `closing` parts that
    follow a stack other than the last. `token` is the token embedding, `head` the matrix that may
    be tied to it, `tied` the default of `tie_word_embeddings`. `apart` are parts a text forward
    does not run. `whole` says why every block must share one node ("" where cuts are legal).
    `vision` marks models whose tokens are patches, whatever the sequence length; `audio` encoders
    that read a fixed number of frames. `copies` are further names of the token embedding.
    """

    prefixes: tuple[str, ...] = ("model.", "transformer.")
    stacks: tuple[str, ...] = ("layers",)
    first: tuple[str, ...] = ("embed_tokens.",)
    last: tuple[str, ...] = ("norm.", *_HEADS)
    closing: tuple[tuple[str, str], ...] = ()
    table: str = "embed_tokens.weight"
    head: str = "lm_head.weight"
    tied: bool = False
    apart: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()
    whole: str = ""
    vision: bool = False
    audio: bool = False
    copies: tuple[str, ...] = ()
    decodes: bool = True


_STACKS = ("encoder", "decoder")
_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_LLAMA = Family()
_TIED_LLAMA = Family(tied=True)
_PHI = Family(last=("final_layernorm.", *_HEADS))
_GPT2 = Family(
    prefixes=("transformer.",),
    stacks=("h",),
    first=("wte.", "wpe."),
    last=("ln_f.", *_HEADS),
    table="wte.weight",
    tied=True,
)
_BLOOM = Family(
    prefixes=("transformer.",),
    stacks=("h",),
    first=("word_embeddings.", "word_embeddings_layernorm."),
    last=("ln_f.", *_HEADS),
    table="word_embeddings.weight",
    tied=True,
)
_NEOX = Family(
    prefixes=("gpt_neox.",),
    first=("embed_in.",),
    last=("final_layer_norm.", "embed_out.", *_HEADS),
    table="embed_in.weight",
    head="embed_out.weight",
)
_OPT = Family(
    prefixes=("model.decoder.", "decoder."),
    first=("embed_tokens.", "embed_positions.", "project_in."),
    last=("project_out.", "final_layer_norm.", *_HEADS),
    tied=True,
)
_BERT_LAST = ("pooler.", "cls.", "classifier.", "qa_outputs.", "lm_head.", "pre_classifier.")
_BERT = Family(
    prefixes=("bert.",),
    stacks=("encoder.layer",),
    first=("embeddings.",),
    last=_BERT_LAST,
    table="embeddings.word_embeddings.weight",
    head="cls.predictions.decoder.weight",
    tied=True,
    decodes=False,
)
_ROBERTA = _BERT._replace(prefixes=("roberta.",), head="lm_head.decoder.weight")
_DISTILBERT = _BERT._replace(
    prefixes=("distilbert.",),
    stacks=("transformer.layer",),
    last=("vocab_transform.", "vocab_layer_norm.", "vocab_projector.", *_BERT_LAST),
    head="vocab_projector.weight",
)
_MPNET = _BERT._replace(
    prefixes=("mpnet.",),
    first=("embeddings.", "encoder.relative_attention_bias."),
    head="lm_head.decoder.weight",
    whole="the relative position bias of the encoder is used in every layer",
)
_T5 = Family(
    prefixes=("transformer.",),
    stacks=("encoder.block", "decoder.block"),
    first=("shared.", "encoder.embed_tokens.", "decoder.embed_tokens."),
    last=("decoder.final_layer_norm.", "lm_head."),
    closing=(("encoder.final_layer_norm.", "encoder.block"),),
    table="shared.weight",
    tied=True,
    copies=_COPIES,
    whole="every decoder layer attends to the encoder's output, and layers share position biases",
)
_BART = Family(
    stacks=("encoder.layers", "decoder.layers"),
    first=(
        "shared.",
        *(f"{stack}.embed_{what}." for stack in _STACKS for what in ("tokens", "positions")),
        *(f"{stack}.layernorm_embedding." for stack in _STACKS),
    ),
    last=("decoder.layer_norm.", "final_logits_bias", "lm_head.", "classification_head."),
    closing=(("encoder.layer_norm.", "encoder.layers"),),
    table="shared.weight",
    tied=True,
    copies=_COPIES,
    whole="every decoder layer attends to the encoder's output",
)
_WHISPER = _BART._replace(
    first=("encoder.conv1.", "encoder.conv2.", *_BART.first),
    last=("decoder.layer_norm.", "proj_out."),
    table="decoder.embed_tokens.weight",
    head="proj_out.weight",
    copies=(),
    audio=True,
)
# Its layers are groups of tensors, each of which runs several times in a row.
_ALBERT = _BERT._replace(
    prefixes=("albert.",),
    stacks=("encoder.albert_layer_groups",),
    first=("embeddings.", "encoder.embedding_hidden_mapping_in."),
    last=("pooler.", "predictions.", "sop_classifier.", "classifier.", "qa_outputs."),
    head="predictions.decoder.weight",
)
_VIT = Family(
    prefixes=("vit.",),
    stacks=("encoder.layer",),
    first=("embeddings.",),
    last=("layernorm.", "pooler.", "classifier."),
    table="",
    head="",
    vision=True,
    decodes=False,
)
_GEMMA3 = Family(
    prefixes=("language_model.model.", "model.language_model.", "model."),
    last=("norm.", "lm_head.", "language_model.lm_head."),
    tied=True,
    apart=(
        "vision_tower.",
        "multi_modal_projector.",
        "model.vision_tower.",
        "model.multi_modal_projector.",
    ),
)

# Hybrids: blocks of attention, of a recurrent state, or of both, in one list; each keeps its own
# state. Zamba's shared blocks are none: they run several times, with the embeddings' output.
_JAMBA = Family(last=("final_layernorm.", *_HEADS))
_MAMBA = Family(
    prefixes=("backbone.",),
    first=("embeddings.",),
    last=("norm_f.", "lm_head."),
    table="embeddings.weight",
    tied=True,
)

_LLAMA_TYPES = (
    "llama",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen3",
    "qwen2_moe",
    "qwen3_moe",
    "deepseek_v2",
    "deepseek_v3",
    "olmo",
    "olmo2",
    "olmoe",
    "phi3",
    "phimoe",
    "stablelm",
    "gpt_oss",
    "granite",
    "granitemoe",
    "glm",
    "glm4",
    "glm4_moe",
    "minimax_m2",
    "helium",
    "seed_oss",
    "exaone4",
    "arcee",
    "dots1",
    "apertus",
    "cwm",
    "diffllama",
    "exaone_moe",
    "flex_olmo",
    "glm4_moe_lite",
    "granitemoeshared",
    "hunyuan_v1_dense",
    "hyperclovax",
    "jais2",
    "llama4_text",
    "mimo_v2_flash",
    "ministral",
    "ministral3",
    "nanochat",
    "nemotron",
    "olmo3",
    "solar_open",
)
_TIED_LLAMA_TYPES = (
    "gemma",
    "gemma2",
    "gemma3_text",
    "cohere",
    "cohere2",
    "ernie4_5",
    "ernie4_5_moe",
    "granite_swa",
    "smollm3",
    "starcoder2",
    "vaultgemma",
)
FAMILIES: dict[str, Family] = {
    **dict.fromkeys(_LLAMA_TYPES, _LLAMA),
    **dict.fromkeys(_TIED_LLAMA_TYPES, _TIED_LLAMA),
    "gemma3": _GEMMA3,
    "jamba": _JAMBA,
    "bamba": _JAMBA,
    "falcon_h1": _JAMBA,
    "granitemoehybrid": _LLAMA,
    **dict.fromkeys(("qwen3_next", "qwen3_5_text"), _LLAMA._replace(beyond=("mtp.",))),
    **dict.fromkeys(("lfm2", "lfm2_moe"), Family(last=("embedding_norm.", "lm_head."), tied=True)),
    "mamba": _MAMBA,
    "mamba2": _MAMBA._replace(tied=False),
    "falcon_mamba": _MAMBA,
    "phi": _PHI,
    "gpt2": _GPT2,
    "gptj": _GPT2._replace(tied=False),
    "bloom": _BLOOM,
    "falcon": _BLOOM,
    "gpt_neox": _NEOX,
    "opt": _OPT,
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": _DISTILBERT,
    "mpnet": _MPNET,
    "albert": _ALBERT,
    "bart": _BART,
    "mbart": _BART,
    "whisper": _WHISPER,
    "t5": _T5,
    "mt5": _T5,
    "vit": _VIT,
    "deit": _VIT._replace(prefixes=("deit.",)),
    "dinov2": _VIT._replace(prefixes=("dinov2.",)),
}
