"""Bringing a commit's files from the Hub to this disk: by ranges, resumed where a process died.

The library begins a file again when its process ended in the middle, so the bytes are fetched here,
with the library's URL, headers and HTTP client. docs/decisions/hub-downloads.md tells why.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from services.hub import client
from services.hub.failures import HubUnavailable, WrongDigest
from services.hub.selection import File
from services.hub.together import side_by_side
from services.hub.trouble import hub_errors

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response

PART = ".part"
_PIECE_BYTES = 1 << 20
_PIECES_AT_ONCE = 64


@dataclass(frozen=True)
class Patience:
    """How long the Hub is borne with before the work is handed back as HubUnavailable.

    `tries` count only while no byte arrives; waits double from `first_wait_s`.
    """

    tries: int = 4
    first_wait_s: float = 0.5
    longest_wait_s: float = 60.0
    silence_s: float = 30.0


@dataclass(frozen=True)
class Source:
    """One commit of a model on the Hub."""

    model_name: str
    commit: str


async def fetch(
    source: Source,
    files: Sequence[File],
    into: Path,
    *,
    workers: int = 4,
    on_bytes: Callable[[int], None] = lambda _count: None,
    patience: Patience = Patience(),
) -> None:
    """Make `into` hold every file, each verified by the digest that the Hub gives for it.

    What an earlier process left there is used: whole files as they are, `.part` files from their
    last byte. `on_bytes` is told of bytes that are there (less than zero: they were thrown away).
    Cancelling stops at once and leaves what arrived. Raises WrongDigest, HubUnavailable, OSError
    where the disk does not take it, and what `hub.resolve` raises.
    """
    built = await anyio.to_thread.run_sync(client.headers)
    async with client.session() as web:
        transfer = _Transfer(source, into, web, built, on_bytes, patience)
        await side_by_side(transfer.bring, files, workers)


@dataclass(frozen=True)
class _Transfer:
    source: Source
    into: Path
    web: "AsyncClient"
    headers: dict[str, str]
    on_bytes: Callable[[int], None]
    patience: Patience

    async def bring(self, file: File) -> None:
        """Fetch what is missing of one file, verify it, give it its name."""
        target = self.into / file.path
        if target.exists():
            self.on_bytes(file.size_bytes)
            return
        for attempt in ("once", "twice"):
            part = await anyio.to_thread.run_sync(_Part.opened, target, file)
            try:
                while await anyio.to_thread.run_sync(part.recall):
                    pass
                self.on_bytes(part.at)
                await self._complete(part)
                found = part.digest.hexdigest()
                if not part.expected or found == part.expected:
                    await anyio.to_thread.run_sync(part.publish)
                    return
                await anyio.to_thread.run_sync(part.clear)
                self.on_bytes(-file.size_bytes)
            finally:
                part.close()
            if attempt == "twice":
                raise WrongDigest(
                    self.source.model_name, file.path, expected=part.expected, found=found
                )

    async def _complete(self, part: "_Part") -> None:
        """Ask again from the last byte, with growing waits while nothing comes."""
        idle = 0
        while part.at < part.file.size_bytes:
            before, trouble = part.at, HubUnavailable(f"{part.file.path} ended before its end")
            try:
                await self._stream(part)
            except HubUnavailable as failure:
                trouble = failure
            if part.at >= part.file.size_bytes:
                return
            idle = 0 if part.at > before else idle + 1
            wait_s = max(trouble.after_s, self.patience.first_wait_s * 2 ** max(0, idle - 1))
            if idle >= self.patience.tries or wait_s > self.patience.longest_wait_s:
                raise trouble
            await anyio.sleep(wait_s)

    async def _stream(self, part: "_Part") -> None:
        name, commit, path = self.source.model_name, self.source.commit, part.file.path
        url = client.file_url(name, commit, path)
        asked = {**self.headers, "Range": f"bytes={part.at}-"} if part.at else self.headers
        with hub_errors(name, revision=commit, path=path):
            async with self.web.stream(
                "GET", url, headers=asked, timeout=self.patience.silence_s
            ) as response:
                await client.raise_for(response)
                await self._begin(part, response)
                await self._receive(part, response)

    async def _receive(self, part: "_Part", response: "Response") -> None:
        """Write what arrives in large pieces; what came before a break is kept as well."""
        arrived = bytearray()
        try:
            async for piece in response.aiter_raw():  # aiter_bytes(n) takes twice the time
                arrived += piece
                if len(arrived) >= _PIECE_BYTES:
                    await self._keep(part, arrived)
                    arrived = bytearray()
                if part.at + len(arrived) >= part.file.size_bytes:
                    break
        finally:
            with anyio.CancelScope(shield=True):
                await self._keep(part, arrived)

    async def _keep(self, part: "_Part", arrived: bytearray) -> None:
        del arrived[part.file.size_bytes - part.at :]
        await anyio.to_thread.run_sync(part.write, arrived)
        self.on_bytes(len(arrived))

    async def _begin(self, part: "_Part", response: "Response") -> None:
        """Where the answer does not go on from our last byte, begin the file again."""
        starts = f"bytes {part.at}-"
        if part.at and not (
            response.status_code == 206
            and response.headers.get("content-range", "").startswith(starts)
        ):
            self.on_bytes(-part.at)
            await anyio.to_thread.run_sync(part.clear)
            if response.status_code == 206:
                raise HubUnavailable(f"{part.file.path}: the Hub answered with another range")


class _Part:
    """A file on its way: its bytes so far, and the digest of them."""

    def __init__(self, target: Path, file: File, descriptor: int) -> None:
        self.target, self.file, self.descriptor = target, file, descriptor
        self.expected = file.sha256 or file.git_oid
        self.clear_digest()

    @classmethod
    def opened(cls, target: Path, file: File) -> "_Part":
        """The part that an earlier process left, to be recalled, or an empty one."""
        target.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        part = cls(target, file, os.open(f"{target}{PART}", flags, 0o644))
        if os.fstat(part.descriptor).st_size > file.size_bytes:
            part.clear()
        return part

    def recall(self) -> bool:
        """Read some more of what was there, for the digest; False at the end of it."""
        for _ in range(_PIECES_AT_ONCE):
            piece = os.pread(self.descriptor, _PIECE_BYTES, self.at)
            self.digest.update(piece)
            self.at += len(piece)
            if not piece:
                return False
        return True

    def clear_digest(self) -> None:
        """As of no bytes: SHA-256 for LFS files, for others git's blob id (a SHA-1)."""
        self.at = 0
        if self.file.sha256 or not self.file.git_oid:
            self.digest = hashlib.sha256()
        else:
            header = b"blob %d\0" % self.file.size_bytes
            self.digest = hashlib.sha1(header, usedforsecurity=False)

    def clear(self) -> None:
        """Throw the bytes away."""
        os.ftruncate(self.descriptor, 0)
        self.clear_digest()

    def write(self, piece: bytearray) -> None:
        """Append to the file and to its digest."""
        view = memoryview(piece)
        while view:
            written = os.pwrite(self.descriptor, view, self.at)
            self.digest.update(view[:written])
            self.at += written
            view = view[written:]

    def publish(self) -> None:
        """On the disk for good, then under its own name."""
        os.fsync(self.descriptor)
        Path(f"{self.target}{PART}").replace(self.target)

    def close(self) -> None:
        """Let go of the file; its bytes stay for the next try."""
        os.close(self.descriptor)
