"""What a delivery is before anybody works on it: a message, its ids, its trace."""

import hashlib
import re
import secrets
from collections.abc import Mapping
from typing import Any

import msgspec
from nats.aio.msg import Msg
from nats.micro.request import Request

from messages.base import Message
from messages.failures import Permanent
from messages.ids import JobId
from messages.wire import decode_any
from services.runtime import names
from services.runtime.service import Route

# Of a client's own, and of the server's for an asker of another account.
_INBOXES = ("_INBOX", "_R_.")
_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def read(msg: Msg, route: Route[Any]) -> Message:
    """The message, its ids those of the subject it came on; Permanent where it is none of these."""
    message: Message = decode_any(msg.data, route.subject.types)
    if getattr(message, "job_id", "") is None:
        message = msgspec.structs.replace(message, job_id=minted_job_id(msg))
    if route.subject.of(message) != msg.subject:
        raise Permanent("the ids in the message are not those of its subject")
    return message


def minted_job_id(msg: Msg) -> JobId:
    """The id of a command that brought none: from its place in the log, so the same each time."""
    place = f"{msg.metadata.stream}/{msg.metadata.sequence.stream}/{msg.metadata.timestamp}"
    return JobId("job-" + hashlib.sha256(place.encode()).hexdigest()[:12])


def sent_on(headers: Mapping[str, str] | None) -> bool:
    """Whether this is the server's answer to a read, not a message that somebody wrote.

    Who may read the stream can name one of its subjects as the reply of a direct get. The server
    then publishes what it holds there, with the headers of such an answer, and stores it again.
    """
    return bool(headers) and any(name in (headers or {}) for name in names.OF_A_READ)


def not_asked(request: Request) -> str:
    """Why a request must not be answered; empty where it may be.

    Whoever asks names where the answer goes, and the answer is published with our rights: only to
    an inbox, never to a subject that a stream keeps.
    """
    if sent_on(request.headers):
        return "a stored message that a reader had sent on"
    reply = request._msg.reply  # nats-py shows it nowhere else
    return "" if reply.startswith(_INBOXES) else "the answer would go to no inbox"


def trace_of(msg: Msg) -> str:
    """The W3C trace context that the message came with, or a new one.

    What is carried goes into the headers of every fact that follows, so it must be nothing else.
    """
    came: str = (msg.headers or {}).get(names.TRACE_PARENT, "")
    if _TRACE.fullmatch(came):
        return came
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
