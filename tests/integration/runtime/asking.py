"""What is asked of JetStream meanwhile: its requests are messages, which a subscription hears."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from services.runtime.bus import Bus

READS = ("$JS.API.STREAM.MSG.GET.WILLIW", "$JS.API.DIRECT.GET.WILLIW", "$JS.API.STREAM.INFO.WILLIW")


@asynccontextmanager
async def asked_of(bus: Bus, *subjects: str) -> AsyncIterator[list[str]]:
    """The subjects of the requests heard so far, for the length of the block."""
    found: list[str] = []

    async def hear(message: Any) -> None:
        found.append(message.subject)

    heard = [await bus.client.subscribe(subject, cb=hear) for subject in subjects or READS]
    await bus.client.flush()
    try:
        yield found
    finally:
        for subscription in heard:
            await subscription.unsubscribe()
