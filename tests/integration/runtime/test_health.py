"""A service's probes and figures, asked of the process as Kubernetes asks them."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from config import load
from services.console.embedded import EmbeddedNats

ROOT = Path(__file__).parents[3]


@contextmanager
def planner(server: EmbeddedNats, home: Path, health: dict[str, object]) -> Iterator[Path]:
    """`williw run planner` in its own process; yields its log."""
    overrides: dict[str, dict[str, object]] = {
        "bus": {"url": server.url},
        "node": {"node_id": "node_001", "home": str(home)},
        "health": health,
    }
    log_file = home.parent / f"planner-{time.monotonic_ns()}.log"
    with log_file.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.console", "run", "planner", "--provision"],
            cwd=ROOT,
            env={**os.environ, **load.as_environ(overrides)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield log_file
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        finally:
            process.kill()


def until(true: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


def address(log_file: Path) -> str:
    """Where the process says that its health is."""

    def said() -> list[str]:
        events = [json.loads(line) for line in log_file.read_text().splitlines() if line[:1] == "{"]
        return [event["url"] for event in events if event["event"] == "health"]

    until(lambda: bool(said()))
    return said()[0].removesuffix("/readyz")


def ask(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_bus_that_is_away_makes_a_service_unready_and_no_less_alive(
    nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    with planner(nats_server, tmp_path / "home", {"port": 0}) as log_file:
        health = address(log_file)
        until(lambda: ask(f"{health}/readyz") == (200, "ready\n"))
        assert ask(f"{health}/livez") == (200, "alive\n")
        assert "williw_bus_connected 1.0" in ask(f"{health}/metrics")[1]

        nats_server.kill()
        until(lambda: ask(f"{health}/readyz")[0] == 503)
        assert ask(f"{health}/readyz")[1] == "the bus is not connected\n"
        assert ask(f"{health}/livez") == (200, "alive\n")
        assert "williw_bus_connected 0.0" in ask(f"{health}/metrics")[1]

        nats_server.start()
        until(lambda: ask(f"{health}/readyz")[0] == 200)
        assert "williw_bus_reconnects_total 1.0" in ask(f"{health}/metrics")[1]
        assert ask(f"{health}/")[0] == 404


def test_a_port_that_is_taken_is_said_in_one_line(
    nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    with planner(nats_server, tmp_path / "home", {"port": nats_server.port}) as log_file:
        until(lambda: "set port in [health]" in log_file.read_text())
    assert "Traceback" not in log_file.read_text()


@pytest.mark.parametrize("asked", ["readyz", "livez"])
def test_health_is_off_unless_it_is_asked_for(
    nats_server: EmbeddedNats, tmp_path: Path, asked: str
) -> None:
    with planner(nats_server, tmp_path / "home", {"port": -1}) as log_file:
        until(lambda: '"running"' in log_file.read_text())
    assert asked not in log_file.read_text()
