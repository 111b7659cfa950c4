"""Copies, processes that stand still past their lease, and everything delivered again."""

import signal

import anyio
import pytest

from messages.ids import JobId
from messages.jobs import JobCompleted
from services.runtime import names
from services.runtime.bus import Bus
from services.runtime.connection import BusUnreachable
from services.runtime.factlog import job_filter
from tests.integration.faults.house import House, until_file, wall_s
from tests.integration.faults.promise import ask, ended, kept, messages_by_subject, settled
from tests.integration.faults.table import Record, row
from tests.integration.faults.tampering import block, clock, hold, stop, tomorrow

pytestmark = pytest.mark.xdist_group("faults")
DOUBLED = ("requester", "downloader", "profiler", "uploader", "planner", "splitter")


async def test_a_process_that_stood_still_past_its_lease_finds_that_all_was_said(
    house: House, bus: Bus, record_property: Record
) -> None:
    for name in house.children:
        if name in DOUBLED:
            fault = stop("handled", house.fault_file(name), job=f"job-{name}")
            house.start(name, fault)
            house.start(name, fault, copy="-b")
        else:
            house.start(name)
    models = {name: house.model(name) for name in DOUBLED}
    began = wall_s()
    seconds: dict[str, float] = {}

    async def one(name: str) -> None:
        await ended(bus, await ask(bus, models[name], f"job-{name}"))
        seconds[name] = wall_s() - began

    async with anyio.create_task_group() as group:
        for name in DOUBLED:
            group.start_soon(one, name)
    before = await messages_by_subject(bus, "williw.>")
    for name in DOUBLED:
        assert house.fault_file(name).exists(), f"{name} never stood still"
        for copy in ("", "-b"):
            house.processes.send(name + copy, signal.SIGCONT)
    await settled(bus)
    for name, model in models.items():
        ending = await kept(house, bus, JobId(f"job-{name}"), model)
        assert isinstance(ending, JobCompleted), ending
        row(record_property, f"{name}: SIGSTOP past its lease, a copy", ending, seconds[name])
    assert await messages_by_subject(bus, "williw.>") == before


async def test_a_process_that_does_nothing_else_past_its_lease_finds_that_all_was_said(
    house: House, bus: Bus, record_property: Record
) -> None:
    for name in house.children:
        faults = (block("handled", house.fault_file(name), 2.5, job=f"job-{name}"),)
        house.start(name, *(faults if name in DOUBLED else ()))
        if name in DOUBLED:
            house.start(name, *faults, copy="-b")
    models = {name: house.model(name) for name in DOUBLED}
    began = wall_s()
    for name in DOUBLED:
        await ask(bus, models[name], f"job-{name}")
    endings = [await ended(bus, JobId(f"job-{name}")) for name in DOUBLED]
    seconds = wall_s() - began
    await settled(bus)
    for name, model in models.items():
        assert house.fault_file(name).exists(), f"{name} was never blocked"
        assert isinstance(await kept(house, bus, JobId(f"job-{name}"), model), JobCompleted)
    assert house.processes.deaths == []
    row(record_property, "each blocked past its lease, a copy", endings[0], seconds)


async def test_a_later_version_beside_this_one_harms_no_job_of_either(
    house: House, bus: Bus, record_property: Record
) -> None:
    for name in house.children:
        if name in DOUBLED:
            house.start(name, tomorrow(), copy="-new")
        house.start(name, *((tomorrow(),) if name == "distributor-node_002" else ()))
    models = {f"job-{k}": house.model(f"versions-{k}") for k in range(8)}
    began = wall_s()
    for job_id, model in models.items():
        await ask(bus, model, job_id)
    endings = [await ended(bus, JobId(job_id)) for job_id in models]
    seconds = wall_s() - began
    await settled(bus)
    stored = await messages_by_subject(bus, "williw.>")
    assert sum(subject.startswith("williw.model.dreamt") for subject in stored) >= len(models)
    for job_id, model in models.items():
        assert isinstance(await kept(house, bus, JobId(job_id), model), JobCompleted)
    assert house.processes.deaths == []
    row(record_property, "a later version beside this one", endings[0], seconds)


