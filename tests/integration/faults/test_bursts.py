"""A burst of requests at once: every job ends, once, and no service keeps what it cost."""

from collections import Counter

import anyio
import psutil
import pytest

from messages.ids import JobId
from messages.jobs import JobCompleted, ModelRequest
from messages.subjects import FACTS, JOB_ENDED, MODEL_REQUEST, NODE_ASSIGNED, SHARD_DELIVERED
from services.console.embedded import EmbeddedNats
from services.runtime.bus import Bus
from tests.integration.faults.house import NODES, House, wall_s
from tests.integration.faults.promise import kept, messages_by_subject, nodes_live, settled
from tests.integration.faults.table import Record, row

pytestmark = pytest.mark.xdist_group("faults")
AT_ONCE = 64
MIB = 1 << 20
# What a process may hold more at the end than when its first jobs were done. The planner keeps the
# plans of all jobs that run, to see what a lost node leaves behind: in a burst, of thousands.
GROWN_MIB = 96


def resident(house: House, server: EmbeddedNats) -> dict[str, float]:
    """MiB that each process holds."""
    pids = {name: house.processes.pid(name) for name in house.children}
    pids["nats-server"] = server.pid
    return {name: psutil.Process(pid).memory_info().rss / MIB for name, pid in pids.items()}


async def asked(bus: Bus, model: str, jobs: range) -> None:
    """Send so many requests, some at a time, each taken by the bus."""
    limit = anyio.CapacityLimiter(AT_ONCE)

    async def one(k: int) -> None:
        async with limit:
            request = ModelRequest(model_name=model, job_id=JobId(f"job-{k}"))
            await bus.send(request, MODEL_REQUEST, message_id=f"request-job-{k}")

    async with anyio.create_task_group() as group:
        for k in jobs:
            group.start_soon(one, k)


async def all_ended(bus: Bus, jobs: int, within_s: float) -> None:
    """Wait until so many endings are stored."""
    with anyio.fail_after(within_s):
        while await bus.facts.count(JOB_ENDED) < jobs:  # noqa: ASYNC110
            await anyio.sleep(0.5)


async def each_said_once(bus: Bus, jobs: int) -> None:
    """Every fact of every job is in the stream, and in it once."""
    for subject in FACTS:
        counts = await messages_by_subject(bus, subject.where())
        of_each = len(NODES) if subject in (NODE_ASSIGNED, SHARD_DELIVERED) else 1
        assert len(counts) == jobs * of_each, subject.name
        assert set(counts.values()) == {1}, subject.name
    endings = Counter(type(said.fact) for said in await bus.facts.read(JOB_ENDED))
    assert endings == {JobCompleted: jobs}


@pytest.mark.parametrize(
    "jobs",
    [
        pytest.param(300, marks=[pytest.mark.timeout(300)]),
        pytest.param(10_000, marks=[pytest.mark.release, pytest.mark.timeout(3600)]),
    ],
)
async def test_a_burst_of_requests_ends_each_job_once_and_leaves_nothing_behind(
    house: House, bus: Bus, server: EmbeddedNats, record_property: Record, jobs: int
) -> None:
    house.start_all()
    await nodes_live(bus, len(NODES))
    model, warm = house.model("burst"), jobs // 10
    await asked(bus, str(model), range(warm))
    await all_ended(bus, warm, jobs)
    before, began = resident(house, server), wall_s()
    await asked(bus, str(model), range(warm, jobs))
    await all_ended(bus, jobs, jobs)
    seconds = wall_s() - began
    await settled(bus)
    await each_said_once(bus, jobs)
    for k in (0, jobs - 1):
        await kept(house, bus, JobId(f"job-{k}"), model, shared=True)
    assert house.processes.deaths == []
    row(record_property, f"burst of {jobs} requests", JobCompleted, seconds)
    for name, at_end in resident(house, server).items():
        note = f"{before[name]:.0f} MiB, {at_end:.0f} at the end"
        row(record_property, f"burst of {jobs}: memory of {name}", JobCompleted, seconds, note)
        assert name == "nats-server" or at_end - before[name] < GROWN_MIB, note
