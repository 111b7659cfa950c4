"""The same cut again: nothing is read, and what changed or went since is found out."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from config.settings import Settings
from messages.failures import Passing
from messages.ids import JobId, NodeId
from messages.jobs import ModelRequest
from messages.metadata import ModelMetadata
from messages.models import ModelDownloaded
from messages.plans import SplitPlan, SplitPlanned
from messages.shards import ShardsReady
from messages.wire import encode
from services.checkpoint.shelf import OriginShelf, ShelvedStage
from services.runtime import names
from services.runtime.bus import Bus
from services.splitter import cutter, service
from services.splitter.service import Splitter
from tests.bus_fixture import until
from tests.settled import settled
from tests.unit.splitter.small import NAMES, plan_of, write_model

ORIGIN, JOB = NodeId("node_001"), JobId("job")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", rows=8)


@pytest.fixture
def shelf(settings: Settings) -> OriginShelf:
    return OriginShelf(settings.origin_dir / "stages")


@pytest.fixture
def laid_out(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The plans that were laid out from the model's headers."""
    seen: list[str] = []

    def watched(model_dir: Path, plan: SplitPlan, **given: Any) -> cutter.Cutter:
        seen.append(plan.plan_id)
        return cutter.cutter(model_dir, plan, **given)

    monkeypatch.setattr(service, "cutter", watched)
    return seen


async def planned_for(bus: Bus, model: Path, plan: SplitPlan) -> SplitPlanned:
    """A plan as it was said, of a model that was downloaded."""
    request = ModelRequest(model_name=str(model))
    said = ModelDownloaded(
        origin=ORIGIN,
        job_id=JOB,
        request=request,
        revision="r",
        model_path=str(model),
        files_downloaded=(),
        total_size_bytes=1,
        total_size_mb=1.0,
    )
    await bus.facts.say(said)
    metadata = ModelMetadata(model_name="org/m")
    return SplitPlanned(
        origin=ORIGIN,
        job_id=JOB,
        request=request,
        plan_id=plan.plan_id,
        model_name="org/m",
        revision="r",
        strategy="pipeline",
        node_ids=tuple(plan.split_plan),
        bottleneck_s=1.0,
        plan=await bus.documents.put(encode(plan), "plan"),
        metadata=await bus.documents.put(encode(metadata), "metadata"),
    )


async def cut(splitter: Splitter, planned: SplitPlanned, model: Path) -> ShardsReady:
    settled(model)
    (ready,) = await splitter.cut(planned)
    assert isinstance(ready, ShardsReady)
    return ready


def digests(ready: ShardsReady) -> list[str]:
    return [stage.manifest.sha256 for stage in ready.stages]


async def test_the_same_plan_of_the_same_files_is_laid_out_and_its_stages_are_read_once(
    bus: Bus,
    settings: Settings,
    model: Path,
    shelf: OriginShelf,
    laid_out: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    splitter, read = Splitter(settings, bus), list[str]()
    stage = OriginShelf.stage

    def watched(shelf: OriginShelf, sha256: str) -> ShelvedStage | None:
        read.append(sha256)
        return stage(shelf, sha256)

    monkeypatch.setattr(OriginShelf, "stage", watched)
    planned = await planned_for(bus, model, plan_of(NAMES[:4], NAMES[4:]))
    first = await cut(splitter, planned, model)
    for sha256 in digests(first):
        os.utime(shelf.root / sha256 / "manifest.json", (1.0, 1.0))
    assert await cut(splitter, planned, model) == first
    assert laid_out == ["p1"]
    assert sorted(read) == sorted(digests(first))
    assert all(shelf.used_at(sha256) > 1.0 for sha256 in digests(first))
    other = plan_of(NAMES[:2], NAMES[2:], plan_id="p2")
    planned = msgspec.structs.replace(planned, plan=await bus.documents.put(encode(other), "p2"))
    assert (await cut(splitter, planned, model)).plan_id == "p2"
    assert laid_out == ["p1", "p2"]


def other_bytes(model: Path) -> None:
    """In place, as many, with the time of the older ones."""
    file = model / "model.safetensors"
    before, body = file.stat(), bytearray(file.read_bytes())
    body[-1] ^= 1
    file.write_bytes(body)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


@pytest.mark.parametrize(
    "change",
    [
        other_bytes,
        lambda model: (model / "config.json").write_text('{"a": 1}'),
        lambda model: (model / "1_Pooling" / "config.json").write_text("{}"),
        lambda model: (model / "tokenizer.json").write_text("{}"),
    ],
)
async def test_a_model_that_changed_is_cut_anew(
    bus: Bus,
    settings: Settings,
    model: Path,
    laid_out: list[str],
    change: Callable[[Path], object],
) -> None:
    splitter = Splitter(settings, bus)
    planned = await planned_for(bus, model, plan_of(NAMES[:4], NAMES[4:]))
    first = await cut(splitter, planned, model)
    change(model)
    assert digests(await cut(splitter, planned, model)) != digests(first)
    assert laid_out == ["p1", "p1"]


@pytest.mark.parametrize(
    "damage",
    [
        shutil.rmtree,
        lambda place: (place / "layout.json").unlink(),
        lambda place: (place / "layout.json").write_bytes(b"{"),
        lambda place: (place / "layout.json").write_bytes(
            (place / "layout.json").read_bytes().replace(b"williw.stage.json", b"other.stage.json")
        ),
        lambda place: (place / "manifest.json").write_bytes(
            (place / "manifest.json").read_bytes().replace(b"org/m", b"org/n")
        ),
    ],
)
async def test_a_stage_that_is_gone_or_damaged_is_made_again(
    bus: Bus,
    settings: Settings,
    model: Path,
    shelf: OriginShelf,
    damage: Callable[[Path], object],
) -> None:
    splitter = Splitter(settings, bus)
    planned = await planned_for(bus, model, plan_of(NAMES[:4], NAMES[4:]))
    first = await cut(splitter, planned, model)
    sha256 = digests(first)[1]
    manifest, stage = shelf.manifest(sha256), shelf.stage(sha256)
    damage(shelf.root / sha256)
    assert await cut(splitter, planned, model) == first
    assert (shelf.manifest(sha256), shelf.stage(sha256)) == (manifest, stage)


async def test_a_plan_that_was_cut_waits_for_no_other_that_is(
    bus: Bus, settings: Settings, model: Path, laid_out: list[str]
) -> None:
    splitter = Splitter(settings, bus)
    planned = await planned_for(bus, model, plan_of(NAMES[:4], NAMES[4:]))
    first = await cut(splitter, planned, model)
    other = plan_of(NAMES[:2], NAMES[2:], plan_id="p2")
    later = msgspec.structs.replace(planned, plan=await bus.documents.put(encode(other), "p2"))
    limit = splitter._at_once
    async with anyio.create_task_group() as group, limit:
        limit.total_tokens = 1
        group.start_soon(cut, splitter, later, model)
        await until(lambda: limit.statistics().tasks_waiting == 1)
        assert await cut(splitter, planned, model) == first
        assert laid_out == ["p1"]
    assert laid_out == ["p1", "p2"]


async def test_a_bus_that_takes_no_token_is_waited_for(
    bus: Bus, settings: Settings, model: Path
) -> None:
    planned = await planned_for(bus, model, plan_of(NAMES[:4], NAMES[4:]))
    await bus.client.jetstream().delete_key_value(names.GRANTS_BUCKET)
    with pytest.raises(Passing, match=names.GRANTS_BUCKET):
        await cut(Splitter(settings, bus), planned, model)
