"""Creating what williw keeps on NATS: two streams, three buckets, a durable consumer per route."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

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
from nats.js.errors import APIError, BadRequestError, NotFoundError

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
# How long to wait for an answer, each time; thirty seconds in all.
_LEADER_WAITS_S = (1.0, 1.0, 2.0, 2.0, 4.0, 5.0, 5.0, 10.0)
# The server's own, for buckets.
_BUCKET_WINDOW_S = 120.0


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


@dataclass(frozen=True)
class Change:
    """A setting of a stream, or of the stream below a bucket, that was another before."""

    name: str
    setting: str
    was: object
    now: object


async def provision_storage(bus: Bus, settings: Settings) -> tuple[Change, ...]:
    """Create streams and buckets, and give those that differ these settings; what was changed.

    Running it again changes nothing, nor does it what williw sets nothing of (placement, say).
    BusUnreachable where JetStream does not do it.
    """
    with _answered():
        await _led(bus)
        changes = await _storage(bus.client.jetstream(timeout=30), settings)
    for change in changes:
        told = {"name": change.name, "setting": change.setting}
        log.info("storage changed", **told, was=change.was, now=change.now)
    return tuple(changes)


async def _led(bus: Bus) -> None:
    """Return once JetStream answers: servers that have no leader yet lose what they are asked."""
    for wait_s in _LEADER_WAITS_S:
        with suppress(TimeoutError):
            await bus.client.jetstream(timeout=wait_s).account_info()
            return


async def _storage(js: JetStreamContext, settings: Settings) -> list[Change]:
    changes: list[Change] = []
    for stream in (facts_stream(settings.bus), dead_stream(settings.bus)):
        with _existing():
            await js.add_stream(stream)
        changes += await _updated(js, str(stream.name), _stream_settings(stream))
    for bucket, ttl_s in (
        (names.NODES_BUCKET, settings.node.expires_s),
        (names.GRANTS_BUCKET, settings.bus.max_age_s),
    ):
        config = _bucket(bucket, ttl_s, settings)
        with _existing():
            await js.create_key_value(config)
        changes += await _updated(js, f"KV_{bucket}", _bucket_settings(config))
    documents = ObjectStoreConfig(
        bucket=names.DOCUMENTS_BUCKET,
        ttl=settings.bus.max_age_s,
        max_bytes=settings.bus.documents_max_bytes,
        replicas=settings.bus.replicas,
    )
    with _existing():
        await js.create_object_store(names.DOCUMENTS_BUCKET, config=documents)
    return [*changes, *await _updated(js, f"OBJ_{documents.bucket}", _kept(documents))]


async def provision_consumers(bus: Bus, settings: Settings, services: Iterable[Service]) -> None:
    """Create the durable consumers of these services' routes; existing ones are updated.

    BusUnreachable where JetStream does not do it; NotFoundError before there are streams.
    """
    js = bus.client.jetstream(timeout=30)
    for service in services:
        for route in service.routes:
            config = consumer(settings.bus, service.name, route)
            with _answered():
                await _made(js, config)


async def _made(js: JetStreamContext, config: ConsumerConfig) -> None:
    """Create or update a consumer; one that was made again after a deletion keeps its start."""
    try:
        await js.add_consumer(names.FACTS_STREAM, config=config)
    except APIError as error:
        if error.err_code != names.START_CANNOT_CHANGE:
            raise
        there = (await js.consumer_info(names.FACTS_STREAM, str(config.durable_name))).config
        start: dict[str, Any] = {"opt_start_seq": there.opt_start_seq}
        kept = config.evolve(deliver_policy=there.deliver_policy, **start)
        await js.add_consumer(names.FACTS_STREAM, config=kept)


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


@contextmanager
def _existing() -> Iterator[None]:
    """Existing with another configuration is fine here; any other refusal is not."""
    try:
        yield
    except BadRequestError as error:
        if error.err_code not in (10058, 10148):
            raise


async def _updated(js: JetStreamContext, stream: str, wanted: dict[str, object]) -> list[Change]:
    """Give a stream the settings in which it differs from `wanted`, in one request."""
    found = (await js.stream_info(stream)).config
    changes = [
        Change(stream, setting, getattr(found, setting), value)
        for setting, value in wanted.items()
        if getattr(found, setting) != value
    ]
    if changes:
        await js.update_stream(found.evolve(**{c.setting: c.now for c in changes}))
    return changes


def _stream_settings(config: StreamConfig) -> dict[str, object]:
    ours = ("subjects", "discard", "max_age", "duplicate_window", "num_replicas", "allow_direct")
    return {"max_bytes": config.max_bytes or -1, **{key: getattr(config, key) for key in ours}}


def _bucket_settings(config: KeyValueConfig) -> dict[str, object]:
    kept = _kept(config)
    return {**kept, "subject_delete_marker_ttl": config.limit_marker_ttl, "allow_direct": True}


def _kept(config: KeyValueConfig | ObjectStoreConfig) -> dict[str, object]:
    """The limits of a bucket as those of its stream."""
    return {
        "max_age": config.ttl,
        # No longer than messages are kept, or the server refuses.
        "duplicate_window": min(config.ttl or _BUCKET_WINDOW_S, _BUCKET_WINDOW_S),
        "max_bytes": config.max_bytes or -1,
        "num_replicas": config.replicas,
    }


def _bucket(name: str, ttl_s: float, settings: Settings) -> KeyValueConfig:
    return KeyValueConfig(
        bucket=name,
        ttl=max(1.0, ttl_s),
        replicas=settings.bus.replicas,
        limit_marker_ttl=max(1.0, min(ttl_s, 60.0)),
        history=1,
        # Reads name their key in the subject then, so that permissions can be given by key.
        direct=True,
    )
