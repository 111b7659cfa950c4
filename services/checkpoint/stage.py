"""Checking stage directories: every digest, and that together they are the model."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from messages.failures import Permanent
from messages.shards import StageFile, StageTensor
from services.checkpoint.checkpoint import Checkpoint, open_checkpoint
from services.checkpoint.chunks import READ_BYTES, digests_of_file, name_of_content
from services.checkpoint.description import StageDescription, read_description

_SHOWN = 5


class VerifiedStage(msgspec.Struct, frozen=True, kw_only=True):
    """One stage directory that was read."""

    directory: str
    node_id: str
    stage: int
    stages: int
    replica: int
    tensor_count: int
    size_bytes: int


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was checked and what is wrong; `ok` where nothing is.

    `coverage` is `whole` where the stages hold every tensor of the model in each copy of the
    pipeline, else `part`. `compared` says that the bytes were compared with the model's. `bad` are
    the directories, as they were named, that are not what they say or what the model is.
    """

    ok: bool
    stages: tuple[VerifiedStage, ...]
    coverage: str
    compared: bool
    problems: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()


def verify(
    stage_dirs: Sequence[Path], model_dir: Path | None = None, *, threads: int = 2
) -> VerifyReport:
    """Check digests and places of every file and tensor, and what the stages are together.

    With `model_dir` every tensor is compared with the model's bytes, and the stages must be the
    whole model. Reads each byte once (twice with the model).
    """
    problems: list[str] = []
    bad: dict[str, None] = {}
    read: list[tuple[Path, StageDescription]] = []

    def found(directory: Path, wrong: list[str]) -> None:
        problems.extend(wrong)
        bad.update({str(directory): None} if wrong else {})

    for directory in stage_dirs:
        try:
            description = read_description(directory)
            read.append((directory, description))
            found(directory, _check_stage(directory, description, threads))
        except Permanent as error:
            found(directory, [error.reason])
    model = _open(model_dir, problems) if model_dir is not None else None
    descriptions = [description for _, description in read]
    problems += _disagreements(descriptions)
    missing = _missing(descriptions, model)
    if model is not None:
        problems += missing
        for directory, description in read:
            found(directory, _differences(directory, description, model))
    return VerifyReport(
        ok=not problems,
        stages=tuple(_shown(directory, description) for directory, description in read),
        coverage="part" if missing or not read else "whole",
        compared=model is not None,
        problems=tuple(problems),
        bad=tuple(bad),
    )


def _open(model_dir: Path, problems: list[str]) -> Checkpoint | None:
    try:
        return open_checkpoint(model_dir)
    except Permanent as error:
        problems.append(error.reason)
        return None


def _check_stage(directory: Path, description: StageDescription, threads: int) -> list[str]:
    problems = [
        f"{directory.name}: {fault}"
        for file in description.files
        if (fault := _fault(directory / file.name, file, threads))
    ]
    if problems or not any(file.tensors for file in description.files):
        return problems
    found = {t.name: (t.file, t.offset, t.dtype, t.shape) for t in open_checkpoint(directory)}
    said = {t.name: (f.name, t.start, t.dtype, t.shape) for f, t in description.tensors}
    wrong = sorted(n for n in found.keys() | said.keys() if found.get(n) != said.get(n))
    if wrong:
        problems.append(f"{directory.name}: not as described: {_few(wrong)}")
    known = {file.name for file in description.files}
    foreign = sorted(p.name for p in directory.glob("*.safetensors") if p.name not in known)
    return problems + [f"{directory.name}: {name} is no file of this stage" for name in foreign]


def _fault(path: Path, file: StageFile, threads: int) -> str:
    try:
        if path.stat().st_size != file.size_bytes:
            return f"{file.name} is {path.stat().st_size} bytes long, not {file.size_bytes}"
        chunks = digests_of_file(path, file.chunk_bytes, threads=threads)
    except (OSError, EOFError) as error:
        return f"{file.name} cannot be read: {error}"
    if chunks != file.chunks:
        wrong = [
            k for k, pair in enumerate(zip(chunks, file.chunks, strict=True)) if len({*pair}) > 1
        ]
        return f"{file.name} differs in chunks {_few(map(str, wrong))} of {len(chunks)}"
    if name_of_content(file.size_bytes, file.chunks) != file.digest:
        return f"{file.name} has a digest that its chunks do not give"
    return ""


def _disagreements(descriptions: Sequence[StageDescription]) -> list[str]:
    """Stages are of one plan, and within one copy hold a tensor twice only where it is tied."""
    problems: list[str] = []
    if len({description.plan_id for description in descriptions}) > 1:
        problems.append("the stages are of different plans")
    seen: dict[tuple[int, str], int] = {}
    for one in descriptions:
        for _, tensor in one.tensors:
            other = seen.setdefault((one.replica, tensor.name), one.stage)
            if other != one.stage and tensor.name not in one.tied:
                problems.append(f"{tensor.name} is on stages {other} and {one.stage}, and not tied")
    return problems


def _missing(descriptions: Sequence[StageDescription], model: Checkpoint | None) -> list[str]:
    problems: list[str] = []
    for replica in sorted({description.replica for description in descriptions}):
        copy = [description for description in descriptions if description.replica == replica]
        held = {tensor.name for description in copy for _, tensor in description.tensors}
        if model is not None:
            absent = sorted(set(model.names) - held)
            foreign = sorted(held - set(model.names))
            problems += [f"on no stage of copy {replica}: {_few(absent)}"] if absent else []
            problems += [f"not in the model: {_few(foreign)}"] if foreign else []
        elif len(held) != copy[0].model_tensors:
            problems.append(f"copy {replica} has {len(held)} of {copy[0].model_tensors} tensors")
    return problems


def _differences(directory: Path, description: StageDescription, model: Checkpoint) -> list[str]:
    wrong = sorted(
        tensor.name
        for file, tensor in description.tensors
        if tensor.name in model and not _same(directory / file.name, tensor, model)
    )
    return [f"{directory.name}: differs from the model: {_few(wrong)}"] if wrong else []


def _same(path: Path, tensor: StageTensor, model: Checkpoint) -> bool:
    source = model[tensor.name]
    if (source.dtype, source.shape) != (tensor.dtype, tensor.shape):
        return False
    try:
        return _equal(
            path, tensor.start, model.path_of(source.file), source.offset, source.size_bytes
        )
    except OSError:
        return False


def _equal(a: Path, a_start: int, b: Path, b_start: int, size_bytes: int) -> bool:
    with a.open("rb", buffering=0) as first, b.open("rb", buffering=0) as second:
        for done in range(0, size_bytes, READ_BYTES):
            length = min(READ_BYTES, size_bytes - done)
            ours = os.pread(first.fileno(), length, a_start + done)
            if ours != os.pread(second.fileno(), length, b_start + done):
                return False
    return True


def _shown(directory: Path, description: StageDescription) -> VerifiedStage:
    return VerifiedStage(
        directory=str(directory),
        node_id=description.node_id,
        stage=description.stage,
        stages=description.stages,
        replica=description.replica,
        tensor_count=sum(1 for _ in description.tensors),
        size_bytes=description.size_bytes,
    )


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    rest = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + rest
