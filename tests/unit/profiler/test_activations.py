"""Estimates of activations against peaks measured by running a layer here, on the CPU."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from messages.metadata import Block
from services.checkpoint.checkpoint import StoredTensor
from services.profiler.architecture import read_architecture
from services.profiler.metadata import About, build_metadata

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from tests.benchmarks.bench_activations import (  # noqa: E402 - it imports torch
    DENSE,
    ROUTED,
    Case,
    estimated,
    measured,
    model_of,
    others,
)

# They run without fused attention here: what shows is matrices of scores.
UNFUSED = ("Gemma2", "GptOss", "DeepseekV2", "DeepseekV3")
SHAPES = [
    case
    for family in ("Qwen3Moe", "Mixtral", "Ernie4_5_Moe", "MiniMaxM2")
    for case in others(Case(family))
]


def ratio(case: Case, experts: str = "grouped_mm") -> float:
    model = model_of(case, experts)
    return estimated(model, case) / measured(model, case)


@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_what_grouped_experts_hold_is_reckoned_at_any_shape(case: Case) -> None:
    assert ratio(case) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("family", [name for name in ROUTED if name not in UNFUSED])
def test_what_grouped_experts_hold_is_reckoned_in_every_family(family: str) -> None:
    assert ratio(Case(family, hidden=192, inner=80, tokens=90)) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("family", UNFUSED[1:])
def test_it_is_reckoned_where_scores_are_few(family: str) -> None:
    case = Case(family, hidden=512, inner=640, top_k=6, experts=16, tokens=16, alike=True)
    assert ratio(case) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("family", ["DeepseekV2", "DeepseekV3"])
def test_a_latent_caches_keys_and_values_are_held_when_brought_back(family: str) -> None:
    case = Case(family, hidden=128, inner=32, top_k=1, experts=4, alike=True)
    assert ratio(case) == pytest.approx(1, abs=0.08)


@pytest.mark.parametrize("family", [name for name in DENSE if name not in UNFUSED])
def test_dense_layers_are_reckoned_within_a_fifth(family: str) -> None:
    assert ratio(Case(family, inner=704)) == pytest.approx(1, abs=0.2)


def test_other_names_for_the_visited_experts_are_read() -> None:
    folder = Path(transformers.__file__).parent / "models"
    names = {"num_experts_per_tok"}
    for file in folder.glob("*/configuration_*.py"):
        text = file.read_text(encoding="utf-8")
        names |= set(re.findall(r'"num_experts_per_tok": "(\w+)"', text))
    assert names >= {"moe_k", "moe_topk", "num_experts_per_token"}
    for name in names:
        assert read_architecture({name: 3}).top_k == 3
    assert read_architecture({"moe_topk": [2, 4, 4]}).top_k == 4


HIDDEN, INNER = 64, 176


def mlp(packed: bool) -> Iterable[StoredTensor]:
    """A Llama of one layer, its MLP plain or in 4 bits as bitsandbytes stores them."""

    def plain(name: str, *shape: int) -> StoredTensor:
        size = 2
        for dimension in shape:
            size *= dimension
        return StoredTensor(name, "model.safetensors", "BF16", shape, 0, size)

    at = "model.layers.0"
    yield plain("model.embed_tokens.weight", 300, HIDDEN)
    for part in ("q", "k", "v", "o"):
        yield plain(f"{at}.self_attn.{part}_proj.weight", HIDDEN, HIDDEN)
    for part in ("gate", "up", "down"):
        name, elements = f"{at}.mlp.{part}_proj.weight", HIDDEN * INNER
        if packed:
            half = elements // 2
            yield StoredTensor(name, "model.safetensors", "U8", (half, 1), 0, half)
            yield plain(f"{name}.absmax", elements // 64)
        else:
            yield plain(name, *((HIDDEN, INNER) if part == "down" else (INNER, HIDDEN)))
    yield plain("model.norm.weight", HIDDEN)


def test_a_packed_mlp_holds_the_vectors_of_a_plain_one() -> None:
    def layer(packed: bool) -> Block:
        config: dict[str, Any] = {
            "model_type": "llama",
            "hidden_size": HIDDEN,
            "num_hidden_layers": 1,
            "torch_dtype": "bfloat16",
        }
        found = build_metadata(mlp(packed), config, About("org/name"))
        return next(block for block in found.blocks if block.name == "layer.0")

    assert layer(packed=True).activation_bytes == layer(packed=False).activation_bytes
    assert layer(packed=True).weight_bytes < layer(packed=False).weight_bytes
