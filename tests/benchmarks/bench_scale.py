"""What grows with nodes and with jobs: the registry, the server, the planner, the bus.

    python tests/benchmarks/bench_scale.py [--nodes 1000] [--jobs 5]

A real nats-server on loopback. Every figure of many stands beside the same figure of few from the
same run. Bytes are the server's own count of what it received and sent, keep-alives apart.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import psutil
import structlog

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from config.settings import Planner, Settings
from messages.ids import NodeId
from messages.nodes import Node, NodeEntry
from messages.wishes import Wishes
from services.console.embedded import EmbeddedNats
from services.planner.plan import plan_split
from services.runtime import provision
from services.runtime.bus import Bus, open_bus
from tests.benchmarks import planner_instances as made
from tests.bus_fixture import settings_for
from tests.integration.faults.tiny import write_model
from tests.integration.flow.house import House

FEW = 10
HEARTBEAT_S = 2.0


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=5)
    given = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), processors=[])
    with tempfile.TemporaryDirectory() as folder, EmbeddedNats(Path(folder) / "nats") as server:
        asyncio.run(measure(server, Path(folder), given.nodes, given.jobs))


async def measure(server: EmbeddedNats, folder: Path, many: int, jobs: int) -> None:
    """The registry with few nodes and with many, a plan of each, and the bytes of a job."""
    settings = settings_for(server, folder / "home")
    async with open_bus(settings, "bench") as bus:
        await provision.provision_storage(bus, settings)
        await bytes_of_jobs(bus, settings, folder, server, jobs)
        figures = [await registry(bus, server, count) for count in (FEW, many)]
        few, big = figures
        print(f"\n{'':34}{FEW:>12}{many:>12}{'ratio':>9}")
        for name in few:
            ratio = big[name] / few[name] if few[name] else float("nan")
            print(f"{name:34}{few[name]:12.4g}{big[name]:12.4g}{ratio:9.3g}")


async def registry(bus: Bus, server: EmbeddedNats, count: int) -> dict[str, float]:
    """Announcing `count` nodes, reading them, planning for them."""
    entries = [entry(k) for k in range(count)]
    process = psutil.Process(server.pid)
    cpu_s, before = sum(process.cpu_times()[:2]), traffic(server)
    rounds = max(1, 2000 // count)
    announcing_s = await timed(lambda: announced(bus, entries, rounds))
    cpu_s = sum(process.cpu_times()[:2]) - cpu_s
    beats = rounds * count
    wire = traffic(server) - before
    reading_s = await timed(bus.registry.nodes)
    found = await bus.registry.nodes()
    nodes = [e.node for e in found]
    plan_split(made.llama_1b(), nodes, Wishes(replicas=1), Planner())
    started = time.perf_counter()
    plan_split(made.llama_1b(), nodes, Wishes(replicas=1), Planner())
    return {
        "nodes in the registry": float(len(found)),
        "bytes on the wire a heartbeat": wire / beats,
        "heartbeats a second, one sender": beats / announcing_s,
        "server CPU for these nodes, share": cpu_s / beats * count / HEARTBEAT_S,
        "reading the registry, ms": reading_s * 1e3,
        "planning, ms": (time.perf_counter() - started) * 1e3,
    }


async def announced(bus: Bus, entries: Sequence[NodeEntry], rounds: int) -> None:
    for _ in range(rounds):
        for start in range(0, len(entries), 50):
            await asyncio.gather(*(bus.registry.announce(e) for e in entries[start : start + 50]))


async def bytes_of_jobs(
    bus: Bus, settings: Settings, folder: Path, server: EmbeddedNats, jobs: int
) -> None:
    """What a job of a tiny model costs the bus, first and later, on two and on three nodes."""
    model = write_model(folder / "models" / "tiny")
    roots = {"downloader": {"local_roots": (str(model.parent),)}}
    house = House(bus, settings, folder / "nodes", roots)
    async with house.open():
        idle = traffic(server)
        await asyncio.sleep(5)
        idle_rate = (traffic(server) - idle) / 5
        before, started = traffic(server), time.perf_counter()
        for _ in range(jobs):
            ended = await house.bring(str(model))
            assert type(ended).__name__ == "JobCompleted", ended
        seconds = time.perf_counter() - started
        own = traffic(server) - before - idle_rate * seconds
    info = await bus.client.jetstream().stream_info("WILLIW")
    print(f"{jobs} jobs of a tiny model, one at a time, three nodes:")
    print(f"  on the wire, KiB a job            {own / jobs / 1024:10.1f}")
    print(f"  idle house, KiB a second          {idle_rate / 1024:10.1f}")
    print(f"  stored facts a job                {info.state.messages / jobs:10.1f}")
    print(f"  stored KiB a job                  {info.state.bytes / jobs / 1024:10.1f}")


def entry(number: int) -> NodeEntry:
    """A node like many: 24 GB, unlike speeds."""
    node = Node(
        node_id=NodeId(f"sim_{number:05}"),
        compute_gflops=1000.0 * (1 + number % 7),
        memory_bytes=24 << 30,
        bandwidth_mbps=1000.0,
    )
    return NodeEntry(node=node, data_url=f"http://10.0.{number // 250}.{number % 250}:8470")


def traffic(server: EmbeddedNats) -> float:
    """Bytes that the server received and sent so far."""
    with urllib.request.urlopen(f"{server.monitor_url}/varz") as answer:
        figures = json.load(answer)
    return float(figures["in_bytes"] + figures["out_bytes"])


async def timed(do: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await do()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
