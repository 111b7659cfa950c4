"""Connecting to NATS with the defaults that survive its outages, and its errors made ours."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import nats.errors
import structlog
from nats.aio.client import Client
from nats.js.errors import APIError

from config.logging import masked
from config.settings import Bus as BusSettings
from messages.failures import Passing, Permanent
from services.runtime import figures

log = structlog.get_logger()

# Whatever nats-py raises when the server does not answer, answers late, or is gone. The builtin
# TimeoutError is among them: fetch raises it beside nats-py's own, which does not derive from it.
BUS_TROUBLE = (nats.errors.Error, APIError, TimeoutError, ConnectionError, OSError)


class BusUnreachable(Passing):
    """No server answered at these addresses, or it refused the credentials."""


class NotAllowed(Permanent):
    """The server's permissions refuse a subject this process needs."""


async def connect(
    settings: BusSettings, name: str, *, on_closed: Callable[[str], None] | None = None
) -> Client:
    """A connected client that reconnects for ever; BusUnreachable where no server answers at first.

    `on_closed` is called with a reason when the client has given up or a permission is refused
    (nats-py tells of refusals in a callback only, the call itself just times out).
    """
    client = Client()
    refused: list[str] = []

    async def closed() -> None:
        if on_closed is not None:
            on_closed(refused[-1] if refused else "the connection to NATS is closed for good")

    async def failed(error: Exception) -> None:
        text = masked(str(error))
        log.warning("bus error", error=text or type(error).__name__)
        if "permissions violation" in text.lower() or "authorization violation" in text.lower():
            refused.append(text)
            if on_closed is not None:
                on_closed(text)

    async def reconnected() -> None:
        figures.PROCESS.reconnects += 1
        log.info("bus reconnected")

    async def disconnected() -> None:
        if not client.is_closed:  # not by ourselves, at the end
            log.warning("bus disconnected")

    options: dict[str, Any] = {
        "name": name,
        "allow_reconnect": True,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": 0.2,
        # A server that stands still or is cut off keeps its connections: only this tells.
        "ping_interval": 5,
        "max_outstanding_pings": 2,
        "connect_timeout": max(1, int(settings.connect_timeout_s)),
        "error_cb": failed,
        "closed_cb": closed,
        "reconnected_cb": reconnected,
        "disconnected_cb": disconnected,
        "pending_size": 16 << 20,
        **_credentials(settings, name),
    }
    servers = [url.strip() for url in settings.url.split(",") if url.strip()]
    await _first_connection(client, servers, options, settings.connect_timeout_s)
    return client


async def _first_connection(
    client: Client, servers: list[str], options: dict[str, Any], timeout_s: float
) -> None:
    """The first connection may fail; reconnecting for ever is for a bus that was there once.

    nats-py itself would try for ever: with no limit of attempts, and none of time.
    """
    first = {key: value for key, value in options.items() if not key.endswith("_cb")}
    where = masked(", ".join(servers))
    heard: list[Exception] = []

    async def hear(error: Exception) -> None:
        heard.append(error)

    probe = Client()
    try:
        with anyio.fail_after(timeout_s):
            await probe.connect(servers, **{**first, "error_cb": hear})
        await client.connect(servers, **options)
    except BUS_TROUBLE as error:
        last = heard[-1] if heard and isinstance(error, TimeoutError) else error
        reason = masked(str(last)) or type(last).__name__
        raise BusUnreachable(
            f"no NATS server answers at {where} within {timeout_s:g} s ({reason}); start one, or "
            "name yours with WILLIW_NATS_URL"
        ) from None
    finally:
        if probe.is_connected:  # what was refused before it began has nothing to close
            await probe.close()


def _credentials(settings: BusSettings, name: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if settings.credentials_file:
        options["user_credentials"] = str(Path(settings.credentials_file).expanduser())
    if settings.nkey_file:
        options["nkeys_seed"] = str(Path(settings.nkey_file).expanduser())
    if options:
        # Permissions are per user, so each user's answers come to an inbox only it may hear.
        options["inbox_prefix"] = f"_INBOX_{inbox_token(name)}"
    if settings.tls_ca_file or settings.tls_cert_file:
        context = ssl.create_default_context(cafile=settings.tls_ca_file or None)
        if settings.tls_cert_file:
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file or None)
        options["tls"] = context
    return options


def inbox_token(name: str) -> str:
    """The part of an inbox prefix that names the user: its connection name without separators."""
    return "".join(c for c in name if c.isalnum() or c in "-_")
