"""Which old stages give way: least recently used first, never one in use."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.distributor.store import HeldStage, Store


@dataclass(frozen=True)
class Pruned:
    """A stage that was taken away."""

    model_name: str
    directory: str
    size_bytes: int


def chosen(
    stages: Iterable[HeldStage], in_use: Collection[Path], excess_bytes: int
) -> tuple[HeldStage, ...]:
    """The stages to take away to get rid of `excess_bytes`, or as near to it as may be."""
    given: list[HeldStage] = []
    for stage in sorted(stages, key=lambda stage: stage.used_at):
        if excess_bytes <= 0:
            break
        if stage.directory.resolve() not in in_use:
            given.append(stage)
            excess_bytes -= stage.size_bytes
    return tuple(given)


def prune(models: Path, quota_bytes: int = 0, *, keep: Collection[str] = ()) -> tuple[Pruned, ...]:
    """Take old stages away until the rest is within `quota_bytes`; what was taken.

    Never one that a model's link points at, nor one whose digest is in `keep`. A quota of 0 keeps
    only those.
    """
    store = Store(models)
    stages = tuple(store.stages())
    kept = store.in_use() | {s.directory.resolve() for s in stages if s.sha256 in keep}
    excess = sum(stage.size_bytes for stage in stages) - quota_bytes
    return _taken(store, chosen(stages, kept, excess))


def _taken(store: Store, stages: Sequence[HeldStage]) -> tuple[Pruned, ...]:
    for stage in stages:
        store.remove(stage)
    return tuple(
        Pruned(stage.manifest.model_name, str(stage.directory), stage.size_bytes)
        for stage in stages
    )
