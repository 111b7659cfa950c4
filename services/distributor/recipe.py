"""How a stage's files come of the model's own, by the manifest alone; pure.

Whoever has the manifest and can read the model's files needs nobody who holds the stage.
"""

from collections.abc import Iterable

from messages.shards import StageFile, StageManifest, StageTensor
from services.checkpoint.description import STAGE_NAME, with_files
from services.checkpoint.index import INDEX_NAME, index_body
from services.checkpoint.layout import FileLayout, Literal, Piece, Span
from services.checkpoint.stage_header import header_of


def layout_of(file: StageFile) -> FileLayout | None:
    """Where each byte of a stage file is; None where it is in no file of the model."""
    if file.source is not None:
        pieces: tuple[Piece, ...] = (Span(file.source, 0, file.size_bytes),)
        return FileLayout(name=file.name, pieces=pieces if file.size_bytes else ())
    reached = file.data_start
    for tensor in file.tensors:
        if tensor.start != reached:
            return None
        reached += tensor.size_bytes
    if not file.tensors or reached != file.size_bytes:
        return None
    return FileLayout(name=file.name, pieces=(Literal(header_of(file)), *_spans(file.tensors)))


def made_files(manifest: StageManifest, description: bytes | None) -> dict[str, bytes]:
    """The files that are in no file of the model, by name: the index, and the stage's description.

    `description` is what `StageReady.description` holds. Whether they are right, their digests say.
    """
    held = ((tensor, file.name) for file in manifest.files for tensor in file.tensors)
    made = {INDEX_NAME: index_body(held)}
    if description is not None:
        others = tuple(file for file in manifest.files if file.name != STAGE_NAME)
        made[STAGE_NAME] = with_files(description, others)
    return made


def _spans(tensors: Iterable[StageTensor]) -> list[Span]:
    """The tensors' ranges in order, adjacent ones joined, empty ones left out."""
    found: list[Span] = []
    for tensor in tensors:
        last = found[-1] if found else None
        adjacent = last and (last.source, last.start + last.size_bytes) == (
            tensor.source,
            tensor.source_start,
        )
        if last and adjacent:
            found[-1] = Span(last.source, last.start, last.size_bytes + tensor.size_bytes)
        elif tensor.size_bytes:
            found.append(Span(tensor.source, tensor.source_start, tensor.size_bytes))
    return found
