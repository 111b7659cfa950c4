"""A whole job in which every service has its own key, and no more than its own permissions."""

from pathlib import Path

from messages.ids import NodeId
from messages.jobs import JobCompleted
from services.runtime import connection
from tests.integration.deploy.conftest import NODE, ORIGIN, LockedNats
from tests.integration.deploy.locked_house import everybody, shown
from tests.integration.faults.tiny import write_model


async def test_a_job_comes_to_its_end_and_nobody_is_refused_anything(
    locked: LockedNats, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "models" / "tiny")
    roots = {"downloader": {"local_roots": (str(model.parent),)}}
    seen: list[list[str]] = []
    refused: list[str] = []

    async def look(message: object) -> None:
        seen.append(getattr(message, "subject", "").split(".")[1:3])

    async with everybody(locked, tmp_path / "nodes", refused, roots) as (house, client):
        tap = await connection.connect(shown(house.settings, locked, "tap").bus, "williw-console")
        await tap.subscribe("williw.>", cb=look)
        await tap.flush()
        ended = await client.bring(str(model))
        await tap.close()
        assert not refused
    assert isinstance(ended, JobCompleted), ended
    assert house.verified("local--tiny", [NodeId(ORIGIN), NodeId(NODE)], model).problems == ()
    assert ["shard", "delivered"] in seen
    assert ["job", "ended"] in seen
