"""One of three servers is cut off and lives on alone: its clients gone with it, or left with it."""

import gc
from pathlib import Path

import anyio
import pytest

from messages.failures import Passing
from messages.ids import JobId
from messages.jobs import JobCompleted
from services.runtime.bus import Bus, open_bus
from tests.integration.faults.cluster import Cluster
from tests.integration.faults.conftest import MakeHouse
from tests.integration.faults.house import House, settings_with, wall_s
from tests.integration.faults.links import Links
from tests.integration.faults.promise import ask, ask_until_taken, ended, kept, settled
from tests.integration.faults.table import Record, row

pytestmark = [pytest.mark.xdist_group("faults"), pytest.mark.release]
JOBS = 4
APART_S = 20.0


@pytest.mark.timeout(400)
# nats-py leaves the link of a connection unclosed that a server standing still let time out, or
# that was closed before the server had said a word.
@pytest.mark.filterwarnings(
    "ignore:.*(StreamWriter|_SelectorTransport).__del__:pytest.PytestUnraisableExceptionWarning",
    "ignore:.*ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning",
)
@pytest.mark.parametrize("which", ["leader", "follower"])
async def test_a_server_alone_on_its_side_of_a_cut_loses_and_doubles_nothing(
    make_house: MakeHouse, tmp_path: Path, record_property: Record, which: str
) -> None:
    with Links() as links, Cluster(tmp_path / "cluster", links) as cluster:
        await cluster.ready()
        sections = {"bus": {"replicas": 3, "lease_s": 3.0}}
        house = await anyio.to_thread.run_sync(make_house, cluster.url, sections)
        async with open_bus(house.settings, "test") as bus:
            house.start_all()
            leader = await cluster.leader(bus)
            alone = leader if which == "leader" else next(x for x in "abc" if x != leader)
            away = next(x for x in "abc" if x != alone)
            majority = settings_with(house.settings, url=cluster.url_of(away))
            async with open_bus(majority, "majority") as there:
                began = wall_s()
                links.cut(links.named(alone))
                jobs = await asked(house, there, "whole")
                endings = [await ended(there, job_id, 150) for job_id in jobs]
                note = f"cluster of 3: {which} and its clients' links cut, alive"
                row(record_property, note, endings[0], wall_s() - began, "ended while cut")
                links.mend()
                await all_kept(house, bus, jobs)

                began = wall_s()
                links.cut(name for name in links.named(alone) if "clients" not in name)
                async with open_bus(
                    settings_with(house.settings, url=cluster.url_of(alone)), "minority"
                ) as here:
                    with pytest.raises(Passing):
                        await ask(here, house.model("minority"), "job-minority")
                jobs = await asked(house, there, "left")
                await anyio.sleep(APART_S)
                links.mend()
                for job_id in jobs:
                    await ended(there, job_id, 150)
                note = f"cluster of 3: {which} cut for {APART_S:g} s, clients left with it"
                row(record_property, note, JobCompleted, wall_s() - began, "ended")
                await all_kept(house, bus, jobs)
                again = await ask_until_taken(there, house.models / "minority", "job-minority")
                await ended(there, again)
                await all_kept(house, bus, {again: house.models / "minority"})
    gc.collect()  # what was left unclosed is found here, where it is looked over


async def asked(house: House, bus: Bus, name: str) -> dict[JobId, Path]:
    """So many jobs of models of their own, taken by the bus."""
    models = {f"job-{name}-{k}": house.model(f"{name}-{k}") for k in range(JOBS)}
    return {await ask_until_taken(bus, model, job_id): model for job_id, model in models.items()}


async def all_kept(house: House, bus: Bus, jobs: dict[JobId, Path]) -> None:
    """The promise for each of them, now that all is at rest.

    A server that led before the cut answers for the stream until it has caught up.
    """
    for job_id in jobs:
        await ended(bus, job_id, 150)
    await settled(bus, timeout_s=120)
    for job_id, model in jobs.items():
        assert isinstance(await kept(house, bus, job_id, model), JobCompleted)
