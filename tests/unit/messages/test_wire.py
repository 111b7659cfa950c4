"""Messages on the wire: yesterday's bytes decode, tomorrow's fields pass, nonsense does not."""

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages.base import Message
from messages.ids import is_id
from messages.jobs import ModelRequest
from messages.nodes import Node
from messages.progress import Progress
from messages.subjects import COMMANDS, ENDPOINTS, FACTS, PROGRESS
from messages.wire import Undecodable, decode, encode

GOLDEN = Path(__file__).parents[2] / "golden" / "messages"
TRAVELLING: dict[str, type[Message]] = {
    kind.__name__: kind for subject in (*FACTS, *COMMANDS, PROGRESS) for kind in subject.types
} | {kind.__name__: kind for api in ENDPOINTS for kind in (api.question, api.answer)}
# `/`, `.`, wildcards, controls and everything else that must never be a token of a subject.
ESCAPING_NAMES = [
    "../etc", "a/../b", "/models/../etc", "..", "a b", "org/name\n", "a/b/c", "", "~/x", "-x",
    "a\x00b",
]  # fmt: skip
# One for each version of a message that was ever written: NAME.json, NAME.2.json, ...
FILES = {file.name: file for file in GOLDEN.glob("*.json")}
HOSTILE_IDS = ["", ".", "..", "a.b", "*", ">", "a b", "a/b", "a\n", "\x00", "$SYS", "é", "a" * 65]


def test_every_type_that_travels_has_a_golden_file() -> None:
    assert {f"{name}.json" for name in TRAVELLING} <= FILES.keys()
    assert {name.partition(".")[0] for name in FILES} == set(TRAVELLING)


@pytest.mark.parametrize("file", sorted(FILES))
def test_the_bytes_of_every_version_so_far_decode_to_what_they_meant(file: str) -> None:
    body = FILES[file].read_bytes()
    message = decode(body, TRAVELLING[file.partition(".")[0]])
    told = msgspec.json.decode(encode(message))
    _contains(told, msgspec.json.decode(body))


def _contains(told: Any, golden: Any) -> None:
    """Everything golden says is still said; a later version may say more."""
    if isinstance(golden, dict):
        for key, value in golden.items():
            _contains(told[key], value)
    elif isinstance(golden, list):
        assert len(told) == len(golden)
        for one, other in zip(told, golden, strict=True):
            _contains(one, other)
    else:
        assert told == golden


@pytest.mark.parametrize("name", sorted(TRAVELLING))
def test_a_newer_writers_fields_are_ignored(name: str) -> None:
    fields = msgspec.json.decode((GOLDEN / f"{name}.json").read_bytes())
    body = msgspec.json.encode(fields | {"field_of_tomorrow": {"deep": [1, None]}})
    assert decode(body, TRAVELLING[name]) == decode(msgspec.json.encode(fields), TRAVELLING[name])


@pytest.mark.parametrize("name", sorted(TRAVELLING))
def test_another_types_tag_is_refused(name: str) -> None:
    fields = msgspec.json.decode((GOLDEN / f"{name}.json").read_bytes())
    with pytest.raises(Undecodable):
        decode(msgspec.json.encode(fields | {"type": "SomethingElse"}), TRAVELLING[name])


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_undecodable(body: bytes) -> None:
    for kind in TRAVELLING.values():
        try:
            decode(body, kind)
        except Undecodable:
            continue


@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"model_name":"\xff"}', b"", b"null", b"\x00"])
def test_what_breaks_decoders_is_undecodable(body: bytes) -> None:
    with pytest.raises(Undecodable):
        decode(body, ModelRequest)


@pytest.mark.parametrize("hostile", HOSTILE_IDS)
def test_a_hostile_id_is_refused_at_every_door(hostile: str) -> None:
    assert not is_id(hostile)
    for field in ("node_id", "job_id"):
        body = msgspec.json.encode({"model_name": "org/name", field: hostile})
        with pytest.raises(Undecodable):
            decode(body, ModelRequest)


@pytest.mark.parametrize("name", ESCAPING_NAMES)
def test_a_model_name_that_escapes_is_refused(name: str) -> None:
    with pytest.raises(Undecodable):
        decode(msgspec.json.encode({"model_name": name}), ModelRequest)


@pytest.mark.parametrize("name", ["gpt2", "org/name-7B.v1_x", "/srv/models/My Model", "o/n..x"])
def test_a_hub_id_or_an_absolute_path_is_a_model_name(name: str) -> None:
    assert decode(msgspec.json.encode({"model_name": name}), ModelRequest).model_name == name


@pytest.mark.parametrize(
    "fields",
    [
        {"batch_size": 0},
        {"batch_size": -1},
        {"sequence_length": 0},
        {"sequence_length": 10**30},
        {"timeout_s": -1},
        {"timeout_s": 1e999},
        {"timeout_s": 1e300},
        {"timeout_s": 1e10},
        {"timeout_s": "soon"},
        {"wishes": {"headroom": 1}},
        {"revision": "../main"},
    ],
)
def test_absurd_numbers_are_refused(fields: dict[str, object]) -> None:
    body = msgspec.json.encode({"model_name": "a"} | fields)
    body = body.replace(b"null", b"1e999")  # what an infinity is on the wire
    with pytest.raises(Undecodable):
        decode(body, ModelRequest)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_a_number_no_reader_would_take_never_leaves(value: float) -> None:
    fields: dict[str, Any] = {"stage": "x", "node_id": "n", "job_id": "j", "total": 1.0}
    with pytest.raises(Undecodable):
        encode(Progress(done=value, **fields))
    with pytest.raises(Undecodable):
        encode(Node(node_id="n", compute_gflops=value, memory_bytes=1))  # type: ignore[arg-type]


def test_a_relay_that_nobody_wished_for_is_not_written_since_older_planners_know_no_null() -> None:
    request = ModelRequest(model_name="org/name")
    assert "relay" not in msgspec.json.decode(encode(request))["wishes"]
    assert decode(encode(request), ModelRequest) == request
