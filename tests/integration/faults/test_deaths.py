"""A service killed at any point of its work: the job ends once, and says each thing once."""

import anyio
import pytest

from messages.ids import JobId
from messages.jobs import JobCompleted
from services.runtime.bus import Bus
from tests.integration.faults.house import House, wall_s
from tests.integration.faults.promise import ask, ended, kept, settled
from tests.integration.faults.table import Record, row
from tests.integration.faults.tampering import POINTS, die

pytestmark = pytest.mark.xdist_group("faults")
SERVICES = (
    "requester", "downloader", "profiler", "uploader", "planner", "splitter", "distributor",
)  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
async def test_each_service_killed_once_at_a_point_of_its_work(
    house: House, bus: Bus, record_property: Record, point: str
) -> None:
    struck = SERVICES if point != "within" else SERVICES[1:]  # the requester only asks the bus
    house.start_all(**{s: (die(point, house.fault_file(s), job=f"job-{s}"),) for s in struck})
    jobs = {service: house.model(service) for service in struck}
    seconds: dict[str, float] = {}
    began = wall_s()

    async def one(service: str) -> None:
        await ended(bus, await ask(bus, jobs[service], f"job-{service}"))
        seconds[service] = wall_s() - began

    async with anyio.create_task_group() as group:
        for service in struck:
            group.start_soon(one, service)
    await settled(bus)
    for service, model in jobs.items():
        assert house.fault_file(service).exists(), f"{service} was never killed"
        ending = await kept(house, bus, JobId(f"job-{service}"), model)
        assert isinstance(ending, JobCompleted), ending
        row(record_property, f"{service}: kill -9 when {point}", ending, seconds[service])
    killed = {name.split("-")[0] for name, code in house.processes.deaths if code == -9}
    assert killed == set(struck)
