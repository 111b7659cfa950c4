"""Models as published, of packed layers, and the metadata that their headers make."""

import json
from collections.abc import Iterator
from typing import Any

from messages.metadata import ModelMetadata
from services.checkpoint.checkpoint import Checkpoint
from services.checkpoint.headers import parse_header
from services.profiler.metadata import About, build_metadata
from tests.unit.profiler.packers import Entry, Layout

WIDTHS = {
    "BF16": 2,
    "F16": 2,
    "F32": 4,
    "F8_E4M3": 1,
    "I8": 1,
    "I16": 2,
    "I32": 4,
    "U32": 4,
    "I64": 8,
    "U8": 1,
}
HIDDEN, INNER, CACHED, VOCABULARY = 4096, 14336, 1024, 128256
LINEAR = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (CACHED, HIDDEN),
    "self_attn.v_proj": (CACHED, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}
LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "torch_dtype": "bfloat16",
}


def llama(layout: Layout) -> Iterator[Entry]:
    """Llama-3.1-8B's tensors, two layers of them."""
    yield "model.embed_tokens.weight", "BF16", (VOCABULARY, HIDDEN)
    for number in range(2):
        at = f"model.layers.{number}"
        for module, (rows, columns) in LINEAR.items():
            for leaf, dtype, shape in layout(rows, columns):
                yield f"{at}.{module}.{leaf}", dtype, shape
        yield f"{at}.input_layernorm.weight", "BF16", (HIDDEN,)
        yield f"{at}.post_attention_layernorm.weight", "BF16", (HIDDEN,)
    yield "model.norm.weight", "BF16", (HIDDEN,)
    yield "lm_head.weight", "BF16", (VOCABULARY, HIDDEN)


def profiled(entries: Iterator[Entry], config: dict[str, Any]) -> ModelMetadata:
    """The metadata of a file with this header, read as any file's is."""
    header, reached = {}, 0
    for name, dtype, shape in entries:
        size = WIDTHS[dtype]
        for dimension in shape:
            size *= dimension
        offsets = [reached, reached + size]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        reached += size
    body = json.dumps(header).encode()
    file = parse_header(body, 8 + len(body) + reached, "model.safetensors")
    return build_metadata(Checkpoint({"model.safetensors": file}), config, About("org/name"))


def check_companions(found: ModelMetadata, companions: set[str]) -> None:
    """Every companion is with its carrier in one block, and every byte in exactly one."""
    home = {name: block.name for block in found.blocks for name in block.tensors}
    layers = {layer.name: layer for layer in found.layers}
    assert home.keys() == layers.keys()
    for name in companions:
        carrier = layers[name].assigned_with
        assert carrier is not None, name
        assert layers[carrier].assigned_with is None
        assert layers[carrier].compute_required > 0, carrier
        assert home[name] == home[carrier]
        assert layers[name].compute_required == 0
    for block in found.blocks:
        assert block.weight_bytes == sum(layers[name].size_bytes for name in block.tensors)
