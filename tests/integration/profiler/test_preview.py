"""A preview of a Hub model on the bus: the profiler reads headers, the planner plans."""

import msgspec
import pytest

from config.settings import Settings
from messages.api import PreviewRequest
from messages.ids import NodeId
from messages.jobs import ModelRequest
from messages.nodes import Node
from messages.subjects import API_PREVIEW
from services.planner import service as planner
from services.profiler import service as profiler
from services.runtime.bus import Bus, Refused
from tests.bus_fixture import running
from tests.integration.profiler.test_from_the_hub import repository
from tests.loopback_hub.server import LoopbackHub


async def test_a_hub_model_is_previewed_without_its_weights(
    bus: Bus, settings: Settings, hub: LoopbackHub
) -> None:
    closed = msgspec.structs.replace(
        settings, profiler=msgspec.structs.replace(settings.profiler, exact=False)
    )
    hub.add("org/model", repository())
    nodes = (Node(node_id=NodeId("n1"), compute_gflops=1000.0, memory_bytes=1 << 30),)
    question = PreviewRequest(request=ModelRequest(model_name="org/model"), nodes=nodes)
    unknown = PreviewRequest(request=ModelRequest(model_name="org/none"), nodes=nodes)
    async with running(bus, closed, planner.build(closed, bus), profiler.build(closed, bus)):
        answer = await bus.ask(API_PREVIEW, question, timeout_s=60)
        with pytest.raises(Refused, match="not on the Hub, or is private"):
            await bus.ask(API_PREVIEW, unknown, timeout_s=60)
        with pytest.raises(Refused, match="either metadata or a request"):
            await bus.ask(API_PREVIEW, PreviewRequest(nodes=nodes), timeout_s=60)
    assert [a.node_id for a in answer.plan.assignments] == ["n1"]
    assert hub.file_bytes < 2 * 100_000 + 10_000
