"""Finding a key that JSON says twice, which every fast decoder lets pass (the last one wins)."""

import re

import msgspec

# Where no string holds an escape, a quotation mark before a colon ends a key, and nothing else.
_KEY = re.compile(rb'"[ \t\r\n]*:')
_FIELDS = (b'"dtype"', b'"shape"', b'"data_offsets"')


class _Twice(Exception):
    """Raised from within the decoder to stop at the first repeated key."""


def duplicate_key(body: bytes, count: int, metadata: bytes = b"") -> str | None:
    """A key that occurs twice in one object of a header of `count` tensors, or None.

    Every tensor must spell each field once, so without escapes and with exactly `count` of each
    there can be no second one, nor a second tensor of a name. A header that merely looks unusual is
    read again, slowly. Inside `__metadata__`, whose value is `metadata`, only the slow way looks:
    free text, whose escapes and words say nothing of the tensors.
    """
    usual = (
        occurs(b"\\", body, metadata) == 0
        and occurs(b'"__metadata__"', body, metadata) <= 1
        and all(occurs(field, body, metadata) == count for field in _FIELDS)
    )
    return None if usual else repeated_key(body)


def occurs(text: bytes, body: bytes, metadata: bytes) -> int:
    """How often a header says `text` outside its `metadata`."""
    return body.count(text) - metadata.count(text)


def repeated_key(body: bytes) -> str | None:
    """A key that occurs twice in one object anywhere in the JSON `body`, or None.

    Raises msgspec.DecodeError or RecursionError where it is no JSON. As many keys as a decoder
    keeps are all there is; anything unusual is read again, slowly.
    """
    if b"\\" not in body and len(_KEY.findall(body)) == _keys(msgspec.json.decode(body)):
        return None
    import json  # a tenth of this room's start-up, for headers that hardly occur

    try:
        json.loads(body, object_pairs_hook=_refuse_repeats)
    except _Twice as found:
        return str(found)
    return None


def _keys(value: object) -> int:
    """How many keys all objects in a decoded value have."""
    if isinstance(value, dict):
        return len(value) + sum(map(_keys, value.values()))
    return sum(map(_keys, value)) if isinstance(value, list) else 0


def _refuse_repeats(pairs: list[tuple[str, object]]) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise _Twice(key)
        seen.add(key)
