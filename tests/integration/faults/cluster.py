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
from tests.integration.faults.links import Links

_CONFIG = """\
server_name: {name}
host: 127.0.0.1
port: {port}
client_advertise: "127.0.0.1:{client}"
jetstream {{ store_dir: "{store}", sync_interval: always, max_file_store: 64GB }}
cluster {{
  name: williw, listen: "127.0.0.1:{route}", advertise: "127.0.0.1:{inward}", routes: [{routes}]
}}
# By default servers take a minute and more to leave one that stands still, its links open.
ping_interval: "5s"
ping_max: 2
"""


class Cluster:
    """Servers `a`, `b` and `c`; killed and started again they keep their ports and stores.

    With `links` all that travels between them, and to them, goes through those.
    """

    def __init__(self, folder: Path, links: Links | None = None) -> None:
        self._folder = folder
        self._links = links
        ports = _free_ports(6)
        self._ports = dict(zip("abc", ports[:3], strict=True))
        self._routes = dict(zip("abc", ports[3:], strict=True))
        self._ways = {(x, y): self._way(f"{x}-{y}", self._routes[y]) for x in "abc" for y in "abc"}
        self._clients = {x: self._way(f"clients-{x}", self._ports[x]) for x in "abc"}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        """All three addresses."""
        return ",".join(self.url_of(name) for name in "abc")

    def url_of(self, name: str) -> str:
        """The address of one."""
        return f"nats://127.0.0.1:{self._clients[name]}"

    def start(self, name: str) -> None:
        """Start one server."""
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        ways = [self._ways[name, other] for other in "abc" if other != name]
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ways)
        config = folder / "nats.conf"
        config.write_text(
            _CONFIG.format(
                name=name,
                port=self._ports[name],
                client=self._clients[name],
                store=folder / "store",
                inward=self._ways[name, name],
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

    def _way(self, name: str, port: int) -> int:
        return port if self._links is None else self._links.add(name, port)

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
