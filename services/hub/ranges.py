"""Ranges of a model's files at one commit; an answer with another range is none."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

import anyio
import anyio.to_thread

from services.hub import client
from services.hub.failures import HubUnavailable
from services.hub.trouble import hub_errors

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response

SILENCE_S = 30.0
_CLOSE_S = 2.0
Take = Callable[[bytes], Awaitable[None]]


class Ranges:
    """One model at one commit, from `async with` to the end of its block.

    The client is made when a range is first asked for: until then the library is not even imported.
    """

    def __init__(self, model_name: str, commit: str) -> None:
        self._model_name, self._commit = model_name, commit
        self._stack = AsyncExitStack()
        self._making = anyio.Lock()
        self._made: tuple[AsyncClient, dict[str, str]] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.move_on_after(_CLOSE_S, shield=True):
            await self._stack.aclose()

    async def read(self, path: str, start: int, size_bytes: int, take: Take) -> None:
        """Hand bytes [start, start + size_bytes) of `path` to `take` as they come; at least one.

        Raises HubUnavailable where the Hub gives other or fewer bytes, or none, and ModelRefused
        where it has no such file or not for us. What `take` raises passes.
        """
        web, headers = await self._client()
        url = client.file_url(self._model_name, self._commit, path)
        asked = {**headers, "Range": f"bytes={start}-{start + size_bytes - 1}"}
        left = size_bytes
        with hub_errors(self._model_name, revision=self._commit, path=path):
            async with web.stream("GET", url, headers=asked, timeout=SILENCE_S) as response:
                await client.raise_for(response)
                _check(response, path, start, size_bytes)
                async for piece in response.aiter_raw():
                    left -= len(piece)
                    if left < 0:
                        break
                    await take(piece)
        if left:
            raise HubUnavailable(f"{path}: the Hub gave {size_bytes - left} of {size_bytes} bytes")

    async def _client(self) -> tuple["AsyncClient", dict[str, str]]:
        async with self._making:
            if self._made is None:
                headers = await anyio.to_thread.run_sync(client.headers)
                web = await self._stack.enter_async_context(client.session())
                self._made = web, headers
        return self._made


def _check(response: "Response", path: str, start: int, size_bytes: int) -> None:
    wanted = f"bytes {start}-{start + size_bytes - 1}/"
    given = response.headers.get("content-range", "")
    if response.status_code != 206 or not given.startswith(wanted):
        raise HubUnavailable(f"{path}: the Hub answered with another range than asked for")
