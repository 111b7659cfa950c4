"""A whole model of a few hundred kilobytes with random weights, made without torch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

_CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "torch_dtype": "float32",
    "vocab_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
    "max_position_embeddings": 512,
}


def write_model(folder: Path, *, seed: int = 0, layers: int = 6, hidden: int = 32) -> Path:
    """A Llama in Hub layout, in two files; another seed gives other bytes. Returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)

    def weight(*shape: int) -> np.ndarray[Any, Any]:
        return rng.standard_normal(shape).astype(np.float32)

    parts: list[dict[str, np.ndarray[Any, Any]]] = [
        {"model.embed_tokens.weight": weight(128, hidden)},
        {"model.norm.weight": weight(hidden), "lm_head.weight": weight(128, hidden)},
    ]
    for layer in range(layers):
        name = f"model.layers.{layer}."
        held = parts[layer * 2 // layers]
        for part in ("q", "k", "v", "o"):
            held[f"{name}self_attn.{part}_proj.weight"] = weight(hidden, hidden)
        for part in ("gate", "up"):
            held[f"{name}mlp.{part}_proj.weight"] = weight(2 * hidden, hidden)
        held[f"{name}mlp.down_proj.weight"] = weight(hidden, 2 * hidden)
        for part in ("input", "post_attention"):
            held[f"{name}{part}_layernorm.weight"] = weight(hidden)
    config = {
        **_CONFIG,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
    }
    (folder / "config.json").write_text(json.dumps(config))
    files = [f"model-{k + 1:05d}-of-00002.safetensors" for k in range(2)]
    for file, held in zip(files, parts, strict=True):
        save_file(held, folder / file, metadata={"format": "pt"})
    weight_map = {name: file for file, held in zip(files, parts, strict=True) for name in held}
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
