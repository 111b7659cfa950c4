"""A plan and a checkpoint give layouts that rebuild the source, or are refused with the names."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from messages.ids import NodeId
from messages.plans import Assignment, MegaphonePlan, NodeShare, SplitPlan
from services.checkpoint.checkpoint import open_checkpoint
from services.checkpoint.description import read_description
from services.checkpoint.layout import BadLayout, FileLayout, Literal, Span
from services.checkpoint.stage import verify
from services.splitter.laying import lay_out
from services.splitter.split import split_directory

Tensors = Mapping[str, np.ndarray[Any, Any]]
TYPES = (np.float32, np.float16, np.uint8, np.int64, np.bool_)


def plan_of(parts: Mapping[str, tuple[str, ...]]) -> SplitPlan:
    shares = {
        node: NodeShare(layer_names=names, total_compute=0, compute_utilization=0)
        for node, names in parts.items()
    }
    return SplitPlan(
        plan_id="p1",  # type: ignore[arg-type]
        model_name="org/m",
        model_url="",
        selected_nodes=(),
        split_plan=shares,  # type: ignore[arg-type]
        megaphone_plan=MegaphonePlan(start_node="a", chain=()),  # type: ignore[arg-type]
    )


def model(directory: Path, *files: Tensors) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for k, tensors in enumerate(files):
        save_file(dict(tensors), directory / f"part-{k}.safetensors")
    (directory / "config.json").write_text("{}")
    return directory


@st.composite
def models(draw: st.DrawFn) -> tuple[list[dict[str, np.ndarray[Any, Any]]], list[str]]:
    """Tensors in one to three files, of any of some types and any small shape, even empty ones."""
    count = draw(st.integers(1, 12))
    files: list[dict[str, np.ndarray[Any, Any]]] = [{} for _ in range(draw(st.integers(1, 3)))]
    names = []
    for k in range(count):
        shape = draw(st.lists(st.integers(0, 40), min_size=0, max_size=3))
        kind = draw(st.sampled_from(TYPES))
        size = int(np.prod(shape, dtype=np.int64))
        tensor: np.ndarray[Any, Any] = (
            (np.arange(size, dtype=np.int64) * (k + 3) % 2).astype(kind).reshape(shape)
        )
        name = f"layers.{k}.weight"
        files[draw(st.integers(0, len(files) - 1))][name] = tensor
        names.append(name)
    return [file for file in files if file], names


@settings(max_examples=40, deadline=None)
@given(case=models(), data=st.data())
def test_the_stages_of_any_model_and_any_plan_hold_its_tensors_bit_for_bit(
    case: tuple[list[dict[str, np.ndarray[Any, Any]]], list[str]],
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    files, names = case
    root = tmp_path_factory.mktemp("any")
    source = model(root / "model", *files)
    nodes = data.draw(st.integers(1, 4))
    parts: dict[str, tuple[str, ...]] = {f"n{k}": () for k in range(nodes)}
    for name in names:
        node = f"n{data.draw(st.integers(0, nodes - 1))}"
        parts[node] += (name,)
    stages = split_directory(source, plan_of(parts), root / "out", jobs=1)
    whole = {name: tensor for file in files for name, tensor in file.items()}
    for stage in stages:
        held: dict[str, np.ndarray[Any, Any]] = {}
        for path in stage.directory.glob("*.safetensors"):
            held |= load_file(path)
        assert set(held) == set(parts[stage.node_id])
        for name, tensor in held.items():
            assert tensor.dtype == whole[name].dtype
            assert tensor.tobytes() == whole[name].tobytes()
            assert tensor.shape == whole[name].shape
    report = verify([stage.directory for stage in stages], source)
    assert report.ok, report.problems
    assert report.coverage == "whole"


def ones(*names: str) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.ones((64, 64), np.float32) for name in names}


def test_a_tied_embedding_is_one_file_on_the_first_and_the_last_stage(tmp_path: Path) -> None:
    source = model(tmp_path / "m", ones("embed.weight", "layers.0.w", "layers.1.w"))
    plan = plan_of({"a": ("embed.weight", "layers.0.w"), "b": ("layers.1.w", "embed.weight")})
    first, last = lay_out(plan, open_checkpoint(source), {}, 4096, ties=[("embed.weight", "head")])
    assert first.files[1] == last.files[1]
    assert first.files[1].name == "model-00003-of-00003.safetensors"


def test_a_tensor_on_two_stages_that_is_not_tied_is_refused_by_name(tmp_path: Path) -> None:
    source = model(tmp_path / "m", ones("e.weight", "layers.0.w", "layers.1.w"))
    plan = plan_of({"a": ("e.weight",), "b": ("layers.0.w", "layers.1.w"), "c": ("layers.1.w",)})
    with pytest.raises(BadLayout, match=r"twice that are not tied: layers\.1\.w"):
        lay_out(plan, open_checkpoint(source), {}, 4096)
    assert lay_out(plan, open_checkpoint(source), {}, 4096, ties=[("layers.1.w", "head")])


def test_a_layer_on_the_first_and_the_last_stage_is_not_tied_for_being_there(
    tmp_path: Path,
) -> None:
    names = ("model.embed_tokens.weight", "model.layers.0.w", "model.layers.1.w")
    source = model(tmp_path / "m", ones(*names))
    plan = plan_of({"a": names[:2], "b": names[1:]})
    with pytest.raises(BadLayout, match=r"twice that are not tied: model\.layers\.0\.w"):
        split_directory(source, plan, tmp_path / "out")


@pytest.mark.parametrize("tied", [True, False])
def test_an_embedding_on_two_stages_is_tied_where_the_configuration_says_so(
    tmp_path: Path, tied: bool
) -> None:
    names = ("model.embed_tokens.weight", "model.layers.0.w", "model.layers.1.w")
    source = model(tmp_path / "m", ones(*names))
    (source / "config.json").write_text(json.dumps({"tie_word_embeddings": tied}))
    plan = plan_of({"a": names[:2], "b": (*names[2:], names[0])})
    if tied:
        first, last = split_directory(source, plan, tmp_path / "out")
        assert verify([first.directory, last.directory], source).problems == ()
        assert read_description(last.directory).tied == names[:1]
    else:
        with pytest.raises(BadLayout, match="twice that are not tied"):
            split_directory(source, plan, tmp_path / "out")


def assigned(*stages: tuple[str, int, int, tuple[str, ...]]) -> SplitPlan:
    """A plan by assignments: node, replica, stage, tensors."""
    return msgspec.structs.replace(
        plan_of({}),
        assignments=tuple(
            Assignment(
                node_id=NodeId(node),
                stage=stage,
                replica=replica,
                start_block=0,
                end_block=1,
                layer_names=names,
                compute_required=1.0,
                memory_bytes=1,
                stage_s=1.0,
            )
            for node, replica, stage, names in stages
        ),
    )


def test_stages_that_are_not_numbered_from_0_in_each_copy_are_refused(tmp_path: Path) -> None:
    source = open_checkpoint(model(tmp_path / "m", ones("a.w", "b.w")))
    plan = assigned(("a", 0, 0, ("a.w",)), ("b", 0, 10**15, ("b.w",)))
    with pytest.raises(BadLayout, match="2 stages with the numbers 0, 1000000000000000"):
        lay_out(plan, source, {}, 4096)


def test_each_copy_has_the_stages_it_has(tmp_path: Path) -> None:
    source = open_checkpoint(model(tmp_path / "m", ones("a.w", "b.w")))
    plan = assigned(("a", 0, 0, ("a.w",)), ("b", 0, 1, ("b.w",)), ("c", 1, 0, ("a.w", "b.w")))
    assert [layout.stages for layout in lay_out(plan, source, {}, 4096)] == [2, 2, 1]


def test_a_plan_that_says_two_things_is_refused(tmp_path: Path) -> None:
    source = open_checkpoint(model(tmp_path / "m", ones("a.w", "b.w")))
    both = assigned(("a", 0, 0, ("a.w",)), ("b", 0, 1, ("b.w",)))
    same = plan_of({"a": ("a.w",), "b": ("b.w",)})
    other = plan_of({"a": ("b.w",), "b": ("b.w",)})
    assert lay_out(msgspec.structs.replace(both, split_plan=same.split_plan), source, {}, 4096)
    with pytest.raises(BadLayout, match="give a different tensors"):
        lay_out(msgspec.structs.replace(both, split_plan=other.split_plan), source, {}, 4096)


def test_a_plan_that_leaves_a_tensor_out_is_refused_by_name(tmp_path: Path) -> None:
    source = model(tmp_path / "m", ones("a.w", "b.w"))
    with pytest.raises(BadLayout, match=r"leaves out tensors of the model: b\.w"):
        lay_out(plan_of({"a": ("a.w",)}), open_checkpoint(source), {}, 4096)


def test_a_plan_that_names_an_unknown_tensor_is_refused_by_name(tmp_path: Path) -> None:
    source = model(tmp_path / "m", ones("a.w"))
    with pytest.raises(BadLayout, match=r"1 tensors that org/m has not: ghost"):
        lay_out(plan_of({"a": ("a.w", "ghost")}), open_checkpoint(source), {}, 4096)


def test_adjacent_tensors_become_one_range_at_its_source_phase(tmp_path: Path) -> None:
    tensors = {f"layers.{k}.w": np.ones((100, 130), np.float32) for k in range(6)}
    source = model(tmp_path / "m", tensors)
    names = tuple(tensors)
    (_, second) = lay_out(
        plan_of({"a": names[:2], "b": names[2:]}), open_checkpoint(source), {}, 4096
    )
    weights = second.files[0]
    header, *spans = weights.pieces
    assert isinstance(header, Literal)
    (span,) = spans
    assert isinstance(span, Span)
    assert len(header.data) % 8 == 0
    assert len(header.data) % 4096 == span.start % 4096


def test_a_layout_that_takes_bytes_beyond_a_source_is_refused() -> None:
    file = FileLayout(name="x.json", pieces=(Span("x.json", 0, 11),), source="x.json")
    with pytest.raises(BadLayout, match="beyond its end"):
        file.validate({"x.json": 10})


def test_a_part_of_a_file_is_the_same_bytes_whatever_pieces_it_crosses() -> None:
    pieces = (Literal(b"abcd"), Span("s", 10, 5), Literal(b"xy"))
    file = FileLayout(name="f.json", pieces=pieces)
    assert list(file.part(2, 4)) == [Literal(b"cd"), Span("s", 10, 2)]
    assert list(file.part(8, 3)) == [Span("s", 14, 1), Literal(b"xy")]
    with pytest.raises(BadLayout):
        list(file.part(8, 4))
