"""A child process: times products and copies on one device with torch, and writes them as JSON.

Alone in its file, so that only this process holds torch and the device's memory.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

_SIDE = 4096
_COPY_BYTES = 256 << 20
_ROUNDS = 3
_IN_A_ROUND = 8


def figures(device: str, side: int = _SIDE, copy_bytes: int = _COPY_BYTES) -> dict[str, object]:
    """`compute_gflops` in the faster `dtype` of bfloat16 and float32, and `copy_gbps`.

    A type that the device does not multiply is left out. Raises RuntimeError where the device is
    not there or has no memory left, ImportError without torch.
    """
    import torch

    rates = {
        dtype: rate
        for dtype in ("bfloat16", "float32")
        if (rate := _gflops(torch, device, dtype, side)) is not None
    }
    if not rates:
        raise RuntimeError(f"{device} multiplies neither bfloat16 nor float32")
    fastest = max(rates, key=lambda dtype: rates[dtype])
    return {
        "dtype": fastest,
        "compute_gflops": rates[fastest],
        "copy_gbps": _copy_gbps(torch, device, copy_bytes),
    }


def _gflops(torch: Any, device: str, dtype: str, side: int) -> float | None:
    """2·n³ operations of one product of n × n matrices; the best round of a few."""
    a = torch.ones((side, side), dtype=getattr(torch, dtype), device=device)
    try:
        seconds = _best(torch, device, lambda: torch.matmul(a, a))
    except (RuntimeError, NotImplementedError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return None
    return float(2 * side**3 / seconds / 1e9)


def _copy_gbps(torch: Any, device: str, size_bytes: int) -> float:
    """Bytes read and written by a copy within the device's memory, a second, in gigabytes."""
    a = torch.ones(size_bytes, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    return float(2 * size_bytes / _best(torch, device, lambda: b.copy_(a)) / 1e9)


def _best(torch: Any, device: str, work: Callable[[], object]) -> float:
    """Seconds of one piece of work: rounds of several, so that starting one counts for little."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    work()  # the first loads libraries and chooses kernels
    wait()
    rounds = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        for _ in range(_IN_A_ROUND):
            work()
        wait()
        rounds.append((time.perf_counter() - start) / _IN_A_ROUND)
    return max(min(rounds), 1e-9)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(figures(sys.argv[1], *map(int, sys.argv[2:]))))
