"""What a tensor within a layer does, by the names that transformers' models use."""

import re
from collections.abc import Sequence
from typing import Literal

from messages.metadata import LayerType

Role = Literal[
    "query", "key_value", "fused_qkv", "latent_kv", "latent_up", "output", "attention",
    "mlp", "expert", "router", "norm", "lookup", "conv", "state", "other",
]  # fmt: skip

_ATTENTION = re.compile(
    r"(?:^|\.)(self_attn|attn|attention|self_attention|SelfAttention|EncDecAttention|encoder_attn"
    r"|cross_attn|crossattention)(?=\.)"
)
_CROSS = ("EncDecAttention", "encoder_attn", "cross_attn", "crossattention")
_NORM = re.compile(r"(norm|layernorm|ln_\w+|ln|layer_norm\w*|\w+_norm)(\.(weight|bias))?$", re.I)
_ROUTER = re.compile(r"(mlp|moe|block_sparse_moe|feed_forward)\.(gate|router)\b|(^|\.)router\b")
# MLX's name for experts, and Granite's, which stacks them in the block itself.
_EXPERT = re.compile(r"(^|\.)(experts|switch_mlp)\b")
_STACKED = re.compile(r"(^|\.)(input|output)_linear\b")
_STATE = re.compile(r"(^|\.)(mamba|mixer|linear_attn|ssm|temporal_block|conv)\.")
_LEAVES: dict[str, Role] = {
    **dict.fromkeys(("q_proj", "query", "q", "q_lin", "q_b_proj", "wq"), "query"),
    **dict.fromkeys(
        ("k_proj", "v_proj", "kv_proj", "key", "value", "k", "v", "k_lin", "v_lin"), "key_value"
    ),
    **dict.fromkeys(
        ("c_attn", "qkv_proj", "query_key_value", "Wqkv", "qkv", "W_pack"), "fused_qkv"
    ),
    "kv_a_proj_with_mqa": "latent_kv",
    "kv_b_proj": "latent_up",
    **dict.fromkeys(("o_proj", "out_proj", "c_proj", "dense", "o", "out_lin", "wo"), "output"),
}
_RETURNING = ("down_proj", "w2", "fc2", "c_proj", "dense_4h_to_h", "lin2", "wo", "fc_out")
_TYPES: dict[Role, LayerType] = {
    **dict.fromkeys(
        ("query", "key_value", "fused_qkv", "latent_kv", "latent_up", "output", "attention"),
        "attention",
    ),
    "mlp": "mlp",
    "expert": "expert",
    "router": "router",
    "norm": "norm",
    "lookup": "embedding",
    "conv": "conv",
    "state": "state",
    "other": "other",
}


def role_of(rest: str, rank: int) -> Role:
    """The role of the tensor called `rest` within its layer, which has `rank` dimensions."""
    if _NORM.search(rest.removesuffix(".weight").removesuffix(".bias")) and rank <= 2:
        return "norm"
    if "relative_attention_bias" in rest or "position_embeddings" in rest:
        return "lookup"
    if _EXPERT.search(rest):
        return "expert"
    if _ROUTER.search(rest):
        return "router"
    if _STATE.search(rest):
        return "state"
    attention = _ATTENTION.search(rest)
    if attention is None:
        stacked = rank == 3 and _STACKED.search(rest)
        return "mlp" if rank <= 2 else "expert" if stacked else "conv"
    return _LEAVES.get(_module(rest), "attention")


def attention_of(rest: str) -> str:
    """The attention module a tensor belongs to (`self_attn`, `layer.1.EncDecAttention`), or ""."""
    found = _ATTENTION.search(rest)
    return rest[: found.end()] if found else ""


def is_cross(attention: str) -> bool:
    """Whether this attention module looks at the encoder's output."""
    return attention.rpartition(".")[2] in _CROSS


def is_projection(rest: str) -> bool:
    """Whether a tensor before the layers brings embeddings to the hidden size."""
    return "project" in rest or "hidden_mapping" in rest


def is_convolution(rest: str, rank: int) -> bool:
    """Whether a tensor before the layers convolves an image or the frames of a sound."""
    return rank == 4 or (rank == 3 and _module(rest).startswith("conv"))


def type_of(role: Role) -> LayerType:
    """The metadata's layer type of a role."""
    return _TYPES[role]


def is_turned(rest: str, shape: Sequence[int], hidden: int) -> bool:
    """Whether the matrix keeps an input a row: GPT-2's Conv1D layers.

    Linear layers have these names too (GPT-BigCode, StarCoder2), so the side that is `hidden` wide
    decides; where both are, or none, they are Conv1D layers.
    """
    module = _module(rest)
    if module not in ("c_attn", "c_proj", "c_fc", "q_attn") or len(shape) != 2:
        return False
    near, far = shape if module != "c_proj" else reversed(shape)
    return near == hidden or far != hidden


def is_returning(rest: str) -> bool:
    """Whether an MLP's matrix brings its inner vector back to the hidden width."""
    return _module(rest) in _RETURNING or rest.endswith("output.dense.weight")


def _module(rest: str) -> str:
    """The last module in a parameter's name: `q_proj` of `self_attn.q_proj.weight`."""
    parts = rest.split(".")
    known = {"weight", "bias", "qweight", "weight_packed"}
    return parts[-2] if len(parts) > 1 and parts[-1] in known else parts[-1]
