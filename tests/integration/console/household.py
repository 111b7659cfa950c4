"""A `williw up` in a process of its own, as its user sees it: output, pid files, an exit code."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

REPOSITORY = Path(__file__).parents[3]
WILLIW = (sys.executable, "-m", "services.console")


def environ(**more: str) -> dict[str, str]:
    """This process's environment without settings of williw's, and with these."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WILLIW_") and k != "NODE_ID"}
    return {**kept, "PYTHONPATH": str(REPOSITORY), **more}


def williw(*words: str, timeout_s: float = 60.0, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*WILLIW, *words],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=environ(**more),
        cwd="/",
        check=False,
    )


@contextmanager
def started(*words: str) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on running, with its pipes; killed at the end whatever happened."""
    process = subprocess.Popen(
        [*WILLIW, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ(),
        cwd="/",
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Up:
    """A running `williw up --json` on a home; lines are read as they come."""

    def __init__(self, home: Path, *words: str) -> None:
        self.home = home
        # Closed form: what torch counts is another room's, and its import would take seconds.
        self._process = subprocess.Popen(
            [*WILLIW, "up", *words, "--home", str(home), "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ(WILLIW_PROFILER_EXACT="false"),
            cwd="/",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def end(self, timeout_s: float = 60.0) -> tuple[int, list[dict[str, Any]]]:
        """Wait for its end: the exit code and the lines it printed."""
        out, err = self._process.communicate(timeout=timeout_s)
        assert "Traceback" not in err, err
        return self._process.returncode, [json.loads(line) for line in out.splitlines()]

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def pids(self) -> dict[str, int]:
        """The processes that its pid files name."""
        found: dict[str, int] = {}
        for file in sorted((self.home / "run").glob("*.pid")):
            # `up` removes a file between the listing and the reading when its child ends.
            with suppress(FileNotFoundError):
                found[file.stem] = int(file.read_text())
        return found

    def all_up(self, count: int, timeout_s: float = 30.0) -> dict[str, int]:
        """The pids, once there are `count` of them."""
        until(lambda: len(self.pids()) == count, timeout_s, f"{count} pid files in {self.home}")
        return self.pids()


def until(true: Any, timeout_s: float, what: str) -> None:
    """Wait for a condition of other processes; fails with `what` when it does not come true."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.02)


def kill_and_wait(pid: int) -> None:
    """Kill a process of ours and wait until it has ended."""
    descriptor = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([descriptor], [], [], 10)
    os.close(descriptor)


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not yet waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return False
    return state not in "ZX"
