"""From a plan and a checkpoint to the layout of every stage: pure, and checked before use."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from messages.ids import NodeId
from messages.names import directory_name
from messages.plans import SplitPlan
from services.checkpoint.checkpoint import Checkpoint, StoredTensor
from services.checkpoint.index import INDEX_NAME, index_body
from services.checkpoint.layout import (
    BadLayout,
    FileLayout,
    Literal,
    Piece,
    Span,
    StageLayout,
    check_coverage,
)
from services.splitter.headers import placed, runs


@dataclass(frozen=True)
class Part:
    """What one node holds: the tensors of stage `stage` in copy `replica` of the pipeline."""

    node_id: NodeId
    stage: int
    replica: int
    names: tuple[str, ...]


def lay_out(
    plan: SplitPlan,
    checkpoint: Checkpoint,
    companions: Mapping[str, int],
    chunk_bytes: int,
    ties: Sequence[Sequence[str]] = (),
) -> tuple[StageLayout, ...]:
    """The layout of each node's stage, without its description, in the plan's order.

    `companions` are the model's other files with their sizes (configuration, tokenizer). A tensor
    on two stages of one copy must be tied: in `ties`, or on the first and the last stage. Raises
    BadLayout where the stages would not rebuild the source.
    """
    parts = parts_of(plan)
    missing = sorted({n for part in parts for n in part.names if n not in checkpoint})
    if missing:
        raise BadLayout(
            f"the plan names {len(missing)} tensors that {plan.model_name} has not: "
            + ", ".join(missing[:8]),
            advice="plan again from the metadata of exactly this revision of the model",
        )
    stages = 1 + max(part.stage for part in parts)
    shared = shared_tensors(parts, ties)
    layouts = tuple(
        StageLayout(
            plan_id=plan.plan_id,
            model_name=plan.model_name,
            revision=plan.revision,
            directory=directory_name(plan.model_name),
            node_id=part.node_id,
            stage=part.stage,
            stages=stages,
            replica=part.replica,
            chunk_bytes=chunk_bytes,
            files=_files(part, stages, shared, checkpoint, companions),
        )
        for part in parts
    )
    sources = {name: header.file_size for name, header in checkpoint.files.items()}
    for layout in layouts:
        layout.validate(sources | dict(companions))
    allowed = {name for group in ties for name in group} | _at_both_ends(parts, stages)
    check_coverage(layouts, checkpoint.names, allowed)
    return layouts


def parts_of(plan: SplitPlan) -> tuple[Part, ...]:
    """What each node holds, by the assignments, or by `split_plan` where a plan has none."""
    if not plan.assignments:
        if not plan.split_plan:
            raise BadLayout(f"plan {plan.plan_id} gives no node anything")
        shares = enumerate(plan.split_plan.items())
        return tuple(Part(node, k, 0, share.layer_names) for k, (node, share) in shares)
    parts: dict[NodeId, Part] = {}
    for one in plan.assignments:
        part = parts.get(one.node_id) or Part(one.node_id, one.stage, one.replica, ())
        parts[one.node_id] = replace(part, names=part.names + one.layer_names)
    return tuple(parts.values())


def shared_tensors(
    parts: Sequence[Part], ties: Sequence[Sequence[str]] = ()
) -> dict[str, tuple[int, ...]]:
    """The tensors that several stages of one copy hold, with the numbers of those stages."""
    holders: dict[str, set[int]] = {}
    for part in parts:
        for name in part.names:
            holders.setdefault(name, set()).add(part.stage)
    return {name: tuple(sorted(held)) for name, held in holders.items() if len(held) > 1}


def _at_both_ends(parts: Sequence[Part], stages: int) -> set[str]:
    first = {name for part in parts if part.stage == 0 for name in part.names}
    last = {name for part in parts if part.stage == stages - 1 for name in part.names}
    return first & last


def _files(
    part: Part,
    stages: int,
    shared: Mapping[str, tuple[int, ...]],
    checkpoint: Checkpoint,
    companions: Mapping[str, int],
) -> tuple[FileLayout, ...]:
    """The stage's own tensors in one file, those shared with the same other stages in one more.

    What several stages hold is thus the same file on each, and travels as such.
    """
    groups = sorted(set(shared.values()))
    total = stages + len(groups)
    wanted = set(part.names)
    own = [t for t in checkpoint if t.name in wanted and t.name not in shared]
    files = [_weights(part.stage, total, own)] if own else []
    for k, group in enumerate(groups):
        held = [t for t in checkpoint if t.name in wanted and shared.get(t.name) == group]
        if held:
            files.append(_weights(stages + k, total, held))
    copies = [
        FileLayout(name=name, pieces=(Span(name, 0, size),) if size else (), source=name)
        for name, size in sorted(companions.items())
    ]
    return (*files, _index(files), *copies)


def _weights(number: int, total: int, tensors: Collection[StoredTensor]) -> FileLayout:
    ordered = sorted(tensors, key=lambda tensor: (tensor.file, tensor.offset))
    header, places = placed(ordered)
    pieces: tuple[Piece, ...] = (Literal(header), *runs(ordered))
    return FileLayout(
        name=f"model-{number + 1:05d}-of-{total:05d}.safetensors",
        pieces=pieces,
        data_start=len(header),
        tensors=places,
    )


def _index(files: Sequence[FileLayout]) -> FileLayout:
    held = ((tensor, file.name) for file in files for tensor in file.tensors)
    return FileLayout(name=INDEX_NAME, pieces=(Literal(index_body(held)),))
