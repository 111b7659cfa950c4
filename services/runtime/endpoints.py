"""Request-reply by the NATS services protocol, so that `nats micro ls` shows what is served."""

from typing import Any

import nats.micro
import structlog
from anyio.abc import TaskGroup
from nats.micro.request import Request
from nats.micro.service import EndpointConfig, ServiceConfig

from config.logging import masked
from messages.api import Refusal
from messages.failures import Passing, Permanent
from messages.wire import decode, encode
from services.runtime import incoming
from services.runtime.bus import BY_REFERENCE, Bus
from services.runtime.connection import BUS_TROUBLE
from services.runtime.service import Endpoint, Service

log = structlog.get_logger()
VERSION = "0.1.0"
# The server counts headers and body as one against its largest message.
_HEADERS_BYTES = 1024


async def serve(bus: Bus, service: Service, group: TaskGroup) -> nats.micro.Service:
    """The running micro service of these endpoints; stop it before the connection closes."""
    config = ServiceConfig(
        name=f"williw-{service.name}", version=VERSION, description=f"williw {service.name}"
    )
    micro = await nats.micro.add_service(bus.client, config)
    for endpoint in service.endpoints:
        await micro.add_endpoint(_config(bus, endpoint, group))
    return micro


def _config(bus: Bus, endpoint: Endpoint[Any, Any], group: TaskGroup) -> EndpointConfig:
    name = endpoint.api.subject.rsplit(".", 1)[-1]

    async def handle(request: Request) -> None:
        why = incoming.not_asked(request)
        if why:
            log.warning("dropped", endpoint=name, why=why)
            return
        # nats-py runs a subscription's callbacks one at a time; a slow answer must block no other.
        group.start_soon(_answer, bus, endpoint, request)

    return EndpointConfig(name=name, subject=endpoint.api.subject, handler=handle)


async def _answer(bus: Bus, endpoint: Endpoint[Any, Any], request: Request) -> None:
    try:
        body = encode(await endpoint.answer(decode(request.data or b"{}", endpoint.api.question)))
        headers: dict[str, str] | None = None
        if len(body) > bus.client.max_payload - _HEADERS_BYTES:
            name = f"{endpoint.api.subject}.json"
            body, headers = encode(await bus.documents.store(body, name)), {BY_REFERENCE: "1"}
    except Permanent as error:
        await _refuse(request, "400", error.reason, error.advice)
    except Passing as error:
        await _refuse(request, "503", str(error), "try again in a moment")
    except Exception as error:  # one bad question must not end the service
        log.exception("endpoint failed", endpoint=endpoint.api.subject)
        await _refuse(request, "500", f"{type(error).__name__} while answering", "see the log")
    else:
        await _respond(request.respond(body, headers=headers))


async def _refuse(request: Request, code: str, reason: str, advice: str) -> None:
    refusal = encode(Refusal(reason=masked(reason), advice=advice))
    # A header is one line of a protocol: the reason in full is in the body.
    line = next(iter(masked(reason).splitlines()), "")[:200].encode("ascii", "replace").decode()
    await _respond(request.respond_error(code, line, data=refusal))


async def _respond(answer: Any) -> None:
    try:
        await answer
    except BUS_TROUBLE as error:
        log.warning("answer not sent", error=type(error).__name__)
