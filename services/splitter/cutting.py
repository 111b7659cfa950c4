"""The edge to the disk: a stage directory from its layout, by the kernel, never through Python.

Ranges are shared with the source where the file system can (FICLONERANGE), else copied within the
kernel (copy_file_range), while another thread takes the digests. The disk writes what was copied
while the rest is copied (sync_file_range): the sync at the end has little left to wait for.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from services.checkpoint.appearing import appear, sync_directory
from services.checkpoint.chunks import chunk_count, chunk_digests, chunk_range
from services.checkpoint.layout import FileLayout, Literal, Span
from services.checkpoint.sources import SourceFiles
from services.checkpoint.writeback import start_writing

_FICLONERANGE = 0x4020940D
_CANNOT = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.ENOTTY, errno.EPERM)
_BLOCK = 4096
_SHARE_FROM = 1 << 20
_STEP_BYTES = 16 << 20


def cut_file(
    file: FileLayout,
    sources: SourceFiles,
    target: Path,
    chunk_bytes: int,
    *,
    threads: int = 1,
    done: Callable[[int], None] = lambda size: None,
) -> tuple[str, ...]:
    """Write one file of a stage to `target` and sync it; the digests of its chunks.

    The digests are of the source's bytes as read in the same pass.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.ftruncate(descriptor, file.size_bytes)
        shared = _share(file, sources, descriptor)

        def read_into(position: int, view: memoryview) -> int:
            if position % chunk_bytes == 0:
                index = position // chunk_bytes
                _copy(file, sources, descriptor, index, chunk_bytes, shared)
            return sources.read_into(file, position, view)

        digests = chunk_digests(read_into, file.size_bytes, chunk_bytes, threads=threads, done=done)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return digests


def copy_file(file: FileLayout, sources: SourceFiles, target: Path) -> None:
    """Write one file of a stage without taking digests, and sync it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.ftruncate(descriptor, file.size_bytes)
        shared = _share(file, sources, descriptor)
        for index in range(chunk_count(file.size_bytes, _STEP_BYTES)):
            _copy(file, sources, descriptor, index, _STEP_BYTES, shared)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(temporary: Path, final: Path) -> None:
    """Make a finished directory visible under its name, by one rename after syncing it."""
    for directory in {path.parent for path in temporary.rglob("*")} | {temporary}:
        sync_directory(directory)
    appear(temporary, final)


def shares_blocks(source: Path, folder: Path) -> bool:
    """Whether files in `folder` can share the blocks of the file `source`, of 4 KiB or more."""
    with suppress(OSError), source.open("rb") as file:
        descriptor = os.open(folder, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        try:
            request = struct.pack("qQQQ", file.fileno(), 0, _BLOCK, 0)
            fcntl.ioctl(descriptor, _FICLONERANGE, request)
            return True
        finally:
            os.close(descriptor)
    return False


def _copy(
    file: FileLayout,
    sources: SourceFiles,
    target: int,
    index: int,
    chunk_bytes: int,
    shared: list[tuple[int, int]],
) -> None:
    """Bring one chunk's bytes to the target, but for those that are shared already."""
    position, length = chunk_range(index, file.size_bytes, chunk_bytes)
    for start, end in _without(position, position + length, shared):
        at = start
        for piece in file.part(start, end - start):
            if isinstance(piece, Literal):
                os.pwrite(target, piece.data, at)
            else:
                _copy_span(sources.descriptor(piece.source), target, piece, at)
            at += piece.size_bytes
        start_writing(target, start, end - start)


def _copy_span(source: int, target: int, span: Span, at: int) -> None:
    copied = 0
    while copied < span.size_bytes:
        left = span.size_bytes - copied
        try:
            got = os.copy_file_range(source, target, left, span.start + copied, at + copied)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            got = os.pwrite(target, os.pread(source, left, span.start + copied), at + copied)
        if got == 0:
            return  # the source ends early: reading it for its digest says so
        copied += got


def _share(file: FileLayout, sources: SourceFiles, target: int) -> list[tuple[int, int]]:
    """Share whole blocks of the runs whose offsets agree; the ranges of the target done so."""
    shared: list[tuple[int, int]] = []
    at = 0
    for piece in file.pieces:
        if isinstance(piece, Span) and piece.size_bytes >= _SHARE_FROM:
            skip = -at % _BLOCK
            length = (piece.size_bytes - skip) // _BLOCK * _BLOCK
            if (piece.start - at) % _BLOCK == 0:
                request = struct.pack(
                    "qQQQ", sources.descriptor(piece.source), piece.start + skip, length, at + skip
                )
                try:
                    fcntl.ioctl(target, _FICLONERANGE, request)
                except OSError:
                    return shared  # this file system copies
                shared.append((at + skip, at + skip + length))
        at += piece.size_bytes
    return shared


def _without(start: int, end: int, ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What of [start, end) lies in none of these ordered ranges."""
    left: list[tuple[int, int]] = []
    for low, high in ranges:
        if high <= start or low >= end:
            continue
        if low > start:
            left.append((start, low))
        start = max(start, high)
    if start < end:
        left.append((start, end))
    return left
