"""Bytes to messages and back, with every way a decoder can fail turned into one error."""

from typing import Any, TypeVar, cast

import msgspec

from messages.failures import Permanent

T = TypeVar("T")

_DECODERS: dict[object, msgspec.json.Decoder[Any]] = {}
_ENCODER = msgspec.json.Encoder()


class Undecodable(Permanent):
    """The bytes are not the message they should be; the reason names the field, never its value."""


def encode(message: object) -> bytes:
    """The JSON of a message; Undecodable where a reader would refuse it (a NaN becomes null)."""
    body = _ENCODER.encode(message)
    decode(body, type(message))
    return body


def decode(body: bytes, kind: type[T]) -> T:
    """The message in `body`; Undecodable with the reason where it is none of that kind.

    msgspec may also raise RecursionError (deep JSON) and UnicodeDecodeError.
    """
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.json.Decoder(kind)
    try:
        return cast("T", decoder.decode(body))
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        name = getattr(kind, "__name__", str(kind))
        raise Undecodable(
            f"not a {name}: {error}", advice=f"see `williw schema {name}` for what it holds"
        ) from error


def decode_any(body: bytes, kinds: tuple[type[T], ...]) -> T:
    """The message in `body`, one of `kinds` by its `type` tag."""
    if len(kinds) == 1:
        return decode(body, kinds[0])
    union: Any = kinds[0]
    for kind in kinds[1:]:
        union = union | kind
    return cast("T", decode(body, union))
