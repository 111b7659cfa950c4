import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from services.checkpoint.checkpoint import Checkpoint, open_checkpoint
from services.checkpoint.config import read_config
from services.checkpoint.failures import (
    BadConfig,
    BadHeader,
    BadIndex,
    DuplicateTensor,
    EscapingFile,
    NoWeights,
)

Make = Callable[..., Path]
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def write_index(folder: Path, weight_map: object) -> None:
    body = json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(body)


def test_one_file_gives_every_tensor_with_its_place(make_file: Make, tmp_path: Path) -> None:
    path = make_file("model.safetensors", {"a": ("F32", (2, 3)), "b": ("BF16", (4,))})
    found = open_checkpoint(tmp_path)
    assert found.names == ("a", "b")
    assert len(found) == 2
    assert found["b"].offset == path.stat().st_size - 8
    assert found["b"].torch_dtype == "torch.bfloat16"
    assert found["a"].size_bytes == 24
    assert found.size_bytes == 32
    assert found.path_of(found["a"].file) == path
    assert "c" not in found


def test_a_sharded_model_is_read_by_its_index(make_file: Make, tmp_path: Path) -> None:
    make_file(FIRST, {"a": ("F32", (2,))})
    make_file(SECOND, {"b": ("F32", (2,))})
    make_file("extra.safetensors", {"a": ("F32", (2,))})
    write_index(tmp_path, {"a": FIRST, "b": SECOND})
    assert [(t.name, t.file) for t in open_checkpoint(tmp_path)] == [("a", FIRST), ("b", SECOND)]


def test_several_files_without_an_index_are_one_model(make_file: Make, tmp_path: Path) -> None:
    make_file("part-b.safetensors", {"b": ("F32", (2,))})
    make_file("part-a.safetensors", {"a": ("F32", (2,))})
    make_file("consolidated.safetensors", {"a": ("F32", (2,)), "b": ("F32", (2,))})
    assert open_checkpoint(tmp_path).names == ("a", "b")


@pytest.mark.parametrize("indexed", [True, False])
def test_two_files_claiming_one_tensor_are_refused(
    make_file: Make, tmp_path: Path, indexed: bool
) -> None:
    make_file(FIRST, {"a": ("F32", (2,)), "b": ("F32", (2,))})
    make_file(SECOND, {"b": ("F32", (2,))})
    if indexed:
        write_index(tmp_path, {"a": FIRST, "b": SECOND})
    with pytest.raises(DuplicateTensor, match="tensor b is in both"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "file",
    [
        "../outside.safetensors",
        "/etc/passwd",
        "a/../../b.safetensors",
        "..",
        "x\0.safetensors",
        "a.bin",
    ],
)
def test_an_index_that_points_elsewhere_is_refused(
    make_file: Make, tmp_path: Path, file: str
) -> None:
    make_file(FIRST, {"a": ("F32", (2,))})
    write_index(tmp_path, {"a": FIRST, "b": file})
    with pytest.raises(EscapingFile):
        open_checkpoint(tmp_path)


def test_an_index_that_is_wrong_about_a_tensor_is_refused(make_file: Make, tmp_path: Path) -> None:
    make_file(FIRST, {"a": ("F32", (2,))})
    make_file(SECOND, {"b": ("F32", (2,))})
    write_index(tmp_path, {"a": SECOND, "b": SECOND, "c": FIRST})
    with pytest.raises(BadIndex, match="says a is in"):
        open_checkpoint(tmp_path)


