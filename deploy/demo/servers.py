"""Three nats-servers on this machine by deploy/nats/cluster.conf, addresses and folders apart."""

import os
import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import anyio

from messages.failures import Permanent
from services.console import children, embedded

CONFIG = Path(__file__).parents[1] / "nats" / "cluster.conf"
_HOST = "127.0.0.1"
_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 5.0
_OPENSSL_TIMEOUT_S = 30.0


class ServersFailed(Permanent):
    """A nats-server of the cluster ended at once, or did not listen in time."""


class Servers:
    """The servers `nats-1` to `nats-3` below a folder that holds auth/ and tls/."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        ports = free_ports(9)
        self._ports, self._routes, self._doors = ports[:3], ports[3:6], ports[6:]
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        """Every server's address, for clients."""
        return ",".join(f"tls://{_HOST}:{port}" for port in self._ports)

    @property
    def names(self) -> tuple[str, ...]:
        """The servers' names, in the order of their ports."""
        return tuple(f"nats-{k + 1}" for k in range(len(self._ports)))

    async def start(self, *names: str) -> None:
        """Start these servers and wait until they listen; ServersFailed with their last words."""
        for name in names:
            config = self._folder / f"{name}.conf"
            config.write_text(self._configuration(name))
            port = self._ports[self.names.index(name)]
            command = [embedded.nats_server(), "-c", str(config), "--name", name]
            command += ["--addr", _HOST, "--port", str(port)]
            self._running[name] = children.spawn(command, self._log_file(name))
        for name in names:
            await self._listening(name)

    def kill(self, name: str) -> None:
        """End a server as a power cut would."""
        children.end(self._running[name])
        self._running[name].wait(_STOP_TIMEOUT_S)

    def stop(self) -> None:
        """End all of them, those that take too long by force. Blocking, within seconds."""
        for process in self._running.values():
            children.end(process, signal.SIGTERM)
        until = time.monotonic() + _STOP_TIMEOUT_S
        for name, process in self._running.items():
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.kill(name)

    def _log_file(self, name: str) -> Path:
        return self._folder / "logs" / f"{name}.log"

    def _configuration(self, name: str) -> str:
        place = self.names.index(name)
        replaced = {
            "/var/lib/nats": str(self._folder / "store" / name),
            '"tls/': f'"{self._folder}/tls/',
            "port: 6222": f'listen: "{_HOST}:{self._routes[place]}"',
            "port: 7422": f'listen: "{_HOST}:{self._doors[place]}"',
        }
        for peer, port in zip(self.names, self._routes, strict=True):
            replaced[f"nats-route://{peer}:6222"] = f"nats-route://{_HOST}:{port}"
        text = CONFIG.read_text()
        for old, new in replaced.items():
            if old not in text:
                raise ServersFailed(f"{CONFIG} has no {old!r} to replace", advice="mend the demo")
            text = text.replace(old, new)
        return text

    async def _listening(self, name: str) -> None:
        process, port = self._running[name], self._ports[self.names.index(name)]
        with anyio.move_on_after(_START_TIMEOUT_S):
            while process.poll() is None:
                with socket.socket() as probe:
                    if probe.connect_ex((_HOST, port)) == 0:
                        return
                await anyio.sleep(0.02)
        last = self._log_file(name).read_text(errors="replace").splitlines()[-1:]
        raise ServersFailed(f"{name} does not listen: {last}", advice=f"see {self._folder}/logs")


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now."""
    with ExitStack() as opened:
        found = [opened.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind((_HOST, 0))
        return [one.getsockname()[1] for one in found]


def certify(folder: Path) -> None:
    """Write `server.crt`, `server.key` and `ca.crt` for 127.0.0.1 into `folder`, by openssl.

    One certificate that is its own authority: enough to show that everybody asks for it.
    """
    folder.mkdir(parents=True, mode=0o700)
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-keyout", "server.key", "-out", "server.crt", "-days", "2",
        "-subj", "/CN=williw demo", "-addext", f"subjectAltName=DNS:localhost,IP:{_HOST}",
    ]  # fmt: skip
    try:
        subprocess.run(
            command, cwd=folder, check=True, capture_output=True, timeout=_OPENSSL_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ServersFailed(
            f"openssl made no certificate: {type(error).__name__}", advice="install openssl"
        ) from error
    os.link(folder / "server.crt", folder / "ca.crt")
