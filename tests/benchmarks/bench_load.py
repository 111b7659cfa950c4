"""A burst of jobs through all seven services, beside as many raw publishes and acknowledgements.

    python tests/benchmarks/bench_load.py [--jobs 1000]

One origin and three nodes in one process, a real nats-server on loopback, one tiny model: after the
first job nothing is cut or moved, so what is measured is what williw costs. The floor is the same
number of messages of the same size published to JetStream, then fetched and acknowledged as often.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import structlog
from nats.js.api import ConsumerConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from messages.base import Fact
from messages.ids import JobId
from messages.jobs import ModelRequest
from messages.state import Said
from messages.subjects import JOB_ENDED, MODEL_REQUEST
from services.console.embedded import EmbeddedNats
from services.runtime import names, provision
from services.runtime.bus import Bus, open_bus
from tests.bus_fixture import settings_for
from tests.integration.faults.tiny import write_model
from tests.integration.flow.house import House

AT_ONCE = 64
ALONE = 10


def main() -> None:
    """Print the figures; fails where a job has no ending, or two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    given = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), processors=[])
    with tempfile.TemporaryDirectory() as folder, EmbeddedNats(Path(folder) / "nats") as server:
        asyncio.run(measure(server, Path(folder), given.jobs))


async def measure(server: EmbeddedNats, folder: Path, jobs: int) -> None:
    """The burst, its floor, and jobs one at a time."""
    settings = settings_for(server, folder / "home")
    model = write_model(folder / "models" / "tiny")
    async with open_bus(settings, "bench") as bus:
        await provision.provision_storage(bus, settings)
        roots = {"downloader": {"local_roots": (str(model.parent),)}}
        async with House(bus, settings, folder / "nodes", roots).open():
            alone = [await burst(bus, model, f"alone-{k}", 1) for k in range(ALONE + 1)][1:]
            before, acked = await counted(bus)
            said = await burst(bus, model, "burst", jobs)
            after, acked_after = await counted(bus)
        messages, deliveries = after[0] - before[0], acked_after - acked
        size = (after[1] - before[1]) // messages
        floor_s = await floor(bus, messages, deliveries, size)
    show(jobs, said, alone, messages, deliveries, floor_s)


async def burst(bus: Bus, model: Path, name: str, jobs: int) -> list[float]:
    """Ask for so many jobs at once; when each ended, in seconds since the first was asked for."""
    began = time.perf_counter()
    ends: dict[JobId, float] = {}
    asked = [ModelRequest(model_name=str(model), job_id=JobId(f"{name}-{k}")) for k in range(jobs)]
    kinds: Counter[str] = Counter()

    async def hear() -> None:
        async for said in bus.facts.follow(JOB_ENDED.where()):
            if said.fact.job_id.rpartition("-")[0] == name:
                note(said)
            if len(ends) == jobs:
                return

    def note(said: Said[Fact]) -> None:
        kinds[type(said.fact).__name__] += 1
        ends[said.fact.job_id] = time.perf_counter() - began

    heard = asyncio.create_task(hear())
    await gathered(asked, lambda request: bus.send(request, MODEL_REQUEST))
    await heard
    if kinds != {"JobCompleted": jobs}:
        raise SystemExit(f"not every job completed, once: {dict(kinds)}")
    return sorted(ends.values())


async def counted(bus: Bus) -> tuple[tuple[int, int], int]:
    """Messages and bytes in the stream; deliveries that its consumers have made, once at rest."""
    js = bus.client.jetstream()
    while True:
        infos = await js.consumers_info(names.FACTS_STREAM)
        if not any(info.num_pending or info.num_ack_pending for info in infos):
            break
        await asyncio.sleep(0.2)
    state = (await js.stream_info(names.FACTS_STREAM)).state
    made = sum(info.delivered.consumer_seq for info in infos if info.delivered)
    return (state.messages, state.bytes), made


async def floor(bus: Bus, messages: int, deliveries: int, size: int) -> float:
    """Seconds for so many publishes, fetches and acknowledgements, and nothing else."""
    js = bus.client.jetstream()
    await js.add_stream(name="FLOOR", subjects=["floor.>"])
    began = time.perf_counter()
    # A message's own envelope in the stream is about a hundred bytes.
    body = bytes(max(1, size - 100))
    await gathered(range(messages), lambda k: js.publish(f"floor.{k}", body))
    left = deliveries
    for number in range(-(-deliveries // messages)):
        durable = f"reader{number}"
        await js.add_consumer("FLOOR", ConsumerConfig(durable_name=durable, ack_policy="explicit"))
        due = min(left, messages)
        left -= due
        async with asyncio.TaskGroup() as group:
            for worker in range(16):
                group.create_task(read(bus, durable, len(range(worker, due, 16))))
    return time.perf_counter() - began


async def read(bus: Bus, durable: str, count: int) -> None:
    """Fetch and acknowledge, one at a time, as the runtime does."""
    js = bus.client.jetstream()
    subscription = await js.pull_subscribe_bind(durable=durable, stream="FLOOR")
    for _ in range(count):
        (message,) = await subscription.fetch(1, timeout=30)
        await message.ack_sync(timeout=30)
    await subscription.unsubscribe()


async def gathered(things: Iterable[object], do: Callable[..., Awaitable[object]]) -> None:
    """Do it for each, some at once."""
    every = list(things)
    for start in range(0, len(every), AT_ONCE):
        await asyncio.gather(*(do(thing) for thing in every[start : start + AT_ONCE]))


def show(
    jobs: int,
    ends: list[float],
    alone: list[list[float]],
    messages: int,
    deliveries: int,
    floor_s: float,
) -> None:
    """Print the figures."""
    quarter = max(1, jobs // 4)
    last_s = ends[-1] - ends[-quarter - 1]
    first_s = ends[quarter - 1]
    single = statistics.median(one[0] for one in alone)
    print(f"{jobs} jobs asked for at once, every one completed exactly once")
    print(
        f"  messages stored, deliveries made a job   {messages / jobs:.1f}, {deliveries / jobs:.1f}"
    )
    print(f"  seconds, of the floor                    {ends[-1]:.2f}, {floor_s:.2f}")
    print(f"  times the floor                          {ends[-1] / floor_s:.2f}")
    print(f"  last quarter, times the first            {last_s / first_s:.2f}")
    print(
        f"  p50, p99 of the last end                 {ends[len(ends) // 2] / ends[-1]:.2f}, "
        f"{ends[int(len(ends) * 0.99) - 1] / ends[-1]:.2f}"
    )
    print(f"  one job alone, times its share of a burst {single / (ends[-1] / jobs):.1f}")


if __name__ == "__main__":
    main()
