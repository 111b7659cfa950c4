"""What an origin keeps to serve stages from gives way, but not under a job that runs."""

import os

from messages.ids import JobId, NodeId
from messages.jobs import JobCompleted
from messages.subjects import SHARDS_READY
from services.checkpoint.shelf import OriginShelf
from services.checkpoint.shelf_prune import prune_shelf
from services.checkpoint.stage import verify
from services.console.in_use import in_use
from tests.integration.delivery.rig import ORIGIN, Rig, parts, plan_of

B, C = NodeId("b"), NodeId("c")


async def test_pruning_leaves_a_running_job_its_stages_and_what_went_is_cut_again(
    rig: Rig,
) -> None:
    shelf = OriginShelf(rig.settings.origin_dir / "stages")
    rig.options[ORIGIN] = {"upload_bytes_per_s": 8 << 20}
    async with rig.nodes(ORIGIN, B):
        await rig.plan(plan_of((B,), parts(6, (B,), tied=False)))
        assert isinstance(await rig.ending(), JobCompleted)
        (ended,) = shelf
        rig.job_id = JobId("job2")
        await rig.plan(plan_of((C,), parts(6, (C,), tied=False), plan_id="plan2"))
        await rig.bus.facts.wait(SHARDS_READY, job_id=rig.job_id)
        running = set(shelf) - {ended}
        for sha256 in shelf:
            os.utime(shelf.root / sha256 / "manifest.json", (1e9, 1e9))
        used = await in_use(rig.bus)
        taken = prune_shelf(shelf, keep=used.stages, since=used.since)
        assert {one.directory.name for one in taken} == {ended}
        assert set(shelf) == running
        async with rig.nodes(C):
            assert isinstance(await rig.ending(), JobCompleted)
        rig.job_id = JobId("job3")
        await rig.plan(plan_of((B,), parts(6, (B,), tied=False)))
        assert isinstance(await rig.ending(), JobCompleted)
    assert set(shelf) == {ended, *running}
    assert verify([rig.stage(B)], rig.model).ok
    assert verify([rig.stage(C)], rig.model).ok
