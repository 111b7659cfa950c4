"""Distributors, and the origin's splitter, as processes of their own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

import config.load
from config.settings import Settings
from services.distributor.service import build as build_distributor
from services.runtime import provision
from services.splitter.service import build as build_splitter
from tests.integration.delivery.rig import ORIGIN, Rig

ROOT = Path(__file__).resolve().parents[3]


class Processes:
    """Those of one rig."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._running: dict[tuple[str, str], subprocess.Popen[bytes]] = {}

    def start(self, service: str, node_id: str) -> None:
        """Start a service of a node."""
        settings = self._rig.node(node_id)
        overrides = {
            "bus": {"url": settings.bus.url, "lease_s": 3.0, "retry_delays_s": [0.1]},
            "node": _table(settings, "node"),
            "distributor": _table(settings, "distributor"),
            "splitter": _table(settings, "splitter"),
        }
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        environment |= config.load.as_environ(overrides)
        log = (self._rig.root / f"{service}-{node_id}.log").open("ab")
        with log:
            self._running[service, node_id] = subprocess.Popen(
                [sys.executable, "-m", f"services.{service}"],
                env=environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )

    def pid(self, service: str, node_id: str) -> int:
        """The process of a service of a node."""
        return self._running[service, node_id].pid

    def kill(self, service: str, node_id: str) -> None:
        """kill -9."""
        process = self._running.pop((service, node_id))
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)

    def end(self) -> None:
        """Kill what runs."""
        for service, node_id in tuple(self._running):
            self.kill(service, node_id)


def _table(settings: Settings, section: str) -> dict[str, object]:
    found: dict[str, object] = msgspec.structs.asdict(getattr(settings, section))
    return found


@contextmanager
def processes(rig: Rig) -> Iterator[Processes]:
    """Processes that are ended with the block."""
    running = Processes(rig)
    try:
        yield running
    finally:
        running.end()


async def provisioned(rig: Rig, *node_ids: str) -> None:
    """The durable consumers of these nodes and the origin's splitter."""
    for node_id in node_ids:
        settings = rig.node(node_id)
        services = [build_distributor(settings, rig.bus)]
        if node_id == ORIGIN:
            services.append(build_splitter(settings, rig.bus))
        await provision.provision_consumers(rig.bus, settings, services)
