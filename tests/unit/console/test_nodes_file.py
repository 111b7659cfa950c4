"""A file of nodes is read strictly: what is written is what is planned for."""

import contextlib
import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages.ids import NodeId
from messages.nodes import Node
from services.console.nodes_file import (
    BadNodesFile,
    ids_given,
    nodes_added,
    parse_nodes,
    read_nodes,
)

_FINITE = st.floats(min_value=0.001, max_value=1e9)
_NODES = st.builds(
    Node,
    node_id=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True).map(NodeId),
    compute_gflops=_FINITE,
    memory_bytes=st.integers(0, 2**50),
    disk_bytes=st.none() | st.integers(0, 2**50),
    bandwidth_mbps=st.none() | _FINITE,
    latency_s=st.none() | _FINITE,
    cpu_percent=st.none() | st.floats(0, 100),
    gpu_name=st.none() | st.from_regex(r"[A-Za-z0-9 ]{1,20}", fullmatch=True),
)
_LISTS = st.lists(_NODES, min_size=1, max_size=6, unique_by=lambda node: node.node_id)


def _toml(nodes: list[Node]) -> bytes:
    lines: list[str] = []
    for node in nodes:
        lines.append("[[nodes]]")
        for key, value in msgspec.to_builtins(node).items():
            lines.append(f"{key} = {msgspec.json.encode(value).decode()}")
    return "\n".join(lines).encode()


@given(_LISTS)
def test_the_nodes_come_back_as_written_in_json_and_in_toml(nodes: list[Node]) -> None:
    assert parse_nodes(msgspec.json.encode(nodes)) == tuple(nodes)
    assert parse_nodes(msgspec.json.encode({"nodes": nodes})) == tuple(nodes)
    text = _toml(nodes)
    tomllib.loads(text.decode())
    assert parse_nodes(text) == tuple(nodes)


@given(_LISTS)
def test_an_id_given_twice_is_refused(nodes: list[Node]) -> None:
    with pytest.raises(BadNodesFile, match="more than once"):
        parse_nodes(msgspec.json.encode([*nodes, nodes[0]]))


@given(st.binary(max_size=200))
def test_any_bytes_are_nodes_or_refused_with_words(body: bytes) -> None:
    nodes: tuple[Node, ...] | None = None
    with contextlib.suppress(BadNodesFile):
        nodes = parse_nodes(body)
    assert nodes is None or nodes


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[]", "lists no node"),
        (b"7", "not TOML"),
        (b'{"node": []}', "must be a list of nodes"),
        (b'[{"node_id": "a", "compute_gflop": 1, "memory_bytes": 1}]', "did you mean compute_gfl"),
        (b'[{"node_id": "a", "memory_bytes": 1}]', "compute_gflops"),
        (b'[{"node_id": "a.b", "compute_gflops": 1, "memory_bytes": 1}]', "node_id"),
        (b'[{"node_id": "a", "compute_gflops": 0, "memory_bytes": 1}]', "compute_gflops"),
        (b'[{"node_id": "a", "compute_gflops": 1, "memory_bytes": -1}]', "memory_bytes"),
        (b'[{"node_id": "a", "compute_gflops": 1, "memory_bytes": 1.5}]', "memory_bytes"),
        (b'["a"]', "node 1: must be a mapping"),
        (b"[{", "not JSON"),
        (b"nodes = 3", "must be a list"),
    ],
)
def test_what_a_node_cannot_be_is_said(body: bytes, words: str) -> None:
    with pytest.raises(BadNodesFile, match=words):
        parse_nodes(body)


def test_whole_numbers_may_be_written_with_an_exponent() -> None:
    (node,) = parse_nodes(b'[{"node_id": "a", "compute_gflops": 1e2, "memory_bytes": 8e9}]')
    assert node.memory_bytes == 8_000_000_000


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadNodesFile, match="No such file"):
        read_nodes(tmp_path / "absent.json")


def test_added_nodes_and_ids_of_the_command_line_are_checked() -> None:
    assert nodes_added([]) == ()
    (node,) = nodes_added(['{"node_id": "a", "compute_gflops": 1, "memory_bytes": 2}'])
    assert node.node_id == "a"
    with pytest.raises(BadNodesFile, match="not JSON"):
        nodes_added(["{"])
    with pytest.raises(Exception, match="no node id"):
        ids_given(["a b"])
