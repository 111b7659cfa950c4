"""Metadata of models of the 400B class from their headers alone, from a Hub on this machine.

    python tests/benchmarks/bench_remote_headers.py

The repositories have the tensors, dtypes, shapes and file sizes of Llama-3.1-405B and DeepSeek-V3;
their weights are noughts that no disk holds. The Hub runs in this process: its time is counted too.
"""

import asyncio
import hashlib
import json
import os
import statistics
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from messages.metadata import ModelMetadata  # noqa: E402 - the path comes first
from services.profiler.profile import profile_hub  # noqa: E402
from tests.loopback_hub.repos import Repo, StoredFile  # noqa: E402
from tests.loopback_hub.server import LoopbackHub  # noqa: E402

ROUNDS = 3
SHARD_BYTES = 4_700_000_000
_WIDTHS = {"BF16": 2, "F32": 4, "F8_E4M3": 1}
Entry = tuple[str, str, tuple[int, ...]]


@dataclass(frozen=True)
class Shard(StoredFile):
    """A safetensors file of which there is only the header; its weights are read as noughts."""

    weights_bytes: int = 0

    @property
    def header(self) -> bytes:
        """All that is held."""
        return self.body if isinstance(self.body, bytes) else b""

    @cached_property
    def size_bytes(self) -> int:
        """The header and the weights."""
        return len(self.header) + self.weights_bytes

    @cached_property
    def sha256(self) -> str:
        """Of the header alone: nobody checks it here."""
        return hashlib.sha256(self.header).hexdigest()

    def read(self, start: int, end: int) -> bytes:
        """A range, which may reach into the weights."""
        return self.header[start:end].ljust(end - start, b"\0")


def llama_405b() -> Iterator[Entry]:
    """The tensors of Llama-3.1-405B."""
    hidden, inner, cached, vocabulary = 16384, 53248, 1024, 128256
    yield "model.embed_tokens.weight", "BF16", (vocabulary, hidden)
    for number in range(126):
        at = f"model.layers.{number}"
        for name, rows, columns in (
            ("self_attn.q_proj", hidden, hidden),
            ("self_attn.k_proj", cached, hidden),
            ("self_attn.v_proj", cached, hidden),
            ("self_attn.o_proj", hidden, hidden),
            ("mlp.gate_proj", inner, hidden),
            ("mlp.up_proj", inner, hidden),
            ("mlp.down_proj", hidden, inner),
        ):
            yield f"{at}.{name}.weight", "BF16", (rows, columns)
        yield f"{at}.input_layernorm.weight", "BF16", (hidden,)
        yield f"{at}.post_attention_layernorm.weight", "BF16", (hidden,)
    yield "model.norm.weight", "BF16", (hidden,)
    yield "lm_head.weight", "BF16", (vocabulary, hidden)


