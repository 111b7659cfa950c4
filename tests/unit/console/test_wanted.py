"""A request that cannot be is refused in words for people, by the rule that was broken."""

from typing import Any

import msgspec
import pytest

from messages.jobs import ModelRequest
from services.console.failures import Usage
from services.console.wanted import request_for


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("org/name/extra", {}, "a model is `name` or `org/name` on the Hub"),
        ("org/..", {}, "a model is `name` or `org/name` on the Hub"),
        ("org/name", {"revision": "a..b"}, "a revision is a branch, a tag or a commit"),
        ("org/name", {"batch_size": 0}, "a batch is a whole number of sequences, from 1 to 65,536"),
        ("org/name", {"sequence_length": 2**25}, "tokens, from 1 to 16,777,216"),
        ("org/name", {"timeout_s": -1.0}, "seconds above 0, at most 366 days"),
    ],
)
def test_a_request_that_cannot_be_is_told_the_rule_it_breaks(
    name: str, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(Usage) as refused:
        request_for(name, **fields)
    assert said in refused.value.reason
    for jargon in ("Expected", "regex", "$."):
        assert jargon not in refused.value.reason


@pytest.mark.parametrize(
    ("field", "largest"), [("batch_size", 65_536), ("sequence_length", 16_777_216)]
)
def test_the_bounds_that_are_told_are_those_that_hold(field: str, largest: int) -> None:
    for value in (1, largest):
        assert msgspec.to_builtins(request_for("org/name", **{field: value}))[field] == value  # type: ignore[arg-type]
    for value in (0, largest + 1):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"type": "ModelRequest", "model_name": "a", field: value}, ModelRequest)
