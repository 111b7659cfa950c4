"""A service told to stop while its bus is away ends as it would otherwise."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from config import load
from services.console.embedded import EmbeddedNats

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("service", ["requester", "distributor"])
def test_a_service_told_to_stop_while_the_bus_is_away_ends_well_and_says_so(
    nats_server: EmbeddedNats, tmp_path: Path, service: str
) -> None:
    node = {"node_id": "node_001", "origin": True, "home": str(tmp_path / "home")}
    environ = load.as_environ(
        {"bus": {"url": nats_server.url}, "node": node, "logging": {"format": "json"}}
    )
    log_file = tmp_path / "log"
    with log_file.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.console", "run", service, "--provision"],
            cwd=ROOT,
            env={**os.environ, **environ},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _until_logged(log_file, "running", process)
        nats_server.kill()
        _until_logged(log_file, "bus disconnected", process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log_file.read_text()
    finally:
        process.kill()
        process.wait(10)
    logged = log_file.read_text()
    assert "Traceback" not in logged
    assert '"bus away at the end"' in logged
    assert '"stopped"' in logged


def _until_logged(log_file: Path, event: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 40
    while f'"event": "{event}"' not in log_file.read_text():
        assert process.poll() is None, log_file.read_text()
        assert time.monotonic() < until, log_file.read_text()
        time.sleep(0.02)
