"""A Hub on 127.0.0.1: enough of its HTTP interface for the real client, with faults on demand."""

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from aiohttp import web

from tests.loopback_hub import reading, writing
from tests.loopback_hub.bodies import drop
from tests.loopback_hub.faults import NO_FAULT, Fault
from tests.loopback_hub.state import HubError, HubState, Seen

_ID = r"(?P<repo>[\w.-]+(?:/[\w.-]+)?)"
_START_TIMEOUT_S = 10
Handler = Callable[[HubState, web.Request, re.Match[str], Fault], Awaitable[web.StreamResponse]]
ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET HEAD", r"/cdn/(?P<oid>[0-9a-f]{64})/.*", reading.cdn),
    ("GET HEAD", rf"/{_ID}/resolve/(?P<rev>[^/]+)/(?P<file>.+)", reading.file),
    ("GET", rf"/api/models/{_ID}/revision/(?P<rev>[^/]+)", reading.info),
    ("GET", rf"/api/models/{_ID}/tree/(?P<rev>[^/]+)", reading.tree),
    ("GET", rf"/api/models/{_ID}", reading.info),
    ("GET", r"/api/whoami-v2", writing.whoami),
    ("POST", r"/api/repos/create", writing.create),
    ("POST", rf"/api/models/{_ID}/preupload/(?P<rev>[^/]+)", writing.preupload),
    ("POST", rf"/api/models/{_ID}/commit/(?P<rev>[^/]+)", writing.commit),
    ("POST", rf"/{_ID}\.git/info/lfs/objects/batch", writing.lfs_batch),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", writing.lfs_put),
)


class LoopbackHub(HubState):
    """A Hub in a thread of its own, from `with` to the end of its block."""

    def __init__(self, port: int = 0) -> None:
        super().__init__()
        self.port = port

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        if not ready.wait(_START_TIMEOUT_S):
            raise TimeoutError("the loopback Hub did not start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_START_TIMEOUT_S)

    def _run(self, ready: threading.Event) -> None:
        asyncio.run(self._serve(ready))

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{tail:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        self.port = int(runner.addresses[0][1])
        self.url = f"http://127.0.0.1:{self.port}"
        ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.rel_url.raw_path
        fault = next((f for f in self.faults if f.takes(request.method, path)), NO_FAULT)
        try:
            response = await self._dispatch(request, path, fault)
        except HubError as error:
            response = _error(error, fault)
        if fault.lose_answer:
            drop(request)
        if not response.prepared:
            asked = request.headers.get("Range", "")
            self.requests.append(Seen(request.method, path, asked, response.status))
        return response

    async def _dispatch(self, request: web.Request, path: str, fault: Fault) -> web.StreamResponse:
        await asyncio.sleep(fault.delay_s)
        if fault.status:
            raise HubError(fault.status, fault.code, f"fault {fault.status}")
        for methods, pattern, handler in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and request.method in methods.split():
                return await handler(self, request, found, fault)
        raise HubError(404, "", f"no such page {path}")


def _error(error: HubError, fault: Fault) -> web.Response:
    headers = {"X-Error-Message": error.text}
    if error.code:
        headers["X-Error-Code"] = error.code
    if fault.retry_after_s is not None:
        headers["Retry-After"] = f"{fault.retry_after_s:g}"
    return web.json_response({"error": error.text}, status=error.status, headers=headers)