def test_an_index_over_missing_files_names_the_first(make_file: Make, tmp_path: Path) -> None:
    make_file(FIRST, {"a": ("F32", (2,))})
    write_index(tmp_path, {"a": FIRST, "b": SECOND})
    with pytest.raises(NoWeights, match=f"lacks 1 of the 2 .* {SECOND}"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("there", [FIRST, SECOND])
def test_parts_without_an_index_are_refused_where_one_is_missing(
    make_file: Make, tmp_path: Path, there: str
) -> None:
    make_file(there, {"a": ("F32", (2,))})
    missing = SECOND if there == FIRST else FIRST
    with pytest.raises(NoWeights, match=f"lacks {missing}, by the names of the others"):
        open_checkpoint(tmp_path)


def test_parts_without_an_index_that_are_all_there_are_one_model(
    make_file: Make, tmp_path: Path
) -> None:
    make_file(FIRST, {"a": ("F32", (2,))})
    make_file(SECOND, {"b": ("F32", (2,))})
    make_file("vision-1-of-1.safetensors", {"c": ("F32", (2,))})
    assert open_checkpoint(tmp_path).names == ("a", "b", "c")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"weight_map":{"a":1}}', b"{" * 9_999, b"\xff"]
)
def test_an_index_that_is_none_is_refused(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "model.safetensors.index.json").write_bytes(body)
    with pytest.raises(BadIndex):
        open_checkpoint(tmp_path)


def test_a_key_said_twice_in_an_index_is_refused(make_file: Make, tmp_path: Path) -> None:
    make_file(FIRST, {"a": ("F32", (2,))})
    text = f'{{"weight_map":{{"a":"{FIRST}","a":"{FIRST}"}}}}'
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(BadIndex, match="twice"):
        open_checkpoint(tmp_path)


def test_a_link_out_of_the_directory_is_refused(make_file: Make, tmp_path: Path) -> None:
    target = make_file("secret.safetensors", {"a": ("F32", (2,))})
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(target)
    with pytest.raises(EscapingFile, match="outside"):
        open_checkpoint(folder)


def test_the_links_of_the_hubs_cache_are_followed(make_file: Make, tmp_path: Path) -> None:
    repo = tmp_path / "models--org--name"
    snapshot = repo / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    blob = make_file("blob", {"a": ("F32", (2,))}).rename(repo / "blobs" / "abc")
    (snapshot / "model.safetensors").symlink_to(os.path.relpath(blob, snapshot))
    found = open_checkpoint(snapshot)
    assert found.names == ("a",)
    assert found.path_of("model.safetensors").exists()


@pytest.mark.parametrize(
    ("file", "said"),
    [("model.gguf", "GGUF"), ("pytorch_model.bin", "pickle"), ("x.txt", "safetensors")],
)
def test_a_directory_without_safetensors_says_what_to_do(
    tmp_path: Path, file: str, said: str
) -> None:
    (tmp_path / file).write_bytes(b"x")
    with pytest.raises(NoWeights) as caught:
        open_checkpoint(tmp_path)
    assert said in caught.value.reason + caught.value.advice


def test_no_directory_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(NoWeights, match="not a directory"):
        open_checkpoint(tmp_path / "absent")


def test_headers_alone_make_the_same_checkpoint(make_file: Make, tmp_path: Path) -> None:
    make_file("model.safetensors", {"a": ("F32", (2, 3))})
    local = open_checkpoint(tmp_path)
    remote = Checkpoint(local.files)
    assert list(remote) == list(local)
    with pytest.raises(ValueError, match="header only"):
        remote.path_of("model.safetensors")


def test_one_bad_file_refuses_the_whole(make_file: Make, tmp_path: Path) -> None:
    make_file("a.safetensors", {"a": ("F32", (2,))})
    (tmp_path / "b.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(BadHeader, match=r"^b\.safetensors"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"a":' * 50_000])
def test_a_configuration_that_is_none_is_refused(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "config.json").write_bytes(body)
    with pytest.raises(BadConfig):
        read_config(tmp_path)


def test_infinities_that_older_makers_wrote_are_read_as_newer_ones_write_them(
    tmp_path: Path,
) -> None:
    body = b'{"time_step_limit": [0.0, Infinity], "low": -Infinity, "none": NaN}'
    (tmp_path / "config.json").write_bytes(body)
    infinity, low, none = ({"__float__": word} for word in ("Infinity", "-Infinity", "NaN"))
    read = read_config(tmp_path)
    assert read == {"time_step_limit": [0.0, infinity], "low": low, "none": none}


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"no config\.json"):
        read_config(tmp_path)
