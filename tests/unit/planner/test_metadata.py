"""Metadata that contradicts itself is refused by field; blocks are derived where there are none."""

import msgspec
import pytest

from messages.metadata import Block, Layer, ModelMetadata
from messages.wire import Undecodable, decode
from services.planner.failures import BadMetadata
from services.planner.metadata import blocks_of, check, tie_of


def layer(name: str, **more: object) -> Layer:
    figures: dict[str, object] = {
        "name": name,
        "shape": (4, 4),
        "num_params": 16,
        "compute_required": 1.0,
        "layer_type": "other",
        "dtype": "torch.bfloat16",
    }
    return msgspec.convert({**figures, **more}, Layer)


def block(name: str, *tensors: str, **more: object) -> Block:
    figures = {"name": name, "tensors": tensors, "compute_required": 1.0, "weight_bytes": 1}
    return msgspec.convert({**figures, **more}, Block)


def metadata(**more: object) -> ModelMetadata:
    return msgspec.structs.replace(ModelMetadata(model_name="org/model"), **more)


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (metadata(), "layers"),
        (metadata(layers=(layer("a"), layer("a"))), "layers"),
        (metadata(blocks=(block("b", "x"), block("b", "y"))), "blocks"),
        (metadata(blocks=(block("b", "x"), block("c", "x"))), "blocks.tensors"),
        (metadata(layers=(layer("a"),), blocks=(block("b", "x"),)), "blocks.tensors"),
        (metadata(layers=(layer("a"), layer("z")), blocks=(block("b", "a"),)), "blocks.tensors"),
        (metadata(blocks=(block("b", "x", together_with="c"),)), "blocks['b'].together_with"),
        (metadata(blocks=(block("b", "x"),), ties=(("y", "z"),)), "ties"),
        (metadata(blocks=(block("b", "x", weight_bytes=2**61),)), "blocks['b']"),
        (metadata(layers=(layer("a", compute_required=1e30),)), "layers['a'].compute_required"),
    ],
)
def test_a_contradiction_is_refused_with_its_field(bad: ModelMetadata, field: str) -> None:
    with pytest.raises(BadMetadata) as refusal:
        check(bad)
    assert refusal.value.field == field


@pytest.mark.parametrize("figure", ["NaN", "-1", "1e999", "null", '"12"'])
def test_a_figure_that_is_no_amount_does_not_decode(figure: str) -> None:
    body = (
        '{"model_name":"a/b","blocks":[{"name":"b","tensors":["t"],"weight_bytes":1,'
        f'"compute_required":{figure}}}]}}'
    )
    with pytest.raises(Undecodable):
        decode(body.encode(), ModelMetadata)


def test_blocks_are_derived_from_the_numbers_in_tensor_names() -> None:
    names = [
        "lm_head.weight",
        "model.embed_tokens.weight",
        "model.layers.0.q.weight",
        "model.layers.1.q.weight",
        "model.layers.10.q.weight",
        "model.layers.2.q.weight",
        "model.norm.weight",
    ]
    derived = blocks_of(metadata(layers=tuple(layer(name) for name in names)))
    assert [b.tensors for b in derived] == [
        ("model.embed_tokens.weight", "model.layers.0.q.weight"),
        ("model.layers.1.q.weight",),
        ("model.layers.2.q.weight",),
        ("model.layers.10.q.weight", "lm_head.weight", "model.norm.weight"),
    ]
    assert derived[0].weight_bytes == 2 * 16 * 2


def test_names_without_numbers_are_a_block_each_in_their_order() -> None:
    derived = blocks_of(metadata(layers=(layer("b"), layer("a"))))
    assert [b.name for b in derived] == ["b", "a"]


def test_a_tie_with_one_stored_name_is_needed_by_the_last_stage() -> None:
    layers = (layer("embed"), layer("norm"))
    blocks = (block("b0", "embed"), block("b1", "norm"))
    tied = metadata(layers=layers, blocks=blocks, ties=(("embed", "head"),))
    assert tie_of(tied, blocks).names == ("embed",)
    assert tie_of(tied, blocks).size_bytes == 32
    stored_twice = metadata(layers=layers, blocks=blocks, ties=(("embed", "norm"),))
    assert tie_of(stored_twice, blocks).names == ()


def test_a_tied_tensor_of_unknown_size_is_taken_to_be_as_large_as_its_block() -> None:
    blocks = (block("b0", "embed", "q", weight_bytes=70), block("b1", "norm"))
    tied = metadata(blocks=blocks, ties=(("embed", "head"),))
    assert tie_of(tied, blocks).size_bytes == 70


def test_groups_tied_in_different_blocks_are_a_copy_each() -> None:
    blocks = tuple(block(f"b{k}", f"t{k}") for k in range(4))
    layers = tuple(layer(f"t{k}") for k in range(4))
    tied = metadata(layers=layers, blocks=blocks, ties=(("t0", "x"), ("t2", "y"), ("t3", "z")))
    tie = tie_of(tied, blocks)
    assert [(copy.block, copy.names, copy.size_bytes) for copy in tie.copies] == [
        (0, ("t0",), 32),
        (2, ("t2",), 32),
    ]
    assert tie.needed_from(0) == ()
    assert tie.needed_from(2) == ("t0",)
    assert tie.needed_from(3) == ("t0", "t2")
