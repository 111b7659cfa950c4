"""The log of facts: say one once, read what was said, wait for what will be."""

import json
from collections.abc import AsyncIterator, Iterable
from contextvars import ContextVar
from typing import Any, TypeVar

import anyio
import structlog
from nats.aio.client import Client
from nats.errors import MaxPayloadError
from nats.js.client import JetStreamContext
from nats.js.errors import APIError, NoStreamResponseError

from messages.base import Fact
from messages.failures import Passing, Permanent
from messages.ids import JobId
from messages.state import Said
from messages.subjects import Subject, fact_subject, subject_matching
from messages.wire import Undecodable, decode_any, encode
from services.runtime import figures, incoming, names, stored
from services.runtime.connection import BUS_TROUBLE
from services.runtime.ears import Ears

log = structlog.get_logger()
F = TypeVar("F", bound=Fact)
trace_parent: ContextVar[str] = ContextVar("trace_parent", default="")
in_hand_since: ContextVar[float] = ContextVar("in_hand_since", default=0.0)
"""When the message that is being handled was stored, in Unix seconds; 0 outside of handlers."""
# A follower reads what comes in a burst together, not with one question for each fact.
_GATHER_S = 0.02


class FactTooLarge(Permanent):
    """A fact outgrew what the server takes in one message: `size_bytes`."""

    def __init__(self, fact: Fact, size_bytes: int) -> None:
        super().__init__(
            f"{type(fact).__name__} of job {fact.job_id} has {size_bytes} bytes, more than a "
            "message of this NATS server may hold",
            advice="raise max_payload of nats-server, or ask for less at once",
        )
        self.size_bytes = size_bytes


