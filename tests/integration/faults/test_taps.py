"""Whoever looks on and does not keep up: no job waits for it, and it misses no fact in the end."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from messages.ids import JobId
from messages.jobs import JobCompleted
from services.runtime.bus import Bus
from tests.bus_fixture import until
from tests.integration.console.household import WILLIW, environ
from tests.integration.faults.house import House, wall_s
from tests.integration.faults.promise import ask, ended, kept, nodes_live, settled
from tests.integration.faults.table import Record, row

pytestmark = pytest.mark.xdist_group("faults")
JOBS = 4
# More than nats-server keeps for one who does not read: it cuts the connection.
FLOOD_BYTES = 80 << 20


@contextmanager
def tapping(url: str, seen: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A `williw tap` of everything, which writes what it shows to a file."""
    command = [*WILLIW, "tap", "--json", "--nats-url", url]
    with seen.open("wb") as shown, seen.with_suffix(".err").open("wb") as told:
        process = subprocess.Popen(command, stdout=shown, stderr=told, env=environ(), cwd="/")
        try:
            yield process
        finally:
            process.kill()
            process.wait()


async def many_jobs(house: House, bus: Bus, name: str) -> dict[JobId, Path]:
    """Jobs asked for at once, when all of them have ended."""
    models = {JobId(f"job-{name}-{k}"): house.model(f"{name}-{k}") for k in range(JOBS)}
    for job_id, model in models.items():
        await ask(bus, model, job_id)
    for job_id in models:
        await ended(bus, job_id)
    return models


def ends_shown(seen: Path) -> set[str]:
    """The jobs whose end the tap has shown."""
    whole, _, _ = seen.read_bytes().rpartition(b"\n")
    lines = [msgspec.json.decode(line) for line in whole.splitlines()]
    return {line["job_id"] for line in lines if line["type"] == "JobCompleted"}


async def test_a_tap_that_stands_still_slows_no_job_and_misses_no_fact(
    house: House, bus: Bus, tmp_path: Path, record_property: Record
) -> None:
    house.start_all()
    await nodes_live(bus, 3)
    await many_jobs(house, bus, "first")
    began = wall_s()
    await many_jobs(house, bus, "without")
    without_s = wall_s() - began
    seen = tmp_path / "tap.jsonl"
    with tapping(house.url, seen) as tap:
        await until(lambda: b"listening" in seen.with_suffix(".err").read_bytes())
        tap.send_signal(signal.SIGSTOP)
        for _ in range(FLOOD_BYTES >> 19):
            await bus.client.publish("williw.noise", bytes(1 << 19))
        await bus.client.flush(timeout=30)
        began = wall_s()
        jobs = await many_jobs(house, bus, "beside")
        beside_s = wall_s() - began
        tap.send_signal(signal.SIGCONT)
        await until(lambda: jobs.keys() <= ends_shown(seen), 60.0)
    await settled(bus)
    assert "Slow Consumer" in (tmp_path / "nats" / "nats-server.log").read_text()
    for job_id, model in jobs.items():
        assert isinstance(await kept(house, bus, job_id, model), JobCompleted)
    assert beside_s < 3 * without_s + 3, (beside_s, without_s)
    note = f"{JOBS} jobs without it {without_s:.1f} s"
    row(record_property, "a tap that stands still, and is cut off", JobCompleted, beside_s, note)
