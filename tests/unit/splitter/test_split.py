"""Cutting a model directory: by ranges, by one rename, not twice, and verified afterwards."""

from contextvars import ContextVar
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from messages.ids import NodeId
from services.checkpoint.description import BadStage, read_description
from services.checkpoint.sources import SourceFiles
from services.checkpoint.stage import verify
from services.splitter.cutter import cutter
from services.splitter.split import split_directory
from tests.unit.splitter.small import NAMES, plan_of, write_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def test_the_same_plan_again_writes_nothing(model: Path, tmp_path: Path) -> None:
    plan, out = plan_of(NAMES[:3], NAMES[3:]), tmp_path / "out"
    assert all(stage.written for stage in split_directory(model, plan, out))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert not any(stage.written for stage in split_directory(model, plan, out))
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}


def test_a_changed_model_is_cut_again(model: Path, tmp_path: Path) -> None:
    plan, out = plan_of(NAMES[:3], NAMES[3:]), tmp_path / "out"
    split_directory(model, plan, out)
    with (model / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    written = [stage.written for stage in split_directory(model, plan, out)]
    assert True in written
    assert verify([out / "n0", out / "n1"], model).ok


def test_a_stage_has_what_engines_need_and_nothing_else(model: Path, tmp_path: Path) -> None:
    (stage,) = split_directory(model, plan_of(NAMES[:3], NAMES[3:]), tmp_path, NodeId("n1"))
    names = {p.relative_to(stage.directory).as_posix() for p in stage.directory.rglob("*.*")}
    assert names == {
        "1_Pooling/config.json",
        "config.json",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "williw.stage.json",
    }
    description = read_description(stage.directory)
    assert description.layer_range is not None
    assert (description.layer_range.start, description.layer_range.end) == (3, 8)
    assert description.layer_range.last == 7
    assert description.has_head
    assert not description.has_embedding


def test_a_node_that_the_plan_does_not_know_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(BadStage, match="gives ghost nothing"):
        split_directory(model, plan_of(NAMES), tmp_path, NodeId("ghost"))


@pytest.mark.parametrize("where", [100, -1])
def test_a_flipped_bit_is_found_and_placed(model: Path, tmp_path: Path, where: int) -> None:
    split_directory(model, plan_of(NAMES[:3], NAMES[3:]), tmp_path)
    path = tmp_path / "n1" / "model-00002-of-00002.safetensors"
    body = bytearray(path.read_bytes())
    body[where] ^= 1
    path.write_bytes(body)
    report = verify([tmp_path / "n0", tmp_path / "n1"])
    assert not report.ok
    assert "differs in chunks" in report.problems[0]


def test_a_missing_stage_makes_the_coverage_a_part(model: Path, tmp_path: Path) -> None:
    split_directory(model, plan_of(NAMES[:3], NAMES[3:]), tmp_path)
    report = verify([tmp_path / "n1"])
    assert report.ok
    assert report.coverage == "part"
    with_model = verify([tmp_path / "n1"], model)
    assert not with_model.ok
    assert NAMES[0] in with_model.problems[0]


def test_what_is_no_stage_is_said_to_be_none(tmp_path: Path) -> None:
    report = verify([tmp_path])
    assert not report.ok
    assert "no stage directory" in report.problems[0]


def test_a_file_that_does_not_belong_is_found(model: Path, tmp_path: Path) -> None:
    split_directory(model, plan_of(NAMES[:3], NAMES[3:]), tmp_path)
    save_file({"x": np.ones(3)}, tmp_path / "n1" / "extra.safetensors")
    report = verify([tmp_path / "n0", tmp_path / "n1"])
    assert "extra.safetensors is no file of this stage" in report.problems[0]


def test_what_a_stage_says_of_itself_is_part_of_it(model: Path, tmp_path: Path) -> None:
    (first,) = split_directory(model, plan_of(NAMES), tmp_path / "out")
    described = first.directory / "williw.stage.json"
    body = described.read_bytes()
    described.write_bytes(body.replace(b'"has_head": true', b'"has_head": false'))
    assert described.read_bytes() != body
    (again,) = split_directory(model, plan_of(NAMES), tmp_path / "out")
    assert again.written
    assert described.read_bytes() == body


def test_threads_report_as_who_asked_for_the_cut(model: Path, tmp_path: Path) -> None:
    asked = ContextVar("asked", default="nobody")
    asked.set("this test")
    told: list[tuple[str, int, int]] = []

    def report(done: int, total: int) -> None:
        told.append((asked.get(), done, total))

    made = cutter(model, plan_of(NAMES), chunk_bytes=65536, threads=3, report=report)
    with SourceFiles(made.paths) as sources:
        made.side_by_side(lambda layout: made.cut(layout, sources), made.layouts, 2)
    assert len(told) > 10
    assert {who for who, _, _ in told} == {"this test"}
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert told[-1][1:] == (made.total_bytes, made.total_bytes)
