"""One delivery on this node: what must come, from whom, and the fact that it is here."""

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import prod

import anyio
import anyio.to_thread
import msgspec
import structlog
from anyio.from_thread import check_cancelled

from config.settings import Settings
from messages.base import Fact
from messages.ids import JobId, NodeId
from messages.plans import NodeAssigned
from messages.shards import ReceivedBytes, ShardDelivered, StageManifest
from services.checkpoint.shelf import OriginShelf
from services.distributor.arrival import Arrival
from services.distributor.failures import NotEnoughDisk
from services.distributor.from_hub import HUB, HubSource, hub_source
from services.distributor.held import Held
from services.distributor.holdings import Holdings
from services.distributor.order import Order, order_for, routes_of, was_cancelled
from services.distributor.prune import prune
from services.distributor.receive import MEMORY_BYTES, Reception, plain_errors
from services.distributor.recipe import made_files
from services.distributor.room import Room
from services.distributor.sources import Sources
from services.distributor.store import Store
from services.distributor.transfer import Giver, Source
from services.hub.cache import snapshot_directory
from services.hub.hub import is_commit
from services.runtime import progress
from services.runtime.bus import Bus

log = structlog.get_logger()
_MIB = 1024 * 1024
_TIDY_S = 1.5


@dataclass
class Deliveries:
    """Receives stages into `store`, one at a time for each stage; a stage held already waits for
    none of those that are received `at_once`.
    """

    settings: Settings
    bus: Bus
    store: Store
    holdings: Holdings
    shelf: OriginShelf | None = None
    tls: ssl.SSLContext | None = None
    room: Room = field(default_factory=lambda: Room(MEMORY_BYTES))
    at_once: anyio.CapacityLimiter = field(init=False)
    _busy: dict[str, anyio.Lock] = field(default_factory=dict)
    # Threads that read gigabytes must leave some to the heartbeats.
    _verifying: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(8))

    def __post_init__(self) -> None:
        self.at_once = anyio.CapacityLimiter(self.settings.distributor.slots)

    @property
    def node_id(self) -> NodeId:
        """This node."""
        return NodeId(self.settings.node.node_id)

    async def deliver(self, assigned: NodeAssigned) -> Sequence[Fact]:
        """Receive this node's stage of a plan, verify it, make it visible."""
        started = anyio.current_time()
        order = await order_for(self.bus, self.node_id, assigned)
        lock = self._busy.setdefault(order.sha256, anyio.Lock())
        async with lock:
            if await self._uses_held(order):
                total = order.manifest.size_bytes
                progress.report(total, total)
                return (self._delivered(order, {"held": total}, started),)
            async with self._tidied(order, lock), self.at_once:
                reception = await self._receive(order)
        log.info(
            "stage delivered",
            stage=order.sha256[:16],
            bytes=order.manifest.size_bytes,
            sources=dict(reception.received),
        )
        fact = self._delivered(order, reception.received, started)
        return (
            msgspec.structs.replace(
                fact,
                resumed_bytes=reception.resumed_bytes,
                distrusted=tuple(sorted(reception.sources.distrusted)),
                slow=tuple(sorted(reception.sources.slow)),
            ),
        )

    async def source(self, job_id: JobId, for_node: NodeId, node_id: str) -> Source | None:
        """Where a node serves now and what it must be shown, or None while it does not live."""
        entry = await self.bus.registry.node(NodeId(node_id))
        token = await self.bus.grants.token(self.node_id, job_id)
        if entry is None or not entry.data_url or token is None:
            return None
        return Source(node_id, entry.data_url, job_id, for_node, token, self.tls)

    def sources(self, job_id: JobId, for_node: NodeId, hub: HubSource | None = None) -> Sources:
        """The sources of one delivery, with the Hub where it may be asked."""

        async def resolve(source: str) -> Giver | None:
            if hub is not None and source == HUB:
                return hub
            return await self.source(job_id, for_node, source)

        return Sources(resolve)

    async def _uses_held(self, order: Order) -> bool:
        """Whether the stage was here, verified, and is in use now.

        One that is bad arrives again, by its bad chunks.
        """
        if await anyio.to_thread.run_sync(self._use_held, order, limiter=self._verifying):
            return True
        if await anyio.to_thread.run_sync(self.store.take_back, order.sha256, order.manifest):
            log.warning("a stage here is not what it was: mending it", stage=order.sha256[:16])
        return False

    def _use_held(self, order: Order) -> bool:
        def done(_size: int) -> None:
            check_cancelled()

        held = self.store.holds(order.sha256, order.manifest, done)
        if held:
            self.store.use(order.sha256, order.manifest)
        return held

    @asynccontextmanager
    async def _tidied(self, order: Order, lock: anyio.Lock) -> AsyncIterator[None]:
        """What arrived goes where the job was cancelled, unless another here waits for this stage.

        A service that stops leaves it to the next one.
        """
        try:
            yield
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(_TIDY_S, shield=True):
                if not lock.statistics().tasks_waiting and await was_cancelled(self.bus, order):
                    await anyio.to_thread.run_sync(self.store.discard, order.sha256)
            raise

    async def _receive(self, order: Order) -> Reception:
        if not self.settings.distributor.hub:
            return await self._receive_from(order, None)
        async with hub_source(order.manifest) as hub:
            return await self._receive_from(order, hub)

    async def _receive_from(self, order: Order, hub: HubSource | None) -> Reception:
        manifest = order.manifest
        place = self.store.place(order.sha256, manifest)
        arrival = Arrival(manifest, self.store.arriving(order.sha256), place)
        await anyio.to_thread.run_sync(self._make_room, order)
        routes = await routes_of(self.bus, self.node_id, order)
        if hub is not None:
            routes = {(*route, HUB): digests for route, digests in routes.items()}
        with plain_errors(arrival):
            await anyio.to_thread.run_sync(arrival.open)
        sources = self.sources(order.assigned.job_id, self.node_id, hub)
        in_flight = self.settings.distributor.in_flight
        reception = Reception(arrival, sources, in_flight, self.room)
        self.holdings.arriving(arrival.files)
        try:
            await reception.resume()
            await reception.take_held(await anyio.to_thread.run_sync(self._held, manifest))
            await self._take_own(order, reception)
            if hub is not None:
                await self._take_made(order, reception)
            await reception.fetch(routes)
            arrival.close()
            with plain_errors(arrival):
                await anyio.to_thread.run_sync(self.store.finish, order.sha256, order.body)
            await anyio.to_thread.run_sync(self.holdings.read)
        finally:
            arrival.close()
            self.holdings.arrived(arrival.files)
        return reception

    async def _take_own(self, order: Order, reception: Reception) -> None:
        """At the origin the stage comes from its own disk, by the layout."""
        shelved = None
        if self.shelf is not None and order.assigned.origin == self.node_id:
            shelved = await anyio.to_thread.run_sync(self.shelf.stage, order.sha256)
        if shelved is not None:
            await reception.take_laid_out(shelved, self.node_id)

    async def _take_made(self, order: Order, reception: Reception) -> None:
        """What is in no file of the model, and so not on the Hub, follows from the manifest."""
        told = order.stage.description
        body = await self.bus.documents.get(told) if told is not None else None
        await reception.take_made(made_files(order.manifest, body))

    def _held(self, manifest: StageManifest) -> Held:
        """What this node may have of a stage: its other stages, the Hub's own cache."""
        held = Held()
        for stage in self.store.stages():
            held.add(stage.manifest, stage.directory)
        if is_commit(manifest.revision):
            snapshot = snapshot_directory(manifest.model_name, manifest.revision)
            if snapshot is not None:
                held.add_model(manifest, snapshot)
        return held

    def _make_room(self, order: Order) -> None:
        """Refuse what does not fit, after old stages gave way; what arrived before counts."""
        limits = self.settings.distributor
        arriving = self.store.arriving(order.sha256)
        have = sum(p.stat().st_blocks * 512 for p in arriving.rglob("*") if p.is_file())
        needed = max(order.manifest.size_bytes - have, 0)
        if limits.quota_bytes:
            room = limits.quota_bytes - order.manifest.size_bytes
            pruned = prune(self.store.models, max(room, 0))
            left = sum(stage.size_bytes for stage in self.store.stages())
            if left + order.manifest.size_bytes > limits.quota_bytes:
                raise NotEnoughDisk(
                    order.manifest.size_bytes, max(limits.quota_bytes - left, 0), self.store.models
                )
            if pruned:
                log.info("old stages gave way", stages=[one.directory for one in pruned])
        free = self.store.free_bytes() - limits.keep_free_bytes
        if needed > free:
            raise NotEnoughDisk(needed, max(free, 0), self.store.models)

    def _delivered(self, order: Order, received: dict[str, int], started: float) -> ShardDelivered:
        manifest, assigned = order.manifest, order.assigned
        return ShardDelivered(
            origin=assigned.origin,
            job_id=assigned.job_id,
            generation=assigned.generation,
            node_id=self.node_id,
            plan_id=manifest.plan_id,
            stage=manifest.stage,
            stage_dir=str(self.store.link(manifest)),
            stage_sha256=order.stage.manifest.sha256,
            size_bytes=manifest.size_bytes,
            shard_size_mb=manifest.size_bytes / _MIB,
            total_params=sum(prod(t.shape) for file in manifest.files for t in file.tensors),
            received=tuple(
                ReceivedBytes(source=source, size_bytes=size)
                for source, size in sorted(received.items())
                if size
            ),
            wall_s=anyio.current_time() - started,
        )
