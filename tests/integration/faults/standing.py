"""A house of one origin in the test's own process, whose services must stand whatever is sent."""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings
from messages.dead import DeadLetter
from messages.jobs import JobCompleted
from messages.subjects import DEAD_LETTERS, Subject
from messages.wire import decode
from services.distributor.service import build as build_distributor
from services.runtime import provision
from services.runtime.bus import Bus, open_bus
from services.runtime.service import Service
from tests.integration.faults.tiny import write_model
from tests.integration.flow.house import NODES, ORIGIN_BUILDS, House
from tests.loopback_hub.server import LoopbackHub

ANSWER_S = 60.0
ORIGIN = NODES[0]


@pytest.fixture
async def bus(settings: Settings, hub: LoopbackHub) -> AsyncIterator[Bus]:
    """A provisioned bus of the test's own; the Hub that services ask is an empty one."""
    del hub
    async with open_bus(settings, "test") as opened:
        await provision.provision_storage(opened, settings)
        yield opened


@dataclass
class Standing:
    """A house that runs, everything it serves, and the dead letters that were heard."""

    house: House
    services: list[Service]
    letters: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    subjects: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    @property
    def hearers(self) -> dict[str, set[str]]:
        """Each pattern that is heard, with the services that hear it."""
        found: dict[str, set[str]] = defaultdict(set)
        for service in self.services:
            for route in service.routes:
                found[route.subject.pattern].add(service.name)
        return found

    @property
    def heard(self) -> list[Subject[Any]]:
        """Every subject of a route, once."""
        every = {route.subject.pattern: route.subject for s in self.services for route in s.routes}
        return list(every.values())

    async def listen(self) -> None:
        """Hear every dead letter from now on."""

        async def one(message: Any) -> None:
            letter = decode(message.data, DeadLetter)
            self.letters[letter.stream_sequence].add(letter.service)
            self.subjects[letter.subject].add(letter.service)

        await self.house.bus.client.subscribe(DEAD_LETTERS, cb=one)


@asynccontextmanager
async def a_standing_house(
    bus: Bus, settings: Settings, root: Path, sections: Mapping[str, dict[str, Any]] | None = None
) -> AsyncIterator[Standing]:
    """One origin with all services in this process. A task of it that dies raises out of this."""
    roots = {"downloader": {"local_roots": (str(root / "models"),)}}
    house = House(bus, settings, root / "nodes", {**roots, **(sections or {})})
    builds = (*ORIGIN_BUILDS, build_distributor)
    standing = Standing(house, [build(house.of(ORIGIN), bus) for build in builds])
    await standing.listen()
    async with house.open(NODES[:1]):
        yield standing
        await still_works(house, root)


async def still_works(house: House, tmp_path: Path) -> None:
    """A good job comes to its good end."""
    model = write_model(tmp_path / "models" / "tiny")
    ended = await house.bring(str(model))
    assert isinstance(ended, JobCompleted), ended
