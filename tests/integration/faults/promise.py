"""The promise, checked: one ending, each fact once, nothing half visible, nothing left undone."""

import json
from collections import Counter
from pathlib import Path

import anyio

from messages.base import Fact
from messages.failures import Passing
from messages.ids import JobId
from messages.jobs import JobCancelled, JobCompleted, JobEnded, JobFailed, ModelRequest
from messages.plans import SplitPlanned
from messages.shards import ShardDelivered
from messages.subjects import API_REQUEST, JOB_ENDED, MODEL_REQUEST, subject_matching
from services.checkpoint.stage import verify
from services.console.commands.ending import next_generation
from services.console.commands.jobs import known
from services.distributor.store import place_beside
from services.runtime import names
from services.runtime.bus import Bus
from services.runtime.connection import BUS_TROUBLE
from services.runtime.factlog import job_filter
from tests.integration.faults.house import House

_ONE_EACH = ("ModelRequested", "ModelDownloaded", "ModelProfiled", "MetadataReady", "SplitPlanned")
END_WITHIN_S = 90.0


async def ask(bus: Bus, model: Path | str, job_id: str, **fields: object) -> JobId:
    """Send the request as anybody may, and wait until the bus has acknowledged it."""
    request = ModelRequest(model_name=str(model), job_id=JobId(job_id), **fields)  # type: ignore[arg-type]
    await bus.send(request, MODEL_REQUEST, message_id=f"request-{job_id}")
    return JobId(job_id)


async def ask_until_taken(bus: Bus, model: Path, job_id: str) -> JobId:
    """Ask as a client should: again with the same id until the bus acknowledges."""
    while True:
        try:
            return await ask(bus, model, job_id)
        except Passing:
            await anyio.sleep(0.1)


async def ask_api(bus: Bus, model: Path | str) -> JobId:
    """Ask by request and reply."""
    return (await bus.ask(API_REQUEST, ModelRequest(model_name=str(model)))).job_id


async def nodes_live(bus: Bus, count: int) -> None:
    """Wait until so many nodes are in the registry."""
    with anyio.fail_after(30):
        while len(await bus.registry.nodes()) != count:  # noqa: ASYNC110
            await anyio.sleep(0.1)


async def again(bus: Bus, job_id: JobId) -> int:
    """What `williw retry` does; the new generation."""
    fact = await next_generation(bus, await known(bus, job_id))
    await bus.facts.say(fact)
    return fact.generation


async def ended(
    bus: Bus, job_id: JobId, timeout_s: float = END_WITHIN_S, generation: int | None = None
) -> JobEnded:
    """The job's ending (of this generation), or the test fails with where it stands."""
    tokens: dict[str, object] = {} if generation is None else {"generation": generation}
    with anyio.move_on_after(timeout_s):
        return (await bus.facts.wait(JOB_ENDED, job_id=job_id, **tokens)).fact
    said = [type(one.fact).__name__ for one in await bus.facts.job(job_id)]
    raise AssertionError(f"{job_id} has not ended within {timeout_s:g} s; its facts: {said}")


async def settled(bus: Bus, timeout_s: float = 60.0) -> None:
    """Wait until no consumer has a message left: all that was delivered twice has played out."""
    left: list[str] = []
    with anyio.move_on_after(timeout_s):
        while True:
            try:
                infos = await bus.client.jetstream().consumers_info(names.FACTS_STREAM)
            except BUS_TROUBLE:
                await anyio.sleep(0.2)
                continue
            left = [i.name for i in infos if i.num_pending or i.num_ack_pending]
            if not left:
                return
            await anyio.sleep(0.05)
    raise AssertionError(f"not at rest within {timeout_s:g} s: {left}")


async def kept(
    house: House, bus: Bus, job_id: JobId, model: Path | None = None, *, shared: bool = False
) -> JobEnded:
    """The promise for one job that is over and at rest; its ending.

    A `shared` model was brought by other jobs since, whose stages its links may show.
    """
    counts = await messages_by_subject(bus, job_filter(job_id))
    twice = {subject: count for subject, count in counts.items() if count != 1}
    assert not twice, f"said more than once: {twice}"
    with anyio.fail_after(20):
        # In a cluster a replica that lags behind may answer a read.
        known = [subject for subject in counts if subject_matching(subject)]
        while len(facts := await _facts(bus, job_id)) != len(known):  # noqa: ASYNC110
            await anyio.sleep(0.1)
    endings = [fact for fact in facts if isinstance(fact, JobEnded)]
    generations = Counter(fact.generation for fact in endings)
    assert endings, f"{job_id} has no ending"
    assert set(generations.values()) == {1}, generations
    ending = max(endings, key=lambda fact: fact.generation)
    if isinstance(ending, JobCompleted):
        _complete(facts, ending)
    else:
        assert isinstance(ending, JobFailed | JobCancelled)
        assert ending.reason
    nothing_half_visible(house)
    if isinstance(ending, JobCompleted) and model is not None:
        stages = [Path(node.stage_dir) for node in ending.nodes]
        if shared:
            stages = [_place(fact) for fact in _delivered(facts, ending)]
        report = await anyio.to_thread.run_sync(verify, stages, model)
        assert report.ok, report.problems
        assert report.coverage == "whole"
    return ending


def _delivered(facts: list[Fact], ending: JobCompleted) -> list[ShardDelivered]:
    parts = [fact for fact in facts if isinstance(fact, ShardDelivered)]
    return [fact for fact in parts if fact.generation == ending.generation]


def _place(delivered: ShardDelivered) -> Path:
    """Where this very stage stands, whatever its model's link shows now."""
    return place_beside(Path(delivered.stage_dir), delivered.stage_sha256)


async def _facts(bus: Bus, job_id: JobId) -> list[Fact]:
    return [said.fact for said in await bus.facts.job(job_id)]


def nothing_half_visible(house: House) -> None:
    """Whatever stage is visible is whole: every file of its description, at its full length."""
    for link in house.stage_links():
        described = json.loads((link / "williw.stage.json").read_bytes())
        for file in described["files"]:
            assert (link / file["name"]).stat().st_size == file["size_bytes"], (link, file["name"])
        for loose in link.parent.iterdir():
            assert loose.is_symlink() or loose.name.startswith("."), loose


async def messages_by_subject(bus: Bus, chosen: str) -> dict[str, int]:
    """How many messages the stream holds on each subject of a filter."""
    info = await bus.facts._ask(
        f"$JS.API.STREAM.INFO.{names.FACTS_STREAM}", {"subjects_filter": chosen}
    )
    return dict(info["state"].get("subjects") or {})


def _complete(facts: list[Fact], ending: JobCompleted) -> None:
    of_it = [fact for fact in facts if fact.generation == ending.generation]
    counts = Counter(type(fact).__name__ for fact in of_it)
    planned = [fact for fact in of_it if isinstance(fact, SplitPlanned)]
    assert len(planned) == 1
    nodes = len(set(planned[0].node_ids))
    assert counts["NodeAssigned"] == counts["ShardDelivered"] == len(ending.nodes) == nodes
    assert counts["ShardsReady"] == 1
    if ending.generation == 1:
        assert all(counts[name] == 1 for name in _ONE_EACH), counts
