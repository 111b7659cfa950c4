"""The metadata file on the origin's disk: content-addressed, made visible by one rename."""

import os
import tempfile
from pathlib import Path

import msgspec

from messages.documents import digest_of
from messages.metadata import ModelMetadata
from messages.wire import encode


def write_metadata(folder: Path, name: str, metadata: ModelMetadata) -> tuple[Path, bytes]:
    """Write `<folder>/<first 16 of its SHA-256>/<name>`; returns the path and the file's bytes."""
    body = msgspec.json.format(encode(metadata), indent=2)
    path = folder / digest_of(body)[:16] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=".")
    with os.fdopen(descriptor, "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    Path(beside).replace(path)
    return path, body
