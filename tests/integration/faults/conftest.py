"""A nursery for the whole run, and for each test a bus and a house of its own."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from services.console.embedded import EmbeddedNats
from services.runtime.bus import Bus, open_bus
from tests.integration.faults.house import House, Processes

MakeHouse = Callable[..., House]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedNats]:
    """A nats-server of the test's own."""
    with EmbeddedNats(tmp_path / "nats") as server:
        yield server


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """The nursery of this run."""
    with closing(Processes(tmp_path_factory.mktemp("nursery"))) as processes:
        yield processes


@pytest.fixture
def make_house(processes: Processes, tmp_path: Path) -> Iterator[MakeHouse]:
    """Makes a provisioned house; nothing of it runs yet, and all of it ends with the test."""

    def make(url: str, sections: Mapping[str, Mapping[str, object]] | None = None) -> House:
        house = House(tmp_path, url, processes, sections or {})
        house.provision()
        return house

    yield make
    processes.end_all()


@pytest.fixture
def house(make_house: MakeHouse, server: EmbeddedNats) -> House:
    """A provisioned house on the test's server."""
    return make_house(server.url)


@pytest.fixture
async def bus(house: House) -> AsyncIterator[Bus]:
    """The test's own connection."""
    async with open_bus(house.settings, "test") as opened:
        yield opened
