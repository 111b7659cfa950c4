"""Which processes `williw up` starts, and with which settings."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from config import load
from config.settings import Settings
from services.console.household import SERVICES, Child, household, local_nodes

_HOME = Path("/h")


def _of(child: Child) -> Settings:
    """The settings a child process reads out of the environment it is given."""
    return load.load(environ=load.as_environ(child.overrides))


@given(st.integers(1, 64), st.integers(2**30, 2**45), st.integers(2**30, 2**45))
def test_local_nodes_share_the_machine_and_are_the_same_each_time(
    count: int, memory_bytes: int, disk_bytes: int
) -> None:
    nodes = local_nodes(count, memory_bytes, disk_bytes)
    assert nodes == local_nodes(count, memory_bytes, disk_bytes)
    assert len({node.node_id for node in nodes}) == count
    assert sum(node.memory_bytes for node in nodes) <= memory_bytes // 2
    assert sum(node.disk_bytes or 0 for node in nodes) <= disk_bytes


def test_three_local_nodes_are_of_three_kinds() -> None:
    nodes = local_nodes(3, 2**34, 2**40)
    assert len({node.compute_gflops for node in nodes}) == 3
    assert len({node.memory_bytes for node in nodes}) == 3


def test_every_service_is_a_child_and_every_node_has_a_distributor() -> None:
    nodes = local_nodes(3, 2**34, 2**40)
    kept = household(_HOME, nodes, "nats://127.0.0.1:1", ["/models"])
    names = [child.name for child in kept]
    assert {child.service for child in kept} == set(SERVICES)
    assert [n for n in names if n.startswith("distributor-")] == [
        f"distributor-{node.node_id}" for node in nodes
    ]
    assert names[0] == "requester"
    assert names[-1] == "planner"


def test_children_read_back_the_settings_they_are_given() -> None:
    nodes = local_nodes(2, 2**34, 2**40)
    kept = household(_HOME, nodes, "nats://127.0.0.1:1", ["/a b", "/c,d"])
    for child in kept:
        settings = _of(child)
        assert settings.bus.url == "nats://127.0.0.1:1"
        if child.service != "distributor":
            assert (settings.node.node_id, settings.node.origin) == ("node_001", True)
            assert settings.home == _HOME
    downloader = next(child for child in kept if child.service == "downloader")
    assert _of(downloader).downloader.local_roots == ("/a b", "/c,d")


def test_each_node_keeps_its_stages_apart_and_offers_what_it_stands_for() -> None:
    nodes = local_nodes(2, 2**34, 2**40)
    kept = household(_HOME, nodes, "nats://127.0.0.1:1", [])
    found = [_of(child) for child in kept if child.service == "distributor"]
    assert [s.models_dir for s in found] == [
        _HOME / "nodes" / "node_001" / "models",
        _HOME / "nodes" / "node_002" / "models",
    ]
    assert [s.home for s in found] == [_HOME, _HOME / "nodes" / "node_002"]
    for settings, node in zip(found, nodes, strict=True):
        assert settings.node.compute_gflops == node.compute_gflops
        assert settings.node.memory_bytes == node.memory_bytes
        assert settings.node.disk_bytes == node.disk_bytes
