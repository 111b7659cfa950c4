"""The services of the demo as child processes, each with its own key. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from messages.nodes import Node
from services.console.household import SERVICES, Child

# What each node may send a second, in turn; bytes.
_RATES = (64 << 20, 32 << 20, 16 << 20)


@dataclass(frozen=True)
class House:
    """Where everything lies, and which nodes there are; the first `origins` of them hold models."""

    folder: Path
    url: str
    nodes: Sequence[Node]
    origins: int
    models: tuple[str, ...]

    @property
    def origin_ids(self) -> tuple[str, ...]:
        """The nodes that hold models."""
        return tuple(str(node.node_id) for node in self.nodes[: self.origins])

    @property
    def node_ids(self) -> tuple[str, ...]:
        """The nodes that only receive their parts."""
        return tuple(str(node.node_id) for node in self.nodes[self.origins :])

    def bus(self, user: str) -> dict[str, object]:
        """The [bus] settings of a user: its key, and everything short, since it all is near."""
        return {
            "url": self.url,
            "nkey_file": str(self.folder / "auth" / f"{user}.nk"),
            "tls_ca_file": str(self.folder / "tls" / "ca.crt"),
            "replicas": 3,
            "lease_s": 3.0,
            "grace_s": 3.0,
            "connect_timeout_s": 30.0,
        }

    def children(self) -> tuple[Child, ...]:
        """Every service of every origin, and each other node's distributor."""
        found = []
        for place, node in enumerate(self.nodes):
            names = SERVICES if place < self.origins else ("distributor",)
            found += [self._child(name, node, place) for name in names]
        return tuple(found)

    def _child(self, name: str, node: Node, place: int) -> Child:
        tls = self.folder / "tls"
        settings: Mapping[str, Mapping[str, object]] = {
            "bus": self.bus(f"{node.node_id}/{name}"),
            "node": {
                "node_id": node.node_id,
                "origin": place < self.origins,
                "home": str(self.folder / "nodes" / node.node_id),
                "compute_gflops": node.compute_gflops,
                "memory_bytes": node.memory_bytes,
                "disk_bytes": node.disk_bytes or 0,
                "bandwidth_mbps": node.bandwidth_mbps or 0.0,
            },
            "downloader": {"local_roots": tuple(self.models)},
            # By closed form: torch's count is another demo's, and would take seconds.
            "profiler": {"exact": False},
            # The nodes share one machine, so its load says nothing of them.
            "planner": {f"max_{of}_percent": 100.0 for of in ("cpu", "gpu", "memory")},
            "distributor": {
                "host": "127.0.0.1",
                "upload_bytes_per_s": _RATES[place % len(_RATES)],
                "tls_ca_file": str(tls / "ca.crt"),
                "tls_cert_file": str(tls / "server.crt"),
                "tls_key_file": str(tls / "server.key"),
            },
            "logging": {"format": "json"},
        }
        return Child(f"{name}-{node.node_id}", name, settings)
