"""What a machine offers: what was measured and is free, measured again as its load changes."""

import importlib.util
import itertools
import threading
from collections import namedtuple
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import pytest

from config.settings import NodeSection
from messages.nodes import Node
from services.distributor import machine, remeasure
from services.distributor.load import ProcessorLoad
from services.distributor.machine import Gpu, strongest
from services.distributor.measured import Measured, due, free_gflops

HOUR_S = 3600.0
IDLE = Measured(machine="m", compute_gflops=100.0, copy_gbps=10.0, at=0.0)
BUSY = msgspec.structs.replace(IDLE, load=0.8)
CARD = Gpu(name="NVIDIA GeForce RTX 3080", memory_bytes=10 << 30, percent=20.0, uuid="GPU-1")
Times = namedtuple("Times", "user idle iowait guest")  # as psutil's are


@pytest.mark.parametrize(
    ("known", "load", "now_s", "wanted"),
    [
        (None, 0.0, 0.0, True),
        (IDLE, 0.2, HOUR_S, False),
        (IDLE, 0.9, HOUR_S, True),
        (BUSY, 0.9, HOUR_S, False),
        (BUSY, 0.1, HOUR_S, True),
        (BUSY, 0.1, 60.0, False),
        (IDLE, 0.0, 8 * 24 * HOUR_S, True),
        (msgspec.structs.replace(IDLE, machine="another"), 0.0, HOUR_S, True),
        (IDLE, 0.0, -HOUR_S, True),
    ],
)
def test_a_machine_is_measured_again_when_its_load_comes_or_goes(
    known: Measured | None, load: float, now_s: float, wanted: bool
) -> None:
    assert due(known, "m", load, now_s) is wanted


def test_what_a_load_takes_is_not_offered_and_not_deducted_twice() -> None:
    assert free_gflops(IDLE, 0.04) == 100.0
    assert free_gflops(IDLE, 0.6) == pytest.approx(40.0)
    assert free_gflops(BUSY, 0.8) == 100.0
    assert free_gflops(BUSY, 0.0) == 100.0
    assert free_gflops(BUSY, 0.9) == pytest.approx(50.0)
    assert free_gflops(msgspec.structs.replace(IDLE, load=1.0), 1.0) == 0.0


def test_the_load_is_that_since_the_last_look_and_noise_is_no_load() -> None:
    readings = iter(
        [
            Times(user=15, idle=10, iowait=0, guest=5),
            Times(user=18, idle=16, iowait=1, guest=5),
            Times(user=18.5, idle=16, iowait=1, guest=5),
            Times(user=20, idle=16, iowait=1, guest=5),
        ]
    )
    load = ProcessorLoad(lambda: next(readings), cores=2)
    assert [load.percent() for _ in range(4)] == [0.0, 30.0, 30.0, 100.0]


def test_the_strongest_gpu_is_offered_however_busy_it_is() -> None:
    small = Gpu(name="Tesla T4", memory_bytes=16 << 30, percent=0.0, uuid="GPU-0")
    other = msgspec.structs.replace(CARD, uuid="GPU-2", percent=0.0)
    assert strongest([small, CARD, other]) == CARD
    assert strongest([]) is None


def offered(home: Path) -> Node:
    return machine.node(NodeSection(node_id="n1"), home, home / "models")


def test_a_gpu_has_its_tables_figure_until_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "gpu", lambda: CARD)
    by_table = offered(tmp_path)
    assert by_table.compute_gflops == pytest.approx(24_000)
    assert by_table.compute_source == "table"
    assert by_table.copy_gbps is None
    found = Measured(
        machine=CARD.title, compute_gflops=60_000.0, copy_gbps=700.0, at=0.0, dtype="bfloat16"
    )
    machine.keep(tmp_path / "gpu.json", found)
    measured = offered(tmp_path)
    assert measured.compute_gflops == pytest.approx(48_000)
    assert (measured.compute_source, measured.copy_gbps) == ("measured bfloat16", 700.0)
    another = msgspec.structs.replace(CARD, uuid="GPU-9")
    monkeypatch.setattr(machine, "gpu", lambda: another)
    assert offered(tmp_path).compute_source == "table"


def test_a_processor_is_measured_once_and_its_load_deducted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "gpu", lambda: None)
    first = offered(tmp_path)
    assert first.compute_source == "measured float32"
    known = machine.read(tmp_path / "machine.json")
    assert known is not None
    machine.keep(tmp_path / "machine.json", msgspec.structs.replace(known, load=0.0))
    monkeypatch.setattr(machine._PROCESSOR_LOAD, "percent", lambda: 70.0)
    busy = offered(tmp_path)
    assert busy.cpu_percent == 70.0
    assert busy.compute_gflops == pytest.approx(known.compute_gflops * 0.3)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is an extra")
async def test_a_child_measures_a_device_and_says_in_which_type() -> None:
    found = await remeasure.device_figures("cpu", sizes=(64, 1 << 20))
    assert found is not None
    assert found.dtype in ("bfloat16", "float32")
    assert found.compute_gflops > 0
    assert found.copy_gbps > 0


async def test_a_device_that_a_child_fails_to_measure_has_no_figures() -> None:
    assert await remeasure.device_figures("cpu", sizes=(1, 1, 1)) is None


@pytest.mark.parametrize("measurable", [True, False])
async def test_a_gpu_is_measured_while_the_node_runs_and_no_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measurable: bool
) -> None:
    looks = itertools.count(1)
    enough = threading.Event()
    measured: list[str] = []

    def look() -> Gpu:
        if next(looks) == 4:
            enough.set()
        return CARD

    async def child(device: str, *, visible: str = "") -> remeasure.DeviceFigures | None:
        measured.append(f"{device} {visible}")
        found = remeasure.DeviceFigures(dtype="bfloat16", compute_gflops=6e4, copy_gbps=700.0)
        return found if measurable else None

    monkeypatch.setattr(machine, "gpu", look)
    monkeypatch.setattr(remeasure, "device_figures", child)
    monkeypatch.setattr(remeasure, "_LOOK_EVERY_S", 0.01)
    async with anyio.create_task_group() as group:
        group.start_soon(remeasure.keep_measured, NodeSection(node_id="n1"), tmp_path)
        await anyio.to_thread.run_sync(enough.wait, 20.0)
        group.cancel_scope.cancel()
    assert enough.is_set()
    assert measured == ["cuda GPU-1"]
    known = machine.gpu_figures(CARD, tmp_path)
    assert (known is not None) is measurable
    assert known is None or (known.load, known.dtype) == (0.2, "bfloat16")
