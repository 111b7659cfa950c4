"""Jobs through all seven services, beside as many raw publishes, fetches and acknowledgements.

    python tests/benchmarks/bench_load.py [--jobs 1000] [--alone 200]

Every service is a process of its own, as they are deployed: one origin, three nodes, a real
nats-server on loopback that syncs every fact. The model is tiny and was cut and delivered before,
so what is measured is what williw costs. The floor is the same number of messages of the same size
published to JetStream, fetched and acknowledged as often, with no work: many at a time beside the
burst, one after the other beside a job alone.
"""

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from nats.js.api import ConsumerConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from messages.ids import JobId
from messages.jobs import ModelRequest
from messages.subjects import JOB_ENDED, MODEL_REQUEST
from messages.wire import decode_any
from services.runtime import names
from services.runtime.bus import Bus, open_bus
from tests.benchmarks.deployed import deployed
from tests.integration.faults.house import House
from tests.integration.faults.promise import nodes_live

AT_ONCE = 64
READERS = 16
# A service that has just started asks the bus what it will later have heard.
WARM_S = 10.0


# What jobs store: their facts, and a token for each node that may fetch.
STREAMS = (names.FACTS_STREAM, f"KV_{names.GRANTS_BUCKET}")


@dataclass(frozen=True)
class Traffic:
    """What so many jobs put through JetStream."""

    messages: int
    deliveries: int
    size_bytes: int


