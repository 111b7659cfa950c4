"""Three nats-servers on loopback that replicate each other's streams."""

import os
import socket
import subprocess
from pathlib import Path
from typing import Self

import anyio
import nats
import nats.errors

from services.console import children
from services.console.embedded import nats_server
from services.runtime import names
from services.runtime.bus import Bus

_CONFIG = """\
server_name: {name}
host: 127.0.0.1
port: {port}
jetstream {{ store_dir: "{store}", sync_interval: always, max_file_store: 64GB }}
cluster {{ name: williw, listen: "127.0.0.1:{route}", routes: [{routes}] }}
# By default servers take a minute and more to leave one that stands still, its links open.
ping_interval: "5s"
ping_max: 2
"""


class Cluster:
    """Servers `a`, `b` and `c`; killed and started again they keep their ports and stores."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        ports = _free_ports(6)
        self._ports = dict(zip("abc", ports[:3], strict=True))
        self._routes = dict(zip("abc", ports[3:], strict=True))
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        """All three addresses."""
        return ",".join(f"nats://127.0.0.1:{port}" for port in self._ports.values())

    def start(self, name: str) -> None:
        """Start one server."""
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in self._routes.values())
        config = folder / "nats.conf"
        config.write_text(
            _CONFIG.format(
                name=name,
                port=self._ports[name],
                store=folder / "store",
                route=self._routes[name],
                routes=routes,
            )
        )
        self._running[name] = children.spawn([nats_server(), "-c", str(config)], folder / "log")

    def kill(self, name: str) -> None:
        """SIGKILL one server."""
        children.end(self._running[name])
        self._running[name].wait()

    def send(self, name: str, number: int) -> None:
        """Send one server a signal."""
        os.kill(self._running[name].pid, number)

    async def ready(self, timeout_s: float = 40.0) -> None:
        """Wait until streams can be made."""
        with anyio.fail_after(timeout_s):
            while not await self._leads():  # noqa: ASYNC110
                await anyio.sleep(0.2)

    async def leader(self, bus: Bus) -> str:
        """The server that leads the facts' stream."""
        with anyio.fail_after(30):
            while True:
                info = await bus.client.jetstream().stream_info(names.FACTS_STREAM)
                if info.cluster and info.cluster.leader:
                    return str(info.cluster.leader)
                await anyio.sleep(0.1)

    async def _leads(self) -> bool:
        try:
            client = await nats.connect(self.url.split(","), connect_timeout=1)
            try:
                js = client.jetstream(timeout=2)
                await js.add_stream(name="probe", subjects=["probe"], num_replicas=3)
                await js.delete_stream("probe")
            finally:
                await client.close()
        except (nats.errors.Error, nats.js.errors.APIError, TimeoutError, OSError):
            return False
        return True

    def __enter__(self) -> Self:
        for name in self._ports:
            self.start(name)
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._running:
            self.kill(name)


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in held]
    for one in held:
        one.close()
    return ports
