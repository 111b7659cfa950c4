"""The splitter's route: a stored plan becomes the manifests of its stages, which can be served."""

import errno
import functools
import hashlib
import shutil
from collections.abc import Awaitable, Callable, Sequence
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
from messages.shards import Access, ShardsReady, StageReady
from messages.subjects import MODEL_DOWNLOADED, SPLIT_PLANNED
from messages.wire import encode
from services.checkpoint.layout import StageLayout
from services.checkpoint.shelf import OriginShelf, ShelvedStage, cut_key
from services.checkpoint.sources import SourceFiles
from services.checkpoint.stamps import stamp_of
from services.hub.together import side_by_side
from services.runtime.bus import Bus
from services.runtime.remembered import Remembered
from services.runtime.service import Route, Service
from services.splitter.cutter import Cutter, Stage, cutter
from services.splitter.failures import NoModelHere, NotEnoughDisk
from services.splitter.kept import Kept, Made
from services.splitter.stop import Report, on_threads

Put = Callable[[bytes, str], Awaitable[Document]]
_SLOTS = 32
_CUTS_AT_ONCE = 2
_GRANTS_AT_ONCE = 64
_DIGEST_BYTES = 128
"""What a digest takes in memory, about."""


class Splitter:
    """The handler, with the settings and the bus it needs."""

    def __init__(self, settings: Settings, bus: Bus) -> None:
        self._settings = settings
        self._bus = bus
        self._shelf = OriginShelf(settings.origin_dir / "stages")
        self._kept = Kept(self._shelf)
        self._at_once = anyio.CapacityLimiter(_CUTS_AT_ONCE)
        self._cuts = Remembered[tuple[str | None, ...], tuple[str, ...]]()

    async def cut(self, planned: SplitPlanned) -> Sequence[Fact]:
        """The manifest of every stage, once the origin can serve them all."""
        if planned.plan_only:
            return ()
        model_dir = await self._model_dir(planned)
        made = await anyio.to_thread.run_sync(self._again, planned, model_dir)
        if made is None:
            plan = await self._bus.documents.load(planned.plan, SplitPlan)
            metadata = await self._bus.documents.load(planned.metadata, ModelMetadata)
            cut = functools.partial(self._made, planned, model_dir, plan, metadata.ties)
            async with self._at_once:
                made = await on_threads(cut)
        access, plan_id = await self._access(planned, made), made[0].plan_id
        # All of it travels in one message.
        put = functools.partial(self._bus.documents.put, among=2 * len(made) + 1)
        return (
            ShardsReady(
                origin=planned.origin,
                job_id=planned.job_id,
                generation=planned.generation,
                plan_id=plan_id,
                stages=tuple([await _ready(one, put) for one in made]),
                access=await put(encode(access), f"{plan_id}.access"),
            ),
        )

    def _again(self, planned: SplitPlanned, model_dir: Path) -> tuple[Made, ...] | None:
        """What this plan gave of these very files, if all of it is still on the shelf."""
        stages = self._cuts.get(_key(planned, model_dir, stamp_of(model_dir)))
        return None if stages is None else self._kept.all_of(stages)

    def _made(
        self,
        planned: SplitPlanned,
        model_dir: Path,
        plan: SplitPlan,
        ties: Sequence[Sequence[str]],
        report: Report,
    ) -> tuple[Made, ...]:
        """The plan's stages, each cut now or found by its digest."""
        stamp = stamp_of(model_dir)
        stages = self._stages(model_dir, plan, ties, report)
        made = self._kept.all_of(stages)
        if made is None:
            raise Passing("a stage was taken from the shelf as it was looked up: cut again")
        if stamp is not None:
            self._cuts.keep(_key(planned, model_dir, stamp), stages, len(stages) * _DIGEST_BYTES)
        return made

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

    async def _access(self, planned: SplitPlanned, made: Sequence[Made]) -> Access:
        """Each node's token is made once and kept on the bus; only its digest is told."""

        async def token_digest(one: Made) -> Sha256:
            token = await self._bus.grants.grant(one.node_id, planned.job_id)
            return Sha256(hashlib.sha256(token.encode()).hexdigest())

        digests = await side_by_side(token_digest, made, _GRANTS_AT_ONCE)
        return Access(
            tokens={one.node_id: digest for one, digest in zip(made, digests, strict=True)},
            files={one.node_id: one.digests for one in made},
        )

    def _stages(
        self, model_dir: Path, plan: SplitPlan, ties: Sequence[Sequence[str]], report: Report
    ) -> tuple[str, ...]:
        """The stages' digests; nothing is read where the same cut was made before."""
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
        if known is None or self._kept.all_of(known.values()) is None:
            known = self._cut(made)
            self._shelf.remember(key, known)
        return tuple(known.values())

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
        if room is None and self._kept.stage(sha256) is not None:
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


def _key(planned: SplitPlanned, model_dir: Path, stamp: str | None) -> tuple[str | None, ...]:
    """What a cut depends on, beside the settings: plan, ties and the model's files as they are."""
    return planned.plan.sha256, planned.metadata.sha256, str(model_dir), stamp


async def _ready(made: Made, put: Put) -> StageReady:
    name = f"{made.plan_id}.{made.node_id}"
    return StageReady(
        node_id=made.node_id,
        stage=made.stage,
        size_bytes=made.size_bytes,
        manifest=await put(made.body, f"{name}.manifest"),
        description=await put(made.description, f"{name}.description"),
    )


def build(settings: Settings, bus: Bus) -> Service:
    """The splitter of this origin."""
    splitter = Splitter(settings, bus)
    where = {"origin": settings.node.node_id}
    return Service(
        "splitter",
        routes=(Route(SPLIT_PLANNED, splitter.cut, where=where, slots=_SLOTS),),
        background=(splitter.sweep,),
    )
