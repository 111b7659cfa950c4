"""The header of a stage file, from its tensors alone: whoever has the manifest can make it."""

from collections.abc import Iterable

import msgspec

from messages.shards import StageFile
from services.checkpoint.headers import PREFIX_BYTES

METADATA = {"format": "pt"}


def header_body(tensors: Iterable[tuple[str, str, tuple[int, ...], int]]) -> bytes:
    """The JSON for tensors given as name, dtype, shape and size, laid one after the other."""
    entries: dict[str, object] = {"__metadata__": METADATA}
    begin = 0
    for name, dtype, shape, size_bytes in tensors:
        offsets = (begin, begin + size_bytes)
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        begin += size_bytes
    return msgspec.json.encode(entries)


def padded(body: bytes, data_start: int) -> bytes:
    """The header whose data begins at byte `data_start`: its length, the JSON, spaces."""
    length = data_start - PREFIX_BYTES
    return length.to_bytes(PREFIX_BYTES, "little") + body.ljust(length)


def header_of(file: StageFile) -> bytes:
    """The first `data_start` bytes of a stage file."""
    tensors = ((t.name, t.dtype, t.shape, t.size_bytes) for t in file.tensors)
    return padded(header_body(tensors), file.data_start)
