"""Creating what williw keeps on NATS: two streams, three buckets, a durable consumer per route."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import structlog
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    KeyValueConfig,
    ObjectStoreConfig,
    RetentionPolicy,
    StreamConfig,
)
from nats.js.client import JetStreamContext
from nats.js.errors import BadRequestError, NotFoundError

from config.logging import masked
from config.settings import Bus as BusSettings
from config.settings import Settings
from messages.failures import Permanent
from messages.subjects import DEAD_LETTERS
from services.runtime import names
from services.runtime.bus import Bus
from services.runtime.connection import BUS_TROUBLE, BusUnreachable
from services.runtime.service import Route, Service

log = structlog.get_logger()
_DUPLICATE_WINDOW_S = 3600.0


class NotProvisioned(Permanent):
    """A stream, bucket or consumer that a service needs is not there."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} does not exist on this bus",
            advice="run `williw provision` with this node's id, or start with --provision",
        )


def facts_stream(settings: BusSettings) -> StreamConfig:
    """The one stream of facts and commands: at its limits it refuses, and never drops, a fact."""
    return StreamConfig(
        name=names.FACTS_STREAM,
        description="williw: every fact and command",
        subjects=list(names.FACTS_SUBJECTS),
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.NEW,
        max_age=settings.max_age_s,
        max_bytes=settings.max_bytes,
        duplicate_window=min(_DUPLICATE_WINDOW_S, settings.max_age_s),
        num_replicas=settings.replicas,
        allow_direct=True,
    )


def dead_stream(settings: BusSettings) -> StreamConfig:
    """The stream of dead letters; one may be removed by its sequence."""
    return StreamConfig(
        name=names.DEAD_STREAM,
        description="williw: messages that were given up",
        subjects=[DEAD_LETTERS],
        discard=DiscardPolicy.NEW,
        max_age=settings.max_age_s,
        max_bytes=settings.max_bytes,
        duplicate_window=min(_DUPLICATE_WINDOW_S, settings.max_age_s),
        num_replicas=settings.replicas,
        allow_direct=True,
    )


def consumer(settings: BusSettings, service: str, route: Route[object]) -> ConsumerConfig:  # type: ignore[type-var]
    """The durable consumer of a route.

    The server's max_deliver is unlimited on purpose: the runtime counts deliveries itself and gives
    a message up at the first one past the limit, so even a message that kills its process each
    time ends as a dead letter instead of being stranded in the stream. max_ack_pending is wide
    because a message handed back with a delay still counts; the slots are what bounds the work.
    """
    return ConsumerConfig(
        durable_name=names.consumer_name(service, route),
        filter_subject=route.filter,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=settings.lease_s,
        max_deliver=-1,
        max_ack_pending=100_000 if route.patient else max(1000, 4 * route.slots),
        max_waiting=512,
    )


async def provision_storage(bus: Bus, settings: Settings) -> None:
    """Create or update streams and buckets; running it again changes nothing.

    BusUnreachable where JetStream does not do it.
    """
    with _answered():
        await _storage(bus.client.jetstream(timeout=30), settings)


async def _storage(js: JetStreamContext, settings: Settings) -> None:
    for stream in (facts_stream(settings.bus), dead_stream(settings.bus)):
        await _stream(js, stream)
    await _bucket(js, names.NODES_BUCKET, settings.node.expires_s, settings)
    await _bucket(js, names.GRANTS_BUCKET, settings.bus.max_age_s, settings)
    try:
        await js.create_object_store(
            names.DOCUMENTS_BUCKET,
            config=ObjectStoreConfig(
                bucket=names.DOCUMENTS_BUCKET,
                ttl=settings.bus.max_age_s,
                max_bytes=settings.bus.documents_max_bytes,
                replicas=settings.bus.replicas,
            ),
        )
    except BadRequestError as error:
        _unless_exists(error, names.DOCUMENTS_BUCKET)


async def provision_consumers(bus: Bus, settings: Settings, services: Iterable[Service]) -> None:
    """Create the durable consumers of these services' routes; existing ones are updated.

    BusUnreachable where JetStream does not do it; NotFoundError before there are streams.
    """
    js = bus.client.jetstream(timeout=30)
    for service in services:
        for route in service.routes:
            config = consumer(settings.bus, service.name, route)
            with _answered():
                await js.add_consumer(names.FACTS_STREAM, config=config)


async def missing(bus: Bus, services: Iterable[Service]) -> list[str]:
    """The consumers that these services need and the bus lacks. BusUnreachable as above."""
    js = bus.client.jetstream(timeout=5)
    lacking: list[str] = []
    for service in services:
        for route in service.routes:
            name = names.consumer_name(service.name, route)
            try:
                with _answered():
                    await js.consumer_info(names.FACTS_STREAM, name)
            except NotFoundError:
                lacking.append(name)
    return lacking


@contextmanager
def _answered() -> Iterator[None]:
    """A server without JetStream, or a cluster without a leader, is a bus out of reach."""
    try:
        yield
    except NotFoundError:
        raise
    except BUS_TROUBLE as error:
        raise BusUnreachable(
            f"JetStream did not do as asked: {type(error).__name__} {masked(str(error))}. Is it "
            "enabled for this account, and has its cluster a leader? Try again in a moment"
        ) from error


async def _stream(js: JetStreamContext, config: StreamConfig) -> None:
    try:
        await js.add_stream(config)
    except BadRequestError as error:
        _unless_exists(error, str(config.name))
        await js.update_stream(config)


async def _bucket(js: JetStreamContext, name: str, ttl_s: float, settings: Settings) -> None:
    config = KeyValueConfig(
        bucket=name,
        ttl=max(1.0, ttl_s),
        replicas=settings.bus.replicas,
        limit_marker_ttl=max(1.0, min(ttl_s, 60.0)),
        history=1,
        # Reads name their key in the subject then, so that permissions can be given by key.
        direct=True,
    )
    try:
        await js.create_key_value(config)
    except BadRequestError as error:
        _unless_exists(error, name)


def _unless_exists(error: BadRequestError, name: str) -> None:
    """Existing with another configuration is fine here; any other refusal is not."""
    if error.err_code not in (10058, 10148):
        raise error
    log.debug("exists already", name=name)
