"""Reading what a stream holds: no consumer is made, nothing is created.

A direct get has the server publish the stored body itself to whatever subject the reader names, so
only whom one trusts with that may ask so, or who does from an account of its own. To everybody else
the stream's leader answers with the message in JSON, its headers as they are stored.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import anyio
import msgspec
import structlog
from nats.aio.client import Client
from nats.js.client import JetStreamContext
from nats.js.errors import NotFoundError

from messages.failures import Passing
from messages.wire import decode
from services.runtime import names
from services.runtime.connection import BUS_TROUBLE

log = structlog.get_logger()
_BATCH = 256
_NO_RESULTS = "404"


class _Message(msgspec.Struct, frozen=True):
    """A stored message in the leader's answer; msgspec reads bytes from base64."""

    seq: int
    time: str
    data: bytes = b""
    hdrs: bytes = b""


class Refusal(msgspec.Struct, frozen=True):
    """Why JetStream did not do as asked: a status, the server's own number, and a sentence."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct, frozen=True):
    """The leader's answer to one question."""

    message: _Message | None = None
    error: Refusal = Refusal()


@dataclass(frozen=True)
class Stored:
    """A message of a stream: its bytes, headers, place, and Unix seconds of its storing.

    Of one read by a direct get no headers are told: the answer's own would hide some of them.
    """

    data: bytes
    headers: Mapping[str, str]
    sequence: int
    at: float


async def newest(
    client: Client, stream: str, chosen: str, *, apart: bool = False, timeout_s: float = 5.0
) -> Stored | None:
    """The newest message of a filter, or None; by the leader, unless the reader stands `apart`.

    Passing where the bus does not answer.
    """
    if apart:
        return await _newest_apart(client.jetstream(timeout=timeout_s), stream, chosen)
    question = json.dumps({"last_by_subj": chosen}).encode()
    try:
        answer = await client.request(
            f"$JS.API.STREAM.MSG.GET.{stream}", question, timeout=timeout_s
        )
    except BUS_TROUBLE as error:
        raise Passing(f"the bus did not answer: {type(error).__name__}") from error
    said = decode(answer.data, _Answer)
    if said.message is None:
        if said.error.err_code == names.MESSAGE_NOT_FOUND:
            return None
        raise Passing(f"the bus refused a read: {said.error.description}")
    found = said.message
    return Stored(found.data, _headers(found.hdrs), found.seq, unix_s(found.time))


async def _newest_apart(js: JetStreamContext, stream: str, chosen: str) -> Stored | None:
    try:
        raw = await js.get_last_msg(stream, chosen, direct=True)
    except NotFoundError:
        return None
    except BUS_TROUBLE as error:
        raise Passing(f"the bus did not answer: {type(error).__name__}") from error
    at = 0.0 if raw.time is None else raw.time.timestamp()
    return Stored(raw.data or b"", {}, raw.seq or 0, at)


def _headers(lines: bytes) -> dict[str, str]:
    """Headers as they are stored: a line that names the protocol, then one for each."""
    pairs = (line.partition(":") for line in lines.decode(errors="replace").split("\r\n")[1:])
    return {name: value.strip() for name, colon, value in pairs if colon}


async def at(js: JetStreamContext, stream: str, sequence: int) -> float:
    """When a message was stored, as Unix seconds; Passing where it is not to be had."""
    try:
        raw = await js.get_msg(stream, sequence, direct=True)
    except (NotFoundError, *BUS_TROUBLE) as error:
        raise Passing(f"the bus did not answer: {type(error).__name__}") from error
    return 0.0 if raw.time is None else float(raw.time.timestamp())


async def one_of(
    client: Client, stream: str, subjects: Sequence[str], *, timeout_s: float = 5.0
) -> tuple[str, bytes] | None:
    """One of the messages stored on these subjects, with its subject, by a direct get; or None."""
    question = json.dumps({"multi_last": subjects}).encode()
    try:
        answer = await client.request(f"$JS.API.DIRECT.GET.{stream}", question, timeout=timeout_s)
    except BUS_TROUBLE as error:
        raise Passing(f"the bus did not answer: {type(error).__name__}") from error
    headers = answer.headers or {}
    status = headers.get("Status")
    if status == _NO_RESULTS:
        return None
    if status is not None:
        raise Passing(f"the bus refused a read: status {status}")
    return headers["Nats-Subject"], answer.data


async def messages(
    client: Client, stream: str, chosen: str, start: int = 1, *, timeout_s: float = 5.0
) -> AsyncIterator[Any]:
    """The stored messages of a filter from a sequence on, in order; Passing where the bus is mute.

    Each has the headers Nats-Sequence, Nats-Subject and Nats-Time-Stamp.
    """
    while True:
        batch, pending = await _batch(client, stream, chosen, start, timeout_s)
        for message in batch:
            start = int(message.headers["Nats-Sequence"]) + 1
            yield message
        if not batch or pending == 0:
            return


async def _batch(
    client: Client, stream: str, chosen: str, start: int, timeout_s: float
) -> tuple[list[Any], int]:
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    question = {"seq": start, "next_by_subj": chosen, "batch": _BATCH}
    found: list[Any] = []
    try:
        await client.publish(f"$JS.API.DIRECT.GET.{stream}", json.dumps(question).encode(), inbox)
        while True:
            message = await subscription.next_msg(timeout=timeout_s)
            status = (message.headers or {}).get("Status")
            if status == "404":
                return [], 0
            if status == "204":
                return found, int(message.headers.get("Nats-Num-Pending", "0"))
            if status:
                raise Passing(f"the bus refused a read: status {status}")
            found.append(message)
    except BUS_TROUBLE as error:
        raise Passing(f"the bus did not answer: {type(error).__name__}") from error
    finally:
        await unsubscribed(subscription)


async def unsubscribed(subscription: Any) -> None:
    """End a subscription, whatever becomes of the connection."""
    try:
        with anyio.CancelScope(shield=True):
            await subscription.unsubscribe()
    except BUS_TROUBLE as error:
        log.debug("unsubscribing failed", error=type(error).__name__)


def unix_s(stamp: str | None) -> float:
    """Seconds of an RFC 3339 time with nanoseconds, which datetime reads to microseconds."""
    if not stamp:
        return 0.0
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{(fraction + '000000')[:6]}+00:00").timestamp()
