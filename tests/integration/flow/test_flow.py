"""From a model's name to verified parts on the nodes, through all seven services."""

import json
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from messages.ids import JobId, NodeId
from messages.jobs import JobCompleted, JobFailed
from messages.models import MetadataReady
from messages.state import apply
from messages.subjects import JOB_ENDED, METADATA_READY
from messages.wishes import Wishes
from services.requester.client import NodeClient
from tests.integration.flow.house import House
from tests.loopback_hub.server import LoopbackHub

ONE_CHAIN = Wishes(replicas=1)
SAID_ONCE = [
    "ModelRequested",
    "ModelDownloaded",
    "ModelProfiled",
    "MetadataReady",
    "SplitPlanned",
    "NodeAssigned",
    "NodeAssigned",
    "NodeAssigned",
    "ShardsReady",
    "ShardDelivered",
    "ShardDelivered",
    "ShardDelivered",
    "JobCompleted",
]


async def test_a_plain_publish_of_a_local_model_ends_in_verified_stages(
    house: House, minilm: Path
) -> None:
    wishes = {"replicas": 1}
    body = json.dumps({"model_name": str(minilm), "job_id": "job-1", "wishes": wishes}).encode()
    async with house.open():
        await house.bus.client.publish("williw.model.request", body)
        ended = await house.end(JobId("job-1"))
    assert isinstance(ended, JobCompleted), ended
    nodes = [stage.node_id for stage in ended.nodes]
    report = house.verified("local--model", nodes, minilm)
    assert report.ok, report.problems
    assert report.coverage == "whole"
    facts = await house.facts(JobId("job-1"))
    assert sorted(type(fact).__name__ for fact in facts) == sorted(SAID_ONCE)


@pytest.mark.parametrize("strategy", ["pipeline", "greedy", "balanced"])
async def test_each_strategy_covers_every_tensor(house: House, minilm: Path, strategy: str) -> None:
    async with house.open():
        job_id = await house.ask(str(minilm), strategy=strategy, wishes=ONE_CHAIN)
        ended = await house.end(job_id)
    assert isinstance(ended, JobCompleted), ended
    said, plan = await house.plan(job_id)
    assert (said.strategy, plan.strategy) == (strategy, strategy)
    nodes = [stage.node_id for stage in ended.nodes]
    report = house.verified("local--model", nodes, minilm)
    assert report.ok, report.problems
    assert report.coverage == "whole"


async def test_a_sharded_tied_model_of_the_hub_with_its_metadata_on_the_hub(
    house: House,
    hub: LoopbackHub,
    tiny_llama: Callable[[], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = tiny_llama()
    commit = hub.add("org/tiny-llama", source)
    monkeypatch.setenv("HF_TOKEN", hub.write_token)
    house.sections["uploader"] = {"metadata_repo": "me/metadata"}
    async with house.open():
        job_id = await house.ask("org/tiny-llama", sequence_length=64, wishes=ONE_CHAIN)
        ended = await house.end(job_id)
    assert isinstance(ended, JobCompleted), ended
    ready = await house.bus.facts.last(METADATA_READY, job_id=job_id)
    assert ready is not None
    assert (ready.fact.repo, ready.fact.file) == (
        "me/metadata",
        "org_tiny-llama_metadata.json",
    )
    assert ready.fact.commit == hub.repos["me/metadata"].refs["main"]
    stored = json.loads(hub.repos["me/metadata"].head[ready.fact.file].body)  # type: ignore[arg-type]
    assert stored["revision"] == commit
    _, plan = await house.plan(job_id)
    assert plan.revision == commit
    nodes = [a.node_id for a in plan.assignments]
    report = house.verified("org--tiny-llama", nodes, source)
    assert report.ok, report.problems
    assert report.coverage == "whole"
    tied = [n for a in plan.assignments for n in a.layer_names if n == "model.embed_tokens.weight"]
    assert len(nodes) > 1
    assert len(tied) == 2


async def test_two_jobs_at_once_end_each_in_its_own(
    house: House, minilm: Path, hub: LoopbackHub, tiny_llama: Callable[[], Path]
) -> None:
    hub.add("org/tiny-llama", tiny_llama())
    async with house.open():
        jobs = [await house.ask(str(minilm)), await house.ask("org/tiny-llama")]
        ends = [await house.end(job_id) for job_id in jobs]
    assert all(isinstance(ended, JobCompleted) for ended in ends), ends
    for name, source in (("local--model", minilm), ("org--tiny-llama", tiny_llama())):
        held = [node for node in house.root.iterdir() if (node / name).exists()]
        report = house.verified(name, [NodeId(node.name) for node in held], source)
        assert report.ok, report.problems


async def test_a_second_request_downloads_nothing_and_copies_nothing(
    house: House, hub: LoopbackHub, tiny_llama: Callable[[], Path]
) -> None:
    hub.add("org/tiny-llama", tiny_llama())
    async with house.open():
        await house.bring("org/tiny-llama")
        downloaded = hub.file_bytes
        job_id = await house.ask("org/tiny-llama")
        assert isinstance(await house.end(job_id), JobCompleted)
    assert hub.file_bytes == downloaded
    for fact in await house.facts(job_id):
        if type(fact).__name__ == "ShardDelivered":
            received = {r.source: r.size_bytes for r in fact.received}  # type: ignore[attr-defined]
            assert received == {"held": fact.size_bytes}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "revision", "stage", "said"),
    [
        ("org/gated", "main", "downloader", "gated"),
        ("org/missing", "main", "downloader", "org/missing"),
        ("org/tiny", "v9", "downloader", "v9"),
        ("/etc", "main", "downloader", "/etc"),
        ("/root/../etc", "main", "", ""),
    ],
)
async def test_a_model_that_cannot_be_had_fails_the_job_with_reason_and_advice(
    house: House, hub: LoopbackHub, name: str, revision: str, stage: str, said: str
) -> None:
    hub.add("org/gated", {"config.json": b"{}", "model.safetensors": b"x"}, gated=True)
    hub.add("org/tiny", {"config.json": b"{}", "model.safetensors": b"x"})
    request = {"model_name": name, "revision": revision, "job_id": "job-1"}
    async with house.open(("node_001",)):
        await house.bus.client.publish("williw.model.request", json.dumps(request).encode())
        if not stage:  # the request itself is malformed: it is buried, and no job begins
            await _buried(house)
            assert await house.bus.facts.count(JOB_ENDED) == 0
            return
        ended = await house.end(JobId("job-1"))
    assert isinstance(ended, JobFailed)
    assert ended.stage == stage
    assert said in ended.reason
    assert ended.advice


