"""Checking one stage directory: its bytes by their digests, what it says by its headers."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from messages.shards import StageFile
from services.checkpoint.checkpoint import StoredTensor, open_checkpoint
from services.checkpoint.chunks import chunk_count, digests_of_file, name_of_content
from services.checkpoint.description import STAGE_NAME, StageDescription
from services.checkpoint.index import INDEX_NAME, read_index

_SHOWN = 5


def faults_of(directory: Path, description: StageDescription, threads: int) -> list[str]:
    """What is wrong with a stage directory that can be seen without the others.

    Its bytes, the tensors in its headers, its index, and files that it does not name. Raises
    BadCheckpoint where its weights cannot be read at all.
    """
    names = [file.name for file in description.files]
    faults = [f"{STAGE_NAME} names {name} twice" for name in _repeated(names)]
    if INDEX_NAME not in names:
        faults.append(f"{STAGE_NAME} names no {INDEX_NAME}, without which engines load nothing")
    read = (_fault(directory / file.name, file, threads) for file in description.files)
    faults += [fault for fault in read if fault]
    faults += [f"{name} is no file of this stage" for name in _foreign(directory, names)]
    if faults:
        return faults
    weights = any(name.endswith(".safetensors") for name in names)
    return _unlike(directory, description, tuple(open_checkpoint(directory)) if weights else ())


def few(names: Iterable[str]) -> str:
    """The first of these names, and how many more there are."""
    listed = list(names)
    rest = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + rest


def _unlike(
    directory: Path, description: StageDescription, tensors: tuple[StoredTensor, ...]
) -> list[str]:
    """Where the description and the index differ from the tensors that the headers have."""
    found = {t.name: (t.file, t.offset, t.dtype, t.shape, t.size_bytes) for t in tensors}
    said = {
        t.name: (f.name, t.start, t.dtype, t.shape, t.size_bytes) for f, t in description.tensors
    }
    faults = []
    if wrong := sorted(n for n in found.keys() | said.keys() if found.get(n) != said.get(n)):
        faults.append(f"not as described: {few(wrong)}")
    indexed = read_index(directory / INDEX_NAME).weight_map
    places = {tensor.name: tensor.file for tensor in tensors}
    if wrong := sorted(
        n for n in places.keys() | indexed.keys() if places.get(n) != indexed.get(n)
    ):
        faults.append(f"not as indexed: {few(wrong)}")
    size_bytes = sum(tensor.size_bytes for tensor in tensors)
    if description.size_bytes != size_bytes:
        faults.append(f"size_bytes is {description.size_bytes}, and its tensors have {size_bytes}")
    return faults


def _fault(path: Path, file: StageFile, threads: int) -> str:
    if len(file.chunks) != chunk_count(file.size_bytes, file.chunk_bytes):
        return f"{file.name} has {len(file.chunks)} digests, which is not one for each chunk"
    if name_of_content(file.size_bytes, file.chunks) != file.digest:
        return f"{file.name} has a digest that its chunks do not give"
    try:
        if not path.is_file():
            return f"{file.name} is missing"
        if path.stat().st_size != file.size_bytes:
            return f"{file.name} is {path.stat().st_size} bytes long, not {file.size_bytes}"
        chunks = digests_of_file(path, file.chunk_bytes, threads=threads)
    except (OSError, EOFError) as error:
        return f"{file.name} cannot be read: {error}"
    if len(chunks) != len(file.chunks):
        return f"{file.name} changed while it was read"
    pairs = enumerate(zip(chunks, file.chunks, strict=True))
    wrong = [str(k) for k, (ours, theirs) in pairs if ours != theirs]
    return f"{file.name} differs in chunks {few(wrong)} of {len(chunks)}" if wrong else ""


def _foreign(directory: Path, names: Iterable[str]) -> list[str]:
    """Files that an engine might load and nobody has a digest of; hidden ones are left alone."""
    known = {*names, STAGE_NAME}
    paths = (path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
    return sorted(
        path.as_posix()
        for path in paths
        if path.as_posix() not in known
        and not any(part.startswith((".", "__pycache__")) for part in path.parts)
    )


def _repeated(names: list[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)
