"""The confined child process that counts: a configuration a line in, counts a line out.

Run as a script, `python -I count_child.py SCRATCH SECONDS`, so that it imports nothing of williw. A
configuration has been a way to run code: before the first is read, this process has given up
writing outside SCRATCH, reading outside Python's own folders, sockets, signals, new programs and
processes.
"""

import contextlib
import json
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

_MEMORY_BYTES = 8 << 30
_FILE_BYTES = 16 << 20
_MAX_LAYERS = 2_000
# What names code to fetch, kernels to load, or formats that need their own libraries.
_DROPPED = frozenset(
    {
        "auto_map",
        "custom_pipelines",
        "quantization_config",
        "compression_config",
        "kernel_config",
        "_name_or_path",
        "name_or_path",
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_internal",
        "experts_implementation",
        "_experts_implementation",
        "_experts_implementation_internal",
        "torch_dtype",
        "dtype",
        "use_kernels",
    }
)


def cleaned(value: object) -> object:
    """A configuration without the keys that could name code, at every depth; infinities as such."""
    if isinstance(value, dict):
        tagged = value.get("__float__")
        if len(value) == 1 and tagged in ("Infinity", "-Infinity", "NaN"):
            return float(tagged)
        return {k: cleaned(v) for k, v in value.items() if k not in _DROPPED}
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    return value


def build(config: dict[str, Any], *, eager: bool = False) -> Any:
    """The model on the meta device: its class in transformers, never one from the Hub."""
    import torch
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = config.get("model_type")
    if kind not in CONFIG_MAPPING:
        raise ValueError(f"transformers {transformers.__version__} has no model type {kind}")
    settings = CONFIG_MAPPING[kind].from_dict(cleaned(config))
    chosen = transformers.AutoModel
    for name in config.get("architectures") or ():
        found: Any = getattr(transformers, str(name), None)
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            if isinstance(settings, getattr(found, "config_class", None) or ()):
                chosen = found
            break
    make = getattr(chosen, "_from_config", None) or chosen.from_config
    # An encoder-decoder's masks for fused attention depend on values, which there are none of here.
    attention = "eager" if settings.is_encoder_decoder or eager else "sdpa"
    with torch.device("meta"):
        try:
            model = make(
                settings, attn_implementation=attention, experts_implementation="batched_mm"
            )
        except (ValueError, ImportError, TypeError):
            model = make(settings, attn_implementation="eager")
    return model.eval()


def inputs_of(model: Any, batch: int, sequence: int) -> dict[str, Any]:
    """Inputs of the right shapes, without values."""
    import torch

    config = model.config
    if model.main_input_name == "pixel_values":
        size = config.image_size
        height, width = size if isinstance(size, list | tuple) else (size, size)
        shape = (batch, config.num_channels, height, width)
        return {"pixel_values": torch.empty(shape, device="meta")}
    ids = torch.zeros((batch, sequence), dtype=torch.long, device="meta")
    if model.main_input_name == "input_features":
        frames = torch.empty(
            (batch, config.num_mel_bins, 2 * config.max_source_positions), device="meta"
        )
        return {"input_features": frames, "decoder_input_ids": ids}
    if config.is_encoder_decoder:
        return {"input_ids": ids, "decoder_input_ids": ids.clone()}
    return {"input_ids": ids[:, None] if "MultipleChoice" in type(model).__name__ else ids}


def embedded(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """The same inputs as vectors: some models look at ids for padding, and these have no values."""
    import torch

    width = model.get_input_embeddings().weight.shape[-1]
    vectors = torch.empty((*inputs["input_ids"].shape, width), device="meta")
    return {"inputs_embeds": vectors} | {k: v for k, v in inputs.items() if k != "input_ids"}


def ending(model: Any) -> Any:
    """The model with its head on the last vector, not on that of a token it would look for."""
    head, whole = model.classification_head, model.base_model
    model.forward = lambda **given: head(whole(**given)[0][:, -1])
    return model


def count(request: dict[str, Any]) -> dict[str, Any]:
    """FLOP of one forward pass: in all, and within each module by its name.

    Where a model cannot run without values it is tried in other ways, whose products are the same.
    """
    config = request["config"]
    _check_size(config)
    model = build(config)
    if getattr(model.config, "pad_token_id", 0) is None:
        model.config.pad_token_id = 0
    inputs = inputs_of(model, request["batch"], request["sequence"])
    ways: tuple[Callable[[], tuple[Any, dict[str, Any]]], ...] = (
        lambda: (model, inputs),
        lambda: (model, embedded(model, inputs)),
        lambda: (ending(model), inputs),
        lambda: (build(config, eager=True), inputs),
    )
    errors: list[Exception] = []
    for way in ways:
        try:
            return run(*way())
        except Exception as error:  # noqa: BLE001 - a model raises anything; other ways may do
            errors.append(error)
    raise errors[0]


def run(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """What torch counts while `model` runs."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(**inputs)
    root = type(model).__name__
    modules = {
        name.removeprefix(root).removeprefix("."): sum(operations.values())
        for name, operations in counter.get_flop_counts().items()
        if name.startswith(root)
    }
    return {"total": counter.get_total_flops(), "modules": modules}


def _check_size(config: dict[str, Any]) -> None:
    for key in ("num_hidden_layers", "n_layer", "num_layers", "n_layers"):
        if isinstance(config.get(key), int) and config[key] > _MAX_LAYERS:
            raise ValueError(f"{key} is {config[key]}, more than any real model has")


def answer(line: str) -> dict[str, Any]:
    """The answer to one request; whatever a configuration provokes becomes a reason."""
    try:
        return count(json.loads(line))
    except Exception as error:  # noqa: BLE001 - transformers raises anything; the parent decides
        # A whole paragraph of torch's begins with what it is about.
        said = str(error).strip().partition("\n")[0].partition(". ")[0]
        return {"error": f"{type(error).__name__}: {said[:160]}"}


def main(scratch: str, idle_cpu_s: int) -> None:
    """Confine this process, then answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES, _FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (idle_cpu_s, idle_cpu_s))
    problem = confine(scratch)
    print(json.dumps({"confined": not problem, "error": problem}), file=answers, flush=True)
    if problem:
        return
    with contextlib.suppress(KeyboardInterrupt):
        for line in sys.stdin:
            print(json.dumps(answer(line)), file=answers, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    from confine import confine  # type: ignore[import-not-found]

    sys.path.pop(0)
    main(sys.argv[1], int(sys.argv[2]))
