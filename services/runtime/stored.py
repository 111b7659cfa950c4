"""Reading what a stream holds by batched direct gets: no consumer is made, nothing is created.

A reader so needs one permission, `$JS.API.DIRECT.GET.<stream>`, and cannot have the server push
what is stored to a subject again and again.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import structlog
from nats.aio.client import Client

from messages.failures import Passing
from services.runtime.connection import BUS_TROUBLE

log = structlog.get_logger()
_BATCH = 256


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
