"""A delivery on a real bus: an origin and nodes in this process, earlier facts said by hand."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import anyio
import msgspec
import numpy as np
from safetensors.numpy import save_file

from config.settings import Settings
from messages.documents import Document
from messages.ids import JobId, NodeId, PlanId
from messages.jobs import JobCompleted, JobFailed, ModelRequest
from messages.metadata import ModelMetadata
from messages.models import ModelDownloaded
from messages.plans import (
    Assignment,
    MegaphonePlan,
    RelayStep,
    SelectedNode,
    SplitPlan,
    SplitPlanned,
)
from messages.shards import ShardDelivered
from messages.subjects import JOB_ENDED, SHARD_DELIVERED
from messages.wire import encode
from services.distributor.service import build as build_distributor
from services.planner.assignments import assigned
from services.runtime import provision
from services.runtime.actor import Actor
from services.runtime.bus import Bus
from services.splitter.service import build as build_splitter

ORIGIN = NodeId("origin")
MODEL = "org/small"
JOB = JobId("job1")
Topology = Literal["chain", "star", "mixed"]


def write_model(directory: Path, layers: int = 6, size: int = 256, seed: int = 0) -> Path:
    """A small model in Hub layout, in two files, some MiB of random tensors of several types."""
    rng = np.random.default_rng(seed)
    directory.mkdir(parents=True, exist_ok=True)
    first: dict[str, np.ndarray[Any, Any]] = {
        "model.embed_tokens.weight": rng.standard_normal((size * 2, size)).astype(np.float32)
    }
    second: dict[str, np.ndarray[Any, Any]] = {}
    for k in range(layers):
        target = first if k < layers // 2 else second
        target[f"model.layers.{k}.attn.weight"] = rng.standard_normal((size, size * 3)).astype(
            np.float16
        )
        target[f"model.layers.{k}.mlp.weight"] = rng.integers(0, 255, (size, size * 4), np.uint8)
        target[f"model.layers.{k}.norm.weight"] = rng.standard_normal(size + 1).astype(np.float32)
    second["model.norm.weight"] = rng.standard_normal(size).astype(np.float32)
    save_file(first, directory / "model-00001-of-00002.safetensors")
    save_file(second, directory / "model-00002-of-00002.safetensors")
    weight_map = dict.fromkeys(first, "model-00001-of-00002.safetensors")
    weight_map |= dict.fromkeys(second, "model-00002-of-00002.safetensors")
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_bytes(msgspec.json.encode(index))
    (directory / "config.json").write_text('{"model_type": "small"}')
    (directory / "tokenizer.json").write_bytes(
        b'{"vocab": "' + bytes(rng.bytes(900_000).hex(), "ascii") + b'"}'
    )
    return directory


def parts(layers: int, nodes: Sequence[NodeId], *, tied: bool = True) -> list[tuple[str, ...]]:
    """The tensors of each node: layers in order; the embedding first and, tied, on the last."""
    held: list[list[str]] = [[] for _ in nodes]
    for k in range(layers):
        names = [f"model.layers.{k}.{part}.weight" for part in ("attn", "mlp", "norm")]
        held[k * len(nodes) // layers] += names
    held[0].insert(0, "model.embed_tokens.weight")
    held[-1].append("model.norm.weight")
    if tied and len(nodes) > 1:
        held[-1].append("model.embed_tokens.weight")
    return [tuple(names) for names in held]


def plan_of(
    nodes: Sequence[NodeId],
    held: Sequence[tuple[str, ...]],
    *,
    topology: Topology = "mixed",
    copies: bool = False,
    plan_id: str = "plan1",
) -> SplitPlan:
    """A plan that gives each node these tensors; with `copies` each is a replica of its own."""
    chained = topology != "star"
    steps = tuple(
        RelayStep(
            node_id=node,
            step=k,
            layer_names=names,
            next_nodes=tuple(nodes[k + 1 : k + 2]) if chained else (),
        )
        for k, (node, names) in enumerate(zip(nodes, held, strict=True))
    )
    return msgspec.convert(
        {
            "plan_id": plan_id,
            "model_name": MODEL,
            "model_url": "",
            "selected_nodes": [SelectedNode(node_id=n, compute_power=1.0) for n in nodes],
            "split_plan": {},
            "megaphone_plan": MegaphonePlan(
                start_node=ORIGIN,
                chain=steps,
                topology=msgspec.convert(topology, str),
            ),
            "assignments": [
                Assignment(
                    node_id=node,
                    stage=0 if copies else k,
                    replica=k if copies else 0,
                    start_block=k,
                    end_block=k + 1,
                    layer_names=names,
                    compute_required=1.0,
                    memory_bytes=1,
                    stage_s=1.0,
                )
                for k, (node, names) in enumerate(zip(nodes, held, strict=True))
            ],
        },
        SplitPlan,
        from_attributes=True,
    )


@dataclass
class Rig:
    """A bus, a model at the origin, and the settings of every node."""

    bus: Bus
    settings: Settings
    root: Path
    model: Path
    job_id: JobId = JOB
    options: dict[str, dict[str, object]] = field(default_factory=dict)

    def node(self, node_id: str) -> Settings:
        """The settings of one node: the origin's home, its own models directory."""
        distributor = {
            "models_dir": str(self.models(node_id)),
            "keep_free_bytes": 0,
            **self.options.get(node_id, {}),
        }
        node = {
            "node_id": node_id,
            "home": str(self.root / "home"),
            "origin": node_id == ORIGIN,
            "compute_gflops": 1.0,
            "memory_bytes": 1 << 30,
            "heartbeat_s": 0.2,
        }
        replace = msgspec.structs.replace
        return replace(
            self.settings,
            node=replace(self.settings.node, **node),
            distributor=replace(self.settings.distributor, **distributor),
        )

    def models(self, node_id: str) -> Path:
        """Where a node's stages appear."""
        return self.root / "nodes" / node_id / "models"

    def stage(self, node_id: str) -> Path:
        """The path under which a node's stage appears."""
        return self.models(node_id) / "org--small"

    @asynccontextmanager
    async def nodes(self, *node_ids: str) -> AsyncIterator[None]:
        """The distributors of these nodes (and, with the origin, its splitter) for the block.

        They stop side by side: each fetch that is under way then takes up to a second to end.
        """
        stop = anyio.Event()
        async with anyio.create_task_group() as group:
            for node_id in node_ids:
                settings = self.node(node_id)
                services = [build_distributor(settings, self.bus)]
                if node_id == ORIGIN:
                    services.append(build_splitter(settings, self.bus))
                await provision.provision_consumers(self.bus, settings, services)
                actor = Actor(self.bus, settings, services)
                group.start_soon(actor.run, stop)
                await actor.ready.wait()
            try:
                yield
            finally:
                stop.set()

    async def plan(
        self, plan: SplitPlan, *, generation: int = 1, ties: Sequence[tuple[str, ...]] = ()
    ) -> None:
        """Say everything up to the assignments of this plan."""
        request = ModelRequest(model_name=MODEL)
        metadata = ModelMetadata(model_name=MODEL, ties=tuple(ties))
        planned = SplitPlanned(
            origin=ORIGIN,
            job_id=self.job_id,
            generation=generation,
            request=request,
            plan_id=PlanId(plan.plan_id),
            model_name=plan.model_name,
            revision=plan.revision,
            strategy="pipeline",
            node_ids=tuple(a.node_id for a in plan.assignments),
            bottleneck_s=0.0,
            plan=await self.bus.documents.put(encode(plan), "plan"),
            metadata=Document.of_small(encode(metadata)),
        )
        downloaded = ModelDownloaded(
            origin=ORIGIN,
            job_id=self.job_id,
            request=request,
            revision="",
            model_path=str(self.model),
            files_downloaded=(),
            total_size_bytes=0,
            total_size_mb=0.0,
        )
        for fact in (downloaded, planned, *assigned(planned, plan)):
            await self.bus.facts.say(fact)

    async def ending(
        self, *, generation: int = 1, timeout_s: float = 60.0
    ) -> JobCompleted | JobFailed:
        """The job's end."""
        with anyio.fail_after(timeout_s):
            said = await self.bus.facts.wait(JOB_ENDED, job_id=self.job_id, generation=generation)
        assert isinstance(said.fact, JobCompleted | JobFailed)
        return said.fact

    async def delivered(self, generation: int = 1) -> dict[str, ShardDelivered]:
        """What each node said of its delivery."""
        said = await self.bus.facts.read(SHARD_DELIVERED, job_id=self.job_id, generation=generation)
        found: dict[str, ShardDelivered] = {}
        for one in said:
            assert isinstance(one.fact, ShardDelivered)
            found[one.fact.node_id] = one.fact
        return found


def sources_of(fact: ShardDelivered) -> dict[str, int]:
    """Bytes of a delivery by source."""
    return {one.source: one.size_bytes for one in fact.received}
