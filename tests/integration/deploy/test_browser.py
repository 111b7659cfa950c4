"""A page in a browser of the same machine or network can send requests; what they come to."""

import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest

from config.settings import Health
from messages.ids import JobId
from messages.shards import Access, ShardsReady
from services.distributor.access import Gate
from services.distributor.pace import Pace
from services.distributor.server import DataServer
from services.runtime import health, names
from services.runtime.bus import Bus

PAGE = {"Origin": "https://evil.example"}


class Nothing:
    """Nobody to watch, no job that anybody was let into."""

    connected = True

    def lacking(self) -> str:
        return ""

    async def shards(self, job_id: JobId) -> ShardsReady | None:
        return None

    async def access(self, ready: ShardsReady) -> Access:
        raise AssertionError("there is no job")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "OPTIONS", "PUB"])
async def test_a_page_cannot_speak_to_the_bus_in_a_requests_body(bus: Bus, method: str) -> None:
    url = bus.client.connected_url
    assert url is not None
    smuggled = (
        'CONNECT {"verbose":false}\r\n'
        'PUB williw.model.request 20\r\n{"model_name":"a/b"}\r\nPING\r\n'
    )
    head = f"{method} / HTTP/1.1\r\nHost: bus\r\nContent-Type: text/plain\r\n"
    text = f"{head}Content-Length: {len(smuggled)}\r\n\r\n{smuggled}"
    with socket.create_connection((url.hostname, url.port), timeout=10) as link:
        link.sendall(text.encode())
        answered = b"".join(iter(lambda: link.recv(4096), b""))
    # The first line is no word of NATS's: the connection ends there, and the body is never read.
    assert answered.startswith(b"INFO ")
    assert b"PONG" not in answered
    info = await bus.client.jetstream().stream_info(names.FACTS_STREAM)
    assert info.state.messages == 0


@pytest.fixture
async def page() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers=PAGE) as session:
        yield session


async def test_a_page_reads_no_figures_and_changes_nothing(page: aiohttp.ClientSession) -> None:
    async with health.serving(Health(port=0), Nothing()) as address:
        assert address is not None
        for path in ("livez", "readyz", "metrics"):
            url = f"http://{address[0]}:{address[1]}/{path}"
            async with page.get(url) as answer:
                assert answer.status == 200
                assert not _lets_pages_read(answer)
            for method in ("POST", "PUT", "DELETE", "OPTIONS"):
                async with page.request(method, url) as answer:
                    assert answer.status == 405
                    assert not _lets_pages_read(answer)


async def test_a_page_gets_no_bytes_from_a_node(page: aiohttp.ClientSession) -> None:
    server = DataServer(Gate(Nothing()), _find, Pace(0))
    async with server.listening("127.0.0.1", 0) as port:
        url = f"http://127.0.0.1:{port}/v1/files/{'0' * 64}"
        async with page.get(url) as answer:
            assert answer.status == 403
            assert not _lets_pages_read(answer)
        # What a browser asks before it sends a header like a token's.
        async with page.options(url, headers=_PREFLIGHT) as answer:
            assert answer.status == 405
            assert not _lets_pages_read(answer)


_PREFLIGHT = {
    "Access-Control-Request-Method": "GET",
    "Access-Control-Request-Headers": "authorization",
}


async def _find(digest: str, job_id: str, for_node: str) -> None:
    raise AssertionError("nobody was admitted")


def _lets_pages_read(answer: aiohttp.ClientResponse) -> bool:
    return any(name.lower().startswith("access-control-") for name in answer.headers)
