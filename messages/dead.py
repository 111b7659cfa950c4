"""Dead letters: what a service could not handle, whole, so that it can be sent again."""

import msgspec

from messages.base import Message
from messages.ids import Count


class DeadLetter(Message, frozen=True, kw_only=True):
    """A message given up after `attempts`; `payload` is base64 of the bytes as they came."""

    service: str
    subject: str
    payload: bytes
    error: str
    attempts: Count
    stream_sequence: Count = 0
    headers: dict[str, str] = msgspec.field(default_factory=dict)
