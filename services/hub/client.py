"""Talking to the Hub by huggingface_hub, which is imported when it is first needed (0.4 s)."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import anyio

from services.hub.account import endpoint, token
from services.hub.trouble import hub_errors

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response
    from huggingface_hub import HfApi

T = TypeVar("T")
TIMEOUT_S = 30.0


def file_url(model_name: str, commit: str, path: str) -> str:
    """Where a file of a commit is to be had."""
    from huggingface_hub import hf_hub_url

    return hf_hub_url(model_name, path, revision=commit, endpoint=endpoint())


def headers() -> dict[str, str]:
    """What identifies us; bodies come as they are stored, so that ranges and digests hold."""
    from huggingface_hub.utils import build_hf_headers

    built = build_hf_headers(token=token(), library_name="williw")
    return {**built, "Accept-Encoding": "identity"}


@asynccontextmanager
async def session() -> AsyncIterator["AsyncClient"]:
    """The library's own HTTP client, with its proxies, certificates and hooks."""
    from huggingface_hub import get_async_session

    async with await anyio.to_thread.run_sync(get_async_session) as client:
        yield client


async def call(
    model_name: str,
    ask: Callable[["HfApi"], T],
    *,
    revision: str = "",
    timeout_s: float = TIMEOUT_S,
) -> T:
    """The answer of one call of the library, made in a thread; it is left behind when it hangs.

    No request of it waits for longer than TIMEOUT_S, since a thread keeps its process from ending.
    Raises ModelRefused or HubUnavailable.
    """
    await anyio.to_thread.run_sync(_import_library)
    with hub_errors(model_name, revision=revision), anyio.fail_after(timeout_s):
        return await anyio.to_thread.run_sync(partial(_ask, ask), abandon_on_cancel=True)


def _import_library() -> None:
    """In a thread, so that the first call does not hold up the event loop."""
    import huggingface_hub.hf_api  # noqa: F401


def _ask(ask: Callable[["HfApi"], T]) -> T:
    from huggingface_hub import HfApi, get_session

    get_session().timeout = TIMEOUT_S
    return ask(HfApi(endpoint=endpoint(), token=token(), library_name="williw"))


async def body_of(
    web: "AsyncClient", url: str, asked: dict[str, str], *, limit_bytes: int
) -> bytes:
    """The body of an answer, or its first `limit_bytes`. Raises what the library raises."""
    body = bytearray()
    async with web.stream("GET", url, headers=asked, timeout=TIMEOUT_S) as response:
        await raise_for(response)
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) >= limit_bytes:  # a server without ranges would send it all
                break
    return bytes(body[:limit_bytes])


async def raise_for(response: "Response") -> None:
    """Raise the library's own error where the answer is one."""
    from huggingface_hub.utils import hf_raise_for_status

    if response.is_error:
        await response.aread()
    hf_raise_for_status(response)
