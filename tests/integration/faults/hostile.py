"""Bodies that no service can read, the same in each run."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from messages.base import Message
from messages.failures import Permanent
from messages.subjects import Api, Subject
from messages.wire import decode, decode_any

IDS = ("", " ", ".", "..", "*", ">", "$JS", "a.b", "a\nb", "-a", "é", "../../etc", "\0", "x" * 65)
BODIES = (
    b"",
    b" ",
    b"\xff\xfe\x00",
    b"null",
    b"[]",
    b'"\xed\xa0\x80"',
    b"{",
    b'{"type":',
    b"[" * 100_000,
    b'{"type":' * 50_000,
    b'{"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    b'{"type": "NoSuchThing", "job_id": "j"}',
    b'{"generation": NaN}',
    b'{"generation": 1e999, "job_id": 1}',
    b'{"generation": ' + b"9" * 5_000 + b"}",
    bytes(900 << 10),
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(IDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def drawn(strategy: st.SearchStrategy[bytes], count: int) -> list[bytes]:
    """Examples of a strategy, the same in each run."""
    found: list[bytes] = []

    @examples(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(body: bytes) -> None:
        found.append(body)

    collect()
    return found


def shaped(kinds: Iterable[type[Message]], ids: dict[str, object]) -> st.SearchStrategy[bytes]:
    """JSON with the fields of these messages, nearly: the tag and the ids are right, no more."""

    def of(kind: type[Message]) -> st.SearchStrategy[bytes]:
        names = [f.encode_name for f in msgspec.structs.fields(kind) if f.name not in ids]
        tag = {"type": kind.__name__, **ids}
        values = st.fixed_dictionaries({}, optional=dict.fromkeys(names, _VALUES))
        return values.map(lambda given: json.dumps(tag | given).encode("utf-8", "replace"))

    return st.one_of([of(kind) for kind in kinds])


def unreadable(bodies: Iterable[bytes], read: Callable[[bytes], object]) -> list[bytes]:
    """Those that are no message of that kind."""
    kept = []
    for body in bodies:
        try:
            read(body)
        except Permanent:
            kept.append(body)
    return kept


def hostile(subject: Subject[Any], ids: dict[str, object]) -> list[bytes]:
    """Bodies that no service hearing this subject can read."""
    others = [json.dumps({"type": kind.__name__, **ids}) for kind in subject.types]
    wrong = [json.dumps({**ids, "job_id": odd, "origin": odd, "node_id": odd}) for odd in IDS]
    texts = [*BODIES, *(text.encode() for text in (*others, *wrong))]
    made = drawn(st.binary(max_size=60), 6) + drawn(shaped(subject.types, ids), 16)
    return unreadable([*texts, *made], lambda body: decode_any(body, subject.types))


def unreadable_questions(api: Api[Any, Any]) -> list[bytes]:
    """Bodies that are no question of this endpoint; an empty one asks with no wishes."""
    odd = [json.dumps({"job_id": i, "model_name": i, "node_id": i, "nodes": i}) for i in IDS]
    made = drawn(st.binary(max_size=60), 6) + drawn(shaped([api.question], {}), 16)
    bodies = [*BODIES, *(text.encode() for text in odd), *made]
    return unreadable(bodies, lambda body: decode(body or b"{}", api.question))
