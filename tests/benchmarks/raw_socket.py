"""A plain socket copy, for bench_relay.py: what a receiver could do that did nothing else."""

import os
import socket
import time
from pathlib import Path

from blake3 import blake3


def raw(path: Path, out: Path, chunk_bytes: int) -> float:
    """Seconds of a plain socket copy between two processes, digested and written."""
    listener = socket.create_server(("127.0.0.1", 0))
    sender = os.fork()
    if sender == 0:
        connection, _ = listener.accept()
        with path.open("rb") as file:
            connection.sendfile(file)
        os._exit(0)
    start = time.perf_counter()
    size = path.stat().st_size
    with socket.create_connection(listener.getsockname()) as connection, out.open("wb") as target:
        view = memoryview(bytearray(chunk_bytes))
        os.ftruncate(target.fileno(), size)
        for position in range(0, size, chunk_bytes):
            length, filled = min(chunk_bytes, size - position), 0
            while filled < length:
                filled += connection.recv_into(view[filled:length])
            blake3(view[:length]).digest()
            os.pwrite(target.fileno(), view[:length], position)
    wall_s = time.perf_counter() - start
    os.waitpid(sender, 0)
    listener.close()
    return wall_s
