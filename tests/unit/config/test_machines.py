"""A machine's name becomes a node's id: legal, the same each time, another for another machine."""

from hypothesis import given
from hypothesis import strategies as st

from config import load
from config.machines import node_id_of
from messages.ids import is_id

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(LABEL, min_size=1, max_size=12).map(".".join)


def test_a_name_without_dots_is_its_id() -> None:
    assert node_id_of("gpu-1") == "gpu-1"


def test_dots_become_what_no_machine_is_called() -> None:
    assert node_id_of("ip-10-0-0-7.eu.example.com") == "ip-10-0-0-7_eu_example_com"
    assert node_id_of("gpu-1.example") != node_id_of("gpu-1-example")


@given(NAMES, NAMES)
def test_two_machines_of_a_cluster_are_two_nodes(one: str, other: str) -> None:
    assert (node_id_of(one) == node_id_of(other)) == (one == other)


@given(st.text(max_size=300))
def test_whatever_a_machine_is_called_its_id_is_legal(name: str) -> None:
    assert is_id(node_id_of(name))


def test_long_names_that_begin_alike_stay_two() -> None:
    begin = "very-long-name." * 10
    assert node_id_of(f"{begin}a") != node_id_of(f"{begin}b")
    assert len(node_id_of(f"{begin}a")) == 64


def test_a_service_is_told_its_machine_and_finds_its_id() -> None:
    environ = {"WILLIW_NODE_MACHINE": "worker-1.example.com"}
    assert load.load(environ=environ).node.node_id == "worker-1_example_com"
    assert load.load(environ={**environ, "NODE_ID": "chosen"}).node.node_id == "chosen"
