"""A nats-server with the permissions that williw makes, and keys for its users."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from config import load
from config.settings import Settings
from services.console import children, embedded
from services.console.building import services_of
from services.runtime import keys
from services.runtime.bus import Bus
from services.runtime.service import Service

ORIGIN, NODE = "node_001", "node_002"


class LockedNats:
    """A server that knows williw's users and nobody else, with an origin and a node."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.url = f"nats://127.0.0.1:{port}"
        self.port = port

    def settings(self, user: str, node_id: str = ORIGIN, **sections: dict[str, object]) -> Settings:
        """Settings that show the key of `user` ("tap", "node_001/planner")."""
        overrides: dict[str, dict[str, object]] = {
            "bus": {"url": self.url, "nkey_file": str(self.folder / "keys" / f"{user}.nk")},
            "node": {
                "node_id": node_id,
                "origin": node_id == ORIGIN,
                "home": str(self.folder / node_id),
            },
        }
        for section, values in sections.items():
            overrides.setdefault(section, {}).update(values)
        return load.load(environ={}, overrides=overrides)


def services_with_settings(url: str) -> list[tuple[Service, Settings]]:
    """Every service of the origin and the node, each with the settings it was built with."""
    from nats.aio.client import Client

    found: list[tuple[Service, Settings]] = []
    for node_id, origin in ((ORIGIN, True), (NODE, False)):
        node = {"node_id": node_id, "origin": origin}
        settings = load.load(environ={}, overrides={"bus": {"url": url}, "node": node})
        origins, nodes = ((node_id,), ()) if origin else ((), (node_id,))
        built = services_of(Bus(Client()), settings, nodes, origins)
        found += [(service, settings) for service in built]
    return found


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[LockedNats]:
    """The server, running."""
    with serving(tmp_path) as server:
        yield server


@contextmanager
def serving(tmp_path: Path, *flags: str) -> Iterator[LockedNats]:
    """A server for the length of the block, its log in `nats.log`; `flags` are nats-server's."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = LockedNats(tmp_path, port)
    keys.write(tmp_path / "keys", services_with_settings(server.url), "WILLIW")
    config = tmp_path / "nats.conf"
    config.write_text(
        f'listen: "127.0.0.1:{port}"\n'
        f"jetstream {{ store_dir: {json.dumps(str(tmp_path / 'store'))} }}\n"
        f"accounts {{ include keys/{keys.CONFIG_FILE} }}\n"
    )
    command = [embedded.nats_server(), "-c", str(config), *flags]
    process = children.spawn(command, tmp_path / "nats.log")
    try:
        wait_for_port(port, tmp_path / "nats.log")
        yield server
    finally:
        children.end(process)
        process.wait(10)


def wait_for_port(port: int, log_file: Path) -> None:
    """Return once somebody listens; the test fails with the log's end otherwise."""
    import time

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(log_file.read_text()[-2000:])
