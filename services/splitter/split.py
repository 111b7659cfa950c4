"""Stage directories of a plan, in a directory of their own: what `williw split` does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from messages.ids import NodeId
from messages.plans import SplitPlan
from services.checkpoint.description import (
    STAGE_NAME,
    BadStage,
    read_description,
)
from services.checkpoint.layout import StageLayout
from services.checkpoint.sources import SourceFiles
from services.splitter.cutter import Cutter, cutter
from services.splitter.cutting import publish
from services.splitter.place import (
    check_apart,
    check_free,
    check_space,
    held,
    is_full,
    no_space,
    room,
)


@dataclass(frozen=True)
class SplitStage:
    """A stage that `split_directory` left on disk; not `written` where it was there before."""

    node_id: NodeId
    stage: int
    directory: Path
    size_bytes: int
    written: bool


def split_directory(
    model_dir: Path,
    plan: SplitPlan,
    out: Path,
    node_id: NodeId | None = None,
    jobs: int = 2,
    waiting: Callable[[], None] = lambda: None,
) -> list[SplitStage]:
    """Cut every stage of `plan` (or that of `node_id`) into `out/<node_id>/`.

    A directory appears by one rename; one that holds the same stage already is left as it is, and
    one that is no stage is refused. `waiting` is called where another process cuts into `out`.
    Raises BadLayout, BadCheckpoint, Occupied, NotEnoughDisk, OSError.
    """
    made = cutter(model_dir, plan, threads=jobs)
    chosen = [layout for layout in made.layouts if node_id in (None, layout.node_id)]
    if not chosen:
        raise BadStage(
            f"the plan gives {node_id} nothing",
            advice=f"its nodes are {', '.join(layout.node_id for layout in made.layouts)}",
        )
    finals = [out / layout.node_id for layout in chosen]
    check_apart(out, model_dir)
    with held(out, waiting), SourceFiles(made.paths) as sources:
        check_free(finals, model_dir)
        wanted = {x.node_id for x in chosen if not _holds(out / x.node_id, x, made, sources)}
        new = [layout for layout in chosen if layout.node_id in wanted]
        _cut_into(out, made, new, sources, jobs)
    return [
        SplitStage(x.node_id, x.stage, out / x.node_id, x.size_bytes, x.node_id in wanted)
        for x in chosen
    ]


def _cut_into(
    out: Path, made: Cutter, layouts: Sequence[StageLayout], sources: SourceFiles, jobs: int
) -> None:
    needed_bytes = sum(layout.size_bytes for layout in layouts)
    largest = max(made.paths.values(), key=lambda path: path.stat().st_size)
    check_space(out, needed_bytes, largest)

    def one(layout: StageLayout) -> None:
        with room(out) as place:
            made.cut(layout, sources, place)
            publish(place, out / layout.node_id)

    try:
        made.side_by_side(one, layouts, jobs)
    except OSError as error:
        if is_full(error):
            raise no_space(out, needed_bytes) from None
        raise


def _holds(final: Path, layout: StageLayout, made: Cutter, sources: SourceFiles) -> bool:
    """Whether `final` is this very stage of these very bytes: sizes on disk, digests of the source.

    The digests on disk are what the description says; `williw verify` reads the bytes themselves.
    """
    try:
        description = read_description(final)
        body = (final / STAGE_NAME).read_bytes()
        sizes = {file.name: (final / file.name).stat().st_size for file in description.files}
    except (BadStage, OSError):
        return False
    if sizes != {file.name: file.size_bytes for file in layout.files}:
        return False
    if description.plan_id != layout.plan_id:
        return False
    again = made.cut(layout, sources)
    return again.manifest.files[:-1] == description.files and again.description == body
