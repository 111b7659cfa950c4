"""What the Hub knows of a model: its commit, its files, and the headers of its weights."""

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from services.hub import client
from services.hub.failures import NoSuchFile, UnusableModel
from services.hub.selection import INDEX, File, choose
from services.hub.together import side_by_side
from services.hub.trouble import hub_errors

if TYPE_CHECKING:
    from httpx2 import AsyncClient

_COMMIT = re.compile(r"[0-9a-f]{40}")
HEADER_GUESS_BYTES = 100_000
"""What is asked of a file at first: most headers are shorter, and need no second request."""
HEADER_LIMIT_BYTES = 100_000_000
_HEADER_WORKERS = 16
_SILENCE_TIMEOUT_S = 30.0
_FILE_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Snapshot:
    """A model at one commit, and everything its repository holds there."""

    model_name: str
    commit: str
    files: tuple[File, ...]


@dataclass(frozen=True)
class RemoteFile:
    """The beginning of a safetensors file on the Hub.

    `header` is the JSON itself, without the eight bytes of length before it; `size_bytes` is the
    whole file's.
    """

    path: str
    size_bytes: int
    header: bytes


@dataclass(frozen=True)
class RemoteModel:
    """What can be known of a model without its weights."""

    model_name: str
    commit: str
    config: dict[str, Any]
    files: tuple[RemoteFile, ...]
    index: dict[str, Any] | None = None


def is_commit(revision: str) -> bool:
    """Whether the revision is a whole commit id, which always means the same files."""
    return _COMMIT.fullmatch(revision) is not None


async def resolve(model_name: str, revision: str = "main") -> Snapshot:
    """The commit that a revision means now and its files, in one call.

    Raises GatedModel, NoSuchModel, NoSuchRevision and their kin, or HubUnavailable.
    """
    info = await client.call(
        model_name,
        lambda api: api.model_info(
            model_name, revision=revision, files_metadata=True, timeout=client.TIMEOUT_S
        ),
        revision=revision,
    )
    files = tuple(
        File(
            path=entry.rfilename,
            size_bytes=entry.size or 0,
            sha256=entry.lfs.sha256 if entry.lfs else "",
            git_oid="" if entry.lfs else entry.blob_id or "",
        )
        for entry in info.siblings or ()
    )
    return Snapshot(model_name, info.sha or revision, files)


async def read_headers(model_name: str, revision: str = "main") -> RemoteModel:
    """The configuration and every safetensors header of a model; its weights stay on the Hub.

    Fetches at most HEADER_GUESS_BYTES of a file whose header fits in that, files side by side.
    Raises UnusableModel where there are no safetensors, and what `resolve` raises.
    """
    snapshot = await resolve(model_name, revision)
    choice = choose(model_name, snapshot.files)
    if choice.format != "safetensors":
        raise UnusableModel(
            model_name,
            "holds pickled weights only, whose headers cannot be read from afar",
            advice='request it with "pickle": true, so that the origin converts it',
        )
    async with client.session() as web:
        reader = _Reader(web, snapshot, client.headers())
        config = await reader.json("config.json")
        index = next((f.path for f in choice.companions if f.path.endswith(INDEX)), None)
        files = await side_by_side(reader.header, choice.weights, _HEADER_WORKERS)
        read_index = await reader.json(index) if index else None
    return RemoteModel(model_name, snapshot.commit, config, tuple(files), read_index)


@dataclass(frozen=True)
class _Reader:
    web: "AsyncClient"
    snapshot: Snapshot
    headers: dict[str, str]

    async def json(self, path: str) -> dict[str, Any]:
        """A JSON object of the repository."""
        if all(file.path != path for file in self.snapshot.files):
            raise NoSuchFile(
                self.snapshot.model_name,
                f"has no {path}",
                advice="ask for a model in the Hugging Face layout",
            )
        try:
            return msgspec.json.decode(await self._get(path, {}), type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise self._unusable(f"{path} is not a JSON object: {error}") from None

    async def header(self, file: File) -> RemoteFile:
        """The JSON header of one safetensors file, by one or two ranges."""
        guess = min(HEADER_GUESS_BYTES, file.size_bytes)
        start = await self._range(file, 0, guess)
        if len(start) < 8:
            raise self._unusable(f"{file.path} is too short to be safetensors")
        (length,) = struct.unpack("<Q", start[:8])
        if length > min(HEADER_LIMIT_BYTES, file.size_bytes - 8):
            raise self._unusable(f"{file.path} announces a header of {length} bytes")
        if 8 + length > len(start):
            start += await self._range(file, len(start), 8 + length)
        return RemoteFile(file.path, file.size_bytes, start[8 : 8 + length])

    async def _range(self, file: File, start: int, end: int) -> bytes:
        body = await self._get(file.path, {"Range": f"bytes={start}-{end - 1}"}, end - start)
        if len(body) != end - start:
            raise self._unusable(f"{file.path} is shorter than the Hub says")
        return body

    async def _get(self, path: str, extra: dict[str, str], limit: int = 64 << 20) -> bytes:
        name, commit = self.snapshot.model_name, self.snapshot.commit
        url = client.file_url(name, commit, path)
        body = bytearray()
        with hub_errors(name, revision=commit, path=path), anyio.fail_after(_FILE_TIMEOUT_S):
            async with self.web.stream(
                "GET", url, headers={**self.headers, **extra}, timeout=_SILENCE_TIMEOUT_S
            ) as response:
                await client.raise_for(response)
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) >= limit:  # a server without ranges would send it all
                        return bytes(body[:limit])
        return bytes(body)

    def _unusable(self, reason: str) -> UnusableModel:
        return UnusableModel(
            self.snapshot.model_name, reason, advice="ask for another revision or another model"
        )
