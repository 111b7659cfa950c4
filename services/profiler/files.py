"""The metadata file on the origin's disk: content-addressed, made visible by one rename."""

import os
import tempfile
from pathlib import Path

import msgspec

from messages.documents import digest_of
from messages.metadata import ModelMetadata
from messages.wire import encode


def body_of(metadata: ModelMetadata) -> bytes:
    """The bytes of the metadata file: JSON that a person can read."""
    return msgspec.json.format(encode(metadata), indent=2)


def write_metadata(folder: Path, name: str, body: bytes) -> Path:
    """Have `<folder>/<first 16 of its SHA-256>/<name>` be these bytes; where they stand, they stay.

    Returns the path.
    """
    path = folder / digest_of(body)[:16] / name
    if _holds(path, body):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=".")
    with os.fdopen(descriptor, "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    Path(beside).replace(path)
    return path


def _holds(path: Path, body: bytes) -> bool:
    try:
        return path.read_bytes() == body
    except OSError:
        return False