async def _buried(house: House) -> None:
    js = house.bus.client.jetstream()
    with anyio.fail_after(20):
        while (await js.stream_info("WILLIW_DEAD")).state.messages == 0:  # noqa: ASYNC110
            await anyio.sleep(0.05)


async def test_a_model_that_fits_no_nodes_is_refused_with_what_would_make_it_fit(
    house: House, minilm: Path
) -> None:
    house.memory_bytes = dict.fromkeys(("node_001", "node_002", "node_003"), 4 << 20)
    async with house.open():
        ended = await house.bring(str(minilm))
    assert isinstance(ended, JobFailed)
    assert ended.stage == "planner"
    assert "bytes" in ended.reason


async def test_a_damaged_checkpoint_is_refused_before_anything_is_believed(
    house: House, tmp_path: Path
) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes((1 << 40).to_bytes(8, "little") + b"{}")
    async with house.open(("node_001",)):
        ended = await house.bring(str(folder))
    assert isinstance(ended, JobFailed)
    assert "model.safetensors" in ended.reason


async def test_the_seeds_client_returns_every_step(house: House, minilm: Path) -> None:
    client = NodeClient(nats_url=house.settings.bus.url, node_id="node_001")
    async with house.open():
        result = await client.execute_complete_workflow_async(str(minilm), sequence_length=64)
        refused = await client.execute_complete_workflow_async("../etc")
    assert result["success"], result
    steps = result["steps"]
    assert list(steps) == [
        "request", "download", "metadata", "upload", "process", "split_plan", "split"
    ]  # fmt: skip
    assert steps["download"]["total_size_mb"] > 80
    assert Path(steps["metadata"]["metadata_file"]).is_file()  # noqa: ASYNC240  # a test may block
    assert set(steps["split_plan"]) == {
        "model_name", "split_plan", "megaphone_plan", "selected_nodes"
    }  # fmt: skip
    assert steps["split"]["node_id"] == "node_001"
    share = steps["split_plan"]["split_plan"]["node_001"]
    assert steps["split"]["layer_names"] == share["layer_names"]
    assert (Path(steps["split"]["shard_path"]) / "williw.stage.json").is_file()
    assert not refused["success"]
    assert "model_name" in refused["error"]


async def test_the_state_of_a_finished_job_is_the_fold_of_its_facts(
    house: House, minilm: Path
) -> None:
    async with house.open():
        job_id = await house.ask(str(minilm))
        await house.end(job_id)
    state = None
    for said in await house.bus.facts.job(job_id):
        state = apply(state, said)
    assert state is not None
    assert state.status == "completed"
    assert set(state.delivered) == set(state.node_ids) == set(state.assigned)
    ready = await house.bus.facts.last(METADATA_READY, job_id=job_id)
    assert ready is not None
    assert isinstance(ready.fact, MetadataReady)
    assert list(state.at) == sorted(state.at, key=lambda status: state.at[status])