def main() -> None:
    """Print the figures; fails where a job has no ending, or two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--alone", type=int, default=200)
    given = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), processors=[])
    with deployed() as (house, _):
        asyncio.run(measure(house, given.jobs, given.alone))


async def measure(house: House, jobs: int, alone: int) -> None:
    """A burst between two floors of it, then jobs one at a time beside theirs."""
    model = house.model("tiny")
    async with open_bus(house.settings, "bench") as bus:
        await nodes_live(bus, len(house.nodes))
        warm_until = time.perf_counter() + WARM_S
        while time.perf_counter() < warm_until:
            await burst(bus, model, f"warm-{time.time_ns()}", 1)
        before = await traffic(bus)
        ends = await burst(bus, model, "burst", jobs)
        after = await traffic(bus)
        one = Traffic(
            round((after.messages - before.messages) / jobs),
            round((after.deliveries - before.deliveries) / jobs),
            (after.size_bytes - before.size_bytes) // (after.messages - before.messages),
        )
        floors = [await many(bus, one, jobs, f"FLOOR{k}") for k in range(2)]
        lone, steps = [], []
        for k in range(alone):
            lone += await burst(bus, model, f"alone-{k}", 1)
            steps.append(await in_turn(bus, one))
    show(jobs, one, ends, sum(floors) / len(floors))
    show_alone(sorted(lone), sorted(steps))


async def burst(bus: Bus, model: Path, name: str, jobs: int) -> list[float]:
    """Ask for so many jobs at once; when each ended, in seconds since the first was asked for."""
    ends: dict[str, float] = {}
    kinds: Counter[str] = Counter()
    all_ended = asyncio.Event()

    async def hear(message: Any) -> None:
        fact = decode_any(message.data, JOB_ENDED.types)
        if fact.job_id.rpartition("-")[0] == name:
            kinds[type(fact).__name__] += 1
            ends[fact.job_id] = time.perf_counter() - began
        if len(ends) == jobs:
            all_ended.set()

    heard = await bus.client.subscribe(JOB_ENDED.where(), cb=hear)
    await bus.client.flush()
    asked = [ModelRequest(model_name=str(model), job_id=JobId(f"{name}-{k}")) for k in range(jobs)]
    began = time.perf_counter()
    await gathered(asked, lambda request: bus.send(request, MODEL_REQUEST))
    await all_ended.wait()
    await heard.unsubscribe()
    if kinds != {"JobCompleted": jobs}:
        raise SystemExit(f"not every job completed, once: {dict(kinds)}")
    return sorted(ends.values())


async def traffic(bus: Bus) -> Traffic:
    """What the streams hold and their consumers have delivered, once they are at rest."""
    js = bus.client.jetstream()
    while True:
        infos = await js.consumers_info(names.FACTS_STREAM)
        if not any(info.num_pending or info.num_ack_pending for info in infos):
            break
        await asyncio.sleep(0.2)
    states = [(await js.stream_info(name)).state for name in STREAMS]
    made = sum(info.delivered.consumer_seq for info in infos if info.delivered)
    messages, size_bytes = sum(s.messages for s in states), sum(s.bytes for s in states)
    return Traffic(messages, made, size_bytes)


async def many(bus: Bus, one: Traffic, jobs: int, stream: str) -> float:
    """Seconds for the messages of so many jobs, many at a time, and nothing else."""
    js = bus.client.jetstream()
    await js.add_stream(name=stream, subjects=[f"{stream}.>"])
    messages, left = one.messages * jobs, one.deliveries * jobs
    body = body_of(one)
    began = time.perf_counter()
    await gathered(range(messages), lambda k: js.publish(f"{stream}.{k}", body))
    while left:
        durable, due = f"reader{left}", min(left, messages)
        left -= due
        config = ConsumerConfig(durable_name=durable, ack_policy="explicit")
        await js.add_consumer(stream, config)
        async with asyncio.TaskGroup() as group:
            for worker in range(READERS):
                group.create_task(read(bus, stream, durable, len(range(worker, due, READERS))))
    took_s = time.perf_counter() - began
    await js.delete_stream(stream)
    return took_s


async def read(bus: Bus, stream: str, durable: str, count: int) -> None:
    """Fetch and acknowledge, one at a time, as little waited for as by the runtime."""
    subscription = await bus.client.jetstream().pull_subscribe_bind(durable=durable, stream=stream)
    for _ in range(count):
        (message,) = await subscription.fetch(1, timeout=30)
        await message.ack()
    await subscription.unsubscribe()


async def in_turn(bus: Bus, one: Traffic) -> float:
    """Seconds for the messages of one job, each published, fetched and acknowledged in turn."""
    js = bus.client.jetstream()
    await js.add_stream(name="TURNS", subjects=["turns.>"])
    await js.add_consumer("TURNS", ConsumerConfig(durable_name="reader", ack_policy="explicit"))
    subscription = await js.pull_subscribe_bind(durable="reader", stream="TURNS")
    body = body_of(one)
    began = time.perf_counter()
    for k in range(one.messages):
        await js.publish(f"turns.{k}", body)
        (message,) = await subscription.fetch(1, timeout=30)
        await message.ack()
    took_s = time.perf_counter() - began
    await subscription.unsubscribe()
    await js.delete_stream("TURNS")
    return took_s


def body_of(one: Traffic) -> bytes:
    """As many bytes as a message of a job has; its envelope in the stream is about a hundred."""
    return bytes(max(1, one.size_bytes - 100))


async def gathered(things: Iterable[object], do: Callable[..., Awaitable[object]]) -> None:
    """Do it for each, some at once."""
    every = list(things)
    for start in range(0, len(every), AT_ONCE):
        await asyncio.gather(*(do(thing) for thing in every[start : start + AT_ONCE]))


def show(jobs: int, one: Traffic, ends: list[float], floor_s: float) -> None:
    """Print the burst's figures."""
    quarter = max(1, jobs // 4)
    last_s = ends[-1] - ends[-quarter - 1]
    print(f"{jobs} jobs asked for at once, every one completed exactly once")
    print(f"  messages stored, deliveries a job  {one.messages}, {one.deliveries}")
    print(f"  seconds, of the floor              {ends[-1]:.2f}, {floor_s:.2f}")
    print(f"  jobs a second, of the floor        {jobs / ends[-1]:.0f}, {jobs / floor_s:.0f}")
    print(f"  times the floor                    {ends[-1] / floor_s:.2f}")
    print(f"  last quarter, times the first      {last_s / ends[quarter - 1]:.2f}")


def show_alone(lone: list[float], steps: list[float]) -> None:
    """Print the figures of jobs one at a time."""
    print(f"{len(lone)} jobs one at a time, each beside the same messages one after the other")
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        job_s, floor_s = (found[int((len(found) - 1) * share)] for found in (lone, steps))
        print(
            f"  {name}: ms, of the floor, times it    {job_s * 1e3:.1f}, {floor_s * 1e3:.1f}, "
            f"{job_s / floor_s:.2f}"
        )


if __name__ == "__main__":
    main()
