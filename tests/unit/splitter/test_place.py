"""Where stages go: what is not williw's own is left as it is, and nothing half made stays."""

import fcntl
import os
import shutil
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from messages.failures import Permanent
from services.checkpoint.checkpoint import open_checkpoint
from services.checkpoint.failures import ChangedFile
from services.checkpoint.stage import verify
from services.splitter.cutting import shares_blocks
from services.splitter.failures import NotEnoughDisk, Occupied
from services.splitter.split import split_directory
from tests.unit.splitter.small import NAMES, plan_of, write_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def tree(directory: Path) -> dict[str, bytes | str]:
    """Everything below a directory, by its path: a file's bytes, or what else it is."""
    return {
        path.relative_to(directory).as_posix(): str(path.readlink())
        if path.is_symlink()
        else (path.read_bytes() if path.is_file() else "a directory")
        for path in directory.rglob("*")
    }


def a_file(place: Path) -> None:
    place.write_text("mine")


def a_link(place: Path) -> None:
    (place.parent / "elsewhere").mkdir()
    place.symlink_to("elsewhere")


def a_dangling_link(place: Path) -> None:
    place.symlink_to("nowhere")


def notes(place: Path) -> None:
    place.mkdir()
    (place / "notes.txt").write_text("mine")


def a_damaged_description(place: Path) -> None:
    place.mkdir()
    (place / "williw.stage.json").write_text("{}")


@pytest.mark.parametrize("make", [a_file, a_link, a_dangling_link, notes, a_damaged_description])
def test_what_is_no_stage_is_refused_by_name_and_left_as_it_is(
    model: Path, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    make(out / "n1")
    before = tree(out)
    with pytest.raises(Occupied, match=str(out / "n1")):
        split_directory(model, plan_of(NAMES[:4], NAMES[4:]), out)
    assert tree(out) == before


def test_an_older_stage_is_replaced_and_an_empty_directory_filled(
    model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "n0").mkdir(parents=True)
    split_directory(model, plan_of(NAMES[:4], NAMES[4:]), out)
    split_directory(model, plan_of(NAMES[:2], NAMES[2:], plan_id="p2"), out)
    assert sorted(entry.name for entry in out.iterdir()) == ["n0", "n1"]
    assert verify([out / "n0", out / "n1"], model).problems == ()


@pytest.mark.parametrize("within", ["", "stages", "1_Pooling"])
def test_stages_do_not_go_into_the_model(model: Path, within: str) -> None:
    before = tree(model)
    with pytest.raises(Occupied, match="the model's own directory"):
        split_directory(model, plan_of(NAMES), model / within)
    assert tree(model) == before


def test_a_stage_does_not_go_where_the_model_is(tmp_path: Path) -> None:
    model = write_model(tmp_path / "n0" / "model")
    with pytest.raises(Occupied, match="holds the model"):
        split_directory(model, plan_of(NAMES), tmp_path)


def test_what_a_killed_process_left_is_swept_whichever_node_it_was_for(
    model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    left = [".williw-cutting-4711-0123456789ab", ".williw-cutting-1-0123456789ab.old"]
    foreign = [".cutting", ".n0.cutting", ".williw-cutting-mine", "notes"]
    for name in (*left, *foreign):
        (out / name).mkdir(parents=True)
        (out / name / "half").touch()
    split_directory(model, plan_of(NAMES), out)
    assert sorted(entry.name for entry in out.iterdir()) == sorted([*foreign, "n0"])


def test_what_does_not_fit_is_refused_before_a_byte_is_read(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    size = shutil.disk_usage(tmp_path).free + (1 << 30)
    header = b'{"w":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (size, size)
    with (model / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(file.tell() + size)  # a hole: it takes no room itself
    if shares_blocks(model / "model.safetensors", tmp_path):
        pytest.skip("this file system shares blocks")
    with pytest.raises(NotEnoughDisk, match=f"{tmp_path / 'out'} has") as refused:
        split_directory(model, plan_of(("w",)), tmp_path / "out")
    assert refused.value.needed_bytes > refused.value.free_bytes > 0
    assert "--out" in refused.value.advice
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("jobs", [1, 4])
def test_a_model_that_changes_while_it_is_cut_leaves_nothing_half_made(
    model: Path, tmp_path: Path, jobs: int
) -> None:
    whole = open_checkpoint(model)
    with (model / "model.safetensors").open("r+b") as file:
        plan = plan_of(*((name,) for name in whole.names))

        def shorten() -> None:
            file.truncate(whole.files["model.safetensors"].data_start)

        out = tmp_path / "out"
        out.mkdir()
        holding = os.open(out, os.O_RDONLY)
        fcntl.flock(holding, fcntl.LOCK_EX)

        def waiting() -> None:  # its headers were read
            shorten()
            os.close(holding)

        with pytest.raises(ChangedFile, match="before its tensors do"):
            split_directory(model, plan, out, jobs=jobs, waiting=waiting)
    assert list(out.iterdir()) == []


def test_a_second_split_into_one_directory_waits_and_finds_what_the_first_made(
    model: Path, tmp_path: Path
) -> None:
    out, plan = tmp_path / "out", plan_of(NAMES[:4], NAMES[4:])
    out.mkdir()
    holding = os.open(out, os.O_RDONLY)
    fcntl.flock(holding, fcntl.LOCK_EX)
    written: list[bool] = []
    both_wait = threading.Barrier(3, timeout=30)

    def waiting() -> None:
        both_wait.wait()

    def cut() -> None:
        made = split_directory(model, plan, out, waiting=waiting)
        written.extend(stage.written for stage in made)

    threads = [threading.Thread(target=cut) for _ in range(2)]
    for one in threads:
        one.start()
    both_wait.wait()
    assert list(out.iterdir()) == []
    os.close(holding)
    for one in threads:
        one.join()
    assert sorted(written) == [False, False, True, True]
    assert verify([out / "n0", out / "n1"], model).problems == ()


def test_an_output_that_is_a_file_is_refused_plainly(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(Permanent, match="is no directory"):
        split_directory(model, plan_of(NAMES), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"
