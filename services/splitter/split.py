"""A plan and a model become stages: digested, described, and written where that is asked for."""

import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from messages.ids import NodeId
from messages.plans import SplitPlan
from messages.shards import StageFile, StageManifest
from services.checkpoint.checkpoint import Checkpoint, open_checkpoint
from services.checkpoint.chunks import chunk_digests, name_of_content
from services.checkpoint.description import (
    STAGE_NAME,
    BadStage,
    companions,
    describe,
    encode_description,
    read_description,
)
from services.checkpoint.files import contained
from services.checkpoint.layout import FileLayout, Literal, StageLayout
from services.checkpoint.sources import SourceFiles
from services.splitter.cutting import cut_file, publish
from services.splitter.laying import lay_out, parts_of, shared_tensors

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Stage:
    """One node's stage, whole: the layout with its description, and the manifest of its files."""

    layout: StageLayout
    manifest: StageManifest


@dataclass(frozen=True)
class SplitStage:
    """A stage that `split_directory` left on disk; not `written` where it was there before."""

    node_id: NodeId
    stage: int
    directory: Path
    size_bytes: int
    written: bool


@dataclass
class Cutter:
    """Cuts the stages of one plan: `layouts` from `model_dir`, with `threads` reading side by side.

    Files that several stages have in common are read once. `done` hears the bytes of each chunk.
    """

    model_dir: Path
    checkpoint: Checkpoint
    layouts: tuple[StageLayout, ...]
    tied: frozenset[str] = frozenset()
    threads: int = 1
    done: Callable[[int], None] = lambda size: None
    _known: dict[FileLayout, tuple[str, ...]] = field(default_factory=dict)

    @property
    def paths(self) -> dict[str, Path]:
        """Where each file of the model that a stage takes bytes from is."""
        names = {n for layout in self.layouts for f in layout.files for n in _sources_of(f)}
        weights = self.checkpoint.files
        return {
            name: self.checkpoint.path_of(name)
            if name in weights
            else contained(self.model_dir / Path(name).parent, Path(name).name)
            for name in sorted(names)
        }

    @property
    def total_bytes(self) -> int:
        """How many bytes are read: files in common count once."""
        return sum(f.size_bytes for f in {f for layout in self.layouts for f in layout.files})

    def cut(self, layout: StageLayout, sources: SourceFiles, target: Path | None = None) -> Stage:
        """Digest one stage, and write it to the directory `target` if there is one.

        Raises OSError where the disk does, ChangedFile where the model's files have changed.
        """
        files = []
        for file in layout.files:
            if target is None:
                chunks = self._digests(file, layout.chunk_bytes, sources)
            else:
                path = target / file.name
                chunks = cut_file(
                    file, sources, path, layout.chunk_bytes, threads=self.threads, done=self.done
                )
            files.append(_stage_file(file, layout.chunk_bytes, chunks))
        size_bytes, count = self.checkpoint.size_bytes, len(self.checkpoint)
        description = describe(layout, tuple(files), self.tied, count, size_bytes)
        own = FileLayout(name=STAGE_NAME, pieces=(Literal(encode_description(description)),))
        with SourceFiles({}) as nothing:
            if target is None:
                chunks = self._digests(own, layout.chunk_bytes, nothing)
            else:
                chunks = cut_file(own, nothing, target / own.name, layout.chunk_bytes)
        files.append(_stage_file(own, layout.chunk_bytes, chunks))
        layout = msgspec.structs.replace(layout, files=(*layout.files, own))
        return Stage(layout, _manifest(layout, tuple(files)))

    def _digests(self, file: FileLayout, chunk_bytes: int, sources: SourceFiles) -> tuple[str, ...]:
        if file not in self._known:
            self._known[file] = chunk_digests(
                lambda position, view: sources.read_into(file, position, view),
                file.size_bytes,
                chunk_bytes,
                threads=self.threads,
                done=self.done,
            )
        return self._known[file]


