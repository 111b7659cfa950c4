import itertools
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.checkpoint import strict
from services.checkpoint.dtypes import DTYPES
from services.checkpoint.failures import BadHeader
from services.checkpoint.headers import parse_header, read_header

Frame = Callable[[bytes, int], bytes]


def refused(header: bytes, data_bytes: int, tmp_path: Path) -> str:
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(data_bytes))
    with pytest.raises(BadHeader) as caught:
        read_header(path)
    assert caught.value.reason.startswith("hostile.safetensors")
    return caught.value.why


def entry(dtype: str = "F32", shape: str = "[2]", offsets: str = "[0,8]") -> str:
    return f'{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}'


HOSTILE = {
    "not an object": (b"[1,2]", 0, "does not begin with {"),
    "leading spaces": (b'  {"a":' + entry().encode() + b"}", 8, "does not begin with {"),
    "empty": (b"", 0, "does not begin with {"),
    "cut JSON": (b'{"a":', 0, "not what it must be"),
    "an unknown dtype": (f'{{"a":{entry("F7")}}}'.encode(), 8, "unknown dtype"),
    "a shape that is not its range": (f'{{"a":{entry(shape="[3]")}}}'.encode(), 8, "not its shape"),
    "a negative dimension": (f'{{"a":{entry(shape="[-2]")}}}'.encode(), 8, "wrong|must be"),
    "a dimension of 2^70": (
        f'{{"a":{entry(shape="[1180591620717411303424]")}}}'.encode(),
        8,
        "must",
    ),
    "a range backwards": (f'{{"a":{entry(offsets="[8,0]")}}}'.encode(), 8, "not its shape"),
    "three offsets": (f'{{"a":{entry(offsets="[0,8,9]")}}}'.encode(), 8, "must be"),
    "a missing field": (b'{"a":{"dtype":"F32","shape":[2]}}', 8, "must be"),
    "a strange field": (
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}}',
        8,
        "must be",
    ),
    "overlapping ranges": (
        f'{{"a":{entry()},"b":{entry(offsets="[4,12]")}}}'.encode(),
        12,
        "overlaps",
    ),
    "a hole": (f'{{"a":{entry()},"b":{entry(offsets="[12,20]")}}}'.encode(), 20, "hole"),
    "a hole at the start": (f'{{"a":{entry(offsets="[4,12]")}}}'.encode(), 12, "hole"),
    "bytes that nobody claims": (f'{{"a":{entry()}}}'.encode(), 9, "no tensor claims"),
    "a truncated file": (f'{{"a":{entry()}}}'.encode(), 7, "truncated"),
    "a name said twice": (f'{{"a":{entry()},"a":{entry(offsets="[8,16]")}}}'.encode(), 16, "twice"),
    "a name said twice by an escape": (
        f'{{"a":{entry()},"\\u0061":{entry(offsets="[8,16]")}}}'.encode(),
        16,
        "twice",
    ),
    "a field said twice": (
        b'{"a":{"dtype":"I8","dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        8,
        "twice",
    ),
    "metadata said twice": (
        f'{{"__metadata__":{{}},"__metadata__":{{}},"a":{entry()}}}'.encode(),
        8,
        "twice",
    ),
    "a metadata key said twice": (
        f'{{"__metadata__":{{"k":"1","k":"2"}},"a":{entry()}}}'.encode(),
        8,
        "twice",
    ),
    "a name said twice beside metadata with escapes": (
        f'{{"a":{entry()},"__metadata__":{{"k":"\\""}},"a":{entry(offsets="[8,16]")}}}'.encode(),
        16,
        "twice",
    ),
    "a name said twice by an escape beside metadata with escapes": (
        f'{{"__metadata__":{{"k":"\\""}},"a":{entry()},"\\u0061":'
        f"{entry(offsets='[8,16]')}}}".encode(),
        16,
        "twice",
    ),
    "metadata said twice by an escape": (
        f'{{"\\u005f_metadata__":{{}},"__metadata__":{{"k":"\\""}},"a":{entry()}}}'.encode(),
        8,
        "twice",
    ),
    "metadata that is no text": (
        f'{{"__metadata__":{{"k":1}},"a":{entry()}}}'.encode(),
        8,
        "must be",
    ),
    "not UTF-8 in a name": (b'{"\xff\xfe":' + entry().encode() + b"}", 8, "UTF-8"),
    "not UTF-8 in a value": (
        b'{"a":{"dtype":"\xff","shape":[2],"data_offsets":[0,8]}}',
        8,
        "UTF-8",
    ),
    "deep JSON": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 0, "deep"),
    "deep JSON in metadata": (
        b'{"__metadata__":' + b'{"a":' * 50_000 + b'"b"' + b"}" * 50_001,
        0,
        "deep|must",
    ),
    "an endless number": (b'{"a":' + b"9" * 10_000 + b"}", 0, "must be"),
    "a name that climbs": (f'{{"../../etc/passwd":{entry()}}}'.encode(), 8, "escape"),
    "an absolute name": (f'{{"/etc/passwd":{entry()}}}'.encode(), 8, "escape"),
    "a drive": (f'{{"C:\\\\windows":{entry()}}}'.encode(), 8, "escape"),
    "a NUL in a name": (f'{{"a\\u0000b":{entry()}}}'.encode(), 8, "escape"),
    "a name that climbs beside metadata of paths": (
        f'{{"__metadata__":{{"k":"\\"/a/../b"}},"../b":{entry()}}}'.encode(),
        8,
        "escape",
    ),
    "a name of dots": (f'{{"..":{entry()}}}'.encode(), 8, "escape"),
    "an empty name": (f'{{"":{entry()}}}'.encode(), 8, "0 characters"),
    "a name of a megabyte": (
        f'{{"{"n" * 1_000_000}":{entry()}}}'.encode(),
        8,
        "1000000 characters",
    ),
    "too many dimensions": (f'{{"a":{entry(shape=str([1] * 100))}}}'.encode(), 4, "must be"),
    "half a byte": (
        f'{{"a":{entry("F4", "[3]", "[0,1]")}}}'.encode(),
        1,
        "not its shape",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_header_is_refused_with_its_reason(what: str, tmp_path: Path) -> None:
    header, data_bytes, reason = HOSTILE[what]
    said = refused(header, data_bytes, tmp_path)
    assert any(part in said for part in reason.split("|")), said


def test_a_header_longer_than_its_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.safetensors"
    path.write_bytes(struct.pack("<Q", 1000) + b"{}")
    with pytest.raises(BadHeader, match="over the file"):
        read_header(path)


def test_a_header_of_over_100_mb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 100_000_001))
        file.truncate(200_000_000)
    with pytest.raises(BadHeader, match="over the limit"):
        read_header(path)


