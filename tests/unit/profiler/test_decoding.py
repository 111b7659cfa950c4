"""What one more token costs, against FlopCounterMode on a step with a cache, without weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.profiler.profile import profile_directory

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
Saved = Callable[[str], tuple[Path, Any]]
SEQUENCE = 48
FAMILIES = [
    "llama", "llama tied", "mistral", "qwen3", "gpt2", "gemma2", "gemma2, narrow", "opt", "neox",
    "deepseek v2", "deepseek v3", "mixtral", "qwen2 moe", "gpt-oss",
]  # fmt: skip


def ids(tokens: int) -> Any:
    return torch.zeros((1, tokens), dtype=torch.long, device="meta")


def one_token(model: Any) -> int:
    """FLOP of the step that makes SEQUENCE tokens of SEQUENCE - 1."""
    from torch.utils.flop_counter import FlopCounterMode

    routed = any("expert" in name for name, _ in model.named_modules())
    options = {"experts_implementation": "batched_mm"} if routed else {}
    model = type(model)._from_config(model.config, **options).to("meta").eval()
    cache = transformers.DynamicCache(config=model.config)
    with torch.no_grad():
        model(input_ids=ids(SEQUENCE - 1), past_key_values=cache, use_cache=True)
        with FlopCounterMode(display=False) as counter:
            model(input_ids=ids(1), past_key_values=cache, use_cache=True)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("family", FAMILIES)
def test_one_more_token_costs_what_torch_counts_with_a_cache(family: str, saved: Saved) -> None:
    folder, model = saved(family)
    found = profile_directory(folder, batch_size=3, sequence_length=SEQUENCE)
    counted = one_token(model) / 1e9
    assert sum(block.decode_compute for block in found.blocks) == pytest.approx(counted, rel=1e-3)
    assert sum(layer.decode_compute for layer in found.layers) == pytest.approx(counted, rel=1e-3)


def test_a_window_bounds_what_a_token_sees_and_a_latent_cache_is_read_whole(saved: Saved) -> None:
    sliding = profile_directory(saved("mistral")[0], sequence_length=SEQUENCE)
    output = next(x for x in sliding.layers if x.name.endswith("layers.0.self_attn.o_proj.weight"))
    assert output.decode_compute * 1e9 == pytest.approx(2 * 64 * 64 + 2 * 8 * (64 + 64))
    latent = profile_directory(saved("deepseek v2")[0], sequence_length=SEQUENCE)
    again = next(x for x in latent.layers if x.name.endswith("layers.0.self_attn.kv_b_proj.weight"))
    assert again.decode_compute * 1e9 == pytest.approx(2 * again.num_params * SEQUENCE)
