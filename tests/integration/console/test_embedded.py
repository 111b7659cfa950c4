"""The embedded nats-server: real, on a free port, found again where it was."""

import asyncio
import os
import select
import subprocess
import sys
from pathlib import Path

import nats
import pytest

from services.console.embedded import EmbeddedNats, NatsServerFailed


async def _stored(url: str) -> int:
    client = await nats.connect(url)
    try:
        stream = await client.jetstream().stream_info("S")
        return int(stream.state.messages)
    finally:
        await client.close()


async def test_a_killed_server_comes_back_on_its_port_with_what_it_acknowledged(
    tmp_path: Path,
) -> None:
    with EmbeddedNats(tmp_path) as server:
        client = await nats.connect(server.url)
        js = client.jetstream()
        await js.add_stream(name="S", subjects=["s"])
        await js.publish("s", b"kept")
        await client.close()
        url = server.url
        await asyncio.to_thread(server.kill)
        assert server.pid == 0
        server.start()
        assert server.url == url
        assert await _stored(url) == 1


async def test_it_listens_on_loopback_alone_and_stops(tmp_path: Path) -> None:
    server = EmbeddedNats(tmp_path).start()
    pid = server.pid
    assert server.url.startswith("nats://127.0.0.1:")
    assert server.monitor_url.startswith("http://127.0.0.1:")
    server.stop()
    assert server.pid == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_port_in_use_is_said_with_the_servers_own_words(tmp_path: Path) -> None:
    with (
        EmbeddedNats(tmp_path / "a") as first,
        pytest.raises(NatsServerFailed, match="address already in use"),
    ):
        EmbeddedNats(tmp_path / "b", port=first.port).start()


def test_the_server_ends_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path;"
        "from services.console.embedded import EmbeddedNats;"
        "print(EmbeddedNats(Path(sys.argv[1])).start().pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with parent:
        try:
            assert parent.stdout is not None
            server = int(parent.stdout.readline())
            descriptor = os.pidfd_open(server)
        finally:
            parent.kill()
    assert _ends_within(descriptor, 10)
    os.close(descriptor)


def _ends_within(descriptor: int, timeout_s: float) -> bool:
    return bool(select.select([descriptor], [], [], timeout_s)[0])
