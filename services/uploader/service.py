"""The uploader: `ModelProfiled` becomes `MetadataReady`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import anyio

from config.settings import Settings
from messages.documents import Document, digest_of
from messages.failures import Permanent
from messages.models import MetadataReady, ModelProfiled
from messages.names import metadata_file_name
from messages.subjects import MODEL_PROFILED
from services.hub.metadata_store import StoredMetadata, store_metadata
from services.runtime.bus import Bus
from services.runtime.service import Route, Service

_SLOTS = 32


class MetadataChanged(Permanent):
    """The metadata file on this origin's disk is not the one that was profiled."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(
            f"metadata file {path} {why}", advice="request the model again, to profile it anew"
        )
        self.path = path


class Store(Protocol):
    """The part of the bus's document store that the uploader needs."""

    async def store(self, body: bytes, name: str) -> Document:
        """A reference to `body`, kept on the bus."""


def build(settings: Settings, bus: Bus) -> Service:
    """The uploader of this origin."""
    uploader = Uploader(settings.uploader.metadata_repo, bus.documents)
    # Commits to one repository follow each other.
    slots = 1 if settings.uploader.metadata_repo else _SLOTS
    where = {"origin": settings.node.node_id}
    route = Route(MODEL_PROFILED, uploader.upload, where=where, slots=slots)
    return Service("uploader", routes=(route,))


@dataclass(frozen=True)
class Uploader:
    """Keeps metadata in `metadata_repo` on the Hub, or on the bus where that is empty."""

    metadata_repo: str
    documents: Store

    async def upload(self, said: ModelProfiled) -> tuple[MetadataReady]:
        """Where the metadata can be read; the same bytes are kept once, however often asked.

        Raises MetadataChanged, NoToken, TokenRefused, HubUnavailable.
        """
        body = await anyio.to_thread.run_sync(_read, said)
        name = metadata_file_name(said.request.model_name)
        kept = await (
            self._on_hub(said, body, name) if self.metadata_repo else self._on_bus(body, name)
        )
        return (
            MetadataReady(
                origin=said.origin,
                job_id=said.job_id,
                generation=said.generation,
                request=said.request,
                repo=kept.repo,
                file=kept.file,
                url=kept.url,
                commit=kept.commit,
                revision=said.revision,
                sha256=said.sha256,
                size_bytes=said.size_bytes,
            ),
        )

    async def _on_hub(self, said: ModelProfiled, body: bytes, name: str) -> StoredMetadata:
        message = f"Metadata of {said.request.model_name} at {said.revision[:16]}"
        return await store_metadata(self.metadata_repo, name, body, message=message)

    async def _on_bus(self, body: bytes, name: str) -> StoredMetadata:
        document = await self.documents.store(body, name)
        url = f"nats://object/{document.bucket}/{document.name}"
        return StoredMetadata(document.bucket, document.name, "", url)


def _read(said: ModelProfiled) -> bytes:
    try:
        body = Path(said.metadata_file).read_bytes()
    except FileNotFoundError:
        raise MetadataChanged(said.metadata_file, "is not there any more") from None
    if digest_of(body) != said.sha256:
        raise MetadataChanged(said.metadata_file, "was changed since it was profiled")
    return body
