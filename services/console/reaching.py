"""Settings of a command and the bus it talks to."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import anyio
import msgspec

from config import load
from config.settings import Bus as BusSettings
from config.settings import Settings
from services.console.options import Reach
from services.console.refusals import opened
from services.runtime.bus import Bus

T = TypeVar("T")
_PROMPT_TIMEOUT_S = 3.0
_URL_VARIABLES = ("WILLIW_NATS_URL", "WILLIW_BUS_URL")


def settings_of(reach: Reach) -> Settings:
    """The settings, the bus's address included: given, else set, else that of `williw up`."""
    overrides: dict[str, Mapping[str, object]] = {}
    if reach.home is not None:
        overrides["node"] = {"home": str(reach.home.absolute())}
    if reach.nats_url:
        return load.load(overrides={**overrides, "bus": {"url": reach.nats_url}})
    settings = load.load(overrides=overrides)
    url = url_of_up(settings.home)
    asked_here = reach.home is not None
    is_set = settings.bus.url != BusSettings().url or any(os.environ.get(v) for v in _URL_VARIABLES)
    if url and (asked_here or not is_set):
        return load.load(overrides={**overrides, "bus": {"url": url}})
    return settings


def url_of_up(home: Path) -> str:
    """Where the `williw up` of this home has its bus; empty where none runs."""
    try:
        return (home / "run" / "nats.url").read_text().strip()
    except OSError:
        return ""


@asynccontextmanager
async def reached(reach: Reach) -> AsyncIterator[Bus]:
    """The bus for the length of a command; BusUnreachable where it does not answer.

    NotAllowed, with the key that is missing, as soon as the server refuses something.
    """
    quiet()
    async with opened(patient_no_longer(settings_of(reach)), "williw-console") as bus:
        yield bus


def patient_no_longer(settings: Settings) -> Settings:
    """The settings for somebody who waits at a prompt: a bus that is there answers at once."""
    timeout_s = min(settings.bus.connect_timeout_s, _PROMPT_TIMEOUT_S)
    bus = msgspec.structs.replace(settings.bus, connect_timeout_s=timeout_s)
    return msgspec.structs.replace(settings, bus=bus)


def ask(reach: Reach, question: Callable[[Bus], Awaitable[T]]) -> T:
    """The answer of `question`, run on the bus."""

    async def run() -> T:
        async with reached(reach) as bus:
            return await question(bus)

    return anyio.run(run, backend="asyncio")


def quiet() -> None:
    """Keep the runtime's log to warnings: a command's answer is what it prints."""
    from config import logging
    from config.settings import Logging

    logging.setup(Logging(level="error"))
