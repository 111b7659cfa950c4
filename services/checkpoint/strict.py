"""Finding a key that JSON says twice, which every fast decoder lets pass (the last one wins)."""

_FIELDS = (b'"dtype"', b'"shape"', b'"data_offsets"')


class _Twice(Exception):
    """Raised from within the decoder to stop at the first repeated key."""


def duplicate_key(body: bytes, count: int) -> str | None:
    """A key that occurs twice in one object of a header of `count` tensors, or None.

    Every tensor must spell each field once, so without escapes and with exactly `count` of each
    there can be no second one, nor a second tensor of a name. A header that merely looks unusual is
    read again, slowly. Inside `__metadata__` only the slow way looks.
    """
    usual = (
        b"\\" not in body
        and body.count(b'"__metadata__"') <= 1
        and all(body.count(field) == count for field in _FIELDS)
    )
    return None if usual else repeated_key(body)


def repeated_key(body: bytes) -> str | None:
    """A key that occurs twice in one object anywhere in the JSON `body`, or None."""
    import json  # a tenth of this room's start-up, for headers that hardly occur

    try:
        json.loads(body, object_pairs_hook=_refuse_repeats)
    except _Twice as found:
        return str(found)
    return None


def _refuse_repeats(pairs: list[tuple[str, object]]) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise _Twice(key)
        seen.add(key)
