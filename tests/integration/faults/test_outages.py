"""The bus itself dies, stays away, loses a leader, is cut in two."""

import os
import signal
from pathlib import Path

import anyio
import pytest

from messages.ids import JobId
from messages.jobs import JobCompleted
from services.console.embedded import EmbeddedNats
from services.runtime.bus import Bus, open_bus
from tests.integration.faults.cluster import Cluster
from tests.integration.faults.conftest import MakeHouse
from tests.integration.faults.house import House, wall_s
from tests.integration.faults.promise import ask_until_taken, ended, kept, settled
from tests.integration.faults.table import Record, row

pytestmark = pytest.mark.xdist_group("faults")
# The release check sets 30.
AWAY_S = float(os.environ.get("WILLIW_FAULTS_OUTAGE_S", "4"))


async def _under_load(house: House, bus: Bus, jobs: int, trouble: object) -> dict[str, float]:
    """Ask for `jobs` models one after the other while `trouble` runs; seconds by job."""
    models = {f"job-{k}": house.model(f"load-{k}") for k in range(jobs)}
    seconds: dict[str, float] = {}

    async def one(job_id: str) -> None:
        began = wall_s()
        await ended(bus, await ask_until_taken(bus, models[job_id], job_id))
        seconds[job_id] = wall_s() - began

    async with anyio.create_task_group() as group:
        group.start_soon(trouble)  # type: ignore[arg-type]
        for job_id in models:
            group.start_soon(one, job_id)
            await anyio.sleep(0.2)
    await settled(bus)
    for job_id, model in models.items():
        assert isinstance(await kept(house, bus, JobId(job_id), model), JobCompleted)
    return seconds


async def test_a_server_killed_again_and_again_under_load_loses_nothing(
    house: House, bus: Bus, server: EmbeddedNats, record_property: Record
) -> None:
    house.start_all()

    async def trouble() -> None:
        for _ in range(3):
            await anyio.sleep(1.0)
            await anyio.to_thread.run_sync(server.kill)
            server.start()

    seconds = await _under_load(house, bus, 8, trouble)
    worst = max(seconds.values())
    row(record_property, "nats-server: kill -9 three times, 8 jobs", JobCompleted, worst, "slowest")


async def test_a_server_that_is_away_for_a_while_only_delays_jobs(
    house: House, bus: Bus, server: EmbeddedNats, record_property: Record
) -> None:
    house.start_all()

    async def trouble() -> None:
        await anyio.sleep(0.6)
        await anyio.to_thread.run_sync(server.kill)
        await anyio.sleep(AWAY_S)
        server.start()

    seconds = await _under_load(house, bus, 4, trouble)
    worst = max(seconds.values())
    row(record_property, f"nats-server: away for {AWAY_S:g} s", JobCompleted, worst, "slowest")


@pytest.mark.release
@pytest.mark.timeout(240)
# nats-py leaves the link of a connection unclosed that a server standing still let time out.
@pytest.mark.filterwarnings("ignore:.*StreamWriter.__del__:pytest.PytestUnraisableExceptionWarning")
async def test_a_cluster_that_loses_its_leader_or_is_cut_in_two_loses_nothing(
    make_house: MakeHouse, tmp_path: Path, record_property: Record
) -> None:
    with Cluster(tmp_path / "cluster") as cluster:
        await cluster.ready()
        house = await anyio.to_thread.run_sync(
            make_house, cluster.url, {"bus": {"replicas": 3, "lease_s": 3.0}}
        )
        async with open_bus(house.settings, "test") as bus:
            house.start_all()

            async def leader_dies() -> None:
                await anyio.sleep(0.8)
                name = await cluster.leader(bus)
                cluster.kill(name)
                await anyio.sleep(3.0)
                cluster.start(name)

            seconds = await _under_load(house, bus, 4, leader_dies)
            worst = max(seconds.values())
            row(record_property, "cluster of 3: leader killed", JobCompleted, worst, "slowest")
            for which in ("leader", "follower"):
                model = house.model(f"apart-{which}")
                name = await cluster.leader(bus)
                if which == "follower":
                    name = next(other for other in "abc" if other != name)
                cluster.send(name, signal.SIGSTOP)
                began = wall_s()
                job_id = await ask_until_taken(bus, model, f"job-apart-{which}")
                ending = await ended(bus, job_id)
                seconds_apart = wall_s() - began
                cluster.send(name, signal.SIGCONT)
                await settled(bus)
                assert isinstance(await kept(house, bus, job_id, model), JobCompleted), ending
                row(record_property, f"cluster of 3: {which} cut off", ending, seconds_apart)
