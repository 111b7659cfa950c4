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
    on two stages of one copy must be tied: in one of the groups `ties`. Raises BadLayout where the
    stages would not rebuild the source.
    """
    parts = parts_of(plan)
    missing = sorted({n for part in parts for n in part.names if n not in checkpoint})
    if missing:
        raise BadLayout(
            f"the plan names {len(missing)} tensors that {plan.model_name} has not: "
            + ", ".join(missing[:8]),
            advice="plan again from the metadata of exactly this revision of the model",
        )
    stages = _stages(parts)
    shared = shared_tensors(parts)
    layouts = tuple(
        StageLayout(
            plan_id=plan.plan_id,
            model_name=plan.model_name,
            revision=plan.revision,
            directory=directory_name(plan.model_name),
            node_id=part.node_id,
            stage=part.stage,
            stages=stages[part.replica],
            replica=part.replica,
            chunk_bytes=chunk_bytes,
            files=_files(part, max(stages.values()), shared, checkpoint, companions),
        )
        for part in parts
    )
    sources = {name: header.file_size for name, header in checkpoint.files.items()}
    for layout in layouts:
        layout.validate(sources | dict(companions))
    check_coverage(layouts, checkpoint.names, {name for group in ties for name in group})
    return layouts


def parts_of(plan: SplitPlan) -> tuple[Part, ...]:
    """What each node holds, by the assignments, or by `split_plan` where a plan has none.

    Raises BadLayout where the plan says both and they differ.
    """
    if not plan.assignments:
        if not plan.split_plan:
            raise BadLayout(f"plan {plan.plan_id} gives no node anything")
        shares = enumerate(plan.split_plan.items())
        return tuple(Part(node, k, 0, share.layer_names) for k, (node, share) in shares)
    parts: dict[NodeId, Part] = {}
    for one in plan.assignments:
        part = parts.get(one.node_id) or Part(one.node_id, one.stage, one.replica, ())
        parts[one.node_id] = replace(part, names=part.names + one.layer_names)
    if plan.split_plan:
        shared_out = {node: set(share.layer_names) for node, share in plan.split_plan.items()}
        assigned = {node: set(part.names) for node, part in parts.items()}
        both = sorted(shared_out.keys() | assigned.keys())
        wrong = [node for node in both if shared_out.get(node) != assigned.get(node)]
        if wrong:
            raise BadLayout(
                f"the plan's split_plan and its assignments give {', '.join(wrong[:8])} "
                "different tensors",
                advice="plan again; a plan edited by hand must say the same in both",
            )
    return tuple(parts.values())


def shared_tensors(parts: Sequence[Part]) -> dict[str, tuple[int, ...]]:
    """The tensors that stages of several numbers hold, with those: tied, or in unlike copies."""
    holders: dict[str, set[int]] = {}
    for part in parts:
        for name in part.names:
            holders.setdefault(name, set()).add(part.stage)
    return {name: tuple(sorted(held)) for name, held in holders.items() if len(held) > 1}


def _stages(parts: Sequence[Part]) -> dict[int, int]:
    """How many stages each copy has; BadLayout where they are not numbered from 0, each once."""
    copies: dict[int, list[int]] = {}
    for part in parts:
        copies.setdefault(part.replica, []).append(part.stage)
    for replica, numbers in copies.items():
        if sorted(numbers) != list(range(len(numbers))):
            shown = ", ".join(str(number) for number in sorted(numbers)[:8])
            raise BadLayout(
                f"copy {replica} of the plan has {len(numbers)} stages with the numbers {shown}",
                advice="the stages of a copy are numbered from 0, one for each node",
            )
    return {replica: len(numbers) for replica, numbers in copies.items()}


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
