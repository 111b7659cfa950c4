"""Which processes make a whole williw on one machine, and the settings of each. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from messages.ids import NodeId
from messages.nodes import Node

ORIGIN_SERVICES = ("requester", "downloader", "profiler", "uploader", "splitter", "planner")
SERVICES = (*ORIGIN_SERVICES, "distributor")
Overrides = Mapping[str, Mapping[str, object]]

# Capacities of the local nodes, in turn: they share one machine and only stand for unlike ones.
_GFLOPS = (400.0, 200.0, 100.0)
_MEMORY_PARTS = (4, 2, 1)
_BANDWIDTH_MBPS = 1000.0
# Local nodes share one machine's load, so its load is no reason to prefer one to another; and a
# stopping service hands its work back soon, since the same home goes on with it.
_LOCAL = {
    "bus": {"grace_s": 3.0},
    "planner": {"max_cpu_percent": 100.0, "max_memory_percent": 100.0, "max_gpu_percent": 100.0},
}


@dataclass(frozen=True)
class Child:
    """One process: `name` is that of its pid file and log, `overrides` its settings."""

    name: str
    service: str
    overrides: Overrides


def local_nodes(count: int, memory_bytes: int, disk_bytes: int) -> tuple[Node, ...]:
    """`count` unlike nodes that share half of this machine's memory and all of its disk.

    The same machine gives the same nodes each time, so that the same plan comes of them.
    """
    parts = [_MEMORY_PARTS[i % len(_MEMORY_PARTS)] for i in range(count)]
    return tuple(
        Node(
            node_id=NodeId(f"node_{i + 1:03d}"),
            compute_gflops=_GFLOPS[i % len(_GFLOPS)],
            memory_bytes=memory_bytes // 2 * part // sum(parts),
            disk_bytes=disk_bytes // count,
            bandwidth_mbps=_BANDWIDTH_MBPS,
        )
        for i, part in enumerate(parts)
    )


def household(
    home: Path, nodes: Sequence[Node], url: str, local_roots: Sequence[str]
) -> tuple[Child, ...]:
    """Every child of a `williw up`, in the order of starting; the first node is the origin.

    The planner comes last: it plans for the nodes that live when it looks.
    """
    origin = nodes[0]
    at_origin = _settings(home, origin, url, home, origin=True)
    distributors = [
        Child(
            f"distributor-{node.node_id}",
            "distributor",
            _settings(
                home,
                node,
                url,
                home if node is origin else home / "nodes" / node.node_id,
                origin=node is origin,
            ),
        )
        for node in nodes
    ]
    services = {
        name: Child(name, name, {**at_origin, "downloader": {"local_roots": tuple(local_roots)}})
        if name == "downloader"
        else Child(name, name, at_origin)
        for name in ORIGIN_SERVICES
    }
    planner = services.pop("planner")
    first, *rest = services.values()
    return (first, *distributors, *rest, planner)


def _settings(home: Path, node: Node, url: str, node_home: Path, *, origin: bool) -> Overrides:
    offered = {
        key: getattr(node, key)
        for key in ("compute_gflops", "memory_bytes", "disk_bytes", "bandwidth_mbps")
        if getattr(node, key) is not None
    }
    return {
        **_LOCAL,
        "bus": {"url": url, **_LOCAL["bus"]},
        "node": {"node_id": node.node_id, "origin": origin, "home": str(node_home), **offered},
        "distributor": {
            "host": "127.0.0.1",
            "models_dir": str(home / "nodes" / node.node_id / "models"),
        },
        "logging": {"format": "json"},
    }


def further_keys(node: Node) -> tuple[str, ...]:
    """Keys of a nodes file that a distributor has no setting for."""
    known = {"node_id", "compute_gflops", "memory_bytes", "disk_bytes", "bandwidth_mbps"}
    return tuple(sorted(msgspec.to_builtins(node).keys() - known))
