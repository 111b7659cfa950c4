"""A stage's files, byte for byte, from the model's own and the manifest, by nobody's help."""

from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from messages.ids import NodeId, PlanId
from messages.plans import Assignment, MegaphonePlan, SelectedNode, SplitPlan
from messages.shards import StageManifest
from services.checkpoint.description import STAGE_NAME, without_files
from services.checkpoint.layout import Literal
from services.checkpoint.sources import SourceFiles
from services.distributor.recipe import layout_of, made_files
from services.splitter.cutter import cutter

A = NodeId("a")


def plan(names: tuple[str, ...]) -> SplitPlan:
    part = Assignment(
        node_id=A,
        stage=0,
        start_block=0,
        end_block=1,
        layer_names=names,
        compute_required=1.0,
        memory_bytes=1,
        stage_s=1.0,
    )
    return SplitPlan(
        plan_id=PlanId("p"),
        model_name="org/m",
        model_url="",
        selected_nodes=(SelectedNode(node_id=A, compute_power=1.0),),
        split_plan={},
        megaphone_plan=MegaphonePlan(start_node=A, chain=()),
        assignments=(part,),
    )


def cut(model: Path, sizes: list[int]) -> tuple[StageManifest, dict[str, bytes]]:
    """A model with a tensor of each size in two files, cut into one stage: what it is made of."""
    model.mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    tensors = {f"t{k}": rng.integers(0, 255, size, np.uint8) for k, size in enumerate(sizes)}
    for path in model.iterdir():
        path.unlink()
    for k, names in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2])):
        if names:
            save_file({n: tensors[n] for n in names}, model / f"model-{k + 1}.safetensors")
    (model / "config.json").write_text('{"model_type": "m"}')
    (model / "empty.txt").write_text("")
    made = cutter(model, plan(tuple(tensors)), chunk_bytes=4096)
    (layout,) = made.layouts
    with SourceFiles(made.paths) as sources:
        stage = made.cut(layout, sources)
        bodies = {}
        for file in stage.layout.files:
            view = memoryview(bytearray(file.size_bytes))
            sources.read_into(file, 0, view)
            bodies[file.name] = bytes(view)
    return stage.manifest, bodies


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sizes=st.lists(st.integers(0, 9000), min_size=2, max_size=7))
def test_every_byte_of_a_stage_is_in_the_model_or_follows_from_the_manifest(
    tmp_path: Path, sizes: list[int]
) -> None:
    model = tmp_path / "model"
    manifest, bodies = cut(model, sizes)
    made = made_files(manifest, without_files(bodies[STAGE_NAME]))
    for file in manifest.files:
        layout = layout_of(file)
        if layout is None:
            assert made[file.name] == bodies[file.name]
            continue
        built = b""
        for piece in layout.part(0, file.size_bytes):
            if isinstance(piece, Literal):
                built += piece.data
            else:
                source = (model / piece.source).read_bytes()
                built += source[piece.start : piece.start + piece.size_bytes]
        assert built == bodies[file.name]


def test_a_description_without_files_is_small_whatever_the_stage(tmp_path: Path) -> None:
    _, bodies = cut(tmp_path / "model", [400_000, 10])
    assert len(bodies[STAGE_NAME]) > 7_000
    assert len(without_files(bodies[STAGE_NAME])) < 2_000


def test_what_nobody_told_is_not_made_up(tmp_path: Path) -> None:
    manifest, _ = cut(tmp_path / "model", [10, 10])
    assert STAGE_NAME not in made_files(manifest, None)
