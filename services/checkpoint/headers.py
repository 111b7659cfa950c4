"""The header of a safetensors file: where every tensor lies, checked before it is believed.

A file is 8 bytes of header length (little endian), that many bytes of JSON, then the tensors' data.
Files are read with pread, never mapped: one that shrinks while mapped kills the process.
"""

import math
import os
import re
import stat
import sys
from collections.abc import Iterable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from services.checkpoint.dtypes import BITS
from services.checkpoint.failures import BadHeader
from services.checkpoint.strict import duplicate_key, occurs, repeated_key

MAX_HEADER_BYTES = 100_000_000
MAX_NAME_CHARS = 1024
MAX_RANK = 64
PREFIX_BYTES = 8

_UNSAFE = re.compile(r"[\x00-\x1f\x7f]|^[/\\]|^[A-Za-z]:[/\\]|(^|[/\\])\.\.?([/\\]|$)")
_MARKS = (b"/", b"\\", b"\x7f", b'"."', b'".."')  # no name can be unsafe without one of these
_UNREADABLE = (msgspec.MsgspecError, RecursionError, ValueError)  # every way JSON can fail here
_Size = Annotated[int, Meta(ge=0, le=2**62)]


class TensorEntry(msgspec.Struct, frozen=True, gc=False):
    """One tensor of a file; `begin` and `end` are byte offsets within the file's data section."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size_bytes(self) -> int:
        """Bytes as stored."""
        return self.end - self.begin

    @property
    def num_elements(self) -> int:
        """The product of the shape; 1 for a scalar."""
        return math.prod(self.shape)


class Header(msgspec.Struct, frozen=True, gc=False):
    """What one safetensors file holds; `tensors` by name, in the order of their data.

    Tensor t occupies bytes [data_start + t.begin, data_start + t.end) of the file.
    """

    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]
    data_start: int
    file_size: int


class _Info(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    dtype: str
    shape: Annotated[tuple[_Size, ...], Meta(max_length=MAX_RANK)]
    data_offsets: tuple[_Size, _Size]


_ENTRIES = msgspec.json.Decoder(dict[str, msgspec.Raw])
_INFO = msgspec.json.Decoder(_Info)
_METADATA = msgspec.json.Decoder(dict[str, str])


def read_header(path: Path, name: str = "") -> Header:
    """The header of the file at `path`, called `name` in errors (its own name by default).

    Raises BadHeader with the reason; OSError where the file cannot be read.
    """
    name = name or path.name
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BadHeader(name, "is not a regular file")
        length = header_length(os.pread(descriptor, PREFIX_BYTES, 0), status.st_size, name)
        body = os.pread(descriptor, length, PREFIX_BYTES)
    finally:
        os.close(descriptor)
    return parse_header(body, status.st_size, name)


def header_length(prefix: bytes, file_size: int, name: str) -> int:
    """The length in bytes of the JSON that follows the 8 bytes of `prefix`."""
    if file_size < PREFIX_BYTES or len(prefix) < PREFIX_BYTES:
        raise BadHeader(name, f"is {file_size} bytes long, too short for a safetensors file")
    if prefix.startswith(b"version "):
        raise BadHeader(name, "is a Git LFS pointer, not the weights; run `git lfs pull`")
    length = int.from_bytes(prefix[:PREFIX_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise BadHeader(name, f"says its header is {length} bytes, over the limit of 100 MB")
    if length > file_size - PREFIX_BYTES:
        raise BadHeader(name, f"says its header is {length} bytes, over the file's {file_size}")
    return length


def parse_header(body: bytes, file_size: int, name: str) -> Header:
    """The header whose JSON is `body` (without the 8 bytes of its length) in a file of `file_size`.

    Works on bytes fetched by range; BadHeader says what is wrong, `name` is the file's.
    """
    entries = _decode(body, name)
    said = entries.pop("__metadata__", None)
    metadata = _metadata_of(said, name)
    _check_names(entries, body, bytes(said or b""), name)
    tensors = _entries(entries, name)
    data_start = PREFIX_BYTES + len(body)
    if data_start > file_size:
        raise BadHeader(name, f"ends within its header, at byte {file_size}")
    _check_coverage(tensors.values(), file_size - data_start, name)
    return Header(tensors, metadata, data_start, file_size)


def _decode(body: bytes, name: str) -> dict[str, msgspec.Raw]:
    if not body.startswith(b"{"):
        raise BadHeader(name, "has a header that does not begin with {; is it a safetensors file?")
    try:
        entries = _ENTRIES.decode(body)
        said = entries.get("__metadata__")
        twice = duplicate_key(body, len(entries) - (said is not None), bytes(said or b""))
    except _UNREADABLE as error:
        raise BadHeader(name, f"has a header that {_said(error)}") from None
    if twice is not None:
        raise BadHeader(name, f"names {twice[:80]!r} twice")
    return entries


def _metadata_of(raw: msgspec.Raw | None, name: str) -> dict[str, str]:
    if raw is None:
        return {}
    try:
        found = _METADATA.decode(raw)
        twice = repeated_key(bytes(raw))
    except _UNREADABLE as error:
        raise BadHeader(name, f"has __metadata__ that {_said(error)}") from None
    if twice is not None:
        raise BadHeader(name, f"names {twice[:80]!r} twice in __metadata__")
    return found


def _said(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "is JSON nested too deep"
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8"
    return f"is not what it must be: {str(error)[:200]}"


def _entries(raw: dict[str, Any], name: str) -> dict[str, TensorEntry]:
    """The entries in the order of their data, put in the place of their JSON to save memory."""
    shapes: dict[tuple[int, ...], tuple[int, ...]] = {}
    reached, ordered = 0, True
    for key, body in raw.items():
        info = _info(key, body, name)
        begin, end = info.data_offsets
        if begin == reached:
            begin = reached  # one object for the end of a tensor and the start of the next
        ordered = ordered and begin >= reached
        reached = end
        shape = shapes.setdefault(info.shape, info.shape)
        raw[key] = TensorEntry(key, sys.intern(info.dtype), shape, begin, end)
    if ordered:
        return raw
    return {t.name: t for t in sorted(raw.values(), key=attrgetter("begin", "end"))}


def _info(key: str, raw: msgspec.Raw, name: str) -> _Info:
    try:
        info = _INFO.decode(raw)
    except _UNREADABLE as error:
        raise BadHeader(name, f"has tensor {key[:80]} whose entry {_said(error)}") from None
    bits = BITS.get(info.dtype)
    if bits is None:
        raise BadHeader(name, f"has tensor {key[:80]} of unknown dtype {info.dtype[:40]!r}")
    begin, end = info.data_offsets
    if math.prod(info.shape) * bits != (end - begin) * 8:
        raise BadHeader(
            name,
            f"gives tensor {key[:80]} the bytes [{begin}, {end}), which is not its shape "
            f"{list(info.shape)} in {info.dtype}",
        )
    return info


def _check_names(names: Iterable[str], body: bytes, metadata: bytes, name: str) -> None:
    """One look at the whole header spares most of them a look at each name."""
    suspicious = any(occurs(mark, body, metadata) for mark in _MARKS)
    for key in names:
        if not 0 < len(key) <= MAX_NAME_CHARS:
            raise BadHeader(name, f"has a tensor name of {len(key)} characters")
        if suspicious and _UNSAFE.search(key):
            raise BadHeader(name, f"has a tensor name that could escape: {key[:80]!r}")


def _check_coverage(tensors: Iterable[TensorEntry], data_bytes: int, name: str) -> None:
    """The tensors must tile the data section: no overlap, no hole, nothing after the last."""
    reached = 0
    for tensor in tensors:
        if tensor.begin != reached:
            fault = "overlaps the one before it" if tensor.begin < reached else "follows a hole"
            raise BadHeader(name, f"has tensor {tensor.name[:80]} that {fault}")
        reached = tensor.end
    if reached != data_bytes:
        fault = "is truncated" if reached > data_bytes else "has bytes that no tensor claims"
        raise BadHeader(name, f"{fault}: {data_bytes} bytes of data, {reached} described")
