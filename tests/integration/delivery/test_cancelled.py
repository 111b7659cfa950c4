"""A cancelled job stops within two seconds wherever it is, and leaves nothing half done."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from config.settings import Settings
from messages.ids import JobId, NodeId
from messages.jobs import JobCancelled, JobCompleted
from messages.subjects import SHARDS_READY
from services.checkpoint.shelf import OriginShelf
from services.checkpoint.sources import SourceFiles
from services.distributor import arrival, receive
from services.distributor.service import build as build_distributor
from services.runtime.actor import Actor
from services.splitter.service import build as build_splitter
from tests.bus_fixture import running, until
from tests.integration.delivery.rig import ORIGIN, Rig, parts, plan_of

B = NodeId("b")


def impatient(settings: Settings) -> Settings:
    """A service that hands its work back at once when it stops; stages are cut in small chunks."""
    replace = msgspec.structs.replace
    return replace(
        settings,
        bus=replace(settings.bus, grace_s=0.1),
        splitter=replace(settings.splitter, materialize="all", chunk_bytes=1 << 16),
    )


def arrived(rig: Rig, node_id: str) -> int:
    """Bytes of stages on their way to a node."""
    arriving = rig.models(node_id) / ".stages" / ".arriving"
    return sum(p.stat().st_blocks * 512 for p in arriving.rglob("*") if p.is_file())


def files_below(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def slowed(call: Callable[..., Any], begun: list[float]) -> Callable[..., Any]:
    """The same, a tenth of a second late."""

    def late(*arguments: Any) -> Any:
        begun.append(time.monotonic())
        time.sleep(0.1)
        return call(*arguments)

    return late


async def stops_within_two_seconds(rig: Rig, actor: Actor) -> None:
    """Cancel the job: two seconds later no handler is at work on it."""
    assert any(consumer.in_flight for consumer in actor.consumers)
    await rig.bus.facts.say(JobCancelled(origin=ORIGIN, job_id=rig.job_id))
    with anyio.fail_after(2):
        await until(lambda: not any(consumer.in_flight for consumer in actor.consumers))


@pytest.mark.parametrize("cancel", [True, False])
async def test_a_cancelled_delivery_leaves_nothing_and_a_stopped_one_what_it_has(
    rig: Rig, cancel: bool
) -> None:
    rig.options[ORIGIN] = {"upload_bytes_per_s": 2 << 20}
    settings = impatient(rig.node(B))
    async with rig.nodes(ORIGIN):
        async with running(rig.bus, settings, build_distributor(settings, rig.bus)) as actor:
            await rig.plan(plan_of((B,), parts(6, (B,), tied=False)))
            await until(lambda: arrived(rig, B) > 0)
            if cancel:
                await stops_within_two_seconds(rig, actor)
        left = [path.name for path in (rig.models(B) / ".stages" / ".arriving").iterdir()]
        assert (left == []) == cancel
        assert not rig.stage(B).is_symlink()


async def test_what_another_job_waits_for_stays_when_one_is_cancelled(rig: Rig) -> None:
    rig.options[ORIGIN] = {"upload_bytes_per_s": 4 << 20}
    plan = plan_of((B,), parts(6, (B,), tied=False))
    settings = impatient(rig.node(B))
    distributor = build_distributor(settings, rig.bus)
    turns = distributor.routes[0].handle.__self__._busy  # type: ignore[attr-defined]
    async with rig.nodes(ORIGIN), running(rig.bus, settings, distributor):
        await rig.plan(plan)
        await until(lambda: arrived(rig, B) > 1 << 20)
        rig.job_id = JobId("job2")
        await rig.plan(plan)
        await until(lambda: [turn.statistics().tasks_waiting for turn in turns.values()] == [1])
        await rig.bus.facts.say(JobCancelled(origin=ORIGIN, job_id=JobId("job1")))
        assert isinstance(await rig.ending(), JobCompleted)
    assert (await rig.delivered())[B].resumed_bytes >= 1 << 20


@pytest.mark.parametrize("at", ["resuming", "reading its own"])
async def test_a_node_that_reads_its_disk_stops_when_the_job_is_cancelled(
    rig: Rig, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node_id = B if at == "resuming" else ORIGIN
    module = arrival if at == "resuming" else receive
    settings = impatient(rig.node(node_id))
    rig.options[ORIGIN] = {"upload_bytes_per_s": 8 << 20}
    plan = plan_of((node_id,), parts(6, (node_id,), tied=False))
    cutting = impatient(rig.node(ORIGIN))
    async with running(rig.bus, cutting, build_splitter(cutting, rig.bus)):
        await rig.plan(plan)
        await rig.bus.facts.wait(SHARDS_READY, job_id=rig.job_id)
    if at == "resuming":
        async with (
            running(rig.bus, cutting, build_distributor(cutting, rig.bus)),
            running(rig.bus, settings, build_distributor(settings, rig.bus)),
        ):
            await until(lambda: arrived(rig, node_id) > 3 << 20)
    begun: list[float] = []
    monkeypatch.setattr(module, "digest_of_chunk", slowed(module.digest_of_chunk, begun))
    async with running(rig.bus, settings, build_distributor(settings, rig.bus)) as actor:
        await until(lambda: len(begun) > 2)
        await stops_within_two_seconds(rig, actor)
    assert len(begun) < 30
    assert arrived(rig, node_id) == 0


async def test_a_cut_stops_when_the_job_is_cancelled(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = impatient(rig.node(ORIGIN))
    begun: list[float] = []
    read = SourceFiles.read_into
    monkeypatch.setattr(SourceFiles, "read_into", slowed(read, begun))
    async with running(rig.bus, settings, build_splitter(settings, rig.bus)) as actor:
        await rig.plan(plan_of((B,), parts(6, (B,), tied=False)))
        await until(lambda: len(begun) > 4)
        await stops_within_two_seconds(rig, actor)
    assert len(begun) < 60
    shelf = OriginShelf(settings.origin_dir / "stages")
    assert list(shelf) == []
    assert files_below(shelf.root) == []
