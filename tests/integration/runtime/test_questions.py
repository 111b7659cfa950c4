"""Questions and answers of any size, by the NATS services protocol."""

import pytest

from config.settings import Settings
from messages.api import NodesAnswer, NodesQuery, PlanAnswer, PreviewRequest
from messages.documents import Document
from messages.failures import Permanent
from messages.metadata import ModelMetadata
from messages.nodes import NodeEntry
from messages.subjects import API_NODES, API_PREVIEW
from messages.wire import decode, encode
from services.runtime.bus import BY_REFERENCE, Bus
from services.runtime.service import Endpoint, Service
from tests.bus_fixture import entry, running

MANY = 8000


async def nodes(_: NodesQuery) -> NodesAnswer:
    return NodesAnswer(nodes=tuple(entry(f"node-{k}") for k in range(MANY)))


async def refuse(_: PreviewRequest) -> PlanAnswer:
    raise Permanent("never asked")


SERVICE = Service("planner", endpoints=(Endpoint(API_NODES, nodes), Endpoint(API_PREVIEW, refuse)))


async def test_an_answer_larger_than_a_message_comes_by_reference(
    bus: Bus, settings: Settings
) -> None:
    async with running(bus, settings, SERVICE):
        answer = await bus.ask(API_NODES, NodesQuery(), timeout_s=60)
        raw = await bus.client.request(API_NODES.subject, b"{}", timeout=60)
    expected = await nodes(NodesQuery())
    assert answer == expected
    assert len(encode(expected)) > bus.client.max_payload
    assert raw.headers
    assert BY_REFERENCE in raw.headers
    body = await bus.documents.get(decode(raw.data, Document))
    assert body == encode(expected)
    assert {type(found) for found in answer.nodes} == {NodeEntry}


async def test_a_question_larger_than_a_message_is_refused_before_it_is_asked(
    bus: Bus, settings: Settings
) -> None:
    metadata = ModelMetadata(model_name="a" * (bus.client.max_payload + 1))
    with pytest.raises(Permanent, match="more than the 1048576 bytes") as refused:
        await bus.ask(API_PREVIEW, PreviewRequest(metadata=metadata))
    assert refused.value.advice
