"""A finished directory takes its name in one step; what had it goes only afterwards."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from services.checkpoint import appearing
from services.checkpoint.appearing import appear


def made(folder: Path, body: str) -> Path:
    folder.mkdir()
    (folder / "file").write_text(body)
    return folder


def test_a_new_directory_appears_and_leaves_no_other_name(tmp_path: Path) -> None:
    appear(made(tmp_path / ".making", "new"), tmp_path / "final")
    assert [entry.name for entry in tmp_path.iterdir()] == ["final"]


@pytest.mark.parametrize("exchanging", [True, False])
def test_an_older_directory_is_replaced_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanging: bool
) -> None:
    if not exchanging:  # as with a C library, or a file system, that has no exchange
        monkeypatch.setattr(appearing, "_c_library", SimpleNamespace())
    final = made(tmp_path / "final", "old")
    (final / "only-in-the-old-one").touch()
    appear(made(tmp_path / ".making", "new"), final)
    assert [entry.name for entry in tmp_path.iterdir()] == ["final"]
    assert [entry.name for entry in final.iterdir()] == ["file"]
    assert (final / "file").read_text() == "new"


def test_the_older_directory_stays_until_the_newer_one_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = made(tmp_path / "final", "old")
    temporary = made(tmp_path / ".making", "new")
    seen: list[tuple[Path, str, str]] = []

    def removed(older: Path) -> None:
        seen.append((older, (older / "file").read_text(), (final / "file").read_text()))

    monkeypatch.setattr("shutil.rmtree", removed)
    appear(temporary, final)
    assert seen == [(temporary, "old", "new")]


def test_a_file_in_the_place_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "final").write_text("mine")
    with pytest.raises(NotADirectoryError):
        appear(made(tmp_path / ".making", "new"), tmp_path / "final")
    assert (tmp_path / "final").read_text() == "mine"
