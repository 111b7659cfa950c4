"""Reading the metadata a job's plan is made from: the Hub at its commit, or the bus."""

import functools
from collections.abc import Awaitable, Callable

import anyio.to_thread

from messages.documents import Document, digest_of
from messages.failures import Permanent
from messages.models import MetadataReady
from services.runtime.documents import Documents

ReadFromHub = Callable[[MetadataReady], Awaitable[bytes]]
Read = Callable[[], Awaitable[bytes]]


class MetadataDiffers(Permanent):
    """The metadata read is not what was announced."""

    def __init__(self, ready: MetadataReady, found: str) -> None:
        super().__init__(
            f"metadata {ready.file} in {ready.repo} has sha256 {found[:16]}…, "
            f"not {ready.sha256[:16]}… as announced",
            advice="upload the metadata again and announce the new digest",
        )


async def read(
    ready: MetadataReady, documents: Documents, from_hub: ReadFromHub
) -> tuple[Document, Read]:
    """A reference that travels on with the plan, and how to get its bytes, of that digest.

    What is on the bus is read when it is wanted. MetadataDiffers or, then, DocumentDiffers where
    the digest is another than announced.
    """
    if not ready.commit:
        document = Document(
            sha256=ready.sha256, size_bytes=ready.size_bytes, bucket=ready.repo, name=ready.file
        )
        return document, functools.partial(documents.get, document)
    body = await from_hub(ready)
    found = await anyio.to_thread.run_sync(digest_of, body)
    if found != ready.sha256:
        raise MetadataDiffers(ready, found)

    async def here() -> bytes:
        return body

    return await documents.put(body, ready.file.rpartition("/")[2]), here


async def from_hub(ready: MetadataReady) -> bytes:
    """The file at its commit on the Hub; the Hub's library is imported when it is first needed."""
    from services.hub.metadata_store import read_metadata

    return await read_metadata(ready.repo, ready.file, ready.commit)
