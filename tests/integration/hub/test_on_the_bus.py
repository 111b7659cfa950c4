"""Downloader and uploader as services: what the bus sees of a good, a bad and a cancelled job."""

from pathlib import Path

import anyio
import msgspec
import pytest

from config.settings import Settings
from messages.documents import Document, digest_of
from messages.ids import JobId, NodeId
from messages.jobs import JobCancelled, JobEnded, JobFailed, ModelRequest, ModelRequested
from messages.models import ModelProfiled
from messages.progress import Progress
from messages.state import Said
from messages.subjects import JOB_ENDED, METADATA_READY, MODEL_DOWNLOADED
from services.downloader.service import build as build_downloader
from services.runtime.bus import Bus
from services.uploader.service import build as build_uploader
from tests.bus_fixture import running, until
from tests.loopback_hub.faults import Fault
from tests.loopback_hub.server import LoopbackHub

ORIGIN = NodeId("node_001")
WEIGHTS = bytes(range(256)) * 4096 * 16
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS}


def requested(model_name: str = "org/model", job_id: str = "job-1") -> ModelRequested:
    request = ModelRequest(model_name=model_name)
    return ModelRequested(origin=ORIGIN, job_id=JobId(job_id), request=request)


async def ended(bus: Bus, job_id: str = "job-1") -> Said[JobEnded]:
    with anyio.fail_after(30):
        return await bus.facts.wait(JOB_ENDED, job_id=job_id)


def roomy(settings: Settings) -> Settings:
    """Without a reserve: the tests' disk may be nearly full."""
    downloader = msgspec.structs.replace(settings.downloader, keep_free_bytes=0)
    return msgspec.structs.replace(settings, downloader=downloader)


async def test_a_requested_model_is_said_to_be_here_and_progress_shows_real_bytes(
    bus: Bus, settings: Settings, hub: LoopbackHub
) -> None:
    commit = hub.add("org/model", FILES)
    hub.bytes_per_s = 16 << 20
    settings = roomy(settings)
    shown: list[Progress] = []
    await bus.hear_progress(shown.append)
    async with running(bus, settings, build_downloader(settings, bus)):
        await bus.facts.say(requested())
        with anyio.fail_after(30):
            said = await bus.facts.wait(MODEL_DOWNLOADED, job_id="job-1")
        await until(lambda: bool(shown) and shown[-1].done == shown[-1].total)
    assert said.fact.revision == commit
    total = sum(map(len, FILES.values()))
    assert {message.total for message in shown} == {total}
    assert any(0 < message.done < total for message in shown)
    assert said.fact.total_size_bytes == total


async def test_a_refused_model_fails_the_job_with_reason_and_advice(
    bus: Bus, settings: Settings, hub: LoopbackHub
) -> None:
    hub.add("org/model", FILES, gated=True)
    async with running(bus, settings, build_downloader(roomy(settings), bus)):
        await bus.facts.say(requested())
        fact = (await ended(bus)).fact
    assert isinstance(fact, JobFailed)
    assert fact.stage == "downloader"
    assert "gated" in fact.reason
    assert "HF_TOKEN" in fact.advice


async def test_a_hub_that_is_down_for_a_while_only_delays_the_job(
    bus: Bus, settings: Settings, hub: LoopbackHub
) -> None:
    hub.add("org/model", FILES)
    hub.fail(Fault("revision/main", status=503, times=2))
    async with running(bus, settings, build_downloader(roomy(settings), bus)):
        await bus.facts.say(requested())
        with anyio.fail_after(30):
            await bus.facts.wait(MODEL_DOWNLOADED, job_id="job-1")


async def test_a_hub_that_stays_down_fails_the_job_in_the_end(
    bus: Bus, settings: Settings, hub: LoopbackHub
) -> None:
    hub.add("org/model", FILES)
    hub.fail(Fault("revision/main", status=503, times=99))
    async with running(bus, settings, build_downloader(roomy(settings), bus)):
        await bus.facts.say(requested())
        fact = (await ended(bus)).fact
    assert isinstance(fact, JobFailed)
    assert "503" in fact.reason


@pytest.mark.parametrize("cancel", [True, False])
async def test_a_cancelled_job_leaves_no_parts_and_a_stopped_service_leaves_them_for_the_next(
    bus: Bus, settings: Settings, hub: LoopbackHub, cancel: bool
) -> None:
    hub.add("org/model", FILES)
    hub.bytes_per_s = 4 << 20
    settings = msgspec.structs.replace(
        roomy(settings), bus=msgspec.structs.replace(settings.bus, grace_s=0.1)
    )
    partial = settings.origin_dir / "models" / ".partial"
    async with running(bus, settings, build_downloader(settings, bus)):
        await bus.facts.say(requested())
        await until(lambda: parts(partial) > 0)
        if cancel:
            await bus.facts.say(JobCancelled(origin=ORIGIN, job_id=JobId("job-1")))
            with anyio.fail_after(2):
                await until(lambda: parts(partial) == 0)
    assert (parts(partial) == 0) == cancel


def parts(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*.part"))


async def test_profiled_metadata_is_kept_on_the_bus_and_can_be_read_by_anybody(
    bus: Bus, settings: Settings, tmp_path: Path
) -> None:
    body = b'{"model_name": "org/model"}'
    file = tmp_path / "metadata.json"
    file.write_bytes(body)
    profiled = ModelProfiled(
        origin=ORIGIN,
        job_id=JobId("job-1"),
        request=ModelRequest(model_name="org/model"),
        revision="c0ffee",
        metadata_file=str(file),
        sha256=digest_of(body),
        size_bytes=len(body),
        total_compute=1.0,
        total_layers=1,
    )
    async with running(bus, settings, build_uploader(settings, bus)):
        await bus.facts.say(profiled)
        with anyio.fail_after(30):
            ready = (await bus.facts.wait(METADATA_READY, job_id="job-1")).fact
    document = Document(
        sha256=ready.sha256, size_bytes=ready.size_bytes, bucket=ready.repo, name=ready.file
    )
    assert await bus.documents.get(document) == body
    assert ready.url == f"nats://object/{ready.repo}/{ready.file}"
