"""A Hub that fails in every way, and a disk that is too small for what it sends."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from messages.ids import JobId
from messages.jobs import JobCompleted, JobFailed
from services.console.embedded import EmbeddedNats
from services.runtime.bus import Bus
from tests.integration.faults.conftest import MakeHouse
from tests.integration.faults.disks import small_disk
from tests.integration.faults.house import BUS, House, wall_s
from tests.integration.faults.promise import again, ask, ended, kept, nodes_live, settled
from tests.integration.faults.table import Record, row
from tests.integration.faults.tampering import hasty
from tests.loopback_hub.faults import Fault
from tests.loopback_hub.server import LoopbackHub

pytestmark = pytest.mark.xdist_group("faults")
# What a request is for: the model's listing, or the bytes of its first file of weights.
LISTING, BYTES = "listing", "bytes"
PASSING: dict[str, tuple[str, dict[str, Any]]] = {
    "429 to the listing": (LISTING, {"status": 429, "retry_after_s": 0.3, "times": 3}),
    "500 to the listing": (LISTING, {"status": 500, "times": 3}),
    "429 to the bytes": (BYTES, {"status": 429, "retry_after_s": 0.3, "times": 3}),
    "500 to the bytes": (BYTES, {"status": 500, "times": 3}),
    "silence": (BYTES, {"stall_s": 2.0, "times": 3}),
    "half a body": (BYTES, {"truncate_to": 12345}),
    "a hang-up within": (BYTES, {"drop_after_bytes": 1 << 16, "times": 2}),
    "other bytes, once": (BYTES, {"corrupt": True}),
}
FOR_GOOD: dict[str, tuple[str, dict[str, Any]]] = {
    "429 for good": (LISTING, {"status": 429, "retry_after_s": 0.1, "times": 999}),
    "500 for good": (BYTES, {"status": 500, "times": 999}),
    "other bytes for good": (BYTES, {"corrupt": True, "times": 999}),
}
SAYING = {
    "429 for good": "429",
    "500 for good": "500",
    "other bytes for good": "arrived twice with digest",
}


@pytest.fixture
def house(make_house: MakeHouse, server: EmbeddedNats) -> House:
    """One whose downloader waits for many at once, and gives up soon."""
    downloader = {"slots": 12, "keep_free_bytes": 0}
    return make_house(server.url, {"bus": {**BUS, "max_deliver": 5}, "downloader": downloader})


@pytest.fixture
def own_hub(house: House) -> Iterator[LoopbackHub]:
    """A Hub that the house's services ask."""
    with LoopbackHub() as hub:
        house.environ |= {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(house.root / "hf-home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        yield hub


def published(house: House, hub: LoopbackHub, name: str) -> Path:
    """A model of the Hub's, and its source."""
    source = house.model(name)
    hub.add(f"org/{name}", source)
    return source


def go_wrong(hub: LoopbackHub, source: Path, what: str, how: dict[str, Any]) -> None:
    """Plant a fault for this model alone."""
    body = (source / "model-00001-of-00002.safetensors").read_bytes()
    where = {LISTING: f"org/{source.name}/revision", BYTES: hashlib.sha256(body).hexdigest()}
    hub.fail(Fault(where[what], **how))


async def test_a_hub_that_fails_ends_each_job_once_and_shows_nothing_half(
    house: House, bus: Bus, own_hub: LoopbackHub, record_property: Record
) -> None:
    sources: dict[str, Path] = {}
    seconds: dict[str, float] = {}
    for k, (trouble, (what, how)) in enumerate((PASSING | FOR_GOOD).items()):
        sources[trouble] = published(house, own_hub, f"trouble-{k:02}")
        go_wrong(own_hub, sources[trouble], what, how)
    house.start_all(downloader=(hasty(),))

    async def one(trouble: str) -> None:
        began, name = wall_s(), sources[trouble].name
        await ended(bus, await ask(bus, f"org/{name}", f"job-{name}"))
        seconds[trouble] = wall_s() - began

    async with anyio.create_task_group() as group:
        for trouble in sources:
            group.start_soon(one, trouble)
    await settled(bus)
    for trouble, source in sources.items():
        ending = await kept(house, bus, JobId(f"job-{source.name}"), source)
        shown = list((house.root / "origin" / "models").glob(f"org--{source.name}@*"))
        if trouble in PASSING:
            assert isinstance(ending, JobCompleted), (trouble, ending)
            assert len(shown) == 1
        else:
            assert isinstance(ending, JobFailed), (trouble, ending)
            assert SAYING[trouble] in ending.reason
            assert shown == []
        row(record_property, f"Hub: {trouble}", ending, seconds[trouble])


async def test_a_disk_full_at_download_fails_the_job_and_a_retry_completes_it(
    house: House, bus: Bus, own_hub: LoopbackHub, record_property: Record
) -> None:
    source = published(house, own_hub, "large")
    job_id, models = JobId("job-large"), house.root / "origin" / "models"
    with small_disk(models, 64 << 10):
        house.start_all()
        await nodes_live(bus, 3)
        began = wall_s()
        ending = await ended(bus, await ask(bus, "org/large", job_id))
        seconds = wall_s() - began
        await settled(bus)
        assert isinstance(ending, JobFailed)
        assert "bytes" in ending.reason
        assert ending.advice
        await kept(house, bus, job_id)
        row(record_property, "disk full at download", ending, seconds)
    house.restart("downloader")
    generation = await again(bus, job_id)
    await ended(bus, job_id, generation=generation)
    await settled(bus)
    assert isinstance(await kept(house, bus, job_id, source), JobCompleted)
