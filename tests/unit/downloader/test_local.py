"""Models that are directories of the origin."""

import os
import shutil
from pathlib import Path

import pytest

from services.downloader.local import (
    Escapes,
    NotAllowed,
    NotThere,
    check_contained,
    listing,
    open_local,
)
from services.hub.failures import UnusableModel
from services.hub.selection import choose


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory that may be taken from, which holds one model."""
    model = tmp_path / "models" / "mini"
    (model / "1_Pooling").mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "config.json").write_text("{}")
    (model / "1_Pooling" / "config.json").write_text("{}")
    (model / "README.md").write_text("read me")
    return tmp_path / "models"


def test_a_directory_is_used_where_it_is(root: Path) -> None:
    found = open_local(str(root / "mini"), [str(root)])
    assert found.directory == root / "mini"
    assert [file.path for file in found.choice.files] == [
        "1_Pooling/config.json",
        "config.json",
        "model.safetensors",
    ]


def test_its_revision_changes_with_names_sizes_and_times_and_with_nothing_else(root: Path) -> None:
    def revision() -> str:
        return open_local(str(root / "mini"), [str(root)]).revision

    first = revision()
    assert first.startswith("local-")
    assert revision() == first
    (root / "mini" / "README.md").write_text("not part of the model")
    assert revision() == first
    os.utime(root / "mini" / "config.json", ns=(1, 1))
    second = revision()
    assert second != first
    (root / "mini" / "tokenizer.json").write_text("{}")
    assert revision() not in (first, second)


def test_a_path_outside_the_allowed_directories_is_refused(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere"
    (root / "mini").rename(outside)
    for allowed in ([], [str(root)], [str(root / "mini")]):
        with pytest.raises(NotAllowed) as refused:
            open_local(str(outside), allowed)
        assert "local_roots" in refused.value.advice


def test_a_link_out_of_the_allowed_directories_is_refused(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere"
    (root / "mini").rename(outside)
    (root / "mini").symlink_to(outside)
    with pytest.raises(NotAllowed):
        open_local(str(root / "mini"), [str(root)])


def test_a_name_that_only_begins_like_an_allowed_one_is_refused(root: Path) -> None:
    (root / "mini").rename(root.parent / "models-other")
    with pytest.raises(NotAllowed):
        open_local(str(root.parent / "models-other"), [str(root)])


def test_a_file_that_is_a_link_out_of_its_directory_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (root / "mini" / "tokenizer.json").symlink_to(tmp_path / "secret")
    with pytest.raises(Escapes, match=r"tokenizer\.json"):
        open_local(str(root / "mini"), [str(root)])


def test_a_file_in_a_folder_is_refused_where_the_file_is_a_link_out(
    root: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret.json").write_text("{}")
    (root / "mini" / "1_Pooling" / "more.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(Escapes, match=r"1_Pooling/more\.json"):
        open_local(str(root / "mini"), [str(root)])


def test_a_folder_is_part_of_the_model_only_where_it_is_no_link_and_one_level_down(
    root: Path, tmp_path: Path
) -> None:
    shutil.copytree(root / "mini" / "1_Pooling", tmp_path / "2_Dense")
    shutil.copytree(root / "mini" / "1_Pooling", root / "mini" / "1_Pooling" / "deeper")
    shutil.copytree(root / "mini" / "1_Pooling", root / "mini" / ".cache")
    (root / "mini" / "2_Dense").symlink_to(tmp_path / "2_Dense")
    assert [file.path for file in listing(root / "mini")] == [
        "README.md",
        "config.json",
        "model.safetensors",
        "1_Pooling/config.json",
    ]


def test_a_link_within_the_directory_is_a_file_and_one_that_leads_nowhere_is_none(
    root: Path,
) -> None:
    model = root / "mini"
    (model / "tokenizer.json").symlink_to("1_Pooling/config.json")
    (model / "nowhere.json").symlink_to("not-there")
    (model / "circle.json").symlink_to("circle.json")
    names = [file.path for file in open_local(str(model), [str(root)]).choice.files]
    assert "tokenizer.json" in names
    assert not {"nowhere.json", "circle.json"} & set(names)


def test_check_contained_finds_a_folder_that_has_become_a_link_out(
    root: Path, tmp_path: Path
) -> None:
    model = root / "mini"
    choice = choose("mini", listing(model))
    check_contained("mini", model, choice)
    (model / "1_Pooling").rename(tmp_path / "outside")
    (model / "1_Pooling").symlink_to(tmp_path / "outside")
    with pytest.raises(Escapes, match="1_Pooling"):
        check_contained("mini", model, choice)


def test_a_snapshot_of_the_hubs_cache_may_link_to_its_blobs(tmp_path: Path) -> None:
    repo = tmp_path / "models--org--name"
    snapshot = repo / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    for name in ("model.safetensors", "config.json"):
        (repo / "blobs" / f"blob-{name}").write_bytes(b"{}")
        (snapshot / name).symlink_to(f"../../blobs/blob-{name}")
    assert open_local(str(snapshot), [str(tmp_path)]).directory == snapshot


def test_a_directory_that_is_not_there_is_said_to_be_missing(root: Path) -> None:
    with pytest.raises(NotThere):
        open_local(str(root / "none"), [str(root)])


def test_a_directory_without_usable_weights_says_why(root: Path) -> None:
    (root / "mini" / "model.safetensors").rename(root / "mini" / "model.gguf")
    with pytest.raises(UnusableModel, match="GGUF"):
        open_local(str(root / "mini"), [str(root)])