def cutter(
    model_dir: Path,
    plan: SplitPlan,
    *,
    ties: Sequence[Sequence[str]] = (),
    chunk_bytes: int = CHUNK_BYTES,
    threads: int = 1,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Cutter:
    """The cutter of a plan, its layouts checked. `report` hears bytes done and in all.

    Raises BadCheckpoint, or BadLayout where plan and model do not fit.
    """
    checkpoint = open_checkpoint(model_dir)
    layouts = lay_out(plan, checkpoint, companions(model_dir), chunk_bytes, ties)
    shared = frozenset(shared_tensors(parts_of(plan), ties))
    made = Cutter(model_dir, checkpoint, layouts, shared, threads)
    made.done = _counting(made.total_bytes, report)
    return made


def split_directory(
    model_dir: Path,
    plan: SplitPlan,
    out: Path,
    node_id: NodeId | None = None,
    jobs: int = 2,
) -> list[SplitStage]:
    """Cut every stage of `plan` (or that of `node_id`) into `out/<node_id>/`.

    A directory appears by one rename; one that holds the same stage already is left as it is.
    Raises BadLayout, BadCheckpoint, OSError.
    """
    made = cutter(model_dir, plan, threads=jobs)
    chosen = [layout for layout in made.layouts if node_id in (None, layout.node_id)]
    if not chosen:
        raise BadStage(
            f"the plan gives {node_id} nothing",
            advice=f"its nodes are {', '.join(layout.node_id for layout in made.layouts)}",
        )
    out.mkdir(parents=True, exist_ok=True)
    with SourceFiles(made.paths) as sources:
        return [_split_one(made, layout, sources, out) for layout in chosen]


def _split_one(made: Cutter, layout: StageLayout, sources: SourceFiles, out: Path) -> SplitStage:
    final = out / layout.node_id
    written = not _holds(final, layout, made, sources)
    if written:
        temporary = out / f".{layout.node_id}.cutting"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        made.cut(layout, sources, temporary)
        publish(temporary, final)
    return SplitStage(layout.node_id, layout.stage, final, layout.size_bytes, written)


def _holds(final: Path, layout: StageLayout, made: Cutter, sources: SourceFiles) -> bool:
    """Whether `final` is this very stage of these very bytes: sizes on disk, digests of the source.

    The digests on disk are what the description says; `williw verify` reads the bytes themselves.
    """
    try:
        description = read_description(final)
        sizes = {file.name: (final / file.name).stat().st_size for file in description.files}
    except (BadStage, OSError, msgspec.MsgspecError):
        return False
    if sizes != {file.name: file.size_bytes for file in layout.files}:
        return False
    if description.plan_id != layout.plan_id:
        return False
    return made.cut(layout, sources).manifest.files[:-1] == description.files


def _sources_of(file: FileLayout) -> set[str]:
    return {piece.source for piece in file.pieces if not isinstance(piece, Literal)}


def _stage_file(file: FileLayout, chunk_bytes: int, chunks: tuple[str, ...]) -> StageFile:
    return StageFile(
        name=file.name,
        size_bytes=file.size_bytes,
        digest=name_of_content(file.size_bytes, chunks),
        chunk_bytes=chunk_bytes,
        chunks=chunks,
        source=file.source,
        data_start=file.data_start,
        tensors=file.tensors,
    )


def _manifest(layout: StageLayout, files: tuple[StageFile, ...]) -> StageManifest:
    return StageManifest(
        plan_id=layout.plan_id,
        model_name=layout.model_name,
        revision=layout.revision,
        directory=layout.directory,
        node_id=layout.node_id,
        stage=layout.stage,
        stages=layout.stages,
        files=files,
        size_bytes=layout.size_bytes,
    )


def _counting(total: int, report: Callable[[int, int], None]) -> Callable[[int], None]:
    """Adds up what several threads do; files written twice do not count beyond the total."""
    lock = threading.Lock()
    reached = 0

    def done(size: int) -> None:
        nonlocal reached
        with lock:
            reached += size
            report(min(reached, total), total)

    return done
