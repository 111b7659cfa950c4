"""A whole williw as real processes, any of which can be killed, stopped or doubled."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import msgspec

from config import load
from config.settings import Settings
from messages.ids import NodeId
from messages.nodes import Node
from services.console import children
from services.console.building import services_of
from services.console.household import Child, household
from services.runtime import provision
from services.runtime.bus import open_bus
from tests.integration.faults.tampering import Fault
from tests.integration.faults.tiny import write_model

ORIGIN = "node_001"
NODES = ("node_001", "node_002", "node_003")
WAIT_S = 60.0
# Short leases, so that a dead process's work is taken up within the patience of a test.
BUS = {
    "lease_s": 1.5,
    "retry_delays_s": (0.1, 0.2, 0.5, 1.0),
    "max_deliver": 8,
    "grace_s": 1.0,
}
_ROOT = Path(__file__).resolve().parents[3]


class Processes:
    """The nursery and the processes it started, by name."""

    def __init__(self, folder: Path) -> None:
        self.deaths: list[tuple[str, int]] = []
        self._pids: dict[str, int] = {}
        self._changed = threading.Condition()
        folder.mkdir(parents=True, exist_ok=True)
        environ = {**os.environ, "PYTHONPATH": str(_ROOT), "OPENBLAS_NUM_THREADS": "1"}
        with (folder / "nursery.log").open("ab") as log:
            self._nursery = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.faults.nursery"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environ,
                cwd=_ROOT,
                preexec_fn=children.dies_with(os.getpid()),  # noqa: PLW1509
            )
        threading.Thread(target=self._hear, daemon=True).start()
        self.wait(lambda: "nursery" in self._pids)

    def start(
        self, name: str, child: Child, log: Path, *faults: Fault, environ: Mapping[str, str]
    ) -> None:
        """Start a process and wait until it exists; it is started again until it is ended."""
        known = self.pid(name)
        order = {
            "do": "start",
            "name": name,
            "module": f"services.{child.service}",
            "environ": {**_environ(), **environ, **load.as_environ(child.overrides)},
            "log": str(log),
            "faults": faults,
        }
        self._order(order)
        self.wait(lambda: self.pid(name) not in (0, known))

    def pid(self, name: str) -> int:
        """The process's id; 0 while it does not run."""
        return self._pids.get(name, 0)

    def end_all(self) -> None:
        """End everything at once and forget that it ever ran."""
        for name in sorted(set(self._pids) - {"nursery"}):
            self.end(name, signal.SIGKILL)
        self.deaths.clear()

    def send(self, name: str, number: int) -> int:
        """Send a signal; the pid it went to, or 0 where nothing runs under that name."""
        pid = self.pid(name)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pid

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is dead; it is started again at once unless forgotten."""
        pid = self.send(name, signal.SIGKILL)
        self.wait(lambda: self.pid(name) != pid)

    def end(self, name: str, number: int = signal.SIGTERM) -> None:
        """Forget a process and end it."""
        self._order({"do": "forget", "name": name})
        pid = self.send(name, number)
        self.send(name, signal.SIGCONT)
        self.wait(lambda: self.pid(name) != pid)

    def wait(self, true: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
        """Wait for a condition that begins or ends of processes make true."""
        with self._changed:
            if not self._changed.wait_for(true, timeout_s):
                raise TimeoutError(f"processes: {self._pids}, deaths: {self.deaths[-5:]}")

    def close(self) -> None:
        """End the nursery; the kernel ends its children with it."""
        assert self._nursery.stdin is not None
        self._nursery.kill()
        self._nursery.wait()
        self._nursery.stdin.close()

    def _order(self, order: Mapping[str, Any]) -> None:
        assert self._nursery.stdin is not None
        self._nursery.stdin.write(json.dumps(order).encode() + b"\n")
        self._nursery.stdin.flush()

    def _hear(self) -> None:
        assert self._nursery.stdout is not None
        with self._nursery.stdout as told:
            for line in told:
                event = json.loads(line)
                with self._changed:
                    if "code" not in event:
                        self._pids[event["name"]] = event["pid"]
                    else:
                        self.deaths.append((event["name"], event["code"]))
                        if self._pids.get(event["name"]) == event["pid"]:
                            del self._pids[event["name"]]
                    self._changed.notify_all()


@dataclass
class House:
    """The children of one origin and its nodes, started on a bus; `sections` change settings.

    `environ` is what they find in their environment beside those.
    """

    root: Path
    url: str
    processes: Processes
    sections: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    nodes: tuple[str, ...] = NODES
    children: dict[str, Child] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        offered = tuple(
            Node(
                node_id=NodeId(node_id),
                compute_gflops=100.0 * (k + 1),
                memory_bytes=1 << 30,
                disk_bytes=1 << 40,
                bandwidth_mbps=1000.0,
            )
            for k, node_id in enumerate(self.nodes)
        )
        for child in household(self.root, offered, self.url, [str(self.models)]):
            self.children[child.name] = self._changed(child)

    @property
    def models(self) -> Path:
        """Where the local models lie that may be asked for."""
        return self.root / "local"

    @property
    def settings(self) -> Settings:
        """The origin's settings, for the test's own connection."""
        return load.load(environ={}, overrides=self.children["requester"].overrides)

    def stage_links(self) -> Iterator[Path]:
        """Every stage that is visible on any node."""
        for node_id in self.nodes:
            folder = self.root / "nodes" / node_id / "models"
            if folder.is_dir():
                yield from (link for link in folder.iterdir() if link.is_symlink())

    def model(self, name: str, **shape: int) -> Path:
        """A model of its own, its bytes those of no other."""
        seed = int.from_bytes(name.encode()[-6:], "little")
        return write_model(self.models / name, seed=seed, **shape)

    def fault_file(self, name: str) -> Path:
        """A file by which a planted fault and its test know of each other."""
        folder = self.root / "faults"
        folder.mkdir(exist_ok=True, parents=True)
        return folder / name

    def start(self, name: str, *faults: Fault, copy: str = "") -> None:
        """Start a child, or, under another name, a copy of it."""
        self.logs.mkdir(exist_ok=True)
        log = self.logs / f"{name}{copy}.log"
        child = self.children[name]
        self.processes.start(name + copy, child, log, *faults, environ=self.environ)

    def start_all(self, **faults: tuple[Fault, ...]) -> None:
        """Start everything; faults by service, planted in each child of it."""
        for name, child in self.children.items():
            self.start(name, *faults.get(child.service, ()))

    def restart(self, name: str, *faults: Fault) -> None:
        """End a child at once and start it anew, with these faults or none."""
        if self.processes.pid(name):
            self.processes.end(name, signal.SIGKILL)
        self.start(name, *faults)

    def provision(self) -> None:
        """What the services need on the bus."""
        anyio.run(self._provision, backend="asyncio")

    @property
    def logs(self) -> Path:
        """What every process wrote, a file for each."""
        return self.root / "logs"

    async def _provision(self) -> None:
        async with open_bus(self.settings, "test-provision") as bus:
            await provision.provision_storage(bus, self.settings)
            others = tuple(node for node in self.nodes if node != ORIGIN)
            services = services_of(bus, self.settings, others, (ORIGIN,))
            await provision.provision_consumers(bus, self.settings, services)

    def _changed(self, child: Child) -> Child:
        fixed: dict[str, dict[str, object]] = {
            "bus": {**BUS},
            "node": {"heartbeat_s": 0.3, "expires_s": 5.0},
            "profiler": {"exact": False},
            "downloader": {"keep_free_bytes": 0},
            "distributor": {"keep_free_bytes": 0},
            "planner": {"wait_for_nodes_s": 10.0, "replan_after_s": 3.0},
        }
        overrides = {section: dict(values) for section, values in child.overrides.items()}
        for changed in (fixed, self.sections):
            for section, values in changed.items():
                overrides.setdefault(section, {}).update(values)
        return Child(child.name, child.service, overrides)


def _environ() -> dict[str, str]:
    """What a service needs of the environment; nothing of the tester's own settings."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")
    return {name: os.environ[name] for name in kept if name in os.environ}


async def until_file(path: Path, timeout_s: float = WAIT_S) -> None:
    """Wait until a file is there."""
    with anyio.fail_after(timeout_s):
        while not path.exists():  # noqa: ASYNC110, ASYNC240
            await anyio.sleep(0.02)


def wall_s() -> float:
    """Seconds on a clock that only runs forward."""
    return time.monotonic()


def settings_with(settings: Settings, **bus: object) -> Settings:
    """The settings with another bus section."""
    return msgspec.structs.replace(settings, bus=msgspec.structs.replace(settings.bus, **bus))
