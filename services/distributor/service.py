"""The distributor's routes: an assignment becomes a verified stage, the last one ends the job."""

import functools
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
import structlog

from config.settings import Distributor as DistributorSettings
from config.settings import Settings
from messages.failures import Passing, Permanent
from messages.ids import JobId, NodeId, is_id
from messages.nodes import NodeEntry
from messages.plans import MegaphonePlan, NodeAssigned, SplitPlan, SplitPlanned
from messages.shards import (
    Access,
    ShardDelivered,
    ShardFailed,
    ShardsReady,
    StageFile,
    StageManifest,
)
from messages.subjects import NODE_ASSIGNED, SHARD_DELIVERED, SHARDS_READY, SPLIT_PLANNED
from services.checkpoint.shelf import OriginShelf
from services.distributor import machine
from services.distributor.access import Gate
from services.distributor.address import dialled
from services.distributor.content import Awaited, Content
from services.distributor.delivery import Deliveries
from services.distributor.ending import Endings
from services.distributor.holdings import Holdings
from services.distributor.pace import Pace
from services.distributor.passing import MEMORY_BYTES, Passed, Through, Upstream
from services.distributor.remeasure import keep_measured
from services.distributor.room import Room
from services.distributor.server import DataServer
from services.distributor.store import Store
from services.runtime.bus import Bus
from services.runtime.service import Route, Service

log = structlog.get_logger()
_SLOTS = 64


class Facts:
    """What the gate asks the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def shards(self, job_id: JobId) -> ShardsReady | None:
        """The newest `ShardsReady` of a job."""
        said = await self._bus.facts.last(SHARDS_READY, job_id=job_id)
        return said.fact if said is not None and isinstance(said.fact, ShardsReady) else None

    async def access(self, ready: ShardsReady) -> Access:
        """Who may fetch what of it."""
        if ready.access is None:
            return Access(tokens={}, files={})
        return await self._bus.documents.load(ready.access, Access)

    async def relay(self, ready: ShardsReady) -> MegaphonePlan | None:
        """Who hands on to whom in it; None where its plan is no longer on the bus."""
        said = await self._bus.facts.last(
            SPLIT_PLANNED, origin=ready.origin, job_id=ready.job_id, generation=ready.generation
        )
        if said is None or not isinstance(said.fact, SplitPlanned):
            return None
        return (await self._bus.documents.load(said.fact.plan, SplitPlan)).megaphone_plan


class Distributor:
    """The handlers and the background of one node."""

    def __init__(self, settings: Settings, bus: Bus) -> None:
        self._settings, self._bus = settings, bus
        self._node_id = NodeId(settings.node.node_id)
        self._store = Store(settings.models_dir)
        shelf = OriginShelf(settings.origin_dir / "stages") if settings.node.origin else None
        self._holdings = Holdings(self._store, shelf)
        facts = Facts(bus)
        self._gate = Gate(facts, facts.relay)
        server_tls, client_tls = tls_contexts(settings.distributor)
        self._server_tls = server_tls
        self.deliveries = Deliveries(settings, bus, self._store, self._holdings, shelf, client_tls)
        self._upstreams: dict[tuple[JobId, NodeId], Upstream] = {}
        self._passed, self._passing_room = Passed(), Room(MEMORY_BYTES)
        self.server = DataServer(
            self._gate,
            self._find,
            Pace(settings.distributor.upload_bytes_per_s),
            settings.distributor.max_connections,
        )

    async def live(self) -> None:
        """Serve what this node has, and announce it with heartbeats, for the service's life."""
        await anyio.to_thread.run_sync(self._store.sweep)
        await anyio.to_thread.run_sync(self._holdings.read)
        options = self._settings.distributor
        async with (
            self._passing(),
            self.server.listening(options.host, options.port, self._server_tls) as port,
            anyio.create_task_group() as group,
        ):
            scheme = "https" if self._server_tls else "http"
            host = await anyio.to_thread.run_sync(dialled, options.host, self._settings.bus.url)
            url = options.advertise_url or f"{scheme}://{host}:{port}"
            log.info("serving", url=url)
            try:
                await self._announce(url)
                group.start_soon(keep_measured, self._settings.node, self._settings.home)
                while True:
                    await anyio.sleep(self._settings.node.heartbeat_s)
                    await self._announce(url)
            finally:
                with anyio.move_on_after(2.0, shield=True):
                    await self._withdraw()

    @asynccontextmanager
    async def _passing(self) -> AsyncIterator[None]:
        """For the length of the block; then the connections for passing on are closed."""
        try:
            yield
        finally:
            for upstream in self._upstreams.values():
                upstream.close()

    async def _announce(self, url: str) -> None:
        settings = self._settings
        look = functools.partial(machine.node, settings.node, settings.home, settings.models_dir)
        node = await anyio.to_thread.run_sync(look)
        entry = NodeEntry(
            node=node,
            data_url=url,
            origin=settings.node.origin,
            disk_free_bytes=await anyio.to_thread.run_sync(self._store.free_bytes),
            heartbeat_s=settings.node.heartbeat_s,
        )
        try:
            await self._bus.registry.announce(entry)
        except Passing as error:
            log.warning("heartbeat not taken", error=str(error))

    async def _withdraw(self) -> None:
        try:
            await self._bus.registry.withdraw(self._node_id)
        except Passing as error:
            log.info("not withdrawn; the entry expires", error=str(error))

    async def _find(self, digest: str, job_id: str, for_node: str) -> tuple[Content, int] | None:
        """What the data server may serve: held here, or passed through for a node behind us."""
        found = self._holdings.find(digest)
        if found is None:
            await anyio.to_thread.run_sync(self._holdings.read)
            found = self._holdings.find(digest)
        if found is not None or not is_id(for_node):
            return found
        if await self._gate.needs(JobId(job_id), self._node_id, digest):
            return Awaited(), 1
        upstream = await self._upstream(JobId(job_id), NodeId(for_node))
        file = await self._planned_file(digest, JobId(job_id), NodeId(for_node))
        if upstream is None or file is None:
            return None
        return Through(file, upstream), file.chunk_bytes

    async def _upstream(self, job_id: JobId, for_node: NodeId) -> Upstream | None:
        """Whom this node asks for what it passes on; None where it relays nothing in this job."""
        known = self._upstreams.get((job_id, for_node))
        if known is not None:
            return known
        said = await self._bus.facts.last(NODE_ASSIGNED, node_id=self._node_id, job_id=job_id)
        if said is None or not isinstance(said.fact, NodeAssigned):
            return None
        route = tuple(str(node) for node in said.fact.fetch_from if node != self._node_id)
        sources = self.deliveries.sources(job_id, for_node)
        made = Upstream(route, sources, self._passing_room)
        if len(self._upstreams) >= 64:
            self._upstreams.pop(next(iter(self._upstreams))).close()
        return self._upstreams.setdefault((job_id, for_node), made)  # another may have been faster

    async def _planned_file(self, digest: str, job_id: JobId, node: NodeId) -> StageFile | None:
        """The manifest's entry of a file that is part of `node`'s stage."""
        known = self._passed.get(digest)
        if known is not None:
            return known
        ready = await self._gate.ready(job_id)
        stages = ready.stages if ready is not None else ()
        for stage in stages:
            if stage.node_id == node:
                manifest = await self._bus.documents.load(stage.manifest, StageManifest)
                self._passed.add(manifest.files)
        return self._passed.get(digest)


