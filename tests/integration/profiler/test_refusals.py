"""What the Hub refuses, as `williw.api.profile` and `williw.api.preview` say it on the bus."""

from collections.abc import Awaitable, Callable

import msgspec
import pytest

from config.settings import Settings
from messages.api import PreviewRequest
from messages.ids import NodeId
from messages.jobs import ModelRequest
from messages.nodes import Node
from messages.subjects import API_PREVIEW, API_PROFILE
from services.planner import service as planner
from services.profiler import service as profiler
from services.runtime.bus import Bus, Refused
from tests.bus_fixture import running
from tests.integration.profiler.test_from_the_hub import repository
from tests.loopback_hub.server import LoopbackHub

TOKEN, OTHERS = "hf_readersowntoken0000", "hf_strangerstoken00000"
NODES = (Node(node_id=NodeId("n1"), compute_gflops=1000.0, memory_bytes=1 << 30),)
Asks = Callable[..., Awaitable[list[Refused]]]


@pytest.fixture
def asks(bus: Bus, settings: Settings) -> Asks:
    """How both endpoints refuse models."""
    closed = msgspec.structs.replace(
        settings, profiler=msgspec.structs.replace(settings.profiler, exact=False)
    )

    async def both(*model_names: str) -> list[Refused]:
        found = []
        async with running(bus, closed, planner.build(closed, bus), profiler.build(closed, bus)):
            for request in [ModelRequest(model_name=name) for name in model_names]:
                preview = PreviewRequest(request=request, nodes=NODES)
                with pytest.raises(Refused) as profiled:
                    await bus.ask(API_PROFILE, request, timeout_s=60)
                with pytest.raises(Refused) as previewed:
                    await bus.ask(API_PREVIEW, preview, timeout_s=60)
                found += [profiled.value, previewed.value]
        return found

    return both


def told(refusals: list[Refused], reason: str, advice: str) -> None:
    for refusal in refusals:
        assert reason in refusal.reason
        assert advice in refusal.advice
        assert "hf_" not in f"{refusal.reason} {refusal.advice}"


async def test_a_gated_model_needs_its_owners_consent_and_a_token(
    hub: LoopbackHub, asks: Asks
) -> None:
    hub.add("org/gated", repository(), gated=True, reader_token=TOKEN)
    told(await asks("org/gated"), "org/gated: is gated", f"ask on {hub.url}/org/gated, then set")


async def test_a_gated_model_says_that_the_tokens_account_has_no_access(
    hub: LoopbackHub,
    asks: Asks,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub.add("org/gated", repository(), gated=True, reader_token=TOKEN)
    monkeypatch.setenv("HF_TOKEN", OTHERS)
    told(await asks("org/gated"), "the account of HF_TOKEN has no access", "with that account")


@pytest.mark.parametrize("token", ["", OTHERS])
async def test_a_private_model_is_not_told_from_none_at_all(
    hub: LoopbackHub,
    asks: Asks,
    monkeypatch: pytest.MonkeyPatch,
    token: str,
) -> None:
    hub.add("org/private", repository(), private=True, reader_token=TOKEN)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    refusals = await asks("org/private", "org/none")
    told(refusals, "is not on the Hub, or is private", "for a private model set HF_TOKEN on")
    ways = {refusal.reason.partition(": ")[2] for refusal in refusals}
    assert len(ways) == 1


async def test_a_hub_that_is_down_is_named(
    hub: LoopbackHub,
    asks: Asks,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with LoopbackHub() as other:
        address = other.url.removeprefix("http://")
        monkeypatch.setenv("HF_ENDPOINT", f"http://us:hf_secret@{address}")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    told(
        await asks("org/model"),
        f"no answer from the Hub at {address}: connect",
        "try again in a moment",
    )


async def test_offline_means_offline(
    hub: LoopbackHub,
    asks: Asks,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.add("org/model", repository())
    told(await asks("org/model"), "HF_HUB_OFFLINE forbids asking the Hub", "unset HF_HUB_OFFLINE")
    assert hub.requests == []


async def test_the_reader_of_a_gated_model_is_answered(
    hub: LoopbackHub, bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = msgspec.structs.replace(
        settings, profiler=msgspec.structs.replace(settings.profiler, exact=False)
    )
    hub.add("org/gated", repository(), gated=True, reader_token=TOKEN)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    request = ModelRequest(model_name="org/gated")
    preview = PreviewRequest(request=request, nodes=NODES)
    async with running(bus, closed, planner.build(closed, bus), profiler.build(closed, bus)):
        answer = await bus.ask(API_PROFILE, request, timeout_s=60)
        assert answer.metadata.size_bytes > 0
        planned = await bus.ask(API_PREVIEW, preview, timeout_s=60)
    assert [a.node_id for a in planned.plan.assignments] == ["n1"]
