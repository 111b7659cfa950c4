"""Dead letters: what was given up is kept whole, and the job it belonged to is told."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from nats.aio.msg import Msg

from messages.dead import DeadLetter
from messages.failures import Passing, Permanent
from messages.ids import LAST_GENERATION, JobId, NodeId, is_id
from messages.jobs import JobFailed
from messages.subjects import Subject, dead_subject
from messages.wire import encode
from services.runtime import figures, names
from services.runtime.bus import Bus
from services.runtime.connection import BUS_TROUBLE

_HEADERS_BYTES = 4096
_ERROR_LENGTH = 4000


def bury(bus: Bus, service: str, msg: Msg, error: str) -> Callable[[], Awaitable[None]]:
    """The publishing of a message's dead letter; the same message given up twice is one letter.

    A payload that would not fit a message again stays where it is, at `stream_sequence`.
    """
    job_id = next((t for t in msg.subject.split(".")[4:5] if is_id(t)), "")
    letter = DeadLetter(
        service=service,
        subject=msg.subject,
        payload=msg.data,
        error=error,
        attempts=msg.metadata.num_delivered or 1,
        stream_sequence=msg.metadata.sequence.stream,
        headers={k: v for k, v in (msg.headers or {}).items() if not k.startswith("Nats-")},
    )
    headers = {names.MSG_ID: f"{service}-{msg.metadata.sequence.stream}"}
    body = encode(letter)
    if len(body) > bus.client.max_payload - _HEADERS_BYTES:
        # Base64 made it larger than the message was. The stream still holds that one.
        body = encode(msgspec.structs.replace(letter, payload=b"", error=error[:_ERROR_LENGTH]))

    async def publish() -> None:
        try:
            await bus.client.jetstream(timeout=5).publish(
                dead_subject(service, job_id),
                body,
                headers=headers,
                stream=names.DEAD_STREAM,
            )
        except BUS_TROUBLE as trouble:
            raise Passing(f"dead letter not stored: {type(trouble).__name__}") from trouble
        figures.PROCESS.dead_letters[service] += 1

    return publish


def failure_of_unreadable(
    subject: str, pattern: Subject[Any], stage: str, error: Permanent
) -> JobFailed | None:
    """The failure of the job named by the subject of an unreadable message, if it names one."""
    tokens = dict(zip(pattern.pattern.split("."), subject.split("."), strict=True))
    generation = tokens.get("{generation}", "")
    job_id, origin = tokens.get("{job_id}", ""), tokens.get("{origin}", "")
    if not (is_id(job_id) and is_id(origin) and _is_generation(generation)):
        return None
    return JobFailed(
        origin=NodeId(origin),
        job_id=JobId(job_id),
        generation=int(generation),
        stage=stage,
        reason=f"a message of this job cannot be read: {error.reason}",
        advice=error.advice,
    )


def _is_generation(token: str) -> bool:
    """Whether a fact may hold it: one that may not could not be said, ending the service."""
    return re.fullmatch(r"[1-9][0-9]{0,9}", token) is not None and int(token) <= LAST_GENERATION
