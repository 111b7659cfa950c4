"""The memory of each service's own process over many jobs: what is not given back, a job.

    python tests/benchmarks/bench_memory.py [--jobs 400]

Every service runs as a real process of its own, on a real nats-server, one tiny model. The first
quarter of the jobs only warms them up; growth is counted over the rest.
"""

import argparse
import asyncio
import sys
from pathlib import Path

import psutil
import structlog

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from messages.jobs import JobCompleted
from services.runtime.bus import open_bus
from tests.benchmarks.deployed import deployed
from tests.integration.faults.house import House
from tests.integration.faults.promise import ask, ended

AT_ONCE = 10


def main() -> None:
    """Print a line for each process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=400)
    given = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), processors=[])
    with deployed() as (house, server):
        watched = {name: house.processes.pid(name) for name in house.children}
        watched["nats-server"] = server.pid
        asyncio.run(measure(house, watched, given.jobs))


async def measure(house: House, watched: dict[str, int], jobs: int) -> None:
    """Resident memory warm, half way and at the end."""
    model = house.model("tiny")
    async with open_bus(house.settings, "bench") as bus:

        async def run(first: int, last: int) -> None:
            for start in range(first, last, AT_ONCE):
                ids = [
                    await ask(bus, model, f"job-{k}")
                    for k in range(start, min(last, start + AT_ONCE))
                ]
                for job_id in ids:
                    ending = await ended(bus, job_id)
                    if not isinstance(ending, JobCompleted):
                        raise SystemExit(f"{job_id}: {ending}")

        marks = (jobs // 4, jobs * 5 // 8, jobs)
        found: list[dict[str, float]] = []
        for first, last in zip((0, *marks), marks, strict=False):
            await run(first, last)
            found.append({name: resident(pid) for name, pid in watched.items()})
    warm, half, end = found
    counted = jobs - marks[0]
    print(f"{'':26}{'warm MiB':>10}{'half':>10}{'end':>10}{'KiB a job':>11}")
    for name in watched:
        growth = (end[name] - warm[name]) * 1024 / counted
        print(f"{name:26}{warm[name]:10.1f}{half[name]:10.1f}{end[name]:10.1f}{growth:11.2f}")


def resident(pid: int) -> float:
    """MiB that a process holds."""
    return float(psutil.Process(pid).memory_info().rss) / (1 << 20)


if __name__ == "__main__":
    main()
