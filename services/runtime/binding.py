"""A route's durable consumer on the server: whether it is there, and made again when it is not."""

from typing import Any

import structlog
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.client import JetStreamContext
from nats.js.errors import NotFoundError

from config.settings import Settings
from services.runtime import names, provision
from services.runtime.bus import Bus
from services.runtime.connection import BUS_TROUBLE
from services.runtime.service import Route

log = structlog.get_logger()


class Binding:
    """The consumer that a route's copies share, and up to where they have acknowledged."""

    def __init__(self, service: str, route: Route[Any], bus: Bus, settings: Settings) -> None:
        self.name = names.consumer_name(service, route)
        self._config = provision.consumer(settings.bus, service, route)
        self._bus = bus
        self._floor = 0

    async def subscription(self) -> JetStreamContext.PullSubscription:
        """What messages are fetched by. It outlives the consumer, whose name is all it knows."""
        return await self._bus.client.jetstream().pull_subscribe_bind(
            durable=self.name, stream=names.FACTS_STREAM
        )

    async def look(self) -> bool | None:
        """Whether the consumer is there, made again if it was deleted; None when nobody says."""
        js = self._bus.client.jetstream(timeout=5)
        try:
            info = await js.consumer_info(names.FACTS_STREAM, self.name)
        except NotFoundError as error:
            if error.err_code == names.CONSUMER_NOT_FOUND:
                return await self._make(js)
            log.error("the stream is gone", stream=names.FACTS_STREAM, consumer=self.name)
            return False
        except BUS_TROUBLE as error:
            log.debug("consumer not looked at", consumer=self.name, error=type(error).__name__)
            return None
        if info.ack_floor is not None:
            self._floor = int(info.ack_floor.stream_seq)
        return True

    async def _make(self, js: JetStreamContext) -> bool:
        """Make it again from the last known floor on: a command of long ago is not done again.

        A service that is not allowed to loses its connection over the attempt, and its process
        ends with that reason: better than one that hears nothing.
        """
        log.warning("the consumer was deleted; making it again", consumer=self.name)
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