class FactLog:
    """Reads and writes of the one stream that holds every fact.

    `apart` is who looks from an account of its own, where JetStream answers direct gets alone.
    """

    def __init__(self, client: Client, *, timeout_s: float = 5.0, apart: bool = False) -> None:
        self._client = client
        self._apart = apart
        self._js: JetStreamContext = client.jetstream(timeout=timeout_s)
        self._timeout_s = timeout_s
        self.ears = Ears(client)

    async def say(self, fact: Fact) -> Said[Fact]:
        """Store `fact` on its subject, once; where something was said there already, return that.

        The server itself compares: the subject must hold nothing. Passing where it does not answer
        (a lost answer is no harm: the second try is refused, and what the first stored is read).
        """
        subject = fact_subject(fact)
        once = subject.once(fact)
        headers = {
            names.EXPECTED_SEQUENCE: "0",
            names.EXPECTED_SUBJECT: once,
            names.MSG_ID: once,
        }
        if trace_parent.get():
            headers[names.TRACE_PARENT] = trace_parent.get()
        try:
            ack = await self._js.publish(
                subject.of(fact), encode(fact), headers=headers, stream=names.FACTS_STREAM
            )
        except APIError as error:
            if error.err_code != names.WRONG_LAST_SEQUENCE:
                raise Passing(f"the bus refused a fact: {error.description}") from error
        except MaxPayloadError as error:
            raise FactTooLarge(fact, len(encode(fact))) from error
        except (NoStreamResponseError, *BUS_TROUBLE) as error:
            raise Passing(f"the bus did not take a fact: {type(error).__name__}") from error
        else:
            if not ack.duplicate:
                figures.PROCESS.facts_said[type(fact).__name__] += 1
                return Said(fact=fact, sequence=ack.seq, at=0.0)
        said = await self._last(subject, once)
        if said is None:
            raise Passing("a fact was refused as said already, and cannot be read yet")
        return said

    async def last(self, subject: Subject[F], **tokens: object) -> Said[F] | None:
        """The newest fact of this subject with these tokens, or None."""
        return await self._last(subject, subject.where(**tokens))

    async def read(self, subject: Subject[F], **tokens: object) -> tuple[Said[F], ...]:
        """Every stored fact of this subject with these tokens, in order of storing."""
        return tuple([said async for said in self._scan(subject.where(**tokens), 1)])

    async def count(self, subject: Subject[Any], **tokens: object) -> int:
        """How many facts match, without reading them."""
        chosen = subject.where(**tokens)
        info = await self._ask(
            f"$JS.API.STREAM.INFO.{names.FACTS_STREAM}", {"subjects_filter": chosen}
        )
        return len(info["state"].get("subjects") or {})

    async def one_of(self, *subjects: str) -> tuple[str, bytes] | None:
        """One of the messages stored on these subjects, with its subject, unread; None of none.

        One question, however many subjects: the server's first answer is enough.
        """
        return await stored.one_of(
            self._client, names.FACTS_STREAM, subjects, timeout_s=self._timeout_s
        )

    async def holds(self, subject: str) -> bool:
        """Whether anything is stored on this subject, readable or not."""
        found = await stored.newest(self._client, names.FACTS_STREAM, subject, apart=self._apart)
        return found is not None

    async def stored_at(self, sequence: int) -> float:
        """When a message was stored, as Unix seconds by the server's clock."""
        return await stored.at(self._js, names.FACTS_STREAM, sequence)

    async def job(self, job_id: JobId) -> tuple[Said[Fact], ...]:
        """Every fact of a job, in order of storing."""
        return tuple([said async for said in self._scan(job_filter(job_id), 1)])

    async def all_jobs(self) -> tuple[Said[Fact], ...]:
        """Every fact the stream still holds, in order of storing."""
        return tuple([said async for said in self._scan("williw.>", 1)])

    async def wait(self, subject: Subject[F], **tokens: object) -> Said[F]:
        """The fact of this subject with these tokens, as soon as it is said. Cancel to give up.

        Where its subject is listened to, what was not heard is looked for only a while later.
        """
        chosen, all_of_it = subject.where(**tokens), subject.where()
        async with self.ears.bell(chosen, within=all_of_it) as bell:
            if self.ears.covers(all_of_it, in_hand_since.get()):
                await bell.wait()
            while True:
                try:
                    said = await self._last(subject, chosen)
                except Passing:
                    said = None
                if said is not None:
                    return said
                await bell.wait()

    async def follow(
        self, chosen: str = "williw.>", start: int = 1, *, gather_s: float = _GATHER_S
    ) -> AsyncIterator[Said[Fact]]:
        """Facts matching the filter from sequence `start` on, then each new one as it is said.

        Facts are read from the log, so none is missed and none repeated, whatever the connection
        does; a plain subscription only tells that it is time to look, `gather_s` later.
        """
        async with self.ears.bell(chosen) as bell:
            while True:
                before = start
                try:
                    async for said in self._scan(chosen, start):
                        start = said.sequence + 1
                        yield said
                except Passing as error:
                    log.debug("waiting for the bus", error=str(error))
                await bell.wait(found=start > before)
                await anyio.sleep(gather_s)

    async def now(self) -> float:
        """The server's time as Unix seconds: the one clock that deadlines are counted by."""
        info = await self._ask(f"$JS.API.STREAM.INFO.{names.FACTS_STREAM}", {})
        return stored.unix_s(info["ts"])

    async def _ask(self, subject: str, question: dict[str, object]) -> dict[str, Any]:
        try:
            answer = await self._client.request(
                subject, json.dumps(question).encode(), timeout=self._timeout_s
            )
        except BUS_TROUBLE as error:
            raise Passing(f"the bus did not answer: {type(error).__name__}") from error
        body: dict[str, Any] = json.loads(answer.data)
        if "error" in body:
            raise Passing(f"the bus refused: {body['error'].get('description')}")
        return body

    async def _last(self, subject: Subject[F], chosen: str) -> Said[F] | None:
        found = await stored.newest(self._client, names.FACTS_STREAM, chosen, apart=self._apart)
        if found is None:
            return None
        if incoming.sent_on(found.headers):
            raise Undecodable(f"on {chosen} stands a message that a reader had sent on")
        fact: F = decode_any(found.data, subject.types)
        return Said(fact=fact, sequence=found.sequence, at=found.at)

    async def _scan(self, chosen: str, start: int) -> AsyncIterator[Said[Any]]:
        """The stored facts of a filter from a sequence on."""
        stream = names.FACTS_STREAM
        found = stored.messages(self._client, stream, chosen, start, timeout_s=self._timeout_s)
        async for message in found:
            said = _said(message)
            if said is not None:
                yield said


def job_filter(job_id: JobId) -> str:
    """Every fact of one job, by the place its id has in each subject."""
    return f"williw.*.*.*.{job_id}.*"


def newest(said: Iterable[Said[F]]) -> Said[F] | None:
    """The fact stored last, or None of none."""
    return max(said, key=lambda one: one.sequence, default=None)


def _said(message: Any) -> Said[Fact] | None:
    """The fact in a stored message; None for a command, an unknown fact, or what does not decode.

    A newer service's fact must not stop an older reader: it is passed over.
    """
    subject = subject_matching(message.headers["Nats-Subject"])
    if subject is None or not all(issubclass(kind, Fact) for kind in subject.types):
        return None
    try:
        fact: Fact = decode_any(message.data, subject.types)
    except Undecodable as error:
        log.warning("passing over an unreadable fact", error=error.reason)
        return None
    headers = message.headers
    return Said(
        fact=fact,
        sequence=int(headers["Nats-Sequence"]),
        at=stored.unix_s(headers["Nats-Time-Stamp"]),
    )