def tls_contexts(
    settings: DistributorSettings,
) -> tuple[ssl.SSLContext | None, ssl.SSLContext | None]:
    """The contexts for serving and fetching: both sides show a certificate; None without TLS."""
    files = (settings.tls_ca_file, settings.tls_cert_file, settings.tls_key_file)
    if not any(files):
        return None, None
    if not all(files):
        raise Permanent(
            "TLS between nodes needs all three of tls_ca_file, tls_cert_file and tls_key_file",
            advice="set the three in [distributor], or none",
        )
    contexts = []
    for purpose in (ssl.Purpose.CLIENT_AUTH, ssl.Purpose.SERVER_AUTH):
        context = ssl.create_default_context(purpose, cafile=settings.tls_ca_file)
        context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        contexts.append(context)
    return contexts[0], contexts[1]


def build(settings: Settings, bus: Bus) -> Service:
    """The distributor of this node; an origin's also ends jobs."""
    distributor = Distributor(settings, bus)
    node_id = settings.node.node_id
    routes: tuple[Route[NodeAssigned] | Route[ShardDelivered | ShardFailed], ...] = (
        Route(
            NODE_ASSIGNED,
            distributor.deliveries.deliver,
            where={"node_id": node_id},
            slots=_SLOTS,
            at_node=True,
        ),
    )
    if settings.node.origin:
        # Every origin hears every delivery, by a consumer of its own, and drops the others' jobs.
        endings = Endings(bus, NodeId(node_id))
        routes += (Route(SHARD_DELIVERED, endings.conclude, slots=_SLOTS, part=node_id),)
    return Service(
        "distributor", routes=routes, background=(distributor.live,), waits_for=(SHARDS_READY,)
    )
