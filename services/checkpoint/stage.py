"""Checking stage directories: every digest, and that together they are the model."""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from messages.failures import Permanent
from messages.shards import StageTensor
from services.checkpoint.checkpoint import Checkpoint, open_checkpoint
from services.checkpoint.chunks import READ_BYTES
from services.checkpoint.config import CONFIG_NAME, read_config
from services.checkpoint.description import BadStage, StageDescription, read_description
from services.checkpoint.stage_check import faults_of, few
from services.checkpoint.stage_set import disagreements, misdescribed, missing_from
from services.checkpoint.ties import tied_names


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

    def found(directory: Path, faults: Iterable[str]) -> None:
        for fault in faults:
            problems.append(f"{directory}: {fault}")
            bad[str(directory)] = None

    for directory in stage_dirs:
        try:
            description = read_description(directory)
            read.append((directory, description))
            found(directory, faults_of(directory, description, threads))
        except BadStage as error:
            problems.append(error.reason)
            bad[str(directory)] = None
        except (Permanent, OSError) as error:
            found(directory, [str(error)])
    model = _open(model_dir, problems) if model_dir is not None else None
    names = None if model is None else model.names
    missing = missing_from(read, names)
    problems += disagreements(read, _may_repeat(read, model_dir, names))
    for directory, fault in misdescribed(read, names, complete=model is not None or not missing):
        found(directory, [fault])
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
        problems.append(f"{model_dir}: {error.reason}")
        return None


def _may_repeat(
    read: Sequence[tuple[Path, StageDescription]],
    model_dir: Path | None,
    names: Sequence[str] | None,
) -> tuple[str, ...]:
    """What two stages may hold, by the configuration of the model, else of the stages."""
    held = {tensor.name for _, one in read for _, tensor in one.tensors} if names is None else names
    for directory in [model_dir] if model_dir is not None else [where for where, _ in read]:
        with suppress(Permanent, OSError):
            return tied_names(read_config(directory), held)
    return tied_names({}, held)


def _differences(directory: Path, description: StageDescription, model: Checkpoint) -> list[str]:
    """Tensors and copied files whose bytes are not the model's."""
    wrong = [
        tensor.name
        for file, tensor in description.tensors
        if tensor.name in model and not _same(directory / file.name, tensor, model)
    ]
    root = model.path_of(CONFIG_NAME).parent
    copies = [file for file in description.files if file.source is not None]
    wrong += [
        file.name
        for file in copies
        if not _equal_files(directory / file.name, root / (file.source or ""))
    ]
    lacking = not any(file.source == CONFIG_NAME for file in copies)
    if lacking and (root / CONFIG_NAME).is_file():
        wrong.append(CONFIG_NAME)
    return [f"differs from the model: {few(sorted(wrong))}"] if wrong else []


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


def _equal_files(a: Path, b: Path) -> bool:
    try:
        size_bytes = a.stat().st_size
        return size_bytes == b.stat().st_size and _equal(a, 0, b, 0, size_bytes)
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
