"""Stages arrive over the network, verified, each node its own, and the origin ends the job."""

from pathlib import Path

import anyio
import msgspec
import pytest

from messages.ids import JobId, NodeId
from messages.jobs import JobCompleted, JobFailed
from messages.shards import ShardFailed, StageManifest
from messages.subjects import JOB_ENDED, SHARD_DELIVERED, SHARDS_READY
from services.checkpoint.stage import verify
from services.distributor.delivery import Deliveries
from services.distributor.order import NotInPlan, Order
from services.distributor.receive import Reception
from services.planner.megaphone import relay_plan
from services.runtime import names
from tests.bus_fixture import until
from tests.integration.delivery.rig import ORIGIN, Rig, Topology, parts, plan_of, sources_of

NODES = (ORIGIN, NodeId("b"), NodeId("c"))


@pytest.mark.parametrize("topology", ["star", "chain", "mixed"])
async def test_every_node_gets_its_stage_and_the_stages_are_the_model(
    rig: Rig, topology: Topology
) -> None:
    async with rig.nodes(*NODES):
        await rig.plan(plan_of(NODES, parts(6, NODES), topology=topology))
        ended = await rig.ending()
    assert isinstance(ended, JobCompleted), ended
    assert [one.node_id for one in ended.nodes] == list(NODES)
    report = verify([Path(one.stage_dir) for one in ended.nodes], rig.model)
    assert report.ok, report.problems
    assert report.coverage == "whole"
    delivered = await rig.delivered()
    for node in NODES[1:]:
        assert sum(sources_of(delivered[node]).values()) == delivered[node].size_bytes


async def test_a_tied_tensor_leaves_the_origin_once_in_a_mixed_plan(rig: Rig) -> None:
    nodes = (NodeId("a"), NodeId("b"), NodeId("c"))
    async with rig.nodes(ORIGIN, *nodes):
        await rig.plan(plan_of(nodes, parts(6, nodes), topology="mixed"))
        assert isinstance(await rig.ending(), JobCompleted)
    delivered = await rig.delivered()
    tokenizer = (rig.model / "tokenizer.json").stat().st_size
    tied = 512 * 256 * 4
    assert "b" in sources_of(delivered["c"])
    assert sources_of(delivered["c"])["a"] >= tied
    assert sources_of(delivered["b"])["a"] >= tokenizer


async def test_by_the_planners_own_relay_each_byte_leaves_the_origin_once(rig: Rig) -> None:
    nodes = (NodeId("a"), NodeId("b"), NodeId("c"), NodeId("d"))
    held = parts(6, nodes)
    sizes = dict.fromkeys({name for names in held for name in names}, 1 << 20)
    relay, _ = relay_plan(dict(zip(nodes, held, strict=True)), sizes, {}, ORIGIN, "auto")
    assert relay.topology == "mixed"
    plan = msgspec.structs.replace(plan_of(nodes, held), megaphone_plan=relay)
    async with rig.nodes(ORIGIN, *nodes):
        for node in nodes:
            while await rig.bus.registry.node(node) is None:  # noqa: ASYNC110  # the bus's word
                await anyio.sleep(0.02)
        await rig.plan(plan)
        ended = await rig.ending()
        said = await rig.bus.facts.last(SHARDS_READY, job_id=rig.job_id)
        assert said is not None
        load = rig.bus.documents.load
        stages = [await load(stage.manifest, StageManifest) for stage in said.fact.stages]
    assert isinstance(ended, JobCompleted), ended
    once = {file.digest: file.size_bytes for stage in stages for file in stage.files}
    twice = [file for stage in stages for file in stage.files if file.name == "tokenizer.json"]
    assert len(twice) == len(nodes)
    sent = {node: sources_of(fact) for node, fact in (await rig.delivered()).items()}
    assert sum(by.get("origin", 0) for by in sent.values()) == sum(once.values())
    assert sum(sum(by.values()) for by in sent.values()) == sum(s.size_bytes for s in stages)
    assert verify([Path(one.stage_dir) for one in ended.nodes], rig.model).ok


async def test_the_same_plan_again_moves_nothing(rig: Rig) -> None:
    plan = plan_of(NODES, parts(6, NODES))
    async with rig.nodes(*NODES):
        await rig.plan(plan)
        await rig.ending()
        await rig.plan(msgspec.structs.replace(plan, generation=2), generation=2)
        assert isinstance(await rig.ending(generation=2), JobCompleted)
    for fact in (await rig.delivered(generation=2)).values():
        assert sources_of(fact) == {"held": fact.size_bytes}


async def test_after_a_new_plan_only_the_difference_moves(rig: Rig) -> None:
    async with rig.nodes(*NODES):
        await rig.plan(plan_of(NODES, parts(6, NODES)))
        await rig.ending()
        pair = NODES[1:]
        await rig.plan(plan_of(pair, parts(6, pair), plan_id="plan2"), generation=2)
        assert isinstance(await rig.ending(generation=2), JobCompleted)
    report = verify([rig.stage(node) for node in NODES[1:]], rig.model)
    assert report.ok, report.problems
    for fact in (await rig.delivered(generation=2)).values():
        assert sources_of(fact)["held"] > fact.size_bytes / 4


