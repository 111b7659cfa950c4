"""Logs: one JSON object a line on a service, colours on a terminal; never a secret."""

import functools
import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from config.settings import Logging

_SECRET_KEYS = re.compile(r"(token|secret|password|authorization|credential|nkey)", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"\b(hf_[A-Za-z0-9]{8,}|Bearer\s+\S+|S[UAO][A-Z2-7]{40,})|(?<=://)[^/@\s]+@"
)
# Each secret has one of these signs in it, or is as long as a seed: few texts need another look.
_SIGNS = ("hf_", "Bearer", "://")
_SEED_LENGTH = 42

# nats-py turns its connection to TLS by loop.start_tls, which does not tell the stream of it:
# asyncio then warns at the end of each connection, of something that has no effect.
_OF_NO_EFFECT = "returning true from eof_received()"


def setup(settings: Logging, *, service: str = "", terminal: bool | None = None) -> None:
    """Configure structlog for this process; `terminal` None means "look at standard error"."""
    on_terminal = sys.stderr.isatty() if terminal is None else terminal
    as_json = settings.format == "json" or (settings.format == "auto" and not on_terminal)
    render: Any = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=on_terminal)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.format_exc_info,
            without_secrets,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            getattr(logging, settings.level.upper())
        ),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.getLogger("asyncio").addFilter(_says_something)
    if service:
        structlog.contextvars.bind_contextvars(service=service)


def _says_something(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_OF_NO_EFFECT)


def without_secrets(
    _logger: object, _name: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """A structlog processor: values under secret-like keys, and secret-like text, are masked."""
    for key, value in event.items():
        if _is_secret(key):
            event[key] = "***"
        elif isinstance(value, str):
            event[key] = masked(value)
    return event


def masked(text: str) -> str:
    """`text` with Hub tokens, bearer tokens, nkey seeds and user:password of URLs masked."""
    if len(text) < _SEED_LENGTH and not any(sign in text for sign in _SIGNS):
        return text
    return _SECRET_TEXT.sub("***", text)


@functools.lru_cache(maxsize=1024)
def _is_secret(key: str) -> bool:
    return _SECRET_KEYS.search(key) is not None
