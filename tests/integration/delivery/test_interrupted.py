"""Whatever is killed while stages travel, the job ends with equal bytes, nothing half seen."""

import random
from pathlib import Path

import anyio
import pytest

from messages.ids import NodeId
from messages.jobs import JobCompleted
from services.checkpoint.stage import verify
from tests.integration.delivery.processes import processes, provisioned
from tests.integration.delivery.rig import (
    ORIGIN,
    Rig,
    Topology,
    parts,
    plan_of,
    sources_of,
    write_model,
)

CHAIN = tuple(NodeId(f"n{k}") for k in range(5))


def nothing_half_seen(rig: Rig, whole: set[Path]) -> None:
    """What is visible on any node, under a model's name or a stage's, is `whole` or is read so."""
    for node_id in CHAIN:
        models = rig.models(node_id)
        seen = {path.resolve() for path in (rig.stage(node_id), *models.glob(".stages/[!.]*"))}
        new = [path for path in seen - whole if path.exists()]
        assert verify(new).problems == ()
        whole |= set(new)


async def under_way(rig: Rig, victim: str, enough: int) -> bool:
    """Wait until so many bytes of a node's stage are on its disk; whether it is not whole by then.

    The origin receives nothing, and is under way as soon as anybody is.
    """

    def there(node_id: str) -> bool:
        return rig.stage(node_id).exists() or _blocks(_arriving(rig, node_id)) > enough

    of = CHAIN if victim == ORIGIN else (victim,)
    with anyio.fail_after(60):
        while not any(map(there, of)):  # noqa: ASYNC110  # other processes write
            await anyio.sleep(0.02)
    return victim != ORIGIN and not rig.stage(victim).exists()


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("topology", ["chain", "mixed"])
async def test_a_chain_of_five_survives_kill_9_of_each_node_and_of_the_origin(
    rig: Rig, topology: Topology
) -> None:
    rig.model = write_model(rig.root / "larger", layers=10, size=512)
    everybody = (ORIGIN, *CHAIN)
    for node_id in everybody:
        rig.options[node_id] = {"upload_bytes_per_s": 4 << 20}
    await provisioned(rig, *everybody)
    rng = random.Random(7)
    resuming, whole = [], set[Path]()
    with processes(rig) as running:
        running.start("splitter", ORIGIN)
        for node_id in everybody:
            running.start("distributor", node_id)
        held = parts(10, CHAIN[:1], tied=False) * len(CHAIN)
        await rig.plan(plan_of(CHAIN, held, topology=topology, copies=True))
        for victim in rng.sample(everybody, len(everybody)):
            resuming += [victim] if await under_way(rig, victim, rng.randint(3, 6) << 20) else []
            running.kill("distributor", victim)
            nothing_half_seen(rig, whole)
            running.start("distributor", victim)
        ended = await rig.ending(timeout_s=120)
    assert isinstance(ended, JobCompleted), ended
    for node_id in CHAIN:
        report = verify([rig.stage(node_id)], rig.model)
        assert report.ok, report.problems
        assert [*_arriving(rig, node_id).iterdir()] == []
    nothing_half_seen(rig, whole)
    # Whether a source restarting on a busy machine is silent long enough to be named is chance.
    delivered = await rig.delivered()
    for fact in delivered.values():
        assert sum(sources_of(fact).values()) == fact.size_bytes
        assert sources_of(fact).get("held", 0) == fact.resumed_bytes
    assert resuming
    for node_id in resuming:
        assert delivered[node_id].resumed_bytes >= 1 << 20


async def test_a_node_that_comes_back_goes_on_from_what_it_had(rig: Rig) -> None:
    nodes = (NodeId("b"),)
    rig.options[ORIGIN] = {"upload_bytes_per_s": 2 << 20}
    await provisioned(rig, ORIGIN, "b")
    with processes(rig) as running:
        running.start("splitter", ORIGIN)
        running.start("distributor", ORIGIN)
        running.start("distributor", "b")
        await rig.plan(plan_of(nodes, parts(6, nodes, tied=False)))
        arriving = _arriving(rig, "b")
        with anyio.fail_after(30):
            while _blocks(arriving) < 2 << 20:  # noqa: ASYNC110  # another process writes
                await anyio.sleep(0.02)
        running.kill("distributor", "b")
        assert not rig.stage("b").exists()
        running.start("distributor", "b")
        assert isinstance(await rig.ending(), JobCompleted)
    fact = (await rig.delivered())["b"]
    assert fact.resumed_bytes >= 1 << 20
    assert sources_of(fact)["held"] == fact.resumed_bytes
    assert sum(sources_of(fact).values()) == fact.size_bytes
    assert verify([rig.stage("b")], rig.model).ok


def _arriving(rig: Rig, node_id: str) -> Path:
    return rig.models(node_id) / ".stages" / ".arriving"


def _blocks(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())
