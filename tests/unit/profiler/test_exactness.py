import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.profiler.counting import Counter
from services.profiler.profile import profile_directory
from tests.unit.profiler.conftest import DENSE, FAMILIES, ROUTED

torch = pytest.importorskip("torch")
Saved = Callable[[str], tuple[Path, Any]]
BATCH, SEQUENCE = 2, 48


def counted_by_torch(model: Any) -> int:
    """What FlopCounterMode itself counts, on the meta device, in this process."""
    from torch.utils.flop_counter import FlopCounterMode

    options = {"experts_implementation": "batched_mm"} if routed(model) else {}
    if model.config.is_encoder_decoder:
        options["attn_implementation"] = "eager"
    model = type(model)._from_config(model.config, **options)
    model = model.to("meta").eval()
    ids = torch.zeros((BATCH, SEQUENCE), dtype=torch.long, device="meta")
    inputs = {"input_ids": ids}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    if model.main_input_name == "pixel_values":
        inputs = {"pixel_values": torch.empty((BATCH, 3, 64, 64), device="meta")}
    if model.main_input_name == "input_features":
        frames = 2 * model.config.max_source_positions
        sound = torch.empty((BATCH, model.config.num_mel_bins, frames), device="meta")
        inputs = {"input_features": sound, "decoder_input_ids": ids}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**inputs)
    return int(counter.get_total_flops())


def routed(model: Any) -> bool:
    return any("expert" in name for name, _ in model.named_modules())


@functools.cache
def reference(saved: Saved, family: str) -> float:
    return counted_by_torch(saved(family)[1]) / 1e9


@pytest.mark.parametrize("family", FAMILIES)
def test_the_closed_form_is_what_torch_counts(family: str, saved: Saved) -> None:
    folder, _ = saved(family)
    found = profile_directory(folder, batch_size=BATCH, sequence_length=SEQUENCE)
    assert found.warnings == ()
    assert found.total_compute == pytest.approx(reference(saved, family), rel=1e-3)
    assert sum(layer.compute_required for layer in found.layers) == pytest.approx(
        found.total_compute
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_count_agrees_with_the_closed_form_tensor_by_tensor(
    family: str, saved: Saved, counter: Counter
) -> None:
    folder, _ = saved(family)
    work = {"batch_size": BATCH, "sequence_length": SEQUENCE}
    closed = profile_directory(folder, **work)  # type: ignore[arg-type]
    counted = profile_directory(folder, **work, counter=counter)  # type: ignore[arg-type]
    assert counted.warnings == ()
    assert "counted" in {layer.cost_source for layer in counted.layers}
    assert counted.total_compute == pytest.approx(reference(saved, family), rel=1e-6)
    for mine, theirs in zip(closed.layers, counted.layers, strict=True):
        assert mine.compute_required == pytest.approx(theirs.compute_required, rel=1e-3), mine.name
    for block, same in zip(closed.blocks, counted.blocks, strict=True):
        assert block.compute_required == pytest.approx(same.compute_required, rel=1e-3), block.name


@pytest.mark.parametrize("family", ROUTED)
def test_only_routed_experts_are_computed_and_all_are_held(family: str, saved: Saved) -> None:
    folder, model = saved(family)
    found = profile_directory(folder, batch_size=1, sequence_length=SEQUENCE)
    experts = [layer for layer in found.layers if layer.layer_type == "expert"]
    held = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    assert sum(layer.num_params for layer in experts) == held
    matrices = sum(layer.num_params for layer in experts if layer.compute_required)
    share = sum(layer.compute_required for layer in experts) * 1e9 / (2 * matrices * SEQUENCE)
    config = model.config
    stack = getattr(config, "num_local_experts", None) or getattr(config, "n_routed_experts", None)
    assert share == pytest.approx(config.num_experts_per_tok / (stack or config.num_experts))


@pytest.mark.parametrize("family", DENSE)
def test_every_tensor_is_in_exactly_one_block_and_every_byte_is_counted(
    family: str, saved: Saved
) -> None:
    folder, _ = saved(family)
    found = profile_directory(folder)
    blocked = [name for block in found.blocks for name in block.tensors]
    assert sorted(blocked) == sorted(layer.name for layer in found.layers)
    assert sum(block.weight_bytes for block in found.blocks) == found.total_size_bytes
    assert sum(b.compute_required for b in found.blocks) == pytest.approx(found.total_compute)
