"""Which tensors two stages of a model may both hold: what its configuration says is tied."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from services.checkpoint.naming import is_head, is_token_table

_TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config")
_SHARED = re.compile(r"(?:^|\.)shared\.weight\Z")


def tied_names(config: Mapping[str, Any], names: Collection[str]) -> tuple[str, ...]:
    """The token embeddings and heads among a checkpoint's `names` that `config` ties.

    Where it does not say, they are tied if no head is stored. What an encoder and a decoder share
    is one tensor whatever it says.
    """
    heads = [name for name in names if is_head(name)]
    said = config.get("tie_word_embeddings")
    for key in _TEXT_PARTS:
        part = config.get(key)
        if said is None and isinstance(part, Mapping):
            said = part.get("tie_word_embeddings")
    tied = said if isinstance(said, bool) else not heads
    tables = [n for n in names if is_token_table(n) and (tied or _SHARED.search(n))]
    return tuple(sorted({*tables, *(heads if tied else ())}))
