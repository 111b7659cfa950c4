"""A directory's stamp: another after any change of a model, none while it is changing."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from services.checkpoint.stamps import stamp_of
from tests.settled import settled


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's directory with a folder, a link, and what is in no model."""
    directory = tmp_path / "model"
    (directory / "1_Pooling").mkdir(parents=True)
    (directory / ".cache").mkdir()
    for name in ("model.safetensors", "config.json", "1_Pooling/config.json", ".cache/at"):
        (directory / name).write_text("{}")
    for name in ("one", "other"):
        (tmp_path / name).write_text("{}")
    (directory / "tokenizer.json").symlink_to("../one")
    (directory / "nowhere.json").symlink_to("not-there")
    return directory


def rewritten_in_place(directory: Path) -> None:
    """Other bytes, as many of them, with the time of the older ones."""
    file = directory / "model.safetensors"
    before = file.stat()
    file.write_text("[]")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def linked_elsewhere(directory: Path) -> None:
    (directory / "tokenizer.json").unlink()
    (directory / "tokenizer.json").symlink_to("../other")


CHANGES: tuple[Callable[[Path], object], ...] = (
    rewritten_in_place,
    linked_elsewhere,
    lambda directory: (directory.parent / "one").write_text("[]"),
    lambda directory: (directory / "1_Pooling" / "config.json").write_text("{} "),
    lambda directory: (directory / "1_Pooling" / "more.json").touch(),
    lambda directory: (directory / "config.json").unlink(),
    lambda directory: (directory / "config.json").rename(directory / "other.json"),
    lambda directory: (directory / ".hidden.safetensors").touch(),
    lambda directory: (directory / "config.json").chmod(0o600),
)


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_gives_another_stamp(model: Path, change: Callable[[Path], object]) -> None:
    before = settled(model)
    assert settled(model) == before
    change(model)
    assert settled(model) != before


def test_what_is_hidden_in_a_folder_of_its_own_changes_nothing(model: Path) -> None:
    before = settled(model)
    (model / ".cache" / "at").write_text("later")
    assert settled(model) == before


def test_there_is_no_stamp_while_something_changes_nor_of_what_is_not_there(model: Path) -> None:
    settled(model)
    until = time.monotonic() + 10
    file = model / "1_Pooling" / "config.json"
    file.write_text("{} ")
    while stamp_of(model) is not None:  # but for a pause of a tenth of a second just then
        assert time.monotonic() < until
        file.write_text("{} ")
    assert stamp_of(model / "not-there") is None
