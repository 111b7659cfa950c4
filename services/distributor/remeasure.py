"""Measuring while the node runs: a GPU by a child process, and again after a change of load."""

import functools
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import structlog

from config.settings import NodeSection
from messages.wire import Undecodable, decode
from services.distributor import machine
from services.distributor.measured import Measured, due

log = structlog.get_logger()
_CHILD = Path(__file__).with_name("device_child.py")
_LOOK_EVERY_S = 60.0
_TIMEOUT_S = 120.0


class DeviceFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What the child found of a device."""

    dtype: str
    compute_gflops: float
    copy_gbps: float


async def keep_measured(settings: NodeSection, home: Path) -> None:
    """Until cancelled: measure what is due. A GPU that could not be measured is not tried again.

    Nothing where the settings say what the node computes.
    """
    if settings.compute_gflops:
        return
    tried: set[str] = set()
    again = functools.partial(machine.processor, home, again=True)
    while True:
        gpu = await anyio.to_thread.run_sync(machine.gpu)
        try:
            if gpu is None:
                await anyio.to_thread.run_sync(again, abandon_on_cancel=True)
            elif gpu.title not in tried and not await _gpu_measured(gpu, home):
                tried.add(gpu.title)
        except OSError as error:
            log.warning("what was measured could not be kept", error=str(error))
        await anyio.sleep(_LOOK_EVERY_S)


async def _gpu_measured(gpu: machine.Gpu, home: Path) -> bool:
    """Whether figures of it are kept that are not due to be measured again."""
    load, now = gpu.percent / 100, time.time()
    if not due(machine.gpu_figures(gpu, home), gpu.title, load, now):
        return True
    found = await device_figures("cuda", visible=gpu.uuid)
    if found is None:
        return False
    figures = Measured(
        machine=gpu.title,
        compute_gflops=found.compute_gflops,
        copy_gbps=found.copy_gbps,
        at=now,
        load=load,
        dtype=found.dtype,
    )
    await anyio.to_thread.run_sync(machine.keep, home / "gpu.json", figures)
    log.info("measured the GPU", gpu=gpu.name, gflops=found.compute_gflops, dtype=found.dtype)
    return True


async def device_figures(
    device: str, *, visible: str = "", sizes: Sequence[int] = ()
) -> DeviceFigures | None:
    """The figures of a device as torch names it, by a child; None where torch cannot use it.

    `visible` is the UUID of the only GPU the child sees, `sizes` the side of its matrices and the
    bytes it copies. Cancelling kills the child.
    """
    if importlib.util.find_spec("torch") is None:
        return None
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": visible} if visible else {})
    command = [sys.executable, "-I", str(_CHILD), device, *map(str, sizes)]
    with anyio.move_on_after(_TIMEOUT_S):
        done = await anyio.run_process(
            command, env=environment, stdin=subprocess.DEVNULL, check=False
        )
        if done.returncode == 0:
            try:
                return decode(done.stdout, DeviceFigures)
            except Undecodable as error:
                log.warning("not measured", device=device, error=error.reason)
                return None
        said = done.stderr.decode(errors="replace").strip().splitlines()
        log.info("not measured", device=device, error=said[-1][:300] if said else "killed")
    return None
