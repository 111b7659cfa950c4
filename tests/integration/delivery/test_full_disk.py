"""A file system that is really full ends the job with the figures, and shows nothing half done."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio.to_thread
import pytest

from messages.ids import NodeId
from messages.jobs import JobFailed
from tests.integration.delivery.rig import ORIGIN, Rig, parts, plan_of

NODES = (ORIGIN, NodeId("b"))
Mount = Callable[[Path, int], None]


@pytest.fixture
def tmpfs() -> Iterator[Mount]:
    """Mount a file system of so many KiB, for the length of the test."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a tmpfs")
    mounted: list[Path] = []

    def mount(path: Path, size_kib: int) -> None:
        path.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(path)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"no tmpfs can be mounted here: {made.stderr.strip()}")
        mounted.append(path)

    try:
        yield mount
    finally:
        for path in mounted:
            subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill_once_bytes_arrive(models: Path) -> None:
    """Take all the space there is, once a chunk of a stage lies there."""
    arriving = models / ".stages" / ".arriving"
    given_up_at = time.monotonic() + 30
    while not any(p.stat().st_blocks for p in arriving.rglob("*") if p.is_file()):
        assert time.monotonic() < given_up_at, "nothing arrived"
        time.sleep(0.01)
    with (models / "of-somebody-else").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            return


def nothing_half_seen(models: Path) -> bool:
    """Whether no stage is visible, whole or in part."""
    visible = [p for p in (*models.iterdir(), *(models / ".stages").glob("*")) if p.is_dir()]
    return all(path.name.startswith(".") for path in visible)


async def test_a_disk_too_small_is_refused_before_a_byte_moves(rig: Rig, tmpfs: Mount) -> None:
    tmpfs(rig.models("b"), 1024)
    async with rig.nodes(*NODES):
        await rig.plan(plan_of(NODES, parts(6, NODES)))
        ended = await rig.ending(timeout_s=20)
        assert isinstance(ended, JobFailed)
        found = re.search(r"needs (\d+) bytes more, and \S+ has (\d+) to give", ended.reason)
        assert found, ended.reason
        assert int(found[1]) > 1 << 20 >= int(found[2]) > 0
        assert not any(p.is_file() for p in rig.models("b").rglob("*"))


async def test_a_disk_that_fills_up_on_the_way_ends_the_job(rig: Rig, tmpfs: Mount) -> None:
    models = rig.models("b")
    tmpfs(models, 16 << 10)
    rig.options[ORIGIN] = {"upload_bytes_per_s": 2_000_000}
    async with rig.nodes(*NODES):
        await rig.plan(plan_of(NODES, parts(6, NODES)))
        await anyio.to_thread.run_sync(fill_once_bytes_arrive, models)
        ended = await rig.ending(timeout_s=20)
        assert isinstance(ended, JobFailed), ended
        assert ended.stage == "distributor"
        found = re.search(r"needs (\d+) bytes more, and \S+ has (\d+) free", ended.reason)
        assert found, ended.reason
        assert int(found[1]) > int(found[2])
        assert "prune" in ended.advice
        assert nothing_half_seen(models)
        assert not rig.stage("b").is_symlink()
