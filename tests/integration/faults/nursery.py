"""Starts services as real processes in milliseconds: imports them once, then forks.

Run as `python -m tests.integration.faults.nursery`. Standard input takes one JSON order a line
(`start`, `forget`), standard output tells one JSON line for each process that began or ended. What
ends by itself or is killed is started again, as a supervisor would.
"""

import json
import os
import runpy
import selectors
import signal
import sys
import time
import traceback
from typing import Any, NoReturn

from services.console import children
from tests.integration.faults import tampering

_AGAIN_S = 0.05
_PRELOADED = (
    *(
        f"services.{name}.service"
        for name in (
            "requester", "downloader", "profiler", "uploader", "planner", "splitter", "distributor",
        )
    ),
    "services.runtime.actor",
    "services.planner.replan",
    "services.planner.solver",
)  # fmt: skip


class Nursery:
    """The processes that run, by pid, and those to start again."""

    def __init__(self) -> None:
        self._orders: dict[str, dict[str, Any]] = {}
        self._names: dict[int, str] = {}
        self._due: list[tuple[float, str]] = []

    def tend(self) -> None:
        """Until standard input ends: take orders, bury the dead, start them again."""
        woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        orders = os.fdopen(0, "rb", buffering=0)
        with selectors.DefaultSelector() as selector:
            selector.register(orders, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select(self._pause_s()):
                    if key.fileobj == woken:
                        os.read(woken, 4096)
                    elif not self._obey(orders.readline()):
                        return
                self._bury()
                self._start_due()

    def _pause_s(self) -> float | None:
        return max(0.0, min(due for due, _ in self._due) - time.monotonic()) if self._due else None

    def _obey(self, line: bytes) -> bool:
        if not line:
            return False
        order = json.loads(line)
        if order["do"] == "start":
            self._orders[order["name"]] = order
            self._start(order["name"])
        else:
            self._orders.pop(order["name"], None)
        return True

    def _bury(self) -> None:
        while self._names:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            name = self._names.pop(pid)
            _tell(name=name, pid=pid, code=os.waitstatus_to_exitcode(status))
            if name in self._orders:
                self._due.append((time.monotonic() + _AGAIN_S, name))

    def _start_due(self) -> None:
        now = time.monotonic()
        ready = [name for due, name in self._due if due <= now]
        self._due = [(due, name) for due, name in self._due if due > now]
        for name in ready:
            if name in self._orders:
                self._start(name)

    def _start(self, name: str) -> None:
        order = self._orders[name]
        nursery = os.getpid()
        pid = os.fork()
        if pid == 0:
            _grow_up(order, nursery)
        self._names[pid] = name
        _tell(name=name, pid=pid)


def _grow_up(order: dict[str, Any], nursery: int) -> NoReturn:
    """What the fork does: become a process of its own and run the module; never returns."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        children.dies_with(nursery)()
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.clear()
        os.environ.update(order["environ"])
        tampering.tamper(order["faults"])
        sys.argv = [order["module"]]
        runpy.run_module(order["module"], run_name="__main__")
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001  # a fork must never return into the nursery
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _tell(**event: object) -> None:
    os.write(1, json.dumps(event).encode() + b"\n")


if __name__ == "__main__":
    for module in _PRELOADED:
        __import__(module)
    _tell(name="nursery", pid=os.getpid())
    Nursery().tend()
