"""Pulling a durable consumer's messages: one request for as many as there is room for.

The library's fetch takes one message for each request, or waits until a batch is full. Here each
message is handed over as it comes, and the next request is made when the last is used up or over.
"""

import json
import time
from collections.abc import Callable
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import Header

# A request in flight when the server dies is deaf until it is over: so it is short.
_EXPIRES_S = 1.0
_LATE_S = 0.5
_TIMED_OUT = "408"


class Pull:
    """The requests to one consumer, one at a time; `take` hears each message, `refused` each no.

    `take` is called in the connection's own task and must not wait.
    """

    def __init__(
        self,
        client: Client,
        stream: str,
        consumer: str,
        take: Callable[[Msg], None],
        refused: Callable[[str], None],
    ) -> None:
        self._client = client
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = client.new_inbox()
        self._take, self._refused = take, refused
        self._subscription: Any = None
        self._number = 0
        self._due = 0
        self._over_at = 0.0

    @property
    def due(self) -> int:
        """How many messages the last request may still bring."""
        return self._due if time.monotonic() < self._over_at else 0

    @property
    def left_s(self) -> float:
        """Seconds until the last request is over, whatever becomes of it."""
        return max(0.0, self._over_at - time.monotonic()) if self._due else 0.0

    async def open(self) -> None:
        """Listen for answers."""
        self._subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._came)

    async def ask(self, count: int) -> None:
        """Request up to `count` messages."""
        self._number += 1
        question = {"batch": count, "expires": int(_EXPIRES_S * 1e9)}
        self._due = count
        self._over_at = time.monotonic() + _EXPIRES_S + _LATE_S
        await self._client.publish(
            self._subject, json.dumps(question).encode(), f"{self._inbox}.{self._number}"
        )

    async def close(self) -> None:
        """Want nothing more: the server drops the request, what was on its way is still taken."""
        await self._subscription.drain()

    async def _came(self, msg: Msg) -> None:
        # A message keeps the subject it was stored on; what comes to the inbox itself is a status.
        if not msg.subject.startswith(self._inbox):
            self._due = max(0, self._due - 1)
            self._take(msg)
            return
        if msg.subject.rpartition(".")[2] != str(self._number):
            return
        self._due = 0
        headers = msg.headers or {}
        status, why = headers.get(Header.STATUS, ""), headers.get(Header.DESCRIPTION, "")
        self._refused("" if status == _TIMED_OUT else f"{status} {why}".strip())
