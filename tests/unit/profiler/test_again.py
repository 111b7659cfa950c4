"""The same model again: what was made of it is said again, and any change of it is seen."""

import json
from collections.abc import Callable
from pathlib import Path

import anyio
import msgspec
import pytest

from messages.ids import JobId, NodeId
from messages.jobs import ModelRequest
from messages.metadata import ModelMetadata
from messages.models import ModelDownloaded, ModelProfiled
from services.profiler import profile, service
from services.profiler.counting import Counter, Uncounted
from services.profiler.service import Profiler
from tests.bus_fixture import until
from tests.integration.faults.tiny import write_model
from tests.settled import settled


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny", layers=2)


@pytest.fixture
def profiles(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The directories that were profiled from their files."""
    seen: list[Path] = []
    whole = profile.profile_directory

    def watched(path: Path, **given: object) -> ModelMetadata:
        seen.append(path)
        return whole(path, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(service, "profile_directory", watched)
    return seen


async def profiled(profiler: Profiler, model: Path, job: str, tokens: int = 512) -> ModelProfiled:
    settled(model)
    said = ModelDownloaded(
        origin=NodeId("node_001"),
        job_id=JobId(job),
        request=ModelRequest(model_name=str(model), sequence_length=tokens),
        revision="local",
        model_path=str(model),
        files_downloaded=(),
        total_size_bytes=1,
        total_size_mb=1.0,
    )
    (fact,) = await profiler.profile(said)
    return fact


def look(file: Path) -> tuple[int, bytes]:
    return file.stat().st_ino, file.read_bytes()


def deeper(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"num_attention_heads": 8}))


async def test_the_same_files_are_profiled_once_for_each_workload(
    model: Path, tmp_path: Path, profiles: list[Path]
) -> None:
    profiler = Profiler(tmp_path / "origin")
    first = await profiled(profiler, model, "j1")
    again = await profiled(profiler, model, "j2")
    assert profiles == [model]
    assert again == msgspec.structs.replace(first, job_id=JobId("j2"))
    longer = await profiled(profiler, model, "j3", tokens=1024)
    assert profiles == [model, model]
    assert longer.total_compute > first.total_compute


@pytest.mark.parametrize("change", [deeper, lambda model: write_model(model, layers=3)])
async def test_files_that_changed_are_profiled_anew(
    model: Path, tmp_path: Path, profiles: list[Path], change: Callable[[Path], object]
) -> None:
    profiler = Profiler(tmp_path / "origin")
    await profiled(profiler, model, "j1")
    change(model)
    told = await profiled(profiler, model, "j2")
    assert profiles == [model, model]
    fresh = await profiled(Profiler(tmp_path / "other"), model, "j3")
    assert (told.total_compute, told.total_layers) == (fresh.total_compute, fresh.total_layers)


@pytest.mark.parametrize("change", [Path.unlink, lambda file: file.write_bytes(b"{}")])
async def test_a_metadata_file_stands_untouched_until_somebody_changes_it(
    model: Path, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    profiler = Profiler(tmp_path / "origin")
    file = Path((await profiled(profiler, model, "j1")).metadata_file)
    made, body = look(file)
    await profiled(profiler, model, "j2")
    assert look(file) == (made, body)
    change(file)
    assert (await profiled(profiler, model, "j3")).metadata_file == str(file)
    assert look(file)[1] == body


async def test_a_count_that_failed_is_taken_again(
    model: Path, tmp_path: Path, profiles: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counter, "count", lambda *_: Uncounted("the counting process failed"))
    profiler = Profiler(tmp_path / "origin", Counter(tmp_path / "flops"))
    for job in ("j1", "j2"):
        await profiled(profiler, model, job)
    assert profiles == [model, model]


async def test_known_files_wait_for_no_other_model_that_is_profiled(
    model: Path, tmp_path: Path, profiles: list[Path]
) -> None:
    profiler = Profiler(tmp_path / "origin", at_once=anyio.CapacityLimiter(1))
    other = write_model(tmp_path / "other-model", layers=3)
    first = await profiled(profiler, model, "j1")
    settled(other)
    async with anyio.create_task_group() as group, profiler.at_once:
        group.start_soon(profiled, profiler, other, "j2")
        await until(lambda: profiler.at_once.statistics().tasks_waiting == 1)
        again = await profiled(profiler, model, "j3")
        assert again == msgspec.structs.replace(first, job_id=JobId("j3"))
        assert profiles == [model]
    assert profiles == [model, other]
