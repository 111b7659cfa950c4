"""What an origin writes of the stages it serves: none, its own, or all of them."""

import msgspec
import pytest

from messages.ids import NodeId
from messages.jobs import JobCompleted
from services.checkpoint.shelf import OriginShelf, manifest_of
from services.checkpoint.stage import verify
from tests.integration.delivery.rig import ORIGIN, Rig, parts, plan_of

NODES = (ORIGIN, NodeId("b"), NodeId("c"))


@pytest.mark.parametrize(
    ("materialize", "written"), [("none", ()), ("own", (ORIGIN,)), ("all", NODES)]
)
async def test_an_origin_writes_the_stages_it_is_told_to_and_serves_all(
    rig: Rig, materialize: str, written: tuple[NodeId, ...]
) -> None:
    splitter = msgspec.structs.replace(rig.settings.splitter, materialize=materialize)
    rig.settings = msgspec.structs.replace(rig.settings, splitter=splitter)
    async with rig.nodes(*NODES):
        await rig.plan(plan_of(NODES, parts(6, NODES)))
        assert isinstance(await rig.ending(), JobCompleted)
    assert verify([rig.stage(node) for node in NODES], rig.model).problems == ()
    shelf = OriginShelf(rig.settings.origin_dir / "stages")
    kept = {manifest_of(shelf.manifest(sha256) or b"").node_id: sha256 for sha256 in shelf}
    assert set(kept) == set(NODES)
    places = {node: shelf.files(sha256) for node, sha256 in kept.items()}
    assert {node for node, place in places.items() if place} == set(written)
    assert verify([place for place in places.values() if place]).problems == ()
    assert not list(shelf.root.glob(".making-*"))
