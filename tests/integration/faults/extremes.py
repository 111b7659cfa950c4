"""Messages that a reader must take, one number in each as small or large as its type lets."""

import math
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from messages.base import Message
from messages.wire import decode, encode

# Facts that carry a request are varied elsewhere: the requests themselves are.
_ELSEWHERE = frozenset({"request"})


def extremes(message: Message, full: Message) -> Iterator[tuple[str, Message]]:
    """Each variant of `message` with the number's place and value; `full` fills what it lacks."""
    kind = type(message)
    told, whole = (msgspec.json.decode(encode(one)) for one in (message, full))
    for place, value in _varied(inspect.type_info(kind), told, whole):
        yield f"{kind.__name__}{place}", decode(msgspec.json.encode(value), kind)


def _varied(kind: inspect.Type, value: Any, full: Any) -> Iterator[tuple[str, Any]]:
    match kind:
        case inspect.IntType() | inspect.FloatType():
            yield from ((f" = {bound!r}", bound) for bound in _bounds(kind))
        case inspect.UnionType():
            for member in kind.types:
                yield from _varied(member, value, full)
        case inspect.StructType():
            if value or full:
                yield from _of_fields(kind, value or full, full or {})
        case inspect.VarTupleType():
            one = (value or full or [None])[0]
            for place, changed in _varied(kind.item_type, one, (full or [None])[0]):
                yield f"[0]{place}", [changed, *(value or ())[1:]]


def _of_fields(
    kind: inspect.StructType, value: dict[str, Any], full: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    for field in kind.fields:
        if field.name in _ELSEWHERE:
            continue
        name = field.encode_name
        for place, changed in _varied(field.type, value.get(name), full.get(name)):
            yield f".{name}{place}", {**value, name: changed}


def _bounds(kind: inspect.IntType | inspect.FloatType) -> tuple[float, float]:
    """The least and the greatest number that this type takes."""
    whole = isinstance(kind, inspect.IntType)
    assert kind.ge is not None or kind.gt is not None, f"{kind} has no lower bound"
    assert kind.le is not None or kind.lt is not None, f"{kind} has no upper bound"
    least, most = kind.ge, kind.le
    if least is None:
        least = kind.gt + 1 if whole else math.nextafter(kind.gt, math.inf)  # type: ignore[operator,arg-type]
    if most is None:
        most = kind.lt - 1 if whole else math.nextafter(kind.lt, -math.inf)  # type: ignore[operator,arg-type]
    return least, most
