"""Reading the metadata a job's plan is made from: the Hub at its commit, or the bus."""

from collections.abc import Awaitable, Callable

import anyio.to_thread

from messages.documents import Document, digest_of
from messages.failures import Permanent
from messages.models import MetadataReady
from services.runtime.documents import Documents

ReadFromHub = Callable[[MetadataReady], Awaitable[bytes]]


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
) -> tuple[bytes, Document]:
    """The metadata's bytes, of the announced digest, and a reference that travels on with the plan.

    MetadataDiffers or DocumentDiffers where the digest is another.
    """
    if ready.commit:
        body = await from_hub(ready)
        found = await anyio.to_thread.run_sync(digest_of, body)
        if found != ready.sha256:
            raise MetadataDiffers(ready, found)
        document = await documents.put(body, ready.file.rpartition("/")[2])
    else:
        document = Document(
            sha256=ready.sha256, size_bytes=ready.size_bytes, bucket=ready.repo, name=ready.file
        )
        body = await documents.get(document)
    return body, document


async def from_hub(ready: MetadataReady) -> bytes:
    """The file at its commit on the Hub; the Hub's library is imported when it is first needed."""
    from services.hub.metadata_store import read_metadata

    return await read_metadata(ready.repo, ready.file, ready.commit)
