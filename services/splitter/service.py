"""The splitter's route: a stored plan becomes the manifests of its stages, which can be served."""

import errno
import functools
import hashlib
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from config.settings import Settings
from messages.base import Fact
from messages.documents import Document, digest_of
from messages.failures import Passing
from messages.ids import NodeId, Sha256
from messages.metadata import ModelMetadata
from messages.models import ModelDownloaded
from messages.plans import SplitPlan, SplitPlanned
from messages.shards import Access, ShardsReady, StageManifest, StageReady
from messages.subjects import MODEL_DOWNLOADED, SPLIT_PLANNED
from messages.wire import encode
from services.checkpoint.description import STAGE_NAME, without_files
from services.checkpoint.layout import Literal, StageLayout
from services.checkpoint.shelf import OriginShelf, ShelvedStage, cut_key, manifest_of
from services.checkpoint.sources import SourceFiles
from services.runtime.bus import Bus
from services.runtime.service import Route, Service
from services.splitter.cutter import Cutter, Stage, cutter
from services.splitter.failures import NoModelHere, NotEnoughDisk
from services.splitter.stop import Report, on_threads

Put = Callable[[bytes, str], Awaitable[Document]]


@dataclass(frozen=True)
class Made:
    """A stage that the origin can serve: its manifest, as stored and read, and its description."""

    body: bytes
    manifest: StageManifest
    description: bytes


