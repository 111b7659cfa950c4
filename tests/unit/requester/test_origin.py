"""Which node holds the model of a job."""

import pytest

from messages.ids import NodeId
from messages.jobs import ModelRequest
from services.requester.origin import NoOrigin, choose_origin
from tests.bus_fixture import entry

OWN = NodeId("own")


def request(node_id: str | None = None) -> ModelRequest:
    return ModelRequest(model_name="m", node_id=None if node_id is None else NodeId(node_id))


def test_its_own_node_comes_first_where_it_may_hold_models() -> None:
    live = [entry("big", origin=True, disk_free_bytes=1 << 40)]
    assert choose_origin(request(), OWN, True, live) == OWN
    assert choose_origin(request("own"), OWN, False, ()) == OWN


def test_else_the_live_origin_with_the_most_free_disk() -> None:
    live = [
        entry("a", origin=True, disk_free_bytes=5),
        entry("b", origin=True, disk_free_bytes=9),
        entry("c", origin=False, disk_free_bytes=99),
    ]
    assert choose_origin(request(), OWN, False, live) == "b"
    assert choose_origin(request("a"), OWN, True, live) == "a"


def test_a_node_that_is_no_live_origin_is_refused_with_those_that_are() -> None:
    live = [entry("a", origin=True), entry("c")]
    with pytest.raises(NoOrigin, match=r"node c is not a live origin; live origins: a"):
        choose_origin(request("c"), OWN, True, live)
    with pytest.raises(NoOrigin, match="no origin is alive"):
        choose_origin(request(), OWN, False, [entry("c")])
