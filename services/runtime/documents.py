"""Bodies by reference: in the message when small, else an object on the bus; always verified."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import anyio
import anyio.to_thread
import msgspec
from msgspec import Meta
from nats.aio.client import Client
from nats.js.errors import NotFoundError
from nats.js.object_store import ObjectStore

from messages.documents import INLINE_LIMIT_BYTES, Document, digest_of
from messages.failures import Passing, Permanent
from messages.ids import Sha256
from messages.wire import decode
from services.runtime import names, stored
from services.runtime.connection import BUS_TROUBLE
from services.runtime.remembered import Remembered

T = TypeVar("T")
# Hashing less than this takes less time than a way to a thread and back.
_HASH_HERE_BYTES = 64 * 1024
KEPT_S = 7 * 86_400.0
_BODIES_BYTES = 16 * 1024 * 1024
# What was seen on the bus is not looked for again at once.
_SEEN_S = 10.0


class _Object(msgspec.Struct, frozen=True):
    """What the object store keeps of an object: `nuid` names its chunks, `size` counts bytes."""

    nuid: Annotated[str, Meta(pattern=r"^[A-Za-z0-9]{1,64}$(?!\n)")]
    size: Annotated[int, Meta(ge=0)] = 0


class DocumentDiffers(Permanent):
    """The bytes read are not the bytes referred to."""

    def __init__(self, name: str, expected: str, found: str) -> None:
        super().__init__(
            f"document {name} has sha256 {found[:16]}…, not {expected[:16]}… as it was said to",
            advice="publish it again; what is on the bus was altered or cut short",
        )


class Documents:
    """Put and get documents; `williw_documents` holds those too large for a message.

    The bucket keeps an object for `kept_s`.
    """

    def __init__(self, client: Client, *, kept_s: float = KEPT_S) -> None:
        self._client = client
        self._js = client.jetstream(timeout=10)
        self._kept_s = kept_s
        self._bucket: ObjectStore | None = None
        self._bodies = Remembered[Sha256, bytes](size_bytes=_BODIES_BYTES)
        self._seen = Remembered[str, float]()

    async def put(self, body: bytes, name: str, *, among: int = 1) -> Document:
        """A reference to `body`: within itself up to the inline limit, else a stored object.

        Documents that travel `among` others in one message share that limit.
        """
        if len(body) <= INLINE_LIMIT_BYTES // among:
            return Document.of_small(body)
        return await self.store(body, name)

    async def store(self, body: bytes, name: str) -> Document:
        """A reference to `body` as an object named by its digest and `name`; the same twice is one.

        Passing where the bus does not take it.
        """
        digest = await _digest(body)
        document = Document(
            sha256=digest,
            size_bytes=len(body),
            bucket=names.DOCUMENTS_BUCKET,
            name=f"{digest[:16]}/{name}",
        )
        try:
            if not await self._holds(document):
                await (await self._open()).put(document.name, body)
        except BUS_TROUBLE as error:
            raise Passing(f"the bus did not take {name}: {type(error).__name__}") from error
        return document

    async def get(self, document: Document) -> bytes:
        """The bytes, checked by SHA-256. DocumentDiffers, or Passing while they are absent."""
        if document.body is not None:
            return await _checked(document, document.body)
        if document.bucket != names.DOCUMENTS_BUCKET:
            raise Permanent(f"a document cannot be in a bucket called {document.bucket[:80]!r}")
        known = self._bodies.get(document.sha256)
        if known is None:
            known = await _checked(document, await self._stored(document))
            self._bodies.keep(document.sha256, known, len(known))
        return known

    async def _stored(self, document: Document) -> bytes:
        """An object's bytes, by direct gets: the library would have a consumer made for each."""
        stream = f"OBJ_{document.bucket}"
        name = base64.urlsafe_b64encode(document.name.encode()).decode()
        try:
            last = await self._js.get_last_msg(
                stream, f"$O.{document.bucket}.M.{name}", direct=True
            )
        except BUS_TROUBLE as error:
            trouble = "is not on the bus" if isinstance(error, NotFoundError) else "not read"
            raise Passing(f"document {document.name} {trouble}: {type(error).__name__}") from error
        kept = decode(last.data or b"", _Object)
        chunks = f"$O.{document.bucket}.C.{kept.nuid}"
        body = b"".join([m.data async for m in stored.messages(self._client, stream, chunks)])
        if len(body) < kept.size:
            # It was stored anew, and the older chunks taken away, as they were read.
            raise Passing(f"document {document.name} is being stored: {len(body)} bytes so far")
        return body

    async def load(self, document: Document, kind: type[T]) -> T:
        """The value a document holds; Undecodable where it is no `kind`."""
        return decode(await self.get(document), kind)

    async def _open(self) -> ObjectStore:
        if self._bucket is None:
            self._bucket = await self._js.object_store(names.DOCUMENTS_BUCKET)
        return self._bucket

    async def _holds(self, document: Document) -> bool:
        """Whether it is there, for half of the bucket's time at least: a job may run for long."""
        now = anyio.current_time()
        seen_at = self._seen.get(document.name)
        if seen_at is not None and now - seen_at < _SEEN_S:
            return True
        try:
            info = await (await self._open()).get_info(document.name)
        except NotFoundError:
            return False
        whole = bool(info.size == document.size_bytes and not info.deleted)
        if not whole or _age(info.mtime) > timedelta(seconds=self._kept_s / 2):
            return False
        self._seen.keep(document.name, now, 0)
        return True


async def _checked(document: Document, body: bytes) -> bytes:
    found = await _digest(body)
    if found != document.sha256:
        raise DocumentDiffers(document.name or "(inline)", document.sha256, found)
    return body


async def _digest(body: bytes) -> Sha256:
    if len(body) <= _HASH_HERE_BYTES:
        return digest_of(body)
    return await anyio.to_thread.run_sync(digest_of, body)


def _age(stamp: str | None) -> timedelta:
    """How long ago an object was stored, by the clock of whoever did; for ever where unsaid."""
    try:
        stored_at = datetime.fromisoformat(stamp or "")
    except ValueError:
        return timedelta.max
    return datetime.now(UTC) - stored_at if stored_at.tzinfo else timedelta.max
