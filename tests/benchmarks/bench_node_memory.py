"""What a node holds in memory while a model passes through it, by the kernel's own count.

    python tests/benchmarks/bench_node_memory.py [--mib 1024] [--dir DIR]

A real nats-server, an origin and two nodes as processes of their own. `copies`: both nodes receive
the whole model, the second from the first. `parts`: half each, the second's passed through the
first. `idle` is a node that has announced itself and done nothing yet, `peak` the most it held
until the job was complete (VmHWM, set back before), `above` their difference.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

import anyio
import structlog

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from messages.ids import NodeId
from messages.jobs import JobCompleted
from services.checkpoint.checkpoint import open_checkpoint
from services.console.embedded import EmbeddedNats
from services.runtime import provision
from services.runtime.bus import open_bus
from tests.benchmarks.bench_cut import make_model
from tests.bus_fixture import settings_for
from tests.integration.delivery.memory import Held, delivered_by
from tests.integration.delivery.rig import ORIGIN, Rig, plan_of

NODES = (NodeId("b"), NodeId("c"))


def main() -> None:
    """Print a line for each process of each shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, nargs="+", default=[64, 1024])
    parser.add_argument("--dir", type=Path, default=None)
    given = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), processors=[])
    print(f"a bare interpreter: {_bare_mib():.1f} MiB")
    print(f"{'':34}{'idle MiB':>10}{'peak':>10}{'above':>10}")
    for mib in given.mib:
        for shape in ("copies", "parts"):
            with tempfile.TemporaryDirectory(dir=given.dir) as folder:
                for name, held in asyncio.run(measure(Path(folder), mib, shape)).items():
                    label = f"{mib} MiB, {shape}: {name}"
                    print(f"{label:34}{held.idle:10.1f}{held.peak:10.1f}{held.above:10.1f}")


async def measure(folder: Path, mib: int, shape: str) -> dict[str, Held]:
    """One delivery of a model of that size."""
    make_model(folder / "model", mib)
    names = open_checkpoint(folder / "model").names
    half = len(names) // 2
    held = [names, names] if shape == "copies" else [names[:half], names[half:]]
    plan = plan_of(NODES, held, topology="chain", copies=shape == "copies")
    with EmbeddedNats(folder / "nats") as server:
        settings = settings_for(server, folder / "home")
        async with open_bus(settings, "bench") as bus:
            await provision.provision_storage(bus, settings)
            rig = Rig(bus, settings, folder, folder / "model")
            with anyio.fail_after(300):
                ended, found = await delivered_by(rig, plan, (ORIGIN, *NODES))
    if not isinstance(ended, JobCompleted):
        raise SystemExit(f"{ended}")
    return found


def _bare_mib() -> float:
    script = "print([l for l in open('/proc/self/status') if l.startswith('VmRSS')][0].split()[1])"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    return int(done.stdout) / 1024


if __name__ == "__main__":
    main()
