"""What the names of a checkpoint's tensors tell: the layer, the embedding, the head."""

import re

_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?|decoder|encoder)\.(\d+)\.")
_EMBEDDING = re.compile(r"(embed(?!_out\b)|\bwte\b|\bwpe\b|^shared\.)")
_HEAD = re.compile(r"(lm_head|embed_out|^score\.|classifier|pooler)")
_TABLES = ("embed_tokens", "wte", "word_embeddings", "embed_in", "shared", "embeddings")
_HEADS = (
    "lm_head",
    "lm_head.decoder",
    "embed_out",
    "predictions.decoder",
    "vocab_projector",
    "proj_out",
)


def layer_of(name: str) -> tuple[str, int] | None:
    """The stack that a tensor belongs to, such as `model.layers`, and its layer; None outside."""
    found = _LAYER.search(name)
    return (name[: found.start(1)], int(found[1])) if found else None


def is_embedding(name: str) -> bool:
    """Whether a tensor belongs to what turns tokens, positions or patches into vectors."""
    return layer_of(name) is None and bool(_EMBEDDING.search(name))


def is_output(name: str) -> bool:
    """Whether a tensor belongs to what turns vectors into the model's answer."""
    return layer_of(name) is None and bool(_HEAD.search(name))


def is_token_table(name: str) -> bool:
    """Whether a tensor is a token embedding, which a head may be tied to."""
    return _ends_with(name, _TABLES)


def is_head(name: str) -> bool:
    """Whether a tensor is a matrix that may be tied to the token embedding."""
    return _ends_with(name, _HEADS)


def _ends_with(name: str, modules: tuple[str, ...]) -> bool:
    return layer_of(name) is None and f".{name}".endswith(tuple(f".{m}.weight" for m in modules))
