"""A house for a benchmark: every service a real process of its own, on a real nats-server."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.console.embedded import EmbeddedNats
from tests.integration.faults.house import House, Processes


@contextmanager
def deployed() -> Iterator[tuple[House, EmbeddedNats]]:
    """One origin and three nodes, running; SystemExit where a process died meanwhile."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedNats(Path(folder) / "nats") as server:
        processes = Processes(Path(folder) / "nursery")
        try:
            root = Path(folder) / "house"
            root.mkdir()
            house = House(root, server.url, processes)
            house.provision()
            house.start_all()
            yield house, server
            if processes.deaths:
                raise SystemExit(f"died: {processes.deaths}")
        finally:
            processes.close()
