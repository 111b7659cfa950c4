"""`make cluster-demo` as its user sees it: what it prints, its exit code, and nothing left over."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.faults.tiny import write_model

ROOT = Path(__file__).parents[3]
# One demonstration keeps two slow cores busy.
pytestmark = [pytest.mark.xdist_group("up"), pytest.mark.slow]


@contextmanager
def demonstrated(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A demonstration below `folder`/home, and the file that it prints to."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WILLIW_") and k != "NODE_ID"}
    out = folder / "out"
    with out.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.demo.cluster", *words, "--home", str(folder / "home")],
            cwd=ROOT, env=kept, stdout=file, stderr=file,
        )  # fmt: skip
    try:
        yield process, out
    finally:
        process.kill()
        process.wait(10)


def models(folder: Path, count: int) -> list[str]:
    """So many, two by two of one name, which two origins bring to the same nodes."""
    places = [folder / f"origin-{k % 2}" / f"tiny-{k // 2}" for k in range(count)]
    return [str(write_model(place, seed=k, layers=8)) for k, place in enumerate(places)]


def left_over(home: Path) -> list[str]:
    """Processes that name this home in their command line or environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue  # ended meanwhile, or another user's
        if str(home).encode() in told:
            found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def check(folder: Path, jobs: int, *words: str, within_s: float) -> str:
    """Demonstrate to the end: every job verified, nobody left. Returns what it printed."""
    asked = [*models(folder, jobs), *words, "--timeout-s", str(within_s - 20)]
    with demonstrated(folder, *asked) as (process, out):
        code = process.wait(within_s)
    printed = out.read_text()
    assert code == 0, printed
    assert len(re.findall(r"^job-\w+ verified: ", printed, re.MULTILINE)) == jobs
    assert f"{jobs} of {jobs} jobs completed" in printed
    assert re.search(r"killing nats-[123], which leads", printed), printed
    assert re.search(r"killing distributor-node_\d+", printed), printed
    assert "killing planner-node_001" in printed
    assert left_over(folder / "home") == []
    return printed


def test_jobs_complete_on_three_servers_while_a_server_and_two_services_are_killed(
    tmp_path: Path,
) -> None:
    printed = check(tmp_path, 2, "--nodes", "4", "--origins", "2", within_s=110)
    assert "16 services, each a process with its own key" in printed
    logged = _logs(tmp_path / "home").lower()
    assert "bus disconnected" in logged
    assert "permissions violation" not in logged
    # What asyncio says at the end of each TLS connection of nats-py, for nothing.
    assert "eof_received" not in logged + printed
    assert "Traceback" not in printed


@pytest.mark.release
@pytest.mark.timeout(300)
def test_ten_jobs_on_eight_nodes(tmp_path: Path) -> None:
    check(tmp_path, 10, within_s=280)


@pytest.mark.parametrize("words", [("--times", "0"), ("--origins", "3", "--nodes", "2")])
def test_a_demonstration_of_nothing_is_refused_before_anything_starts(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    with demonstrated(tmp_path, "a-model", *words) as (process, out):
        assert process.wait(60) == 2
    assert re.search(r"error: --(times|origins) must be 1", out.read_text())
    assert not (tmp_path / "home").exists()


def test_told_to_stop_it_ends_every_process(tmp_path: Path) -> None:
    with demonstrated(tmp_path, *models(tmp_path, 1), "--nodes", "2", "--origins", "1") as (
        process,
        out,
    ):
        _until_printed(out, "services, each a process", process)
        assert left_over(tmp_path / "home")
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 1, out.read_text()
    assert "every process has ended" in out.read_text()
    assert left_over(tmp_path / "home") == []


def _until_printed(out: Path, text: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while text not in out.read_text():
        assert process.poll() is None, out.read_text()
        assert time.monotonic() < deadline, out.read_text()
        time.sleep(0.05)


def _logs(home: Path) -> str:
    return "".join(file.read_text(errors="replace") for file in (home / "logs").glob("*.log"))
