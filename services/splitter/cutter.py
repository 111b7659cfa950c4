"""A plan and a model become stages: digested, described, and written where that is asked for."""

import contextvars
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from messages.plans import SplitPlan
from messages.shards import StageFile, StageManifest
from services.checkpoint.checkpoint import Checkpoint, open_checkpoint
from services.checkpoint.chunks import chunk_digests, name_of_content
from services.checkpoint.config import CONFIG_NAME, read_config
from services.checkpoint.description import (
    STAGE_NAME,
    companions,
    describe,
    encode_description,
)
from services.checkpoint.files import contained
from services.checkpoint.launching import Whole, whole_of
from services.checkpoint.layout import FileLayout, Literal, StageLayout
from services.checkpoint.sources import SourceFiles
from services.checkpoint.ties import tied_names
from services.splitter.cutting import cut_file
from services.splitter.laying import lay_out, parts_of, shared_tensors

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Stage:
    """One node's stage, whole: the layout with its description, and the manifest of its files."""

    layout: StageLayout
    manifest: StageManifest
    description: bytes


class _Stopped(Exception):
    """Another stage failed, so this one is not gone on with."""


@dataclass
class Cutter:
    """Cuts the stages of one plan: `layouts` from `model_dir`, with `threads` reading side by side.

    Files that several stages have in common are read once. `done` hears the bytes of each chunk.
    """

    model_dir: Path
    checkpoint: Checkpoint
    layouts: tuple[StageLayout, ...]
    whole: Whole
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
        size_bytes = self.checkpoint.size_bytes
        description = describe(layout, tuple(files), self.tied, self.whole, size_bytes)
        body = encode_description(description)
        own = FileLayout(name=STAGE_NAME, pieces=(Literal(body),))
        with SourceFiles({}) as nothing:
            if target is None:
                chunks = self._digests(own, layout.chunk_bytes, nothing)
            else:
                chunks = cut_file(own, nothing, target / own.name, layout.chunk_bytes)
        files.append(_stage_file(own, layout.chunk_bytes, chunks))
        layout = msgspec.structs.replace(layout, files=(*layout.files, own))
        return Stage(layout, _manifest(layout, tuple(files)), body)

    def side_by_side(
        self, work: Callable[[StageLayout], object], layouts: Sequence[StageLayout], jobs: int
    ) -> None:
        """Have `work` done with each layout, up to `jobs` at a time; the first error ends them all.

        Syncing one stage leaves time to read for another. Each is read by two threads or more, as
        the last ones have the machine to themselves.
        """
        side = max(min(jobs, len(layouts)), 1)
        stop, counted, threads = threading.Event(), self.done, self.threads

        def done(size: int) -> None:
            if stop.is_set():
                raise _Stopped
            counted(size)

        if side > 1:
            self.threads = -(-2 * jobs // side)
        self.done = done
        with ThreadPoolExecutor(side) as pool:
            working = [pool.submit(work, layout) for layout in layouts]
            try:
                for one in as_completed(working):
                    one.result()
            finally:
                stop.set()
                for one in working:
                    one.cancel()
                self.done, self.threads = counted, threads

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

    `ties` are the metadata's groups of tied names; where it has none, config.json decides. Raises
    BadCheckpoint, or BadLayout where plan and model do not fit.
    """
    checkpoint = open_checkpoint(model_dir)
    names = checkpoint.names
    beside = companions(model_dir)
    if not ties:
        config = read_config(model_dir) if CONFIG_NAME in beside else {}
        ties = [tied_names(config, names)]
    layouts = lay_out(plan, checkpoint, beside, chunk_bytes, ties)
    shared = shared_tensors(parts_of(plan)).keys()
    tied = frozenset(name for group in ties for name in group if name in shared)
    made = Cutter(model_dir, checkpoint, layouts, whole_of(names), tied, threads)
    made.done = _counting(made.total_bytes, report)
    return made


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
    """Adds up what several threads do; files written twice do not count beyond the total.

    Reports as who made the cutter: a thread of a pool does not know whose progress it makes.
    """
    lock, caller = threading.Lock(), contextvars.copy_context()
    reached = 0

    def done(size: int) -> None:
        nonlocal reached
        with lock:
            reached += size
            caller.run(report, min(reached, total), total)

    return done
