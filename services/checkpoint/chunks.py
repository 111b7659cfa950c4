"""The chunk table of a file: how it is cut, what each piece's digest is, what the whole is called.

A chunk is what is verified, resumed and relayed. BLAKE3 is a cryptographic digest that takes about
half the time of SHA-256 here, and releases the interpreter lock while it works.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from blake3 import blake3

READ_BYTES = 256 * 1024
"""What is read at a time: larger pieces leave the cache of the core before they are hashed."""

ReadInto = Callable[[int, memoryview], int]
"""Fill the view from this position; how many bytes came, 0 at the end."""


def chunk_count(size_bytes: int, chunk_bytes: int) -> int:
    """How many chunks a file of that size has; an empty file has none."""
    return -(-size_bytes // chunk_bytes)


def chunk_range(index: int, size_bytes: int, chunk_bytes: int) -> tuple[int, int]:
    """First byte and length of chunk `index`."""
    start = index * chunk_bytes
    return start, min(chunk_bytes, size_bytes - start)


def digest_of_chunk(data: bytes | memoryview) -> str:
    """The BLAKE3 digest of one chunk's bytes, hexadecimal."""
    return str(blake3(data).hexdigest())


def name_of_content(size_bytes: int, chunks: Sequence[str]) -> str:
    """The digest that names a file everywhere: BLAKE3 of its length and its chunks' digests."""
    whole = blake3(size_bytes.to_bytes(8, "little"))
    for chunk in chunks:
        whole.update(bytes.fromhex(chunk))
    return str(whole.hexdigest())


def chunk_digests(
    read_into: ReadInto,
    size_bytes: int,
    chunk_bytes: int,
    *,
    threads: int = 1,
    done: Callable[[int], None] = lambda size: None,
) -> tuple[str, ...]:
    """The digest of every chunk of what `read_into` reads; `done` hears the bytes of each.

    Raises EOFError where fewer than `size_bytes` can be read. Holds 256 KiB a thread.
    """
    buffers = threading.local()

    def one(index: int) -> str:
        if not hasattr(buffers, "view"):
            buffers.view = memoryview(bytearray(READ_BYTES))
        start, length = chunk_range(index, size_bytes, chunk_bytes)
        digest = blake3()
        for piece in _pieces(read_into, start, length, buffers.view):
            digest.update(piece)
        done(length)
        return str(digest.hexdigest())

    indexes = range(chunk_count(size_bytes, chunk_bytes))
    if threads <= 1 or len(indexes) <= 1:
        return tuple(map(one, indexes))
    with ThreadPoolExecutor(threads) as pool:
        return tuple(pool.map(one, indexes))


def digests_of_file(
    path: Path,
    chunk_bytes: int,
    *,
    threads: int = 1,
    done: Callable[[int], None] = lambda size: None,
) -> tuple[str, ...]:
    """The digest of every chunk of a file, read with pread; `done` hears the bytes of each."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size_bytes = os.fstat(descriptor).st_size
        return chunk_digests(
            lambda position, view: os.preadv(descriptor, [view], position),
            size_bytes,
            chunk_bytes,
            threads=threads,
            done=done,
        )
    finally:
        os.close(descriptor)


def _pieces(read_into: ReadInto, start: int, length: int, view: memoryview) -> Iterator[memoryview]:
    reached = 0
    while reached < length:
        got = read_into(start + reached, view[: min(len(view), length - reached)])
        if got <= 0:
            raise EOFError(f"nothing at byte {start + reached} of {start + length}")
        yield view[:got]
        reached += got
