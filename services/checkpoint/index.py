"""The index of a sharded checkpoint: which file holds which tensor, checked against the headers."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from services.checkpoint.failures import BadIndex, EscapingFile
from services.checkpoint.headers import MAX_HEADER_BYTES, Header
from services.checkpoint.strict import repeated_key

if TYPE_CHECKING:  # a quarter of the time that reading headers takes as a process
    from messages.shards import StageTensor

INDEX_NAME = "model.safetensors.index.json"
PLAIN_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.+@=, -]{0,254}\Z")
_ADVICE = "download the model again, or delete the index if the files are whole without it"


class Index(msgspec.Struct, frozen=True):
    """`weight_map` gives the file name of each tensor."""

    weight_map: dict[str, str]

    @property
    def files(self) -> tuple[str, ...]:
        """The files it names, in name order."""
        return tuple(sorted(set(self.weight_map.values())))


def read_index(path: Path) -> Index:
    """The index in the file at `path`; BadIndex or EscapingFile where it is not one."""
    if path.stat().st_size > MAX_HEADER_BYTES:
        raise BadIndex(f"{path.name} is over the limit of 100 MB", advice=_ADVICE)
    return parse_index(path.read_bytes(), path.name)


def parse_index(body: bytes, name: str = INDEX_NAME) -> Index:
    """The index whose JSON is `body`; BadIndex or EscapingFile where it is not one."""
    try:
        index = msgspec.json.decode(body, type=Index)
        twice = repeated_key(body)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise BadIndex(f"{name} is not an index: {str(error)[:200]}", advice=_ADVICE) from None
    if twice is not None:
        raise BadIndex(f"{name} names {twice[:80]!r} twice", advice=_ADVICE)
    for file in index.files:
        if not PLAIN_NAME.search(file) or not file.endswith(".safetensors"):
            raise EscapingFile(
                f"{name} points to {file[:80]!r}, which is no safetensors file beside it",
                advice="the checkpoint is damaged or hostile; nothing of it was used",
            )
    return index


def index_body(held: "Iterable[tuple[StageTensor, str]]") -> bytes:
    """The index of a stage: its tensors, each with the name of the stage's file that holds it."""
    ordered = sorted(held, key=lambda one: one[0].name)
    body = msgspec.json.encode(
        {
            "metadata": {"total_size": sum(tensor.size_bytes for tensor, _ in ordered)},
            "weight_map": {tensor.name: name for tensor, name in ordered},
        }
    )
    return msgspec.json.format(body, indent=2)


def check_index(index: Index, files: Mapping[str, Header]) -> None:
    """BadIndex where a tensor is not in the file that the index names for it."""
    for tensor, file in index.weight_map.items():
        header = files.get(file)
        if header is None or tensor not in header.tensors:
            raise BadIndex(
                f"{INDEX_NAME} says {tensor[:80]} is in {file}, which lacks it", advice=_ADVICE
            )
