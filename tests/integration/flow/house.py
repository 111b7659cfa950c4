"""A whole house in this process: all seven services of an origin and a distributor on each node."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import msgspec

from config.settings import Settings
from messages.base import Fact
from messages.ids import JobId, NodeId
from messages.jobs import JobEnded, ModelRequest
from messages.plans import SplitPlan, SplitPlanned
from messages.subjects import API_REQUEST, JOB_ENDED, SPLIT_PLANNED
from services.checkpoint.stage import VerifyReport, verify
from services.distributor.service import build as build_distributor
from services.downloader.service import build as build_downloader
from services.planner.service import build as build_planner
from services.profiler.service import build as build_profiler
from services.requester.service import build as build_requester
from services.runtime.actor import Build
from services.runtime.bus import Bus
from services.splitter.service import build as build_splitter
from services.uploader.service import build as build_uploader
from tests.bus_fixture import running

ORIGIN_BUILDS: tuple[Build, ...] = (
    build_requester,
    build_downloader,
    build_profiler,
    build_uploader,
    build_planner,
    build_splitter,
)
NODES = ("node_001", "node_002", "node_003")


@dataclass
class House:
    """The bus, where things lie, and what its nodes offer. The profiler counts in closed form."""

    bus: Bus
    settings: Settings
    root: Path
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    memory_bytes: dict[str, int] = field(default_factory=dict)

    def of(self, node_id: str) -> Settings:
        """One node's settings: `sections` override any."""
        changed: dict[str, dict[str, Any]] = {
            "node": {
                "node_id": node_id,
                "origin": node_id == NODES[0],
                "compute_gflops": 100.0 * (1 + NODES.index(node_id)),
                "memory_bytes": self.memory_bytes.get(node_id, 1 << 30),
                "heartbeat_s": 0.2,
            },
            "distributor": {"models_dir": str(self.root / node_id), "keep_free_bytes": 0},
            "downloader": {"keep_free_bytes": 0},
            "profiler": {"exact": False},
            "planner": {"wait_for_nodes_s": 3.0},
        }
        settings = self.settings
        for section in changed.keys() | self.sections.keys():
            values = changed.get(section, {}) | self.sections.get(section, {})
            table = msgspec.structs.replace(getattr(settings, section), **values)
            settings = msgspec.structs.replace(settings, **{section: table})
        return settings

    @asynccontextmanager
    async def open(self, nodes: Sequence[str] = NODES) -> AsyncIterator[None]:
        """Everything runs, and every node is in the registry, for the length of the block."""
        async with AsyncExitStack() as stack:
            for node_id in nodes:
                settings = self.of(node_id)
                builds = ORIGIN_BUILDS if node_id == NODES[0] else ()
                services = [build(settings, self.bus) for build in (*builds, build_distributor)]
                await stack.enter_async_context(running(self.bus, settings, *services))
            with anyio.fail_after(30):
                while len(await self.bus.registry.nodes()) < len(nodes):  # noqa: ASYNC110
                    await anyio.sleep(0.05)
            yield

    async def ask(self, model_name: str, **fields: Any) -> JobId:
        """A request by the API; its job's id."""
        request = ModelRequest(model_name=model_name, **fields)
        return (await self.bus.ask(API_REQUEST, request)).job_id

    async def end(self, job_id: JobId, timeout_s: float = 90) -> JobEnded:
        """How the job ends."""
        with anyio.fail_after(timeout_s):
            return (await self.bus.facts.wait(JOB_ENDED, job_id=job_id)).fact

    async def bring(self, model_name: str, **fields: Any) -> JobEnded:
        """Ask for a model and wait for the end of its job."""
        return await self.end(await self.ask(model_name, **fields))

    async def facts(self, job_id: JobId) -> list[Fact]:
        """Every fact of a job."""
        return [said.fact for said in await self.bus.facts.job(job_id)]

    async def plan(self, job_id: JobId) -> tuple[SplitPlanned, SplitPlan]:
        """The job's plan, as said and whole."""
        said = await self.bus.facts.last(SPLIT_PLANNED, job_id=job_id)
        assert said is not None
        return said.fact, await self.bus.documents.load(said.fact.plan, SplitPlan)

    def stages(self, name: str, nodes: Sequence[NodeId]) -> list[Path]:
        """The stage directories of a model's short name, in the order of these nodes."""
        return [self.root / node_id / name for node_id in nodes]

    def verified(self, name: str, nodes: Sequence[NodeId], model: Path) -> VerifyReport:
        """What verifying these stages against the source says."""
        return verify(self.stages(name, nodes), model)