def test_a_git_lfs_pointer_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "pointer.safetensors"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(BadHeader, match="git lfs pull"):
        read_header(path)


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    path = tmp_path / "pipe.safetensors"
    os.mkfifo(path)
    with pytest.raises(BadHeader, match="regular file"):
        read_header(path)


def test_a_name_that_only_looks_unusual_is_read(frame: Frame) -> None:
    header = {
        "__metadata__": {"format": "pt", "note": 'a "dtype" and "shape"', "url": "https://a/../b"},
        "dtype": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "layer/0/weight": {"dtype": "F32", "shape": [], "data_offsets": [8, 12]},
        "größe": {"dtype": "F32", "shape": [0, 7], "data_offsets": [12, 12]},
    }
    body = json.dumps(header, ensure_ascii=False).encode()
    found = parse_header(body, len(frame(body, 12)), "odd")
    assert [t.name for t in found.tensors.values()] == ["dtype", "layer/0/weight", "größe"]
    assert found.metadata["format"] == "pt"


def test_what_metadata_says_does_not_have_its_header_read_the_slow_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def slow(_: bytes) -> str:
        raise AssertionError("read the slow way")

    metadata = json.dumps({"spec": '{"a": "b", "dtype": "shape", "__metadata__": 1}', "dtype": "x"})
    body = f'{{"__metadata__":{metadata},"a":{entry()}}}'.encode()
    monkeypatch.setattr(strict, "repeated_key", slow)
    assert strict.duplicate_key(body, 1, metadata.encode()) is None
    with pytest.raises(AssertionError, match="slow"):
        strict.duplicate_key(body, 1)


def test_every_file_the_safetensors_library_writes_is_read_the_same(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    kinds = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.uint8]
    kinds += [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.float64]
    tensors = {f"t.{i}": torch.zeros((i + 1, 3), dtype=kind) for i, kind in enumerate(kinds)}
    save_file(tensors, tmp_path / "all.safetensors", {"format": "pt"})
    found = read_header(tmp_path / "all.safetensors")
    assert {n: (DTYPES[t.dtype].torch_name, t.shape) for n, t in found.tensors.items()} == {
        n: (str(t.dtype), tuple(t.shape)) for n, t in tensors.items()
    }


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\.\x7f", min_codepoint=32), min_size=1
)
SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)


@given(st.dictionaries(NAMES, SHAPES, max_size=20), st.booleans(), st.dictionaries(NAMES, NAMES))
def test_a_well_made_header_gives_back_what_was_written(
    shapes: dict[str, tuple[int, ...]], escaped: bool, metadata: dict[str, str]
) -> None:
    shapes.pop("__metadata__", None)
    header: dict[str, object] = {"__metadata__": metadata}
    reached = 0
    for name, shape in shapes.items():
        size = 4
        for dimension in shape:
            size *= dimension
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [reached, reached + size]}
        reached += size
    body = json.dumps(header, ensure_ascii=escaped).encode()
    found = parse_header(body, 8 + len(body) + reached, "made")
    assert {name: t.shape for name, t in found.tensors.items()} == shapes
    assert found.metadata == metadata
    assert found.data_start == 8 + len(body)
    assert sum(t.size_bytes for t in found.tensors.values()) == reached


@given(st.binary(max_size=300), st.integers(0, 400))
def test_no_bytes_whatever_raise_anything_but_a_refusal(body: bytes, data_bytes: int) -> None:
    try:
        found = parse_header(body, 8 + len(body) + data_bytes, "any")
    except BadHeader:
        return
    assert sum(t.size_bytes for t in found.tensors.values()) == data_bytes


GOOD = json.dumps(
    {
        "__metadata__": {"format": "pt"},
        "a.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b.weight": {"dtype": "BF16", "shape": [4], "data_offsets": [16, 24]},
    }
).encode()


@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=0, max_size=3), st.integers(0, 3))
def test_a_damaged_header_is_refused_or_still_covers_its_data(
    where: int, replacement: bytes, removed: int
) -> None:
    body = GOOD[:where] + replacement + GOOD[where + removed :]
    try:
        found = parse_header(body, 8 + len(body) + 24, "damaged")
    except BadHeader:
        return
    ends = [(t.begin, t.end) for t in found.tensors.values()]
    assert ends[0][0] == 0
    assert ends[-1][1] == 24
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ends))


@pytest.mark.parametrize("file", sorted((Path(__file__).parents[2] / "corpus/headers").iterdir()))
def test_nothing_of_the_corpus_is_believed(file: Path) -> None:
    with pytest.raises(BadHeader):
        read_header(file)
