"""What an engine must know of a stage: its layers, whether it embeds or answers, how to load it."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import msgspec

from messages.ids import Count
from services.checkpoint.naming import is_embedding, is_head, is_output, is_token_table, layer_of

_TRANSFORMERS = """\
# Run in the stage's directory. What it lacks stays on the meta device; from_pretrained would
# fill it with random values. What is computed, not stored (rotary tables, position ids), is on
# the meta device too: build those modules again outside of it, as type(module)(config). For a
# model without a language head take AutoModel.
import json, torch
from pathlib import Path
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM
config = AutoConfig.from_pretrained(".")
with torch.device("meta"):
    model = AutoModelForCausalLM.from_config(config)
index = json.loads(Path("model.safetensors.index.json").read_text())
weights = {}
for file in set(index["weight_map"].values()):
    weights |= load_file(file)
foreign = model.load_state_dict(weights, strict=False, assign=True).unexpected_keys
model.tie_weights()
# transformers 5 has other names for some: it fuses the experts of Mixtral and the like, and calls
# the head of GPT-NeoX lm_head. Those are not loaded: rename or stack them first, or take a release
# that names them as the checkpoint does.
assert not foreign, f"not loaded: {len(foreign)} of {len(weights)}, such as {foreign[0]}"
"""
_LAYERS = {
    "mlx-lm": "load_model(path, strict=False, lazy=True), then run layer_range only",
    "exo": "give layer_range.start and layer_range.end as the shard's start_layer and end_layer",
}


class LayerRange(msgspec.Struct, frozen=True, kw_only=True):
    """Layers [start, end), and the same as first and last, both included."""

    start: Count
    end: Count
    first: Count
    last: Count


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """What a stage is for: its whole layers, and whether it has the embedding and the head."""

    layer_range: LayerRange | None
    has_embedding: bool
    has_head: bool


@dataclass(frozen=True)
class Whole:
    """The model that stages are parts of: its tensors, how many each layer has, and its head.

    `answers` says that some tensor is a head of its own.
    """

    tensors: int
    layers: Mapping[tuple[str, int], int]
    answers: bool


def whole_of(names: Collection[str]) -> Whole:
    """The model that has tensors of these names."""
    return Whole(len(names), _layers(names), any(_answers(name) for name in names))


def role_of(
    held: Collection[str], whole: Whole, tied: Collection[str], *, first: bool, last: bool
) -> Role:
    """The role of a stage that holds these tensors of a model.

    A tied embedding is an embedding on the first stage and the head on the last. Where no tensor of
    the model is a head of its own, the last stage makes the answer.
    """
    tables = (name for name in held if is_embedding(name) or is_token_table(name))
    return Role(
        layer_range=layer_range(held, whole),
        has_embedding=any(first or name not in tied for name in tables),
        has_head=any(_answers(name) for name in held) or (last and not whole.answers),
    )


def layer_range(held: Iterable[str], whole: Whole) -> LayerRange | None:
    """The layers among `held`, or None: none, not in a row, of several stacks, or not whole."""
    mine = _layers(held)
    if len({stack for stack, _ in mine}) != 1:
        return None
    numbers = [number for _, number in mine]
    first, last = min(numbers), max(numbers)
    if len(numbers) != last - first + 1:
        return None
    if any(whole.layers.get(layer) != count for layer, count in mine.items()):
        return None
    return LayerRange(start=first, end=last + 1, first=first, last=last)


def launch_advice(layers: LayerRange | None) -> dict[str, str]:
    """How each engine loads a stage; those that run layers in a row need some that are."""
    return {"transformers": _TRANSFORMERS, **(_LAYERS if layers else {})}


def _layers(names: Iterable[str]) -> Counter[tuple[str, int]]:
    return Counter(layer for name in names if (layer := layer_of(name)))


def _answers(name: str) -> bool:
    return is_output(name) or is_head(name)