def deepseek_v3() -> Iterator[Entry]:
    """The tensors of DeepSeek-V3: 61 layers and one that predicts a second token."""
    hidden, vocabulary = 7168, 129280
    yield "model.embed_tokens.weight", "BF16", (vocabulary, hidden)
    for number in range(62):
        at = f"model.layers.{number}"
        for name, rows, columns in _deepseek_matrices(number, hidden):
            yield f"{at}.{name}.weight", "F8_E4M3", (rows, columns)
            blocks = (-(-rows // 128), -(-columns // 128))
            yield f"{at}.{name}.weight_scale_inv", "F32", blocks
        for name, size in (
            ("self_attn.q_a_layernorm", 1536),
            ("self_attn.kv_a_layernorm", 512),
            ("input_layernorm", hidden),
            ("post_attention_layernorm", hidden),
        ):
            yield f"{at}.{name}.weight", "BF16", (size,)
        if number >= 3:
            yield f"{at}.mlp.gate.weight", "BF16", (256, hidden)
            yield f"{at}.mlp.gate.e_score_correction_bias", "F32", (256,)
    yield "model.norm.weight", "BF16", (hidden,)
    yield "lm_head.weight", "BF16", (vocabulary, hidden)


def _deepseek_matrices(number: int, hidden: int) -> Iterator[tuple[str, int, int]]:
    yield "self_attn.q_a_proj", 1536, hidden
    yield "self_attn.q_b_proj", 24576, 1536
    yield "self_attn.kv_a_proj_with_mqa", 576, hidden
    yield "self_attn.kv_b_proj", 32768, 512
    yield "self_attn.o_proj", hidden, 16384
    places = [f"mlp.experts.{n}" for n in range(256)] + ["mlp.shared_experts"]
    for place in ["mlp"] if number < 3 else places:
        inner = 18432 if number < 3 else 2048
        yield f"{place}.gate_proj", inner, hidden
        yield f"{place}.up_proj", inner, hidden
        yield f"{place}.down_proj", hidden, inner


MODELS = {
    "Llama-3.1-405B": (
        llama_405b,
        {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": 16384,
            "num_hidden_layers": 126,
            "torch_dtype": "bfloat16",
        },
    ),
    "DeepSeek-V3": (
        deepseek_v3,
        {
            "model_type": "deepseek_v3",
            "architectures": ["DeepseekV3ForCausalLM"],
            "hidden_size": 7168,
            "num_hidden_layers": 61,
            "num_experts_per_tok": 8,
            "torch_dtype": "bfloat16",
            "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
        },
    ),
}


def shards(entries: Iterator[Entry]) -> list[list[tuple[Entry, int]]]:
    """The tensors and their bytes, in files that save_pretrained would have made."""
    files: list[list[tuple[Entry, int]]] = [[]]
    filled = 0
    for entry in entries:
        size = _WIDTHS[entry[1]]
        for dimension in entry[2]:
            size *= dimension
        if filled and filled + size > SHARD_BYTES:
            files.append([])
            filled = 0
        files[-1].append((entry, size))
        filled += size
    return files


def repository(name: str) -> dict[str, StoredFile]:
    """The files of one model."""
    make, config = MODELS[name]
    parts = shards(make())
    found: dict[str, StoredFile] = {}
    weight_map = {}
    for number, part in enumerate(parts, 1):
        path = f"model-{number:05d}-of-{len(parts):06d}.safetensors"
        header, reached = {}, 0
        for (tensor, dtype, shape), size in part:
            offsets = [reached, reached + size]
            header[tensor] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
            weight_map[tensor] = path
            reached += size
        body = json.dumps(header, separators=(",", ":")).encode()
        found[path] = Shard(path, struct.pack("<Q", len(body)) + body, reached)
    index = json.dumps({"metadata": {}, "weight_map": weight_map}).encode()
    for path, body in (
        ("config.json", json.dumps(config).encode()),
        ("model.safetensors.index.json", index),
    ):
        found[path] = StoredFile(path, body)
    return found


async def measured(hub: LoopbackHub, name: str) -> None:
    """Print what the metadata of one model takes."""
    files = repository(name)
    repo = hub.repos.setdefault(f"org/{name}", Repo(f"org/{name}"))
    repo.commit(files)
    weights = [file for file in files.values() if isinstance(file, Shard)]
    runs = [await once(hub, name) for _ in range(ROUNDS)]
    seconds = statistics.median(run[0] for run in runs)
    fetched, found = runs[-1][1:]
    headers, whole = sum(len(f.header) for f in weights), sum(f.size_bytes for f in weights)
    print(
        f"{name}: {whole / 1e9:.0f} GB in {len(weights)} files, {len(found.layers)} tensors, "
        f"{len(found.blocks)} blocks: {seconds:.2f} s, {fetched / 1e6:.1f} MB fetched "
        f"(headers {headers / 1e6:.1f} MB, {fetched / len(weights) / 1e3:.0f} KB a file with the "
        f"index), 1/{whole / fetched:.0f} of the model {'; '.join(found.warnings)}"
    )


async def once(hub: LoopbackHub, name: str) -> tuple[float, int, ModelMetadata]:
    """Seconds, bytes of files fetched, and the metadata."""
    before, start = hub.file_bytes, time.perf_counter()
    found = await profile_hub(f"org/{name}")
    return time.perf_counter() - start, hub.file_bytes - before, found


def main() -> None:
    """Print a line a model."""
    os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
    with LoopbackHub() as hub:
        os.environ["HF_ENDPOINT"] = hub.url
        for name in MODELS:
            asyncio.run(measured(hub, name))


if __name__ == "__main__":
    main()
