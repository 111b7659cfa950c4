"""Keeping child processes alive: started again when they die, stopped together, none left over."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from config import load
from services.console import children
from services.console.embedded import EmbeddedNats
from services.console.home import Home
from services.console.household import Child

_RESTART_DELAYS_S = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
_STEADY_S = 20.0
_HOPELESS_AFTER = 5
_STOP_TIMEOUT_S = 8.0
_PATH = os.pathsep.join(
    [str(Path(children.__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
)


class Supervisor:
    """The children of one `williw up`, the embedded server among them.

    `told` gets a line for people whenever something died. `hopeless` is set, and `complaint` says
    why, when a child ends by itself again and again as soon as it starts.
    """

    def __init__(
        self, home: Home, server: EmbeddedNats | None, told: Callable[[str], None]
    ) -> None:
        self.hopeless = anyio.Event()
        self.stopping = anyio.Event()
        self.complaint = ""
        self._home = home
        self._server = server
        self._told = told
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, group: TaskGroup, kept: Iterable[Child]) -> None:
        """Start these children and keep them running."""
        for child in kept:
            group.start_soon(self._keep, child)

    async def keep_server(self) -> None:
        """Start the embedded server again whenever it dies, on the same port."""
        if self._server is None:
            return
        while True:
            self._home.write_pid("nats-server", self._server.pid)
            await _ended(self._server.process)
            if self.stopping.is_set():
                return
            self._told("nats-server died; starting it again")
            await anyio.sleep(_RESTART_DELAYS_S[0])
            self._server.start()

    async def stop(self) -> None:
        """Stop every child and wait for all, killing those that take too long; then the server."""
        self.stopping.set()
        with anyio.CancelScope(shield=True):
            for process in self._running.values():
                children.end(process, signal.SIGTERM)
            with anyio.move_on_after(_STOP_TIMEOUT_S):
                for process in tuple(self._running.values()):
                    await _ended(process)
            self.kill()
            if self._server is not None:
                self._server.stop()
                self._home.remove_pid("nats-server")

    def kill(self) -> None:
        """End every child at once; the server stays."""
        for name, process in tuple(self._running.items()):
            children.end(process)
            process.wait()
            self._home.remove_pid(name)

    async def _keep(self, child: Child) -> None:
        quick_ends = 0
        while not self.stopping.is_set():
            started = time.monotonic()
            process = self._spawn(child)
            await _ended(process)
            if self.stopping.is_set():
                return
            steady = time.monotonic() - started > _STEADY_S
            quick_ends = 0 if steady else quick_ends + 1
            code = process.returncode
            self._told(f"{child.name} {_how(code)}; starting it again")
            if code > 0 and quick_ends >= _HOPELESS_AFTER:
                self._give_up(child, code)
                return
            last = len(_RESTART_DELAYS_S) - 1
            await anyio.sleep(_RESTART_DELAYS_S[min(quick_ends, last)])

    def _spawn(self, child: Child) -> subprocess.Popen[bytes]:
        # -P keeps a `services` folder of whatever directory we are in from being taken for ours.
        command = [sys.executable, "-P", "-m", f"services.{child.service}"]
        environ = {**os.environ, **load.as_environ(child.overrides), "PYTHONPATH": _PATH}
        process = children.spawn(command, self._home.log_file(child.name), environ)
        self._running[child.name] = process
        self._home.write_pid(child.name, process.pid)
        return process

    def _give_up(self, child: Child, code: int) -> None:
        log_file = self._home.log_file(child.name)
        self.complaint = (
            f"{child.name} {_how(code)} {_HOPELESS_AFTER} times in a row: see {log_file}"
        )
        self.hopeless.set()


async def _ended(process: subprocess.Popen[bytes]) -> None:
    """Return when the child has ended; it is reaped here."""
    if process.poll() is not None:
        return
    descriptor = os.pidfd_open(process.pid)
    try:
        await anyio.wait_readable(descriptor)
    finally:
        os.close(descriptor)
    process.wait()


def _how(code: int) -> str:
    """How a process ended, from its return code."""
    return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
