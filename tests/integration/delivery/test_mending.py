"""A stage that is no longer what it was is not said to be delivered: its bad chunks come again."""

from collections.abc import Callable
from pathlib import Path

import pytest

from messages.ids import NodeId
from messages.jobs import JobCompleted
from services.checkpoint.stage import verify
from tests.integration.delivery.rig import ORIGIN, Rig, parts, plan_of, sources_of

B = NodeId("b")
CHUNK = 1 << 20


def weights(directory: Path) -> Path:
    (found,) = directory.glob("model-*.safetensors")
    return found


def overwrite(directory: Path) -> None:
    """Three bytes in one chunk, the length as it was."""
    with weights(directory).open("r+b") as file:
        file.seek(CHUNK + 7)
        was = file.read(3)
        file.seek(CHUNK + 7)
        file.write(bytes(byte ^ 0xFF for byte in was))


def cut_short(directory: Path) -> None:
    """The last half chunk is gone, and a small file."""
    (directory / "config.json").unlink()
    with weights(directory).open("r+b") as file:
        file.truncate(weights(directory).stat().st_size - CHUNK // 2)


def spoilt(rig: Rig, spoil: Callable[[Path], None]) -> None:
    stage = rig.stage(B).resolve()
    assert verify([stage]).bad == ()
    spoil(stage)
    assert verify([stage]).bad == (str(stage),)


@pytest.mark.parametrize(("spoil", "restarted"), [(overwrite, True), (cut_short, False)])
async def test_a_spoilt_stage_is_mended_by_its_bad_chunks_alone(
    rig: Rig, spoil: Callable[[Path], None], restarted: bool
) -> None:
    plan = plan_of((B,), parts(6, (B,), tied=False))
    async with rig.nodes(ORIGIN):
        async with rig.nodes(B):
            await rig.plan(plan)
            assert isinstance(await rig.ending(), JobCompleted)
            if not restarted:
                spoilt(rig, spoil)
                await rig.plan(plan, generation=2)
                assert isinstance(await rig.ending(generation=2), JobCompleted)
        if restarted:
            spoilt(rig, spoil)
            async with rig.nodes(B):
                await rig.plan(plan, generation=2)
                assert isinstance(await rig.ending(generation=2), JobCompleted)
    report = verify([rig.stage(B)], rig.model)
    assert report.ok, report.problems
    fact = (await rig.delivered(generation=2))[B]
    assert 0 < sources_of(fact)["origin"] <= 3 * CHUNK
    assert sum(sources_of(fact).values()) == fact.size_bytes
