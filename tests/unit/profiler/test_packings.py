"""Packed weights: shapes reckoned by hand, and what is said of a packer that cannot be read."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.profiler.packed import matrix_of, packing_of
from services.profiler.unpacked import Matrix, Stored
from tests.unit.profiler.packers import LAYOUTS, Entry, Layout, mlx, plain
from tests.unit.profiler.published import HIDDEN, LINEAR, LLAMA, llama, profiled

HEADS = {"num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336}
# A layer of 1024 outputs and 4096 inputs, as each packer stores it.
SHAPES: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {
    "gptq": {"qweight": ("I32", (512, 1024)), "qzeros": ("I32", (32, 128))},
    "gptq, 3 bit": {"qweight": ("I32", (384, 1024)), "qzeros": ("I32", (32, 96))},
    "gptq, 2 bit": {"qweight": ("I32", (256, 1024)), "qzeros": ("I32", (32, 64))},
    "gptq, 8 bit": {"qweight": ("I32", (1024, 1024)), "qzeros": ("I32", (32, 256))},
    "gptq in 16 bits": {"qweight": ("I16", (1024, 1024)), "qzeros": ("I16", (32, 256))},
    "awq": {"qweight": ("I32", (4096, 128)), "qzeros": ("I32", (32, 128))},
}


@pytest.mark.parametrize("said", [{}, {"bits": 4}, {"bits": 8, "quant_method": "awq"}])
@pytest.mark.parametrize("packer", SHAPES)
def test_scales_and_zero_points_say_more_than_the_configuration(
    packer: str, said: dict[str, Any]
) -> None:
    tensors = {f"q.{leaf}": Stored(shape, dtype) for leaf, (dtype, shape) in SHAPES[packer].items()}
    tensors["q.scales"] = Stored((32, 1024), "F16")
    found = matrix_of("q.qweight", tensors, said, turned=False)
    assert found == Matrix(1024 * 4096, 1024, 4096)


@pytest.mark.parametrize("beside", ["q.g_idx", "q.scales"])
def test_a_layer_without_zero_points_is_as_wide_as_what_stands_beside_it(beside: str) -> None:
    turned = {"q.qweight": Stored((512, 1024), "I32"), "q.g_idx": Stored((4096,), "I32")}
    straight = {"q.qweight": Stored((4096, 128), "I32"), "q.scales": Stored((32, 1024), "F16")}
    tensors = turned if beside == "q.g_idx" else straight
    found = matrix_of("q.qweight", tensors, {}, turned=False)
    assert found == Matrix(1024 * 4096, 1024, 4096)


def test_bits_that_nothing_tells_are_not_guessed() -> None:
    tensors = {
        "q.qweight": Stored((512, 1024), "I32"),
        "q.scales": Stored((32, 1024), "F16"),
        "k.weight_packed": Stored((1024, 512), "I32"),
        "k.weight_scale": Stored((1024, 32), "BF16"),
    }
    assert packing_of(tensors, {}).unread == {"q.qweight", "k.weight_packed"}
    assert packing_of(tensors, {"bits": 4}).unread == frozenset()


def test_each_scheme_of_a_mixed_checkpoint_is_told_by_its_scales() -> None:
    def scheme(bits: int) -> dict[str, Any]:
        return {"weights": {"num_bits": bits, "group_size": 128}}

    said = {"config_groups": {"group_0": scheme(8), "group_1": scheme(4), "group_2": scheme(3)}}
    for words in (512, 1024, 410):  # 8, 4 and ten to a word
        tensors = {
            "q.weight_packed": Stored((1024, words), "I32"),
            "q.weight_scale": Stored((1024, 32), "BF16"),
        }
        found = matrix_of("q.weight_packed", tensors, said, turned=False)
        assert found == Matrix(1024 * 4096, 1024, 4096)


def test_gemv_keeps_an_output_a_row() -> None:
    """3584 inputs are 28 groups, whose zero points take four words: the scales are filled up."""
    tensors = {
        "q.qweight": Stored((1024, 448), "I32"),
        "q.qzeros": Stored((1024, 4), "I32"),
        "q.scales": Stored((1024, 32), "F16"),
    }
    found = matrix_of("q.qweight", tensors, {"quant_method": "awq"}, turned=False)
    assert found == Matrix(1024 * 3584, 1024, 3584)


def test_a_code_of_several_books_stands_for_a_block_of_outputs_and_inputs() -> None:
    tensors = {
        "q.codes": Stored((512, 256, 3), "I16"),
        "q.codebooks": Stored((3, 256, 2, 16), "F16"),
        "q.scales": Stored((512, 1, 1, 1), "F16"),
    }
    found = matrix_of("q.codes", tensors, {"quant_method": "aqlm"}, turned=False)
    assert found == Matrix(1024 * 4096, 1024, 4096)


def test_a_layer_of_mlx_may_be_packed_in_a_way_of_its_own() -> None:
    tensors = {
        "q.weight": Stored((1024, 1024), "U32"),
        "q.scales": Stored((1024, 128), "BF16"),
        "q.biases": Stored((1024, 128), "BF16"),
    }
    said = {"group_size": 64, "bits": 4, "q": {"group_size": 32, "bits": 8}}
    assert matrix_of("q.weight", tensors, said, turned=False) == Matrix(1024 * 4096, 1024, 4096)


def test_embeddings_and_head_of_mlx_are_read_too() -> None:
    def entries(layout: Layout) -> Iterator[Entry]:
        for name, dtype, shape in llama(layout):
            if (
                len(shape) == 2
                and dtype == "BF16"
                and name.endswith(("tokens.weight", "head.weight"))
            ):
                for leaf, inner, packed in layout(*shape):
                    yield name.replace("weight", leaf), inner, packed
            else:
                yield name, dtype, shape

    found = profiled(entries(mlx), LLAMA | {"quantization": {"group_size": 64, "bits": 4}})
    meant = profiled(llama(plain), LLAMA)
    assert found.warnings == ()
    assert found.total_compute == pytest.approx(meant.total_compute)
    assert [b.activation_bytes for b in found.blocks] == [b.activation_bytes for b in meant.blocks]


def exl3(rows: int, columns: int) -> Iterator[Entry]:
    yield "trellis", "I16", (columns // 16, rows // 16, 64)
    yield "suh", "F16", (columns,)
    yield "svh", "F16", (rows,)


def vptq(rows: int, columns: int) -> Iterator[Entry]:
    yield "indices", "I32", (1, columns // 8, rows // 2)
    yield "centroids.weight", "F16", (1, 65536 * 8)
    yield "weight_scale", "F16", (columns,)
    yield "perm", "I16", (columns,)


def marlin(rows: int, columns: int) -> Iterator[Entry]:
    yield "B", "I32", (columns // 16, 2 * rows)
    yield "s", "F16", (columns // 128, rows)


def torchao(rows: int, columns: int) -> Iterator[Entry]:
    yield "_weight_qdata", "I8", (rows, columns)
    yield "_weight_scale", "BF16", (rows, 1)


def higgs(rows: int, columns: int) -> Iterator[Entry]:
    yield "weight", "I16", (rows, columns // 4)
    yield "scales", "F16", (columns // 256, rows)
    yield "tables", "F16", (256, 2)
    yield "tables2", "F16", (256, 256, 2)


def spqr(rows: int, columns: int) -> Iterator[Entry]:
    yield "dense_weights", "I64", (rows * columns // 20,)
    yield "row_offsets", "I32", (rows + 1,)
    yield "col_vals", "I32", (rows * columns // 100,)
    yield "in_perm", "I16", (columns,)


UNREAD = {
    "spqr": spqr,
    "exl3": exl3,
    "vptq": vptq,
    "gptq": marlin,
    "torchao": torchao,
    "higgs": higgs,
}


@pytest.mark.parametrize("method", UNREAD)
def test_a_packer_that_cannot_be_read_is_named_and_shapes_are_the_configurations(
    method: str,
) -> None:
    config = LLAMA | HEADS | {"quantization_config": {"quant_method": method}}
    found = profiled(llama(UNREAD[method]), config)
    meant = profiled(llama(plain), LLAMA)
    (warning,) = found.warnings
    assert f"quantized by {method} in a way that williw does not read" in warning
    assert "and 13 more" in warning
    assert found.total_compute == pytest.approx(meant.total_compute)
    for mine, theirs in zip(found.blocks, meant.blocks, strict=True):
        assert mine.kv_bytes == theirs.kv_bytes
        assert mine.activation_bytes == theirs.activation_bytes
        assert mine.decode_compute == pytest.approx(theirs.decode_compute)
    carriers = {x.name.rpartition(".")[0]: x for x in found.layers if x.compute_required}
    for number in range(2):
        for module in LINEAR:
            inside = f"model.layers.{number}.{module}."
            (carrier,) = [x.name for x in carriers.values() if x.name.startswith(inside)]
            for layer in found.layers:
                if layer.name.startswith(inside) and layer.name != carrier:
                    assert layer.assigned_with == carrier


def test_what_neither_header_nor_configuration_tells_is_said_to_be_unknown() -> None:
    config = LLAMA | {"quantization_config": {"quant_method": "exl3"}}
    (warning,) = profiled(llama(exl3), config).warnings
    assert warning.endswith("but for 14, whose costs are not known")


def test_a_promise_that_cannot_be_what_is_stored_is_not_believed() -> None:
    config = LLAMA | HEADS | {"intermediate_size": 2**39}
    found = profiled(llama(exl3), config)
    assert found.warnings[0].endswith("but for 6, whose costs are not known")
    assert found.total_compute < 10 * profiled(llama(plain), LLAMA).total_compute


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_that_is_read_is_not_said_to_be_unread(name: str) -> None:
    layout, quantization = LAYOUTS[name]
    tensors = {f"q.{leaf}": Stored(shape, dtype) for leaf, dtype, shape in layout(HIDDEN, HIDDEN)}
    packing = packing_of(tensors, quantization)
    assert packing.unread == frozenset()
    assert len(packing.companions) == len(tensors.keys() - {"q.bias"}) - 1


def test_numbers_that_stand_beside_weights_are_no_packed_weights() -> None:
    tensors = {
        "h.0.attn.c_attn.weight": Stored((768, 2304), "F32"),
        "h.0.attn.bias": Stored((1, 1, 1024, 1024), "U8"),
        "h.0.attn.window": Stored((12,), "I32"),
        "embeddings.position_ids": Stored((1, 512), "I64"),
        "embeddings.word_embeddings.weight": Stored((1000, 768), "F32"),
        "encoder.offsets": Stored((12,), "I32"),
        "encoder.weight": Stored((12, 12), "F32"),
    }
    assert packing_of(tensors, {}).unread == frozenset()


def test_three_dimensions_alone_make_no_expert() -> None:
    found = profiled(llama(LAYOUTS["aqlm"][0]), LLAMA | {"quantization_config": LAYOUTS["aqlm"][1]})
    assert {x.layer_type for x in found.layers if ".mlp." in x.name} == {"mlp"}


LEAVES = sorted({leaf for layout, _ in LAYOUTS.values() for leaf, _, _ in layout(256, 256)})
STORED = st.builds(
    Stored,
    st.lists(st.integers(0, 300), max_size=4).map(tuple),
    st.sampled_from(["I32", "U8", "I16", "F16"]),
)
SAID = st.sampled_from([{}, *(said for _, said in LAYOUTS.values()), {"config_groups": [1]}])


@given(st.dictionaries(st.sampled_from(LEAVES), STORED, max_size=6), SAID)
def test_no_shapes_whatever_make_reading_fall_over(
    leaves: dict[str, Stored], said: dict[str, Any]
) -> None:
    tensors = {f"model.layers.0.q.{leaf}": stored for leaf, stored in leaves.items()}
    packing = packing_of(tensors, said)
    for name in tensors:
        assert (name in packing.companions) <= (packing.companions.get(name) in tensors)
        found = matrix_of(name, tensors, said, turned=False)
        assert found is None or (found.elements >= 0 and found.rows >= 0 and found.columns >= 0)
