"""Building safetensors files byte by byte, so that they can be wrong in every way."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

WIDTHS = {"F32": 4, "BF16": 2, "I8": 1, "I32": 4}


def body_of(tensors: Mapping[str, tuple[str, tuple[int, ...]]], **extra: Any) -> bytes:
    """A well-made file: header and zeros."""
    header: dict[str, Any] = dict(extra)
    reached = 0
    for name, (dtype, shape) in tensors.items():
        size = WIDTHS[dtype]
        for dimension in shape:
            size *= dimension
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [reached, reached + size],
        }
        reached += size
    return framed(json.dumps(header).encode(), reached)


def framed(header: bytes, data_bytes: int) -> bytes:
    """A header of any bytes with its length before it and `data_bytes` zeros behind."""
    return len(header).to_bytes(8, "little") + header + bytes(data_bytes)


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a well-made file of these tensors into the test's folder."""

    def make(name: str, tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> Path:
        path = tmp_path / name
        path.write_bytes(body_of(tensors))
        return path

    return make


@pytest.fixture
def frame() -> Callable[[bytes, int], bytes]:
    return framed