async def test_everything_delivered_again_to_two_copies_of_each_says_nothing_new(
    house: House, bus: Bus, record_property: Record
) -> None:
    for name in house.children:
        house.start(name)
        if name in DOUBLED:
            house.start(name, copy="-b")
    models = [house.model(f"copies-{k}") for k in range(4)]
    began = wall_s()
    for k, model in enumerate(models):
        for _ in range(3):  # the plain request, sent again
            await bus.client.publish(
                "williw.model.request",
                b'{"model_name":"%s","job_id":"job-%d"}' % (str(model).encode(), k),
            )
    endings = [await ended(bus, JobId(f"job-{k}")) for k in range(4)]
    seconds = wall_s() - began
    await settled(bus)
    before = await messages_by_subject(bus, job_filter(JobId("job-0")))
    js = bus.client.jetstream()
    for info in await js.consumers_info(names.FACTS_STREAM):
        await js.delete_consumer(names.FACTS_STREAM, info.name)
    await provisioned(house)
    await settled(bus)
    for k, model in enumerate(models):
        assert isinstance(await kept(house, bus, JobId(f"job-{k}"), model), JobCompleted)
    assert await messages_by_subject(bus, job_filter(JobId("job-0"))) == before
    row(
        record_property,
        "two copies, requests sent thrice, all delivered again",
        endings[0],
        seconds,
    )


async def provisioned(house: House) -> None:
    """Provision, as a command that is told to try again in a moment.

    The services make their consumers again themselves, and nats-server may refuse a second maker.
    """
    with anyio.fail_after(20):
        while True:
            try:
                await house._provision()
            except BusUnreachable:
                await anyio.sleep(0.2)
            else:
                return


async def test_clocks_that_are_hours_apart_change_nothing(
    house: House, bus: Bus, record_property: Record
) -> None:
    ahead, behind = (clock(5 * 3600.0),), (clock(-5 * 3600.0),)
    house.start_all(
        requester=behind, downloader=ahead, planner=behind, splitter=ahead, distributor=behind
    )
    model = house.model("clocks")
    began = wall_s()
    job_id = await ask(bus, model, "job-clocks", timeout_s=60.0)
    ending = await ended(bus, job_id)
    seconds = wall_s() - began
    await settled(bus)
    assert isinstance(await kept(house, bus, job_id, model), JobCompleted)
    row(record_property, "clocks 5 hours ahead and 5 behind", ending, seconds)


async def test_sigterm_at_each_stage_hands_the_work_to_the_next_process(
    house: House, bus: Bus, record_property: Record
) -> None:
    services = (*DOUBLED, "distributor")
    never = house.fault_file("never")
    for name, child in house.children.items():
        fault = hold("handling", house.fault_file(child.service), never, job=f"job-{child.service}")
        house.start(name, fault)
    models = {service: house.model(service) for service in services}
    seconds: dict[str, float] = {}

    async def one(service: str) -> None:
        job_id = await ask(bus, models[service], f"job-{service}")
        began = wall_s()
        await until_file(house.fault_file(service))
        for name, child in house.children.items():
            if child.service == service:
                house.processes.send(name, signal.SIGTERM)
        await ended(bus, job_id)
        seconds[service] = wall_s() - began

    async with anyio.create_task_group() as group:
        for service in services:
            group.start_soon(one, service)
    await settled(bus)
    assert {code for _, code in house.processes.deaths} == {0}, house.processes.deaths
    for service, model in models.items():
        ending = await kept(house, bus, JobId(f"job-{service}"), model)
        assert isinstance(ending, JobCompleted), ending
        row(record_property, f"{service}: SIGTERM at work", ending, seconds[service])
