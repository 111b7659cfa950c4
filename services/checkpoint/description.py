"""williw.stage.json: what a stage directory says of itself, and which files go with its tensors."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from messages.failures import Permanent
from messages.ids import Count, NodeId, PlanId
from messages.shards import StageFile, StageTensor
from messages.wire import Undecodable, decode
from services.checkpoint.launching import LayerRange, Whole, launch_advice, role_of
from services.checkpoint.layout import StageLayout

STAGE_NAME = "williw.stage.json"
FORMAT = 1

_FILE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}(/[A-Za-z0-9][A-Za-z0-9_.-]{0,199})?\Z")
_KEPT = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".vocab", ".merges", ".py", ".spm")
_LEFT = re.compile(r"(\.index\.json|\.safetensors\.json|/williw\.stage\.json)$")


class BadStage(Permanent):
    """A directory that is no stage, or not the one it says it is."""


class StageDescription(msgspec.Struct, frozen=True, kw_only=True):
    """williw.stage.json: stage `stage` (from 0) of `stages`, and every other file with its digests.

    `model_tensors` and `model_bytes` count the whole model's tensors, so that a set of stages can
    be checked for what is missing without the model at hand.
    """

    format: int = FORMAT
    plan_id: PlanId
    model_name: str
    revision: str
    node_id: NodeId
    stage: Count
    stages: Count
    replica: Count = 0
    layer_range: LayerRange | None = None
    has_embedding: bool = False
    has_head: bool = False
    tied: tuple[str, ...] = ()
    size_bytes: Count = 0
    model_tensors: Count = 0
    model_bytes: Count = 0
    files: tuple[StageFile, ...]
    launch: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def tensors(self) -> Iterator[tuple[StageFile, StageTensor]]:
        """Every tensor with the file it is in."""
        return ((file, tensor) for file in self.files for tensor in file.tensors)


def describe(
    layout: StageLayout,
    files: tuple[StageFile, ...],
    tied: Iterable[str],
    whole: Whole,
    model_bytes: int,
) -> StageDescription:
    """The description of a stage whose files have these digests."""
    held = {tensor.name for tensor in layout.tensors}
    ties = tuple(sorted(held.intersection(tied)))
    first, last = layout.stage == 0, layout.stage == layout.stages - 1
    role = role_of(held, whole, ties, first=first, last=last)
    return StageDescription(
        plan_id=layout.plan_id,
        model_name=layout.model_name,
        revision=layout.revision,
        node_id=layout.node_id,
        stage=layout.stage,
        stages=layout.stages,
        replica=layout.replica,
        layer_range=role.layer_range,
        has_embedding=role.has_embedding,
        has_head=role.has_head,
        tied=ties,
        size_bytes=sum(tensor.size_bytes for tensor in layout.tensors),
        model_tensors=whole.tensors,
        model_bytes=model_bytes,
        files=files,
        launch=launch_advice(role.layer_range),
    )


def encode_description(description: StageDescription) -> bytes:
    """The file's bytes: JSON that a person can read."""
    return msgspec.json.format(msgspec.json.encode(description), indent=1)


def without_files(body: bytes) -> bytes:
    """A description without its list of files: small whatever the stage's size."""
    return encode_description(msgspec.structs.replace(decode(body, StageDescription), files=()))


def with_files(body: bytes, files: tuple[StageFile, ...]) -> bytes:
    """The description that `without_files` was made of, given the files it named."""
    return encode_description(msgspec.structs.replace(decode(body, StageDescription), files=files))


def read_description(directory: Path) -> StageDescription:
    """The description in a stage directory; BadStage where there is none that can be read."""
    try:
        return decode((directory / STAGE_NAME).read_bytes(), StageDescription)
    except OSError as error:
        why = f"{STAGE_NAME}: {error.strerror}"
    except Undecodable as error:
        why = f"{STAGE_NAME} is damaged: {error.reason}"
    raise BadStage(
        f"{directory} is no stage directory: {why}",
        advice="name directories that `williw split` or a node's distributor made",
    )


def companions(model_dir: Path) -> dict[str, int]:
    """The model's files beside its weights that a stage needs too, by name, with their sizes.

    Configuration, tokenizer and code, in the directory itself or one folder below; the weights'
    own index, hidden files and other formats of the weights are left out.
    """
    found: dict[str, int] = {}
    for path in (*model_dir.iterdir(), *model_dir.glob("*/*")):
        name = path.relative_to(model_dir).as_posix()
        if path.suffix in _KEPT and _FILE_NAME.match(name) and not _LEFT.search(f"/{name}"):
            status = _regular(path)
            if status is not None:
                found[name] = status
    return dict(sorted(found.items()))


def _regular(path: Path) -> int | None:
    try:
        return path.stat().st_size if path.is_file() and os.access(path, os.R_OK) else None
    except OSError:
        return None
