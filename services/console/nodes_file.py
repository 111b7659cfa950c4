"""A file of nodes, JSON or TOML, read strictly: a typo must not pass. Pure but for `read_nodes`."""

import difflib
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from messages.ids import NodeId, is_id
from messages.nodes import Node
from services.console.failures import Usage

_FIELDS = tuple(field.encode_name for field in msgspec.structs.fields(Node))
_ADVICE = (
    '[{"node_id": "node_001", "compute_gflops": 400, "memory_bytes": 8000000000}, …] is a nodes '
    "file; `williw schema Node` lists every key"
)


class BadNodesFile(Usage):
    """A file of nodes cannot be read or says something a node cannot be."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}", advice=_ADVICE)


def read_nodes(file: Path) -> tuple[Node, ...]:
    """The nodes that `file` lists, in its order; BadNodesFile says what is wrong where."""
    try:
        body = file.read_bytes()
    except OSError as error:
        raise BadNodesFile(str(file), error.strerror or type(error).__name__) from None
    return parse_nodes(body, str(file))


def parse_nodes(body: bytes, where: str = "nodes") -> tuple[Node, ...]:
    """The nodes in JSON (a list, or an object with `nodes`) or TOML (tables `[[nodes]]`)."""
    value = _parsed(body, where)
    if isinstance(value, dict):
        if set(value) != {"nodes"}:
            raise BadNodesFile(where, "must be a list of nodes, or hold one list named `nodes`")
        value = value["nodes"]
    if not isinstance(value, list):
        raise BadNodesFile(where, "must be a list of nodes")
    nodes = tuple(node_of(entry, f"{where}, node {i + 1}") for i, entry in enumerate(value))
    check_distinct(nodes, where)
    return nodes


def node_of(entry: object, where: str) -> Node:
    """One node from its mapping; unknown keys are errors that name the nearest known one."""
    if not isinstance(entry, dict):
        raise BadNodesFile(where, "must be a mapping of keys to values")
    for key in entry:
        if key not in _FIELDS:
            near = difflib.get_close_matches(str(key), _FIELDS, n=1, cutoff=0.4)
            meant = f"did you mean {near[0]}?" if near else f"known: {', '.join(_FIELDS)}"
            raise BadNodesFile(where, f"unknown key {str(key)[:80]!r}; {meant}")
    try:
        return msgspec.convert(_whole(entry), Node)
    except msgspec.ValidationError as error:
        raise BadNodesFile(where, str(error)) from None


def nodes_added(texts: Sequence[str]) -> tuple[Node, ...]:
    """The nodes of `--add`, each a JSON mapping."""
    try:
        values = [msgspec.json.decode(text) for text in texts]
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadNodesFile("--add", f"not JSON: {error}") from None
    nodes = tuple(node_of(value, "--add") for value in values)
    if nodes:
        check_distinct(nodes, "--add")
    return nodes


def ids_given(texts: Sequence[str]) -> tuple[NodeId, ...]:
    """Node ids of the command line, checked."""
    for text in texts:
        if not is_id(text):
            raise Usage(f"{text[:80]!r} is no node id", advice="letters, digits, - and _ only")
    return tuple(NodeId(text) for text in texts)


def check_distinct(nodes: Sequence[Node], where: str) -> None:
    """BadNodesFile where there is no node, or an id is given twice."""
    if not nodes:
        raise BadNodesFile(where, "lists no node")
    counts = Counter(node.node_id for node in nodes)
    twice = sorted(node_id for node_id, count in counts.items() if count > 1)
    if twice:
        raise BadNodesFile(where, f"node ids given more than once: {', '.join(twice)}")


def _whole(entry: dict[Any, Any]) -> dict[str, Any]:
    """The entry with floats that are whole numbers (`8e9`) as the integers that they are."""
    return {
        key: int(value) if isinstance(value, float) and value.is_integer() else value
        for key, value in entry.items()
    }


def _parsed(body: bytes, where: str) -> object:
    text = body.strip()
    if text[:1] in (b"[", b"{") and not text.startswith(b"[["):
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            json_problem = str(error)
    else:
        json_problem = ""
    try:
        return tomllib.loads(body.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = f"not JSON: {json_problem}" if json_problem else f"not TOML: {error}"
        raise BadNodesFile(where, problem) from None