async def test_a_plan_that_names_unknown_tensors_fails_with_their_names(rig: Rig) -> None:
    held = parts(6, NODES)
    held[1] += ("model.layers.99.weight",)
    async with rig.nodes(*NODES):
        await rig.plan(plan_of(NODES, held))
        ended = await rig.ending()
    assert isinstance(ended, JobFailed)
    assert ended.stage == "splitter"
    assert "model.layers.99.weight" in ended.reason


async def test_a_stage_that_does_not_fit_fails_the_job_with_the_figures(rig: Rig) -> None:
    rig.options["b"] = {"quota_bytes": 1000}
    async with rig.nodes(*NODES):
        await rig.plan(plan_of(NODES, parts(6, NODES)))
        ended = await rig.ending()
    assert isinstance(ended, JobFailed)
    assert "1000 to give" in ended.reason
    assert ended.node_id == "b"
    assert not rig.stage("b").exists()


async def test_failed_parts_end_the_job_once_with_one_of_the_nodes_named(rig: Rig) -> None:
    await rig.plan(plan_of(NODES, parts(6, NODES)))
    for node in NODES[1:]:
        await rig.bus.facts.say(undelivered(rig, node, f"{node} is full"))
    async with rig.nodes(ORIGIN):
        ended = await rig.ending()
        await all_heard(rig)
    assert isinstance(ended, JobFailed)
    assert ended.node_id in NODES[1:]
    assert (ended.stage, ended.reason) == ("distributor", f"{ended.node_id} is full")
    assert await rig.bus.facts.count(JOB_ENDED, job_id=rig.job_id) == 1


async def test_whoever_has_no_part_in_a_plan_neither_completes_nor_fails_its_job(rig: Rig) -> None:
    """Nor does a word of an older plan, nor one of a job that nobody has planned yet."""
    pair = NODES[:2]
    await rig.bus.facts.say(undelivered(rig, NodeId("too-early")))
    async with rig.nodes(ORIGIN):
        await all_heard(rig)
        await rig.plan(plan_of(pair, parts(6, pair)))
        await rig.bus.facts.say(undelivered(rig, NodeId("foreign")))
        await rig.bus.facts.say(undelivered(rig, pair[1], generation=7))
        with anyio.fail_after(30):
            await rig.bus.facts.wait(SHARD_DELIVERED, node_id=ORIGIN, job_id=rig.job_id)
        await all_heard(rig)
        # More words than the plan has nodes, and one of the nodes has not spoken.
        assert await rig.bus.facts.count(JOB_ENDED) == 0
        await rig.plan(plan_of(pair, parts(6, pair), plan_id="plan2"), generation=2)
        await rig.bus.facts.say(undelivered(rig, pair[1], "of the older plan"))
        await all_heard(rig)
        assert await rig.bus.facts.count(JOB_ENDED) == 0
        async with rig.nodes(pair[1]):
            ended = await rig.ending(generation=2)
    assert isinstance(ended, JobCompleted)
    assert [one.node_id for one in ended.nodes] == list(pair)
    assert await rig.bus.facts.count(JOB_ENDED) == 1


def undelivered(
    rig: Rig, node: NodeId, reason: str = "no wish to", generation: int = 1
) -> ShardFailed:
    """A node's word that it will not have its part."""
    return ShardFailed(
        origin=ORIGIN,
        job_id=rig.job_id,
        generation=generation,
        node_id=node,
        stage="distributor",
        reason=reason,
    )


async def all_heard(rig: Rig) -> None:
    """Return once the origin has dealt with every word of the nodes."""
    js = rig.bus.client.jetstream()
    name = f"distributor-shard_delivered-{ORIGIN}"
    with anyio.fail_after(30):
        while True:
            info = await js.consumer_info(names.FACTS_STREAM, name)
            if not info.num_pending and not info.num_ack_pending:
                return
            await anyio.sleep(0.05)


async def test_as_many_stages_are_received_as_is_set_and_one_that_is_here_waits_for_none(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.options = {node: {"slots": 1} for node in NODES}
    receiving, go = list[NodeId](), anyio.Event()

    async def stuck(self: Deliveries, _order: Order) -> Reception:
        receiving.append(self.node_id)
        await go.wait()
        raise NotInPlan("nothing comes")

    held = parts(6, NODES)
    plan = plan_of(NODES, held)
    async with rig.nodes(*NODES):
        await rig.plan(plan)
        assert isinstance(await rig.ending(), JobCompleted)
        monkeypatch.setattr(Deliveries, "_receive", stuck)
        for by in (1, 2):
            rig.job_id = JobId(f"turned-{by}")
            turned = [*held[by:], *held[:by]]
            await rig.plan(plan_of(NODES, turned, plan_id=f"turned-{by}"))
        await until(lambda: sorted(receiving) == sorted(NODES))
        rig.job_id = JobId("again")
        await rig.plan(plan)
        assert isinstance(await rig.ending(), JobCompleted)
        assert sorted(receiving) == sorted(NODES)
        go.set()
        rig.job_id = JobId("turned-2")
        assert isinstance(await rig.ending(), JobFailed)
