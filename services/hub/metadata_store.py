"""Metadata files in a repository of the Hub: written once, read at the commit that holds them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from services.hub import client
from services.hub.account import endpoint, token
from services.hub.failures import HubUnavailable, NoSuchFile, NoToken
from services.hub.trouble import hub_errors

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_TRIES = 3
_TIMEOUT_S = 120.0
_LIMIT_BYTES = 1 << 30


class Overtaken(HubUnavailable):
    """Somebody else committed to the repository between our look and our commit."""


@dataclass(frozen=True)
class StoredMetadata:
    """Where a metadata file is: its repository, name, commit, and address for people."""

    repo: str
    file: str
    commit: str
    url: str


async def store_metadata(repo: str, file: str, body: bytes, *, message: str) -> StoredMetadata:
    """Put `body` into `repo` as `file`, creating the repository (private) where there is none.

    One commit, none where the newest one already holds these bytes: an answer that was lost, or
    the same job done again, does not commit twice. Raises NoToken, TokenRefused, HubUnavailable.
    """
    if await anyio.to_thread.run_sync(token) is None:
        raise NoToken(
            repo,
            "takes the metadata (METADATA_REPO), but no Hub token is set",
            advice="set HF_TOKEN to a token that may write there, or unset METADATA_REPO to keep"
            " metadata on the bus",
        )
    for attempt in range(1, _TRIES + 1):
        try:
            head = await _head(repo)
            if await _holds(repo, file, head, body):
                return _stored(repo, file, head)
            return _stored(repo, file, await _commit(repo, file, body, head, message))
        except HubUnavailable:
            if attempt == _TRIES:
                raise
    raise AssertionError("unreachable")


async def read_metadata(repo: str, file: str, commit: str) -> bytes:
    """The bytes of a metadata file at one commit; the caller knows their digest.

    Raises NoSuchModel, NoSuchRevision, NoSuchFile, TokenRefused, HubUnavailable.
    """
    headers = await anyio.to_thread.run_sync(client.headers)
    url = client.file_url(repo, commit, file)
    with hub_errors(repo, revision=commit, path=file), anyio.fail_after(_TIMEOUT_S):
        async with client.session() as web:
            return await client.body_of(web, url, headers, limit_bytes=_LIMIT_BYTES)


async def _head(repo: str) -> str:
    """The newest commit; makes the repository where there is none."""

    def ask(api: "HfApi") -> str:
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            info = api.model_info(repo, timeout=client.TIMEOUT_S)
        except RepositoryNotFoundError:
            api.create_repo(repo, private=True, exist_ok=True)
            info = api.model_info(repo, timeout=client.TIMEOUT_S)
        return info.sha or ""

    return await client.call(repo, ask, timeout_s=_TIMEOUT_S)


async def _holds(repo: str, file: str, commit: str, body: bytes) -> bool:
    try:
        return await read_metadata(repo, file, commit) == body
    except NoSuchFile:
        return False


async def _commit(repo: str, file: str, body: bytes, parent: str, message: str) -> str:
    def ask(api: "HfApi") -> str:
        from huggingface_hub import CommitOperationAdd
        from huggingface_hub.errors import HfHubHTTPError

        try:
            info = api.create_commit(
                repo,
                [CommitOperationAdd(path_in_repo=file, path_or_fileobj=body)],
                commit_message=message,
                parent_commit=parent,
            )
        except HfHubHTTPError as error:
            if error.response.status_code in (409, 412):
                raise Overtaken(f"{repo}: another commit came first") from None
            raise
        except RuntimeError as error:  # how the library wraps what went wrong with a large file
            if isinstance(error.__cause__, HfHubHTTPError):
                raise error.__cause__ from None
            raise HubUnavailable(f"{repo}: {file} was not uploaded") from None
        return info.oid

    return await client.call(repo, ask, timeout_s=_TIMEOUT_S)


def _stored(repo: str, file: str, commit: str) -> StoredMetadata:
    return StoredMetadata(repo, file, commit, f"{endpoint()}/{repo}/blob/{commit}/{file}")
