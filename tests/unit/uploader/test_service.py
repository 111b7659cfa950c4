"""The uploader without a Hub: metadata goes to the bus, and only as it was profiled."""

from collections.abc import Callable
from pathlib import Path

import pytest

from messages.documents import Document, digest_of
from messages.failures import Permanent
from messages.ids import JobId, NodeId
from messages.jobs import ModelRequest
from messages.models import ModelProfiled
from services.uploader.service import Uploader

BODY = b'{"model_name": "org/name"}'


class Kept:
    """A document store in memory."""

    async def store(self, body: bytes, name: str) -> Document:
        return Document(
            sha256=digest_of(body), size_bytes=len(body), bucket="documents", name=f"abc/{name}"
        )


def profiled(file: Path, model_name: str = "org/name") -> ModelProfiled:
    body = file.read_bytes()
    return ModelProfiled(
        origin=NodeId("origin-1"),
        job_id=JobId("job-1"),
        request=ModelRequest(model_name=model_name),
        revision="c0ffee",
        metadata_file=str(file),
        sha256=digest_of(body),
        size_bytes=len(body),
        total_compute=1.0,
        total_layers=1,
    )


@pytest.fixture
def metadata_file(tmp_path: Path) -> Path:
    file = tmp_path / "metadata.json"
    file.write_bytes(BODY)
    return file


async def test_without_a_repository_the_metadata_goes_to_the_bus(metadata_file: Path) -> None:
    (ready,) = await Uploader("", Kept()).upload(profiled(metadata_file, "/models/a name"))
    assert ready.commit == ""
    assert ready.repo == "documents"
    assert ready.file == "abc/local_a-name_metadata.json"
    assert ready.url == "nats://object/documents/abc/local_a-name_metadata.json"


@pytest.mark.parametrize("change", [Path.unlink, lambda file: file.write_bytes(b"{}")])
async def test_a_metadata_file_that_changed_since_is_not_uploaded(
    metadata_file: Path, change: Callable[[Path], object]
) -> None:
    said = profiled(metadata_file)
    change(metadata_file)
    with pytest.raises(Permanent, match="metadata file"):
        await Uploader("", Kept()).upload(said)
