"""A route's durable consumer on the server: whether it is there, and made again when it is not."""

import time
from typing import Any

import anyio
import msgspec
import structlog
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.client import JetStreamContext

from config.settings import Settings
from messages.wire import Undecodable, decode
from services.runtime import names, provision, stored
from services.runtime.bus import Bus
from services.runtime.connection import BUS_TROUBLE
from services.runtime.service import Route

log = structlog.get_logger()
_NOT_FOUND = 404
# A server tells of a deleted consumer before its files are gone, and takes those of one made again
# meanwhile along with them.
_REMOVED_S = 0.5


class _Place(msgspec.Struct, frozen=True):
    """How far a consumer's messages are acknowledged."""

    stream_seq: int = 0


class _Info(msgspec.Struct, frozen=True):
    """What the server says of a consumer; `ts` is its time."""

    ts: str = ""
    ack_floor: _Place = _Place()
    error: stored.Refusal | None = None


class Binding:
    """The consumer that a route's copies share, and up to where they have acknowledged."""

    def __init__(self, service: str, route: Route[Any], bus: Bus, settings: Settings) -> None:
        self.name = names.consumer_name(service, route)
        self._config = provision.consumer(settings.bus, service, route)
        self._bus = bus
        self._floor = 0

    async def look(self) -> bool | None:
        """Whether the consumer is there, made again if it was deleted; None when nobody says.

        The library's answer leaves out the server's time, by which what was heard is dated.
        """
        client = self._bus.client
        subject = f"$JS.API.CONSUMER.INFO.{names.FACTS_STREAM}.{self.name}"
        asked_at = time.monotonic()
        try:
            info = decode((await client.request(subject, timeout=5)).data, _Info)
        except (*BUS_TROUBLE, Undecodable) as error:
            log.debug("consumer not looked at", consumer=self.name, error=type(error).__name__)
            return None
        refusal = info.error
        if refusal is None:
            if info.ts:
                self._bus.facts.ears.set_clock(stored.unix_s(info.ts), asked_at)
            self._floor = info.ack_floor.stream_seq
            return True
        if refusal.code != _NOT_FOUND:
            log.debug("consumer not looked at", consumer=self.name, error=refusal.description)
            return None
        if refusal.err_code == names.CONSUMER_NOT_FOUND:
            return await self._make(client.jetstream(timeout=5))
        log.error("the consumer is gone", consumer=self.name, error=refusal.description)
        return False

    async def _make(self, js: JetStreamContext) -> bool:
        """Make it again from the last known floor on: a command of long ago is not done again.

        A service that is not allowed to loses its connection over the attempt, and its process
        ends with that reason: better than one that hears nothing.
        """
        log.warning("the consumer was deleted; making it again", consumer=self.name)
        await anyio.sleep(_REMOVED_S)
        try:
            await js.add_consumer(names.FACTS_STREAM, config=_after(self._config, self._floor))
        except BUS_TROUBLE as error:
            log.warning("consumer not made", consumer=self.name, error=str(error))
            return False
        return True


def _after(config: ConsumerConfig, floor: int) -> ConsumerConfig:
    if not floor:
        return config
    start: dict[str, Any] = {"opt_start_seq": floor + 1}
    return config.evolve(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, **start)
