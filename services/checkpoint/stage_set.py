"""What stage descriptions say of each other: one plan, each tensor once, roles that are so."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from services.checkpoint.description import StageDescription
from services.checkpoint.launching import Whole, role_of, whole_of
from services.checkpoint.stage_check import few

Stages = Sequence[tuple[Path, StageDescription]]


def disagreements(stages: Stages, may_repeat: Collection[str]) -> list[str]:
    """Where stages are not of one plan, or hold a tensor twice that is none of `may_repeat`."""
    return [*_plans(stages), *_numbers(stages), *_twice(stages, may_repeat)]


def missing_from(stages: Stages, model: Collection[str] | None) -> list[str]:
    """What the stages of each copy lack of the `model`, or of the number of its tensors."""
    problems: list[str] = []
    for replica in sorted({one.replica for _, one in stages}):
        copy = [one for _, one in stages if one.replica == replica]
        held = {tensor.name for one in copy for _, tensor in one.tensors}
        if model is not None:
            absent = sorted(set(model) - held)
            foreign = sorted(held - set(model))
            problems += [f"on no stage of copy {replica}: {few(absent)}"] if absent else []
            problems += [f"not in the model: {few(foreign)}"] if foreign else []
        elif len(held) != copy[0].model_tensors:
            problems.append(f"copy {replica} has {len(held)} of {copy[0].model_tensors} tensors")
    return problems


def misdescribed(
    stages: Stages, model: Collection[str] | None, complete: bool
) -> Iterator[tuple[Path, str]]:
    """Where a stage says something of its layers, embedding, head or ties that is not so.

    Without `complete` knowledge of the model's names, less can be said.
    """
    names = {t.name for _, one in stages for _, t in one.tensors} if model is None else model
    whole = whole_of(names)
    for directory, one in stages:
        yield from ((directory, fault) for fault in _faults_of(one, whole, complete))


def _faults_of(one: StageDescription, whole: Whole, complete: bool) -> Iterator[str]:
    held = {tensor.name for _, tensor in one.tensors}
    last = one.stage == one.stages - 1
    role = role_of(held, whole, set(one.tied), first=one.stage == 0, last=last)
    if one.layer_range != role.layer_range and (complete or one.layer_range is not None):
        yield "layer_range is not that of its tensors"
    if one.has_embedding != role.has_embedding:
        yield f"has_embedding is {one.has_embedding}, and its tensors say otherwise"
    if one.has_head != role.has_head and (complete or not last):
        yield f"has_head is {one.has_head}, and its tensors say otherwise"
    if foreign := sorted(set(one.tied) - held):
        yield f"tied names tensors that are not here: {few(foreign)}"
    if one.stage >= one.stages:
        yield f"says that it is stage {one.stage + 1} of {one.stages}"
    if complete and one.model_tensors != whole.tensors:
        yield f"model_tensors is {one.model_tensors}, and the model has {whole.tensors}"


def _plans(stages: Stages) -> list[str]:
    """One line with a directory of each plan, or of each length of the pipeline."""
    problems = []
    plans = {one.plan_id: directory for directory, one in stages}
    if len(plans) > 1:
        shown = ", ".join(f"{directory} of {plan}" for plan, directory in plans.items())
        problems.append(f"the stages are of different plans: {shown}")
    lengths: dict[tuple[int, int], Path] = {}
    for directory, one in stages:
        lengths.setdefault((one.replica, one.stages), directory)
    if len(lengths) > len({replica for replica, _ in lengths}):
        shown = ", ".join(f"{where} one of {count}" for (_, count), where in lengths.items())
        problems.append(f"the stages of a copy count differently: {shown}")
    return problems


def _numbers(stages: Stages) -> list[str]:
    problems = []
    seen: dict[tuple[int, int], tuple[Path, str]] = {}
    for directory, one in stages:
        where = seen.setdefault((one.replica, one.stage), (directory, one.node_id))
        if where[1] != one.node_id:
            problems.append(f"{where[0]} and {directory} both say they are stage {one.stage + 1}")
    return problems


def _twice(stages: Stages, may_repeat: Collection[str]) -> list[str]:
    problems = []
    seen: dict[tuple[int, str], tuple[int, Path]] = {}
    for directory, one in stages:
        for _, tensor in one.tensors:
            name = tensor.name
            stage, where = seen.setdefault((one.replica, name), (one.stage, directory))
            if stage != one.stage and (name not in one.tied or name not in may_repeat):
                problems.append(
                    f"{name} is on stages {stage} and {one.stage}, and not tied: "
                    f"in {where} and {directory}"
                )
    return problems
