"""The edge to the machine: what it can compute and hold, measured now and then, and its load."""

import os
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import psutil
import structlog

from config.capacity import compute_gflops
from config.settings import NodeSection
from messages.ids import NodeId
from messages.nodes import Node
from messages.wire import Undecodable, decode
from services.distributor.load import ProcessorLoad
from services.distributor.measured import Measured, due, free_gflops

log = structlog.get_logger()
_SIDE = 1024
_COPY_BYTES = 64 << 20
_TRIES = 3
_LOOK_S = 0.5
_PROCESSOR_LOAD = ProcessorLoad()


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU, as its driver reports it."""

    name: str
    memory_bytes: int
    percent: float
    uuid: str = ""

    @property
    def title(self) -> str:
        """Which one it is, for what was measured of it."""
        return f"{self.name} {self.uuid}"


def processor(home: Path, *, again: bool = False) -> Measured:
    """The processor's figures, as kept in `home`; measured where there are none.

    With `again` also where they are due. Takes about a second when it must measure.
    """
    machine = f"{platform.node()} {platform.machine()} {os.cpu_count()}"
    path = home / "machine.json"
    known = read(path)
    if known is not None and known.machine == machine and not again:
        return known
    load = psutil.cpu_percent(interval=_LOOK_S) / 100
    if known is not None and not due(known, machine, load, time.time()):
        return known
    log.debug("measuring the machine", load=load)
    found = Measured(
        machine=machine, compute_gflops=_gflops(), copy_gbps=_copy_gbps(), at=time.time(), load=load
    )
    keep(path, found)
    return found


def gpu_figures(found: Gpu, home: Path) -> Measured | None:
    """What is kept in `home` of this GPU, if it was measured."""
    known = read(home / "gpu.json")
    return known if known is not None and known.machine == found.title else None


def read(path: Path) -> Measured | None:
    """The figures kept there, if any can be read."""
    try:
        return decode(path.read_bytes(), Measured)
    except (OSError, Undecodable):
        return None


def keep(path: Path, found: Measured) -> None:
    """Keep the figures there, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    temporary.write_bytes(msgspec.json.encode(found))
    temporary.rename(path)


def gpu() -> Gpu | None:
    """The strongest NVIDIA GPU, or None where there is none or no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
        gpus = [_gpu(k) for k in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return None
    return strongest([found for found in gpus if found is not None])


def strongest(gpus: Sequence[Gpu]) -> Gpu | None:
    """By the table, then by memory; the first of those alike, however busy each of them is."""
    return max(gpus, key=lambda g: (compute_gflops(g.name, 1, 0.0), g.memory_bytes), default=None)


def _gpu(index: int) -> Gpu | None:
    """The driver's GPU of this number; None where it does not tell of it."""
    import pynvml

    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        name, uuid = pynvml.nvmlDeviceGetName(handle), pynvml.nvmlDeviceGetUUID(handle)
        return Gpu(
            name=name.decode() if isinstance(name, bytes) else str(name),
            memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
            percent=float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            uuid=uuid.decode() if isinstance(uuid, bytes) else str(uuid),
        )
    except pynvml.NVMLError:
        return None


def node(settings: NodeSection, home: Path, models: Path) -> Node:
    """What this machine offers now: figures of the settings, else measured or reported ones.

    What was measured counts as far as it is free; a GPU of which nothing is kept has its compute
    from the table by name. Nothing is measured where the settings say what the node computes.
    """
    memory = psutil.virtual_memory()
    models.mkdir(parents=True, exist_ok=True)
    found, load = gpu(), _load(settings)
    figures = None
    if not settings.compute_gflops:
        figures = gpu_figures(found, home) if found else processor(home)
    gflops, source = settings.compute_gflops, "settings"
    percent = found.percent if found else load.get("cpu_percent") or 0.0
    if figures is not None:
        gflops, source = free_gflops(figures, percent / 100), f"measured {figures.dtype}"
    elif not gflops and found is not None:
        gflops, source = compute_gflops(found.name, 1, percent / 100), "table"
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
        **load,
    )


def _load(settings: NodeSection) -> dict[str, float | None]:
    """How busy the machine is; left out where the settings say what the node offers."""
    if settings.memory_bytes and settings.compute_gflops:
        return {}
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    on_battery = battery is not None and not battery.power_plugged
    return {
        "cpu_percent": _PROCESSOR_LOAD.percent(),
        "memory_percent": psutil.virtual_memory().percent,
        "battery_percent": battery.percent if battery is not None and on_battery else None,
    }


def _gflops() -> float:
    """2·n³ operations of one product of n × n float32 matrices, the best of a few tries."""
    import numpy as np  # 16 MB that a node which has measured need not hold

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
