"""The Hub as the last source: what no node gives comes from the model's own files there."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import msgspec
import pytest

from messages.ids import NodeId
from messages.jobs import JobCompleted
from messages.plans import SplitPlan
from messages.shards import ShardDelivered
from messages.subjects import SHARD_DELIVERED
from services.checkpoint.description import STAGE_NAME
from services.checkpoint.index import INDEX_NAME
from services.checkpoint.stage import verify
from services.splitter.service import build as build_splitter
from tests.bus_fixture import running
from tests.integration.delivery.rig import MODEL, ORIGIN, Rig, parts, plan_of, sources_of
from tests.loopback_hub.faults import Fault
from tests.loopback_hub.server import LoopbackHub

B = NodeId("b")


def planned(commit: str) -> SplitPlan:
    """The whole model for `b`, at a commit of the Hub."""
    held = parts(6, (B,), tied=False)
    return msgspec.structs.replace(plan_of((B,), held), revision=commit)


@asynccontextmanager
async def origin_that_never_serves(rig: Rig) -> AsyncIterator[None]:
    """The origin's splitter alone: manifests are told, and nobody has the bytes."""
    settings = rig.node(ORIGIN)
    async with running(rig.bus, settings, build_splitter(settings, rig.bus)):
        yield


async def delivery(rig: Rig) -> ShardDelivered:
    """What `b` said of its stage."""
    with anyio.fail_after(90):
        said = await rig.bus.facts.wait(SHARD_DELIVERED, job_id=rig.job_id, node_id=B)
    assert isinstance(said.fact, ShardDelivered)
    return said.fact


def size_of(rig: Rig, *names: str) -> int:
    return sum((rig.stage(B) / name).stat().st_size for name in names)


def blocks(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


async def test_a_stage_that_no_node_serves_comes_whole_from_the_hub(
    rig: Rig, hub: LoopbackHub
) -> None:
    commit = hub.add(MODEL, rig.model)
    rig.options[B] = {"hub": True}
    async with rig.nodes(B), origin_that_never_serves(rig):
        await rig.plan(planned(commit))
        fact = await delivery(rig)
    report = verify([rig.stage(B)], rig.model)
    assert report.ok, report.problems
    made = size_of(rig, INDEX_NAME, STAGE_NAME)
    assert sources_of(fact) == {"held": made, "hub": fact.size_bytes - made}
    assert hub.file_bytes < fact.size_bytes
    assert {seen.status for seen in hub.asked("GET /cdn/")} == {206}
    assert fact.distrusted == ()


async def test_a_node_goes_on_from_the_hub_when_the_origin_leaves(
    rig: Rig, hub: LoopbackHub
) -> None:
    commit = hub.add(MODEL, rig.model)
    rig.options[B] = {"hub": True}
    rig.options[ORIGIN] = {"upload_bytes_per_s": 1 << 20}
    async with rig.nodes(B):
        async with rig.nodes(ORIGIN):
            await rig.plan(planned(commit))
            with anyio.fail_after(60):
                while blocks(rig.models(B) / ".stages" / ".arriving") < 1 << 20:  # noqa: ASYNC110
                    await anyio.sleep(0.02)
        fact = await delivery(rig)
    assert verify([rig.stage(B)], rig.model).ok
    assert sources_of(fact)["origin"] > 0
    assert sources_of(fact)["hub"] > 0
    assert sum(sources_of(fact).values()) == fact.size_bytes


async def test_wrong_bytes_from_the_hub_are_refused_and_named(rig: Rig, hub: LoopbackHub) -> None:
    commit = hub.add(MODEL, rig.model)
    hub.fail(Fault(match="GET /(cdn|.*/resolve)/", times=10_000, corrupt=True))
    rig.options[B] = {"hub": True}
    settings = rig.node(ORIGIN)
    async with rig.nodes(B):
        async with running(rig.bus, settings, build_splitter(settings, rig.bus)):
            await rig.plan(planned(commit))
            with anyio.fail_after(60):
                while not hub.asked("GET /cdn/"):  # noqa: ASYNC110  # a thread of its own
                    await anyio.sleep(0.02)
        async with rig.nodes(ORIGIN):
            fact = await delivery(rig)
    assert fact.distrusted == ("hub",)
    assert "hub" not in sources_of(fact)
    assert verify([rig.stage(B)], rig.model).ok


async def test_a_node_that_may_not_ask_the_hub_does_not(rig: Rig, hub: LoopbackHub) -> None:
    commit = hub.add(MODEL, rig.model)
    async with rig.nodes(ORIGIN, B):
        await rig.plan(planned(commit))
        assert isinstance(await rig.ending(), JobCompleted)
    assert hub.requests == []


@pytest.mark.parametrize("whole", [True, False])
async def test_what_the_hubs_own_cache_holds_is_not_moved(
    rig: Rig, hub: LoopbackHub, tmp_path: Path, *, whole: bool
) -> None:
    commit = hub.add(MODEL, rig.model)
    snapshot = tmp_path / "hf-home" / "hub" / "models--org--small" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for path in rig.model.iterdir():
        os.link(path, snapshot / path.name)
    if not whole:  # what was damaged there is fetched, and only that
        damaged = snapshot / "tokenizer.json"
        body = damaged.read_bytes()
        damaged.unlink()
        damaged.write_bytes(b"?" + body[1:])
    async with rig.nodes(ORIGIN, B):
        await rig.plan(planned(commit))
        assert isinstance(await rig.ending(), JobCompleted)
    fact = (await rig.delivered())[B]
    moved = size_of(rig, INDEX_NAME, STAGE_NAME) + (0 if whole else 1 << 20)
    assert sources_of(fact) == {"held": fact.size_bytes - moved, "origin": moved}
    assert verify([rig.stage(B)], rig.model).ok