class Splitter:
    """The handler, with the settings and the bus it needs."""

    def __init__(self, settings: Settings, bus: Bus) -> None:
        self._settings = settings
        self._bus = bus
        self._shelf = OriginShelf(settings.origin_dir / "stages")

    async def cut(self, planned: SplitPlanned) -> Sequence[Fact]:
        """The manifest of every stage, once the origin can serve them all."""
        if planned.plan_only:
            return ()
        plan = await self._bus.documents.load(planned.plan, SplitPlan)
        metadata = await self._bus.documents.load(planned.metadata, ModelMetadata)
        model_dir = await self._model_dir(planned)
        made = await on_threads(functools.partial(self._made, model_dir, plan, metadata.ties))
        access = await self._access(planned, {one.manifest.node_id: one.manifest for one in made})
        # All of it travels in one message.
        put = functools.partial(self._bus.documents.put, among=2 * len(made) + 1)
        return (
            ShardsReady(
                origin=planned.origin,
                job_id=planned.job_id,
                generation=planned.generation,
                plan_id=plan.plan_id,
                stages=tuple([await _ready(plan.plan_id, one, put) for one in made]),
                access=await put(encode(access), f"{plan.plan_id}.access"),
            ),
        )

    def _made(
        self, model_dir: Path, plan: SplitPlan, ties: Sequence[Sequence[str]], report: Report
    ) -> tuple[Made, ...]:
        """The plan's stages, each cut now or found by its digest."""
        stages = self._stages(model_dir, plan, ties, report)
        return tuple(self._kept(sha) for sha in stages.values())

    def _kept(self, sha256: str) -> Made:
        body = self._shelf.manifest(sha256)
        if body is None:
            raise Passing("a stage was taken from the shelf as it was looked up: cut again")
        return Made(body, manifest_of(body), self._description(sha256))

    async def sweep(self) -> None:
        """Remove what an earlier process of this service left half made."""
        await anyio.to_thread.run_sync(self._shelf.sweep)

    async def _model_dir(self, planned: SplitPlanned) -> Path:
        """Where the model of this job is; a plan of a later generation finds the first download."""
        said = await self._bus.facts.last(
            MODEL_DOWNLOADED, origin=planned.origin, job_id=planned.job_id
        )
        if said is None or not isinstance(said.fact, ModelDownloaded):
            raise NoModelHere(
                f"the origin {planned.origin} has not downloaded {planned.model_name} for this job",
                advice="ask for a plan only (plan_only), or request the model from this origin",
            )
        return Path(said.fact.model_path)

    def _description(self, sha256: str) -> bytes:
        """The stage's description as it travels beside the manifest."""
        stage = self._shelf.stage(sha256)
        files = stage.layout.files if stage is not None else ()
        (body,) = (
            piece.data
            for file in files
            if file.name == STAGE_NAME
            for piece in file.pieces
            if isinstance(piece, Literal)
        )
        return without_files(body)

    async def _access(
        self, planned: SplitPlanned, manifests: Mapping[NodeId, StageManifest]
    ) -> Access:
        """Each node's token is made once and kept on the bus; only its digest is told."""
        tokens: dict[NodeId, Sha256] = {}
        for node in manifests:
            token = await self._bus.grants.grant(node, planned.job_id)
            tokens[node] = Sha256(hashlib.sha256(token.encode()).hexdigest())
        files = {
            node: tuple(file.digest for file in manifest.files)
            for node, manifest in manifests.items()
        }
        return Access(tokens=tokens, files=files)

    def _stages(
        self, model_dir: Path, plan: SplitPlan, ties: Sequence[Sequence[str]], report: Report
    ) -> Mapping[str, str]:
        """The stage digest of each node; nothing is read where the same cut was made before."""
        settings = self._settings.splitter
        made = cutter(
            model_dir,
            plan,
            ties=ties,
            chunk_bytes=settings.chunk_bytes,
            threads=settings.jobs,
            report=report,
        )
        key = cut_key(made.layouts, made.paths, settings.materialize)
        known = self._shelf.recall(key)
        if known is None:
            known = self._cut(made)
            self._shelf.remember(key, known)
        return known

    def _cut(self, made: Cutter) -> dict[str, str]:
        written = {layout.node_id for layout in made.layouts if self._writes(layout.node_id)}
        self._check_space(sum(x.size_bytes for x in made.layouts if x.node_id in written))
        paths = {name: str(path) for name, path in made.paths.items()}
        shas: dict[str, str] = {}
        with SourceFiles(made.paths) as sources:

            def one(layout: StageLayout) -> None:
                room = self._shelf.room() if layout.node_id in written else None
                try:
                    shas[layout.node_id] = self._keep(made.cut(layout, sources, room), paths, room)
                finally:
                    if room is not None:
                        shutil.rmtree(room, ignore_errors=True)

            try:
                # Stages that are only read have no sync to wait for, and files in common.
                jobs = self._settings.splitter.jobs if written else 1
                made.side_by_side(one, made.layouts, jobs)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    self._check_space(1 << 62)
                raise
        return {layout.node_id: shas[layout.node_id] for layout in made.layouts}

    def _keep(self, stage: Stage, paths: dict[str, str], room: Path | None) -> str:
        body = encode(stage.manifest)
        sha256 = digest_of(body)
        if room is None and self._shelf.use(sha256):
            return sha256
        return self._shelf.put(body, ShelvedStage(layout=stage.layout, paths=paths), room)

    def _writes(self, node_id: NodeId) -> bool:
        materialize = self._settings.splitter.materialize
        own = node_id == self._settings.node.node_id
        return materialize == "all" or (materialize == "own" and own)

    def _check_space(self, needed_bytes: int) -> None:
        self._settings.origin_dir.mkdir(parents=True, exist_ok=True)
        free_bytes = shutil.disk_usage(self._settings.origin_dir).free
        if needed_bytes > free_bytes:
            raise NotEnoughDisk(
                needed_bytes,
                free_bytes,
                self._settings.origin_dir,
                'free some, or set materialize = "none" in [splitter] to serve from the source',
            )


async def _ready(plan_id: str, made: Made, put: Put) -> StageReady:
    name = f"{plan_id}.{made.manifest.node_id}"
    return StageReady(
        node_id=made.manifest.node_id,
        stage=made.manifest.stage,
        size_bytes=made.manifest.size_bytes,
        manifest=await put(made.body, f"{name}.manifest"),
        description=await put(made.description, f"{name}.description"),
    )


def build(settings: Settings, bus: Bus) -> Service:
    """The splitter of this origin."""
    splitter = Splitter(settings, bus)
    return Service(
        "splitter",
        routes=(
            Route(SPLIT_PLANNED, splitter.cut, where={"origin": settings.node.node_id}, slots=2),
        ),
        background=(splitter.sweep,),
    )
