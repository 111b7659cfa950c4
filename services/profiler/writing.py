"""Whether a model writes text a token at a time, and so keeps a cache, by what config.json says."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

_WRITES = re.compile(r"LMHead|ForCausalLM|ForConditionalGeneration|DoubleHeads|MTModel|Seq2Seq")
_READS = re.compile(r"ForMaskedLM|EncoderModel|VisionModel|ForImageClassification|ForMaskedImage")
# What transformers has a masked language model or an image classifier of, and nothing that writes.
_ENCODERS = re.compile(
    r"(beit|clip|siglip2?)(_text_model|_vision_model)?|data2vec-(text|vision)|deit|swin(v2)?"
    r"|dinov2(_with_registers)?|vit(_msn)?|electra|ernie|esm|f(laubert|net|unnel)|gte|layoutlm"
    r"|longformer|luke|mpnet|mra|nystromformer|roformer|tapas|xmod|yoso|big_bird"
    r"|(\w+[-_]?)?(bert|deberta|roberta)(-v2|-prelayernorm|-xl)?"
)


def writes(config: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Whether `config`, whose classes are `names`, is of a model that writes.

    Where nothing says so it does: memory that is kept free in vain is better than too little.
    """
    if config.get("is_decoder") is True:
        return True
    if any(_READS.search(name) for name in names):
        return False
    if config.get("is_encoder_decoder") is True or any(_WRITES.search(name) for name in names):
        return True
    return not _ENCODERS.fullmatch(str(config.get("model_type")))
