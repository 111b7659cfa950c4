"""What systemd is told, over a real socket of its kind."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from services.runtime import notify


class Watched:
    def __init__(self) -> None:
        self.lacks = "starting"
        self.connected = True

    def lacking(self) -> str:
        return self.lacks


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self.heard: list[str] = []

    def listen(self) -> list[str]:
        while True:
            try:
                self.heard += self._link.recv(4096).decode().splitlines()
            except BlockingIOError:
                return self.heard

    async def until(self, line: str) -> None:
        with anyio.fail_after(10):
            while line not in self.listen():  # noqa: ASYNC110  # the other end is a plain socket
                await anyio.sleep(0.01)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(str(tmp_path / "notify"))
        link.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield Manager(link)


async def test_ready_is_said_once_messages_are_taken_and_not_before(manager: Manager) -> None:
    watched = Watched()
    async with anyio.create_task_group() as group:
        group.start_soon(notify.keep, watched)
        await manager.until("STATUS=starting")
        assert "READY=1" not in manager.listen()
        watched.lacks = ""
        await manager.until("READY=1")
        watched.lacks = "the bus is not connected"
        await manager.until("STATUS=the bus is not connected")
        watched.lacks = ""
        await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert manager.listen().count("READY=1") == 1


async def test_a_loop_that_stands_still_starves_the_watchdog(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    async with anyio.create_task_group() as group:
        group.start_soon(notify.keep, Watched())
        await manager.until("WATCHDOG=1")
        await anyio.lowlevel.checkpoint()
        before = len(manager.listen())
        time.sleep(0.5)  # the fault itself: a handler that blocks the loop  # noqa: ASYNC251
        assert len(manager.listen()) == before
        await anyio.sleep(0.15)
        assert len(manager.listen()) > before
        group.cancel_scope.cancel()


def test_an_abstract_socket_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"williw-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        assert notify.tell("READY=1", "STATUS=ready")
        assert link.recv(100) == b"READY=1\nSTATUS=ready"


def test_without_a_manager_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify.tell("READY=1")


def test_a_manager_that_is_gone_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not notify.tell("READY=1")


@pytest.mark.parametrize(
    ("allowed_us", "pid", "expected"),
    [
        ("30000000", "", 15.0),
        ("30000000", "own", 15.0),
        ("30000000", "1", None),
        ("0", "", None),
        ("soon", "", None),
        ("", "", None),
    ],
)
def test_the_watchdog_is_fed_twice_in_its_time_where_it_watches_us(
    monkeypatch: pytest.MonkeyPatch, allowed_us: str, pid: str, expected: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", allowed_us)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)
    assert notify.watchdog_s() == expected
