"""The life of a process: connect, run its services, stop within bounds when told to."""

import gc
import signal
import sys
from collections.abc import Callable, Iterable, Sequence

import anyio
import structlog

from config import load, logging
from config.settings import Settings
from messages.failures import Permanent
from messages.subjects import JOB_ENDED
from services.runtime import endpoints, health, notify, provision
from services.runtime.bus import Bus, open_bus
from services.runtime.connection import BusUnreachable
from services.runtime.consumer import Consumer
from services.runtime.service import Background, Service

log = structlog.get_logger()
Build = Callable[[Settings, Bus], Service]
_COLLECT_AFTER = 20_000
EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_BUS = 0, 1, 2, 3


class Actor:
    """The services of one process on one connection."""

    def __init__(self, bus: Bus, settings: Settings, services: Sequence[Service]) -> None:
        self._bus = bus
        self._settings = settings
        self._services = services
        self.ready = anyio.Event()
        self.consumers = [
            Consumer(service.name, route, bus, settings)
            for service in services
            for route in service.routes
        ]
        self._running = False

    @property
    def connected(self) -> bool:
        """Whether the bus is connected now."""
        return bool(self._bus.client.is_connected)

    def lacking(self) -> str:
        """What keeps this process from taking messages; empty when nothing does."""
        if not self._running:
            return "not running"
        if not self.connected:
            return "the bus is not connected"
        unbound = [consumer.name for consumer in self.consumers if not consumer.bound]
        return f"not consuming: {', '.join(unbound)}" if unbound else ""

    async def run(self, stop: anyio.Event) -> None:
        """Run until `stop`, then let handlers finish within the grace period, then cancel them."""
        for subject in (JOB_ENDED, *(s for service in self._services for s in service.waits_for)):
            await self._bus.facts.ears.listen(subject.where())
        async with anyio.create_task_group() as group:
            for background in _backgrounds(self._services):
                group.start_soon(background)
            micros = [
                await endpoints.serve(self._bus, service, group)
                for service in self._services
                if service.endpoints
            ]
            async with anyio.create_task_group() as consuming:
                for consumer in self.consumers:
                    consuming.start_soon(consumer.run, stop)
                self.ready.set()
                log.info("running", services=[service.name for service in self._services])
                self._running = True
                await stop.wait()
                self._running = False
                notify.tell("STOPPING=1")
                for micro in micros:
                    await micro.stop()
                with anyio.move_on_after(self._settings.bus.grace_s) as grace:
                    for consumer in self.consumers:
                        await consumer.finished.wait()
                if grace.cancelled_caught:
                    busy = sum(consumer.in_flight for consumer in self.consumers)
                    log.warning("grace period over; handing work back", handlers=busy)
                consuming.cancel_scope.cancel()
            group.cancel_scope.cancel()


def _backgrounds(services: Iterable[Service]) -> list[Background]:
    return [background for service in services for background in service.background]


async def run(
    settings: Settings, builds: Sequence[Build], *, provisioned: bool = True, name: str = ""
) -> int:
    """Run these services until SIGTERM or SIGINT; returns the process's exit code.

    With `provisioned` false the streams, buckets and consumers are created first.
    """
    stop = anyio.Event()
    lost: list[str] = []

    def on_closed(reason: str) -> None:
        lost.append(reason)
        stop.set()

    try:
        async with open_bus(settings, name, on_closed=on_closed) as bus:
            services = [build(settings, bus) for build in builds]
            await _ready(bus, settings, services, provisioned=provisioned)
            actor = Actor(bus, settings, services)
            async with health.serving(settings.health, actor), anyio.create_task_group() as group:
                group.start_soon(_until_signalled, stop)
                group.start_soon(notify.keep, actor)
                await actor.run(stop)
                group.cancel_scope.cancel()
    except BusUnreachable as error:
        log.error("bus unreachable", error=str(error))
        return EXIT_BUS
    except Permanent as error:
        log.error("cannot start", reason=error.reason, advice=error.advice)
        return EXIT_FAILED
    if lost:
        log.error("bus lost", reason=lost[0])
        return EXIT_BUS
    log.info("stopped")
    return EXIT_DONE


async def _ready(
    bus: Bus, settings: Settings, services: Sequence[Service], *, provisioned: bool
) -> None:
    if not provisioned:
        await provision.provision_storage(bus, settings)
        await provision.provision_consumers(bus, settings, services)
        return
    lacking = await provision.missing(bus, services)
    if lacking:
        raise provision.NotProvisioned(lacking[0])


async def _until_signalled(stop: anyio.Event) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            log.info("stopping")
            stop.set()


def main(*builds: Build) -> None:
    """The entry of `python -m services.<name>`: settings from the environment, then `run`."""
    try:
        settings = load.load()
    except Permanent as error:
        sys.exit(f"{error.reason}\n{error.advice}")
    names = "-".join(build.__module__.split(".")[1] for build in builds)
    logging.setup(settings.logging, service=names)
    name = f"{names}-{settings.node.node_id}"
    # What is loaded by now stays: a collection, and messages make many, need not look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
    sys.exit(anyio.run(lambda: run(settings, builds, name=name), backend="asyncio"))
