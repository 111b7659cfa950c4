"""Nodes that are lost for good, disks that are full, and a message that kills its service."""

import signal

import anyio
import pytest

from messages.jobs import JobCompleted, JobFailed
from services.console.embedded import EmbeddedNats
from services.runtime.bus import Bus, open_bus
from services.runtime.graveyard import Graveyard
from tests.integration.faults.conftest import MakeHouse
from tests.integration.faults.disks import small_disk
from tests.integration.faults.house import BUS, House, until_file, wall_s
from tests.integration.faults.promise import again, ask, ended, kept, nodes_live, settled
from tests.integration.faults.table import Record, row
from tests.integration.faults.tampering import die, hold

pytestmark = pytest.mark.xdist_group("faults")
LOST = "distributor-node_003"


async def test_a_node_lost_during_delivery_or_after_it_gets_its_job_a_new_plan(
    house: House, bus: Bus, record_property: Record
) -> None:
    reached = house.fault_file("reached")
    for name in house.children:
        faults = (hold("handling", reached, house.fault_file("never")),) if name == LOST else ()
        house.start(name, *faults)
    await nodes_live(bus, 3)
    model = house.model("lost")
    began = wall_s()
    job_id = await ask(bus, model, "job-lost")
    await until_file(reached)
    house.processes.end(LOST, signal.SIGKILL)
    ending = await ended(bus, job_id)
    seconds = wall_s() - began
    await settled_but(bus, "node_003")
    assert isinstance(await kept(house, bus, job_id, model), JobCompleted)
    assert isinstance(ending, JobCompleted)
    assert ending.generation == 2
    assert "node_003" not in {node.node_id for node in ending.nodes}
    row(record_property, "node lost during delivery", ending, seconds, "planned anew")

    began = wall_s()
    house.processes.end("distributor-node_002", signal.SIGKILL)
    await nodes_live(bus, 1)
    assert (await ended(bus, job_id)).generation == 2, "what is done stays done"
    generation = await again(bus, job_id)
    ending = await ended(bus, job_id, generation=generation)
    assert isinstance(ending, JobCompleted), ending
    assert [node.node_id for node in ending.nodes] == ["node_001"]
    row(record_property, "node lost after delivery, retry", ending, wall_s() - began)


async def test_a_node_lost_while_its_job_is_planned_is_planned_around(
    house: House, bus: Bus, record_property: Record
) -> None:
    reached, go = house.fault_file("reached"), house.fault_file("go")
    house.start_all(planner=(hold("handled", reached, go),))
    await nodes_live(bus, 3)
    model = house.model("lost")
    began = wall_s()
    job_id = await ask(bus, model, "job-lost")
    await until_file(reached)
    house.processes.end(LOST, signal.SIGKILL)
    go.touch()
    ending = await ended(bus, job_id)
    seconds = wall_s() - began
    await settled_but(bus, "node_003")
    assert isinstance(await kept(house, bus, job_id, model), JobCompleted)
    assert isinstance(ending, JobCompleted)
    assert "node_003" not in {node.node_id for node in ending.nodes}
    row(record_property, "node lost during planning", ending, seconds)


async def settled_but(bus: Bus, lost: str) -> None:
    """At rest, but for what was sent to the lost node."""
    with anyio.fail_after(60):
        while True:
            infos = await bus.client.jetstream().consumers_info("WILLIW")
            left = [i for i in infos if i.num_pending or i.num_ack_pending]
            if all(info.name.endswith(lost) for info in left):
                return
            await anyio.sleep(0.1)


async def test_a_message_that_kills_its_service_each_time_ends_as_a_dead_letter(
    make_house: MakeHouse, server: EmbeddedNats, record_property: Record
) -> None:
    house = await anyio.to_thread.run_sync(
        make_house, server.url, {"bus": {**BUS, "max_deliver": 3, "lease_s": 1.0}}
    )
    async with open_bus(house.settings, "test") as bus:
        house.start_all(profiler=(die("handling", None, job="job-deadly"),))
        model, other = house.model("deadly"), house.model("other")
        began = wall_s()
        job_id = await ask(bus, model, "job-deadly")
        ending = await ended(bus, job_id)
        seconds = wall_s() - began
        await settled(bus)
        assert isinstance(await kept(house, bus, job_id), JobFailed)
        assert isinstance(ending, JobFailed)
        assert (ending.stage, "3 times" in ending.reason) == ("profiler", True)
        (one,) = await Graveyard(bus.client).letters()
        assert one.letter is not None
        assert one.letter.service == "profiler"
        assert [name for name, code in house.processes.deaths if code == -9] == ["profiler"] * 3
        row(record_property, "profiler dies of a message each time", ending, seconds, "dead letter")
        await ended(bus, await ask(bus, other, "job-other"))
        house.restart("profiler")
        generation = await again(bus, job_id)
        assert isinstance(await ended(bus, job_id, generation=generation), JobCompleted)
        row(record_property, "and tried again after it was mended", JobCompleted, wall_s() - began)


async def test_a_full_disk_at_cut_or_delivery_fails_the_job_and_a_retry_completes_it(
    make_house: MakeHouse, server: EmbeddedNats, record_property: Record
) -> None:
    house = await anyio.to_thread.run_sync(
        make_house, server.url, {"splitter": {"materialize": "all"}}
    )
    places = {
        "cut": house.root / "origin" / "stages",
        "delivery": house.root / "nodes" / "node_002" / "models",
    }
    async with open_bus(house.settings, "test") as bus:
        for where, place in places.items():
            with small_disk(place, 64 << 10):
                house.start_all()
                await nodes_live(bus, 3)
                model = house.model(f"full-{where}", hidden=64)
                began = wall_s()
                job_id = await ask(bus, model, f"job-{where}")
                ending = await ended(bus, job_id)
                seconds = wall_s() - began
                await settled(bus)
                assert isinstance(await kept(house, bus, job_id), JobFailed)
                assert isinstance(ending, JobFailed)
                assert "bytes" in ending.reason
                assert ending.advice
                row(record_property, f"disk full at {where}", ending, seconds)
                house.processes.end_all()
            house.start_all()
            await nodes_live(bus, 3)
            generation = await again(bus, job_id)
            assert isinstance(await ended(bus, job_id, generation=generation), JobCompleted)
            house.processes.end_all()
