"""What a bus's refusals mean for whoever sits at the prompt: which key is missing."""

import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio

from config.settings import Bus as BusSettings
from config.settings import Settings
from messages.failures import Permanent
from services.console.failures import Usage
from services.runtime import permissions, provision
from services.runtime.bus import Bus, open_bus
from services.runtime.connection import BUS_TROUBLE
from services.runtime.service import Service

_REFUSED = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"')


class NotAllowed(Permanent):
    """The key that was shown may not do what was asked; `subject` is what the server refused."""

    def __init__(self, reason: str, subject: str, advice: str) -> None:
        super().__init__(reason, advice=advice)
        self.subject = subject


@asynccontextmanager
async def opened(settings: Settings, name: str) -> AsyncIterator[Bus]:
    """The bus for the length of the block, which ends at the first refusal: NotAllowed.

    Usage, before anything is asked, where there is no such key as the settings name.
    The server tells of a refusal beside the question, whose answer would be waited for in vain.
    """
    readable(settings.bus.nkey_file or settings.bus.credentials_file)
    told: list[str] = []
    scope = anyio.CancelScope()

    def heard(reason: str) -> None:
        if _REFUSED.search(reason.lower()):
            told.append(reason)
            scope.cancel()

    async with open_bus(settings, name, on_closed=heard, apart=True) as bus:
        with scope:
            yield bus
        if told:
            raise refusal(told[0], settings.bus)


def readable(key_file: str) -> None:
    """Usage where a key is named and cannot be read; else it would look as if no bus answered."""
    if not key_file:
        return
    try:
        Path(key_file).expanduser().read_bytes()
    except OSError as error:
        raise Usage(
            f"the key {key_file} cannot be read: {error.strerror}",
            advice="`williw provision --auth DIR` writes keys; on Kubernetes each machine's name "
            "must be among its --node",
        ) from None


def refusal(told: str, settings: BusSettings) -> NotAllowed:
    """The server's words as what happened, and which key it takes."""
    found = _REFUSED.search(told.lower())
    what, subject = found.groups() if found else ("publish", "")
    user = permissions.least_user(subject, hearing=what != "publish")
    shown = settings.nkey_file or settings.credentials_file
    key = Path(shown).name if shown else "a connection without a key"
    verb = "say" if what == "publish" else "hear"
    return NotAllowed(
        f"the bus does not let {key} {verb} {subject}",
        subject,
        f"this takes {user}.nk, which `williw provision --auth` writes: name it in "
        "WILLIW_BUS_NKEY_FILE",
    )


async def check_key(
    settings: Settings,
    builds: Sequence[Callable[[Settings, Bus], Service]],
    name: str,
    *,
    provisions: bool,
) -> None:
    """Usage where the key shown is not one that may run these services in one process.

    `name` is the connection's: each service's key may hear its own answers and no other's, so that
    an answer to any question shows that it is the right one.
    """
    file, node_id = settings.bus.nkey_file, settings.node.node_id
    if not file:
        return
    services = tuple(build.__module__.split(".")[1] for build in builds)
    try:
        async with opened(settings, name) as bus:
            if provisions:
                with suppress(*BUS_TROUBLE):
                    await bus.client.request("$JS.API.STREAM.NAMES", b"", timeout=5)
            await provision.missing(bus, [build(settings, bus) for build in builds])
    except NotAllowed as error:
        if "stream.names" in error.subject:
            raise Usage(
                f"{file} may make no streams and consumers",
                advice="leave --provision out, and run `williw provision` with operator.nk before",
            ) from None
        if len(services) > 1:
            raise Usage(
                f"{file} is no key for {', '.join(services)} in one process",
                advice="each service has a key of its own: run each in a process of its own, "
                f"`williw run {services[0]}` with {node_id}/{services[0]}.nk",
            ) from None
        raise Usage(
            f"{file} is not the key of {services[0]} on {node_id}",
            advice=f"show {node_id}/{services[0]}.nk: `williw provision --auth` writes it",
        ) from None
