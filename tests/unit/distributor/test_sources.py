"""Whom to ask now: in the plan's order, never waiting for ever for those who have nothing."""

import anyio
import pytest

from messages.ids import JobId, NodeId
from services.distributor.failures import Distrusted, NotYet, Silent
from services.distributor.sources import Sources
from services.distributor.transfer import Source

ROUTE = ("a", "b", "c")


class Clock:
    """The event loop's time, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(anyio, "current_time", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def resolve(node_id: str) -> Source:
    return Source(node_id, f"http://{node_id}", JobId("j"), NodeId("x"), "secret")


async def not_yet(sources: Sources, node_id: str, clock: Clock) -> None:
    await sources.troubled(NotYet(node_id, "has it not"))
    clock.now += 2.0


async def test_two_sources_that_never_have_it_do_not_keep_a_third_from_being_asked(
    clock: Clock,
) -> None:
    sources = Sources(resolve)
    asked: list[str] = []
    while clock.now < 60.0:
        source = await sources.pick(ROUTE)
        clock.now += 0.1
        if source is None:
            continue
        asked.append(source.node_id)
        if source.node_id == "c":
            sources.gave("c")
        else:
            await not_yet(sources, source.node_id, clock)
    assert asked.index("c") < 10
    assert sources.slow == {"a", "b"}
    assert asked.count("c") > len(asked) / 2


async def test_a_source_that_gives_has_its_patience_again(clock: Clock) -> None:
    sources = Sources(resolve, patience_s=8.0)
    for _ in range(6):
        await not_yet(sources, "a", clock)
    clock.now += 6.0
    sources.gave("a")
    await not_yet(sources, "a", clock)
    picked = await sources.pick(ROUTE)
    assert picked is not None
    assert picked.node_id == "a"


async def test_silence_is_slow_and_only_wrong_bytes_are_distrusted(clock: Clock) -> None:
    sources = Sources(resolve)
    await sources.troubled(Silent("a", "withheld it"))
    picked = await sources.pick(ROUTE)
    assert picked is not None
    assert picked.node_id == "b"
    await sources.troubled(Distrusted("b", "altered it"))
    assert (sources.slow, sources.distrusted) == ({"a"}, {"b"})
    clock.now += 31.0
    again = await sources.pick(ROUTE)
    assert again is not None
    assert again.node_id == "a"
