"""What can be said of a layout that is not known: rough, and no memory is forgotten."""

import re
from collections.abc import Collection, Iterable

from services.profiler.architecture import Architecture
from services.profiler.families import FAMILIES, Family
from services.profiler.places import Place, is_run
from services.profiler.ties import Ties

_HEAD = re.compile(
    r"(^|\.)(lm_head|embed_out|proj_out|output_projection|generator_lm_head|vocab_projector"
    r"|decoder)\.(q?weight|weight_packed)$|^(head|output)\.weight$"
)
_SEEN = re.compile(r"(^|\.)(visual|vision\w*|audio\w*|image\w*|multi_modal_projector)\.")
_TABLES = (*dict.fromkeys(f.table for f in FAMILIES.values() if f.table), "tok_embeddings.weight")


def guessed_family(architecture: Architecture) -> Family:
    """A family of one stack, or of an encoder's and a decoder's, which nobody may cut."""
    stacks = ("encoder", "decoder") if architecture.is_encoder_decoder else ("layers",)
    return Family(stacks=stacks, decodes=architecture.writes)


def guessed_places(names: Iterable[str], architecture: Architecture) -> dict[str, Place]:
    """Every tensor in the layer that its name counts, an encoder's in the first of two stacks.

    What looks at pictures, or hears, beside a model that writes is held and not computed.
    """
    names, stacks = tuple(names), 1 + architecture.is_encoder_decoder
    apart = {name for name in names if _SEEN.search(name)}
    if not architecture.writes or len(apart) == len(names):
        apart = set()
    return {
        name: Place(
            "layer",
            _stack(name, architecture),
            _layer(name),
            name,
            runs=name not in apart and is_run(name, stacks),
        )
        for name in names
    }


def _stack(name: str, architecture: Architecture) -> int:
    return int(architecture.is_encoder_decoder and "encoder" not in name.split("."))


def _layer(name: str) -> int:
    numbers = (int(part) for part in name.split(".") if part.isdecimal() and len(part) < 7)
    return next(numbers, 0)


def guessed_ties(names: Collection[str], architecture: Architecture) -> Ties:
    """The token embedding that the head multiplies where no head is stored, and nothing denies it.

    A configuration in silence is not believed to mean a head of its own that nobody stored.
    """
    if architecture.tied is False or not architecture.has_head:
        return Ties()
    token = next((n for table in _TABLES for n in names if f".{n}".endswith(f".{table}")), None)
    if token is None:
        return Ties()
    head = next((name for name in names if is_head(name)), None)
    return Ties(((token, head or "lm_head.weight"),), None if head else token)


def is_head(name: str) -> bool:
    """Whether a tensor or module has the name of a head over the vocabulary."""
    return _HEAD.search(name) is not None
