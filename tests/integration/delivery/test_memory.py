"""A node and the origin hold little of a model, however much of it they receive and serve."""

import pytest

from messages.ids import NodeId
from messages.jobs import JobCompleted
from services.checkpoint.stage import verify
from tests.integration.delivery.memory import delivered_by
from tests.integration.delivery.rig import ORIGIN, Rig, parts, plan_of, write_model

NODES = (NodeId("b"), NodeId("c"))
MOST_MIB = 48
"""Less than the model, and than the 64 MB that a node may take; a node took 9 to 15 here."""


@pytest.mark.timeout(180)
@pytest.mark.parametrize("copies", [True, False], ids=["kept and relayed", "passed through"])
async def test_no_process_holds_the_model(rig: Rig, copies: bool) -> None:
    rig.model = write_model(rig.root / "larger", layers=20, size=1024)
    size = sum(path.stat().st_size for path in rig.model.glob("*.safetensors"))
    assert size > 4 * MOST_MIB << 20
    held = parts(20, NODES[:1], tied=False) * 2 if copies else parts(20, NODES, tied=False)
    ended, found = await delivered_by(
        rig, plan_of(NODES, held, topology="chain", copies=copies), (ORIGIN, *NODES)
    )
    assert isinstance(ended, JobCompleted), ended
    assert {name: one for name, one in found.items() if one.above > MOST_MIB} == {}
    for node in NODES if copies else ():
        assert verify([rig.stage(node)], rig.model).ok
