"""Verifying believes nothing that a stage says of itself and its headers do not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from services.checkpoint.layout import Literal
from services.checkpoint.sources import SourceFiles
from services.checkpoint.stage import verify
from services.splitter.cutter import cutter
from services.splitter.split import split_directory
from tests.unit.splitter.small import NAMES, plan_of, write_model

Change = Callable[[dict[str, Any]], object]
WEIGHTS, INDEX = 0, "model.safetensors.index.json"


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and its two stages, n0 and n1, to be copied."""
    root = tmp_path_factory.mktemp("cut")
    split_directory(write_model(root / "model", 20), plan_of(NAMES[:3], NAMES[3:]), root / "out")
    return root


@pytest.fixture
def root(cut: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cut, tmp_path / "root"))


def described(stage: Path, change: Change) -> None:
    path = stage / "williw.stage.json"
    description = json.loads(path.read_bytes())
    change(description)
    path.write_text(json.dumps(description))


def problems(root: Path, *, model: bool = True) -> tuple[str, ...]:
    stages = [root / "out" / "n0", root / "out" / "n1"]
    return verify(stages, root / "model" if model else None).problems


def test_stages_as_they_were_cut_have_no_problem(root: Path) -> None:
    assert problems(root) == problems(root, model=False) == ()


UNTRUE: dict[str, tuple[Change, str]] = {
    "a digest too many": (
        lambda d: d["files"][WEIGHTS]["chunks"].append("0" * 64),
        "has 2 digests, which is not one for each chunk",
    ),
    "a digest too few": (
        lambda d: d["files"][WEIGHTS]["chunks"].clear(),
        "has 0 digests, which is not one for each chunk",
    ),
    "chunks of one byte": (
        lambda d: d["files"][WEIGHTS].update(chunk_bytes=1),
        "has 1 digests, which is not one for each chunk",
    ),
    "chunks beyond any number": (
        lambda d: d["files"][WEIGHTS].update(chunk_bytes=2**70),
        "williw.stage.json is damaged",
    ),
    "another name of the content": (
        lambda d: d["files"][WEIGHTS].update(digest="0" * 64),
        "has a digest that its chunks do not give",
    ),
    "no files": (lambda d: d.update(files=[]), f"names no {INDEX}"),
    "no index": (
        lambda d: d.update(files=[f for f in d["files"] if f["name"] != INDEX]),
        f"names no {INDEX}",
    ),
    "no configuration": (
        lambda d: d.update(files=[f for f in d["files"] if f["name"] != "config.json"]),
        "config.json is no file of this stage",
    ),
    "a file twice": (lambda d: d["files"].append(d["files"][-1]), "twice"),
    "no tensors": (lambda d: d["files"][WEIGHTS].update(tensors=[]), "not as described"),
    "another dtype": (
        lambda d: d["files"][WEIGHTS]["tensors"][0].update(dtype="I32"),
        f"not as described: {NAMES[3]}",
    ),
    "a layer more": (
        lambda d: d["layer_range"].update(end=9, last=8),
        "layer_range is not that of its tensors",
    ),
    "no layers": (lambda d: d.update(layer_range=None), "layer_range is not that of its tensors"),
    "an embedding": (lambda d: d.update(has_embedding=True), "has_embedding is True"),
    "no head": (lambda d: d.update(has_head=False), "has_head is False"),
    "a tie": (
        lambda d: d.update(tied=[NAMES[0]]),
        f"tied names tensors that are not here: {NAMES[0]}",
    ),
    "fewer bytes": (lambda d: d.update(size_bytes=1), "size_bytes is 1"),
    "a smaller model": (lambda d: d.update(model_tensors=5), "model_tensors is 5"),
    "more stages": (lambda d: d.update(stages=7), "count differently"),
    "a stage too far": (lambda d: d.update(stage=2), "says that it is stage 3 of 2"),
    "another plan": (lambda d: d.update(plan_id="p2"), "of different plans"),
    "the other's number": (lambda d: d.update(stage=0), "both say they are stage 1"),
}


@pytest.mark.parametrize("what", UNTRUE)
def test_what_a_stage_says_untruly_of_itself_is_a_problem_with_its_directory(
    root: Path, what: str
) -> None:
    change, told = UNTRUE[what]
    described(root / "out" / "n1", change)
    found = problems(root)
    assert any(told in one for one in found), found
    assert all(str(root / "out" / "n1") in one for one in found if told in one)


def test_without_the_model_at_hand_scattered_layers_are_not_taken_for_a_row(root: Path) -> None:
    described(root / "out" / "n1", lambda d: d.update(layer_range=None))
    assert verify([root / "out" / "n1"]).problems == ()
    described(root / "out" / "n1", lambda d: d.update(has_embedding=True))
    (problem,) = verify([root / "out" / "n1"]).problems
    assert "has_embedding is True" in problem


def test_a_file_that_is_missing_or_foreign_is_named(root: Path) -> None:
    (root / "out" / "n1" / "config.json").unlink()
    (root / "out" / "n1" / "pytorch_model.bin").write_bytes(b"weights")
    (root / "out" / "n1" / ".hidden").write_bytes(b"left alone")
    told = problems(root, model=False)
    where = root / "out" / "n1"
    assert told == (
        f"{where}: config.json is missing",
        f"{where}: pytorch_model.bin is no file of this stage",
    )


def test_an_index_that_points_elsewhere_is_found_though_its_digest_is_right(root: Path) -> None:
    stage = root / "out" / "n1"
    index = json.loads((stage / INDEX).read_bytes())
    del index["weight_map"][NAMES[4]]
    model = root / "model"
    shutil.rmtree(stage)
    made = cutter(model, plan_of(NAMES[:3], NAMES[3:]))
    body = json.dumps(index).encode()
    layout = made.layouts[1]
    files = tuple(
        replace(file, pieces=(Literal(body),)) if file.name == INDEX else file
        for file in layout.files
    )
    with SourceFiles(made.paths) as sources:
        made.cut(replace(layout, files=files), sources, stage)
    assert problems(root) == (f"{stage}: not as indexed: {NAMES[4]}",)


def test_a_configuration_that_is_not_the_models_is_found(root: Path) -> None:
    (root / "model" / "config.json").write_text('{"hidden": 1}')
    assert [one for one in problems(root) if "differs from the model: config.json" in one]
    assert problems(root, model=False) == ()


def test_a_layer_on_two_stages_is_found_even_if_they_say_it_is_tied(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", 20)
    made = cutter(model, plan_of(NAMES[:4], NAMES[3:]), ties=[(NAMES[3], "elsewhere")])
    stages = [tmp_path / "n0", tmp_path / "n1"]
    with SourceFiles(made.paths) as sources:
        for layout, stage in zip(made.layouts, stages, strict=True):
            made.cut(layout, sources, stage)
    for against in (model, None):
        (problem,) = verify(stages, against).problems
        assert f"{NAMES[3]} is on stages 0 and 1, and not tied" in problem
