"""Faults at random for a settable time, from a seed that is printed and can be given again."""

import os
import random
import signal
from collections import Counter

import anyio
import pytest

from messages.failures import Passing
from messages.ids import JobId
from messages.jobs import CancelJob, JobCancelled, JobCompleted, JobFailed
from messages.subjects import JOB_CANCEL
from services.console.embedded import EmbeddedNats
from services.runtime.bus import Bus
from tests.integration.faults.house import House, wall_s
from tests.integration.faults.promise import ask, ended, kept, nothing_half_visible, settled
from tests.integration.faults.table import Record, row

SECONDS = float(os.environ.get("WILLIW_FAULTS_SECONDS", "60"))
SEED = int(os.environ.get("WILLIW_FAULTS_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
pytestmark = [pytest.mark.xdist_group("faults"), pytest.mark.timeout(int(SECONDS * 2) + 240)]


class Chaos:
    """What happens when, drawn from the seed alone."""

    def __init__(self, house: House, bus: Bus, server: EmbeddedNats) -> None:
        self.house, self.bus, self.server = house, bus, server
        self.draw = random.Random(SEED)
        self.counts: Counter[str] = Counter()
        self.jobs: dict[JobId, str] = {}
        self.cancelled: set[JobId] = set()

    async def rage(self, until_s: float) -> None:
        """One fault after the other."""
        kinds = (self.kill, self.kill, self.kill, self.stop, self.term, self.restart_server)
        while wall_s() < until_s:
            await anyio.sleep(self.draw.uniform(0.05, 0.8))
            kind = self.draw.choice(kinds)
            self.counts[kind.__name__] += 1
            await kind()

    async def demand(self, until_s: float) -> None:
        """One request after the other, some of them cancelled."""
        names = [f"m{k}" for k in range(6)]
        for name in names:
            self.house.model(name)
        number = 0
        while wall_s() < until_s:
            number += 1
            name = self.draw.choice(names)
            job_id = JobId(f"job-{number}")
            await self._taken(job_id, name)
            if self.draw.random() < 0.1:
                await anyio.sleep(self.draw.uniform(0, 1))
                await self._cancel(job_id)
            await anyio.sleep(self.draw.uniform(0.1, 0.7))

    async def kill(self) -> None:
        self.house.processes.send(self._victim(), signal.SIGKILL)

    async def term(self) -> None:
        self.house.processes.send(self._victim(), signal.SIGTERM)

    async def stop(self) -> None:
        pid_of = self._victim()
        pid = self.house.processes.send(pid_of, signal.SIGSTOP)
        await anyio.sleep(self.draw.uniform(0.2, 3.0))
        if pid and self.house.processes.pid(pid_of) == pid:
            self.house.processes.send(pid_of, signal.SIGCONT)

    async def restart_server(self) -> None:
        await anyio.to_thread.run_sync(self.server.kill)
        await anyio.sleep(self.draw.uniform(0, 1.5))
        self.server.start()

    def _victim(self) -> str:
        return self.draw.choice(sorted(self.house.children))

    async def _taken(self, job_id: JobId, name: str) -> None:
        while True:
            try:
                await ask(self.bus, self.house.models / name, job_id)
            except Passing:
                await anyio.sleep(0.1)
            else:
                self.jobs[job_id] = name
                return

    async def _cancel(self, job_id: JobId) -> None:
        self.cancelled.add(job_id)
        try:
            await self.bus.send(CancelJob(job_id=job_id), JOB_CANCEL)
        except Passing:
            return


async def test_whatever_happens_each_job_ends_once(
    house: House, bus: Bus, server: EmbeddedNats, record_property: Record
) -> None:
    print(f"WILLIW_FAULTS_SEED={SEED} WILLIW_FAULTS_SECONDS={SECONDS:g}")
    house.start_all()
    chaos = Chaos(house, bus, server)
    began = wall_s()
    async with anyio.create_task_group() as group:
        group.start_soon(chaos.rage, began + SECONDS)
        group.start_soon(chaos.demand, began + SECONDS)
    endings: Counter[str] = Counter()
    for job_id in chaos.jobs:
        await ended(bus, job_id, timeout_s=120)
    await settled(bus, timeout_s=120)
    for job_id, name in chaos.jobs.items():
        ending = await kept(house, bus, job_id, house.models / name, shared=True)
        endings[type(ending).__name__] += 1
        if isinstance(ending, JobFailed):
            assert ending.stage
            assert ending.advice
        if isinstance(ending, JobCancelled):
            assert job_id in chaos.cancelled
    nothing_half_visible(house)
    assert endings["JobCompleted"] > len(chaos.jobs) / 2, endings
    note = f"seed {SEED}: {sum(chaos.counts.values())} faults, " + ", ".join(
        f"{count} {name}" for name, count in sorted(endings.items())
    )
    row(record_property, f"random faults for {SECONDS:g} s", JobCompleted, wall_s() - began, note)
