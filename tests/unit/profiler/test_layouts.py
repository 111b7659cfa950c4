"""Blocks and what must stay together, of models whose layers are no plain chain."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from messages.metadata import ModelMetadata
from services.checkpoint.checkpoint import open_checkpoint
from services.checkpoint.config import read_config
from services.profiler.metadata import About, build_metadata
from services.profiler.profile import profile_directory

Saved = Callable[[str], tuple[Path, Any]]


def profile(saved: Saved, family: str) -> ModelMetadata:
    return profile_directory(saved(family)[0], batch_size=2, sequence_length=48)


def names(found: ModelMetadata) -> list[str]:
    return [block.name for block in found.blocks]


def tensors_of(found: ModelMetadata, name: str) -> tuple[str, ...]:
    return next(block.tensors for block in found.blocks if block.name == name)


def test_alberts_passes_over_one_group_are_one_block(saved: Saved) -> None:
    found = profile(saved, "albert, masked")
    assert names(found) == ["embeddings", "layer.0", "head"]
    assert len({t for t in tensors_of(found, "layer.0") if "albert_layer_groups.0" in t}) > 10
    assert "albert.encoder.embedding_hidden_mapping_in.weight" in tensors_of(found, "embeddings")
    costs = {layer.name: layer.compute_required * 1e9 for layer in found.layers}
    query = "albert.encoder.albert_layer_groups.0.albert_layers.0.attention.query.weight"
    passes, tokens = 3, 2 * 48
    assert costs[query] == pytest.approx(passes * 2 * 64 * 64 * tokens)


def test_alberts_groups_may_be_cut_apart_since_each_runs_its_passes_in_a_row(saved: Saved) -> None:
    found = profile(saved, "albert, two groups")
    assert names(found) == ["embeddings", "layer.0", "layer.1", "head"]
    assert {block.together_with for block in found.blocks} == {None}
    first, second = (block.compute_required for block in found.blocks[1:3])
    # Three layers in two groups: transformers gives the first group two of them.
    assert first == pytest.approx(2 * second)


@pytest.mark.parametrize("family", ["bart", "bart, bare", "mbart", "whisper", "t5"])
def test_an_encoder_decoder_runs_in_order_and_stays_on_one_node(family: str, saved: Saved) -> None:
    found = profile(saved, family)
    order = [name.partition(".")[0] for name in names(found)]
    assert order == sorted(order, key=["embeddings", "encoder", "decoder", "head"].index)
    assert {block.together_with for block in found.blocks[1:]} == {"embeddings"}
    depths = (3, 3) if family == "t5" else (2, 3)
    assert (order.count("encoder"), order.count("decoder")) == depths


def test_a_decoder_deeper_than_its_encoder_caches_in_every_layer(saved: Saved) -> None:
    found = profile(saved, "bart")
    for block in found.blocks:
        width = 2 * 64 * 4 if block.name.startswith("decoder") else 0
        assert block.kv_bytes_per_token == width
        # Its own keys and values, and those of the encoder's output, of 48 tokens each.
        assert block.kv_bytes == 2 * 2 * 48 * width / 2 * 2


def test_whispers_encoder_hears_its_frames_whatever_the_sequence(saved: Saved) -> None:
    folder = saved("whisper")[0]
    short, long = (profile_directory(folder, sequence_length=n) for n in (10, 40))
    for name in ("embeddings", "encoder.0", "encoder.1"):
        first, second = (next(b for b in found.blocks if b.name == name) for found in (short, long))
        assert first.compute_required == second.compute_required > 0
    decoder = next(b for b in short.blocks if b.name == "decoder.0")
    assert decoder.kv_bytes == (10 + 60) * 2 * 64 * 4
    assert decoder.kv_bytes_per_token == 2 * 64 * 4


@pytest.mark.parametrize("family", ["bart", "whisper", "t5"])
def test_an_encoder_decoder_short_of_a_layer_is_one_block(family: str, saved: Saved) -> None:
    folder = saved(family)[0]
    kept = [
        t
        for t in open_checkpoint(folder)
        if "decoder.layers.2." not in t.name and "decoder.block.2." not in t.name
    ]
    found = build_metadata(kept, read_config(folder), About("org/name"))
    assert names(found) == ["model"]
    assert "holds 2 layers where config.json says 3" in found.warnings[0]


def test_every_name_of_a_shared_table_is_tied(saved: Saved) -> None:
    bart, whisper = profile(saved, "bart"), profile(saved, "whisper")
    assert bart.ties == (
        (
            "model.shared.weight",
            "model.encoder.embed_tokens.weight",
            "model.decoder.embed_tokens.weight",
            "lm_head.weight",
        ),
    )
    assert whisper.ties == (("model.decoder.embed_tokens.weight", "proj_out.weight"),)
