"""What the Hub knows of a model: its commit, its files, and the headers of its weights."""

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import anyio
import msgspec

from services.hub import client
from services.hub.account import endpoint
from services.hub.failures import HubUnavailable, NoSuchFile, UnusableModel
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
_HEADERS_TIMEOUT_S = 300.0
_JSON_LIMIT_BYTES = 64 << 20
_LISTING_TIMEOUT_S = 60.0
_LISTING_LIMIT_BYTES = 256 << 20


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
    """What can be known of a model without its weights; `config` is config.json as it stands.

    `left_out` are safetensors files beside those that are used.
    """

    model_name: str
    commit: str
    config: bytes
    files: tuple[RemoteFile, ...]
    index: dict[str, Any] | None = None
    left_out: tuple[str, ...] = ()


def is_commit(revision: str) -> bool:
    """Whether the revision is a whole commit id, which always means the same files."""
    return _COMMIT.fullmatch(revision) is not None


async def resolve(model_name: str, revision: str = "main") -> Snapshot:
    """The commit that a revision means now and its files, in one call, which a cancel ends at once.

    (The library's own `model_info` would leave a thread behind that keeps a process from ending.)

    Raises GatedModel, NoSuchModel, NoSuchRevision and their kin, or HubUnavailable.
    """
    page = quote(revision, safe="")
    url = f"{endpoint()}/api/models/{model_name}/revision/{page}?blobs=true"
    headers = await anyio.to_thread.run_sync(client.headers)
    with hub_errors(model_name, revision=revision), anyio.fail_after(_LISTING_TIMEOUT_S):
        async with client.session() as web:
            body = await client.body_of(web, url, headers, limit_bytes=_LISTING_LIMIT_BYTES)
    try:
        info = msgspec.json.decode(body, type=_Info)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        info = _Info(sha="")
    if not is_commit(info.sha):
        raise HubUnavailable(f"{model_name}: {endpoint()} answered, but not as a Hub does")
    files = tuple(
        File(
            path=entry.rfilename,
            size_bytes=entry.size or 0,
            sha256=entry.lfs.sha256 if entry.lfs else "",
            git_oid="" if entry.lfs else entry.blob_id or "",
        )
        for entry in info.siblings
    )
    return Snapshot(model_name, info.sha, files)


class _Lfs(msgspec.Struct):
    sha256: str


class _Sibling(msgspec.Struct, rename="camel"):
    rfilename: str
    size: int | None = None
    blob_id: str | None = None
    lfs: _Lfs | None = None


class _Info(msgspec.Struct):
    sha: str
    siblings: tuple[_Sibling, ...] = ()


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
        config = await reader.body("config.json")
        index = next((f.path for f in choice.companions if f.path.endswith(INDEX)), None)
        files = await side_by_side(reader.header, choice.weights, _HEADER_WORKERS)
        read_index = await reader.json(index) if index else None
    left_out = tuple(file.path for file in choice.left_out)
    return RemoteModel(model_name, snapshot.commit, config, tuple(files), read_index, left_out)


@dataclass(frozen=True)
class _Reader:
    web: "AsyncClient"
    snapshot: Snapshot
    headers: dict[str, str]

    async def body(self, path: str) -> bytes:
        """A small file of the repository."""
        if all(file.path != path for file in self.snapshot.files):
            raise NoSuchFile(
                self.snapshot.model_name,
                f"has no {path}",
                advice="ask for a model in the Hugging Face layout",
            )
        return await self._get(path, {})

    async def json(self, path: str) -> dict[str, Any]:
        """A JSON object of the repository."""
        try:
            return msgspec.json.decode(await self.body(path), type=dict[str, Any])
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

    async def _get(
        self, path: str, extra: dict[str, str], limit_bytes: int = _JSON_LIMIT_BYTES
    ) -> bytes:
        name, commit = self.snapshot.model_name, self.snapshot.commit
        url = client.file_url(name, commit, path)
        asked = {**self.headers, **extra}
        with hub_errors(name, revision=commit, path=path), anyio.fail_after(_HEADERS_TIMEOUT_S):
            return await client.body_of(self.web, url, asked, limit_bytes=limit_bytes)

    def _unusable(self, reason: str) -> UnusableModel:
        return UnusableModel(
            self.snapshot.model_name, reason, advice="ask for another revision or another model"
        )
