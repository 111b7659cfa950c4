"""Machines of a benchmark: network namespaces on a bridge, links limited both ways by tc tbf."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from types import TracebackType

NAMES = "wb{pid}-{which}"
BURST_BYTES = 1 << 20
QUEUE_BYTES = 4 << 20


class Namespaces:
    """`count` namespaces with addresses of their own, for the length of a block.

    Whatever a machine sends or receives passes a token bucket of `bytes_per_s`. The bridge is in a
    namespace too: nothing of the host's network is touched.
    """

    def __init__(self, count: int, bytes_per_s: int) -> None:
        self.count, self._rate = count, bytes_per_s
        self._hub = NAMES.format(pid=os.getpid(), which="hub")
        self._made: list[str] = []

    def __enter__(self) -> "Namespaces":
        try:
            self._make(self._hub)
            self._run("ip", "-n", self._hub, "link", "add", "bridge", "type", "bridge")
            self._run("ip", "-n", self._hub, "link", "set", "bridge", "up")
            for k in range(self.count):
                self._connect(k)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def address(self, k: int) -> str:
        """Where machine `k` is reached from the others."""
        return f"10.77.0.{k + 1}"

    def within(self, k: int, command: Sequence[str]) -> list[str]:
        """The command, run on machine `k`."""
        return ["ip", "netns", "exec", self._name(k), *command]

    def close(self) -> None:
        """Remove what was made; the links go with their namespaces."""
        while self._made:
            command = ("ip", "netns", "del", self._made.pop())
            subprocess.run(command, check=False, timeout=30, capture_output=True)

    def _connect(self, k: int) -> None:
        name, port = self._name(k), f"port{k}"
        self._make(name)
        peer = ("peer", "name", "eth0", "netns", name)
        self._run("ip", "link", "add", port, "netns", self._hub, "type", "veth", *peer)
        self._run("ip", "-n", self._hub, "link", "set", port, "master", "bridge", "up")
        self._run("ip", "-n", name, "addr", "add", f"{self.address(k)}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            self._run("ip", "-n", name, "link", "set", link, "up")
        limit = ("rate", f"{self._rate * 8}bit", "burst", str(BURST_BYTES))
        for where, link in ((name, "eth0"), (self._hub, port)):
            bucket = ("root", "tbf", *limit, "limit", str(QUEUE_BYTES))
            self._run("tc", "-n", where, "qdisc", "add", "dev", link, *bucket)

    def _name(self, k: int) -> str:
        return NAMES.format(pid=os.getpid(), which=k)

    def _make(self, name: str) -> None:
        self._run("ip", "netns", "add", name)
        self._made.append(name)

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, check=False, timeout=30, capture_output=True, text=True)
        if done.returncode:
            raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


def why_not() -> str:
    """Why no limited namespace can be made here; empty where one can."""
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} (iproute2) is not here"
    if os.geteuid() != 0:
        return "making network namespaces takes root"
    try:
        with Namespaces(2, 100_000_000):
            return ""
    except OSError as error:
        return str(error)
