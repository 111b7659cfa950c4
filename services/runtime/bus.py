"""The bus as services see it: the log of facts, documents, the registry, commands, questions."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import nats.errors
import structlog
from nats.aio.client import Client

from config.settings import Settings
from messages.api import Refusal
from messages.base import Message
from messages.documents import Document
from messages.failures import Passing, Permanent
from messages.ids import JobId
from messages.progress import Progress
from messages.subjects import PROGRESS, Api, Subject
from messages.wire import decode, encode
from services.runtime import names
from services.runtime.connection import BUS_TROUBLE, connect
from services.runtime.documents import KEPT_S, Documents
from services.runtime.factlog import FactLog
from services.runtime.registry import Grants, Registry

log = structlog.get_logger()

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)
M = TypeVar("M", bound=Message)
# A reply with this header is a Document: the answer itself was larger than a message may be.
BY_REFERENCE = "Williw-By-Reference"


class Refused(Permanent):
    """An endpoint answered that it will not, with its reason and advice."""


class Bus:
    """One connection and the ports on it; `apart` is one from an account of its own."""

    def __init__(self, client: Client, *, kept_s: float = KEPT_S, apart: bool = False) -> None:
        self.client = client
        self.facts = FactLog(client, apart=apart)
        self.documents = Documents(client, kept_s=kept_s)
        self.registry = Registry(client)
        self.grants = Grants(client)

    async def send(self, command: M, subject: Subject[M], *, message_id: str = "") -> int:
        """Store a command on the bus and return its sequence; Passing where it was not taken.

        With a `message_id` a second sending within the duplicate window is one command.
        """
        headers = {names.MSG_ID: message_id} if message_id else None
        try:
            ack = await self.client.jetstream(timeout=5).publish(
                subject.of(command), encode(command), headers=headers, stream=names.FACTS_STREAM
            )
        except BUS_TROUBLE as error:
            raise Passing(f"the bus did not take the command: {type(error).__name__}") from error
        return int(ack.seq)

    async def ask(self, api: Api[Q, A], question: Q, timeout_s: float = 5.0) -> A:
        """The answer of an endpoint; Refused with its reason, Passing when nobody answers.

        Permanent where the question is larger than the server takes.
        """
        body = encode(question)
        if len(body) > self.client.max_payload:
            raise Permanent(
                f"a question of {len(body)} bytes to {api.subject} is more than the "
                f"{self.client.max_payload} bytes that the server takes in a message",
                advice="name the model in a `request` instead of sending its metadata",
            )
        try:
            answer = await self.client.request(api.subject, body, timeout=timeout_s)
        except nats.errors.NoRespondersError:
            raise Passing(f"nobody serves {api.subject}: is the {api.served_by} running?") from None
        except BUS_TROUBLE as error:
            raise Passing(f"{api.subject} did not answer in {timeout_s:g} s") from error
        if answer.headers and "Nats-Service-Error" in answer.headers:
            refusal = decode(answer.data, Refusal)
            raise Refused(refusal.reason, advice=refusal.advice)
        if answer.headers and BY_REFERENCE in answer.headers:
            return await self.documents.load(decode(answer.data, Document), api.answer)
        return decode(answer.data, api.answer)

    async def show(self, progress: Progress) -> None:
        """Publish progress, or drop it: it is never worth waiting for."""
        if self.client.is_connected:
            await self.client.publish(PROGRESS.of(progress), encode(progress))

    async def hear_progress(
        self, heard: Callable[[Progress], None], job_id: JobId | None = None
    ) -> None:
        """Call `heard` with every progress message of a job (or all) from now on."""
        chosen = PROGRESS.where() if job_id is None else PROGRESS.where(job_id=job_id)

        async def one(message: Any) -> None:
            heard(decode(message.data, Progress))

        await self.client.subscribe(chosen, cb=one)


def unconnected() -> Bus:
    """A bus that is never reached, for building services only to look at what they need."""
    return Bus(Client())


@asynccontextmanager
async def open_bus(
    settings: Settings,
    name: str,
    *,
    on_closed: Callable[[str], None] | None = None,
    apart: bool = False,
) -> AsyncIterator[Bus]:
    """A bus for the length of the block; BusUnreachable where no server answers.

    People's keys are of accounts `apart` from the services'; other keys may be used so, too.
    """
    closing = False

    def lost(reason: str) -> None:
        if not closing and on_closed is not None:
            on_closed(reason)

    client = await connect(settings.bus, name, on_closed=lost)
    try:
        yield Bus(client, kept_s=settings.bus.max_age_s, apart=apart)
    finally:
        closing = True
        await _closed(client)


async def _closed(client: Client) -> None:
    """Close the connection; a server that is away takes no farewell, and none is needed."""
    try:
        await client.close()
    except BUS_TROUBLE as error:
        log.warning("bus away at the end", error=type(error).__name__)
