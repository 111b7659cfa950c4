"""What a stage says of its role is what its tensors are, whatever its place in the pipeline."""

import pytest

from services.checkpoint.launching import (
    LayerRange,
    launch_advice,
    layer_range,
    role_of,
    whole_of,
)

LLAMA = tuple(
    ["model.embed_tokens.weight"]
    + [f"model.layers.{k}.{part}.weight" for k in range(12) for part in ("attn", "mlp")]
    + ["model.norm.weight", "lm_head.weight"]
)
NEOX = tuple(
    ["gpt_neox.embed_in.weight"]
    + [f"gpt_neox.layers.{k}.attention.dense.weight" for k in range(4)]
    + ["embed_out.weight"]
)


def layers(*numbers: int) -> list[str]:
    return [f"model.layers.{k}.{part}.weight" for k in numbers for part in ("attn", "mlp")]


def test_layers_in_a_row_are_a_range_by_number_not_by_text() -> None:
    found = layer_range(layers(9, 10, 11), whole_of(LLAMA))
    assert found == LayerRange(start=9, end=12, first=9, last=11)


@pytest.mark.parametrize(
    "held",
    [
        ["lm_head.weight"],
        layers(0, 2),
        layers(0, 1)[:-1],
        [*layers(0), "vision.blocks.0.weight"],
    ],
    ids=["no layer", "a gap", "part of a layer", "two stacks"],
)
def test_what_is_no_row_of_whole_layers_is_no_range(held: list[str]) -> None:
    whole = whole_of([*LLAMA, "vision.blocks.0.weight"])
    assert layer_range(held, whole) is None
    assert set(launch_advice(None)) == {"transformers"}


def test_a_head_called_embed_out_is_a_head_and_no_embedding() -> None:
    role = role_of(NEOX[3:], whole_of(NEOX), (), first=False, last=True)
    assert (role.has_embedding, role.has_head) == (False, True)


def test_a_first_stage_without_the_embedding_does_not_say_it_has_it() -> None:
    whole = whole_of(LLAMA)
    assert not role_of(layers(0), whole, (), first=True, last=False).has_embedding
    assert role_of(LLAMA[:1], whole, (), first=False, last=False).has_embedding


def test_a_last_stage_has_the_head_only_where_no_other_holds_one() -> None:
    assert not role_of(layers(11), whole_of(LLAMA), (), first=False, last=True).has_head
    assert role_of(layers(11), whole_of(LLAMA[:-1]), (), first=False, last=True).has_head


def test_a_tied_embedding_is_one_first_and_the_head_last() -> None:
    tied, whole = LLAMA[0], whole_of(LLAMA[:-1])
    first = role_of([tied, *layers(0)], whole, [tied], first=True, last=False)
    last = role_of([tied, *layers(11)], whole, [tied], first=False, last=True)
    assert (first.has_embedding, first.has_head) == (True, False)
    assert (last.has_embedding, last.has_head) == (False, True)
