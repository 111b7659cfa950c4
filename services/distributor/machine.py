"""The edge to the machine: what it can compute and hold, measured once, and how busy it is now."""

import os
import platform
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
import structlog

from config.capacity import compute_gflops
from config.settings import NodeSection
from messages.ids import NodeId
from messages.nodes import Node
from messages.wire import Undecodable, decode

log = structlog.get_logger()
_SIDE = 1024
_COPY_BYTES = 64 << 20
_TRIES = 3
_REMEASURE_S = 7 * 86_400.0


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured on this machine, kept in its home: float32 products and memory copies."""

    machine: str
    compute_gflops: float
    copy_gbps: float
    at: float


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """The first GPU, as its driver reports it."""

    name: str
    memory_bytes: int
    percent: float


def measured(home: Path) -> Measured:
    """The machine's measured figures, from the cache in `home` when they are younger than a week.

    Takes about a second when it must measure.
    """
    path = home / "machine.json"
    machine = f"{platform.node()} {platform.machine()} {os.cpu_count()}"
    try:
        known = decode(path.read_bytes(), Measured)
        if known.machine == machine and time.time() - known.at < _REMEASURE_S:
            return known
    except (OSError, Undecodable):
        log.debug("measuring the machine")
    found = Measured(
        machine=machine, compute_gflops=_gflops(), copy_gbps=_copy_gbps(), at=time.time()
    )
    home.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    temporary.write_bytes(msgspec.json.encode(found))
    temporary.rename(path)
    return found


def gpu() -> Gpu | None:
    """The first NVIDIA GPU, or None where there is none or no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        name = pynvml.nvmlDeviceGetName(handle)
        return Gpu(
            name=name.decode() if isinstance(name, bytes) else str(name),
            memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
            percent=float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
        )
    except pynvml.NVMLError:
        return None


def node(settings: NodeSection, home: Path, models: Path) -> Node:
    """What this machine offers now: figures of the settings, else measured or reported ones.

    A GPU's compute comes from the table by name, a processor's is measured; nothing is measured
    where the settings say what the node computes.
    """
    memory = psutil.virtual_memory()
    models.mkdir(parents=True, exist_ok=True)
    found = gpu()
    figures = None if settings.compute_gflops else measured(home)
    gflops, source = settings.compute_gflops, "settings"
    if not gflops and found is not None:
        share = found.percent / 100
        gflops, source = compute_gflops(found.name, psutil.cpu_count() or 1, share), "table"
    elif figures is not None:
        gflops, source = figures.compute_gflops, "measured"
    return Node(
        node_id=NodeId(settings.node_id),
        compute_gflops=max(gflops, 0.001),
        memory_bytes=settings.memory_bytes or (found.memory_bytes if found else memory.total),
        disk_bytes=settings.disk_bytes or shutil.disk_usage(models).free,
        bandwidth_mbps=settings.bandwidth_mbps or None,
        copy_gbps=figures.copy_gbps if figures is not None else None,
        cores=psutil.cpu_count() or 1,
        gpu_name=found.name if found else None,
        gpu_memory_bytes=found.memory_bytes if found else None,
        gpu_percent=found.percent if found else None,
        compute_source=source,
        **_load(settings),
    )


def _load(settings: NodeSection) -> dict[str, float | None]:
    """How busy the machine is; left out where the settings say what the node offers."""
    if settings.memory_bytes and settings.compute_gflops:
        return {}
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    on_battery = battery is not None and not battery.power_plugged
    return {
        "cpu_percent": psutil.cpu_percent(interval=None),
        "memory_percent": psutil.virtual_memory().percent,
        "battery_percent": battery.percent if battery is not None and on_battery else None,
    }


def _gflops() -> float:
    """2·n³ operations of one product of n × n float32 matrices, the best of a few tries."""
    import numpy as np  # 16 MB that a node which measured last week need not hold

    a = np.ones((_SIDE, _SIDE), dtype=np.float32)
    best = min(_timed(lambda: a @ a) for _ in range(_TRIES))
    return 2 * _SIDE**3 / best / 1e9


def _copy_gbps() -> float:
    """Bytes read and written by a memory copy, a second, in gigabytes; the best of a few tries."""
    import numpy as np

    a = np.ones(_COPY_BYTES, dtype=np.uint8)
    b = np.empty_like(a)
    best = min(_timed(lambda: np.copyto(b, a)) for _ in range(_TRIES))
    return 2 * _COPY_BYTES / best / 1e9


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return max(time.perf_counter() - start, 1e-9)
