"""The header of a stage file: the tensors in their new places, padded so that blocks can be shared.

A file system that shares blocks does so only for ranges that start at the same offset within a
block in both files, so the header is padded until that holds for the largest run of bytes.
"""

from collections.abc import Sequence

from messages.shards import StageTensor
from services.checkpoint.checkpoint import StoredTensor
from services.checkpoint.headers import PREFIX_BYTES
from services.checkpoint.layout import Span
from services.checkpoint.stage_header import header_body, padded

BLOCK_BYTES = 4096
_ALIGNMENT = 8


def placed(tensors: Sequence[StoredTensor]) -> tuple[bytes, tuple[StageTensor, ...]]:
    """The header of a file that holds these tensors in this order, and each tensor's place in it.

    The header is a multiple of 8 bytes; at most 4 KiB of it are padding.
    """
    body = header_body((t.name, t.dtype, t.shape, t.size_bytes) for t in tensors)
    data_start = _data_start(PREFIX_BYTES + len(body), runs(tensors))
    return padded(body, data_start), tuple(_places(tensors, data_start))


def runs(tensors: Sequence[StoredTensor]) -> list[Span]:
    """The source ranges of these tensors in order, adjacent ones joined, empty ones left out."""
    found: list[Span] = []
    for tensor in tensors:
        if not tensor.size_bytes:
            continue
        last = found[-1] if found else None
        if last and last.source == tensor.file and last.start + last.size_bytes == tensor.offset:
            found[-1] = Span(last.source, last.start, last.size_bytes + tensor.size_bytes)
        else:
            found.append(Span(tensor.file, tensor.offset, tensor.size_bytes))
    return found


def _data_start(least: int, spans: Sequence[Span]) -> int:
    aligned = -(-least // _ALIGNMENT) * _ALIGNMENT
    if not spans:
        return aligned
    largest = max(range(len(spans)), key=lambda k: spans[k].size_bytes)
    before = sum(span.size_bytes for span in spans[:largest])
    phase = (spans[largest].start - before) % BLOCK_BYTES
    if phase % _ALIGNMENT:
        return aligned
    return aligned + (phase - aligned) % BLOCK_BYTES


def _places(tensors: Sequence[StoredTensor], start: int) -> list[StageTensor]:
    places = []
    for tensor in tensors:
        places.append(
            StageTensor(
                name=tensor.name,
                dtype=tensor.dtype,
                shape=tensor.shape,
                start=start,
                size_bytes=tensor.size_bytes,
                source=tensor.file,
                source_start=tensor.offset,
            )
        )
        start += tensor.size_bytes
    return places
