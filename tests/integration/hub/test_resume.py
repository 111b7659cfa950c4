"""Downloads that are cut short: killed, cancelled, or wanted by two at once."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from config.settings import Downloader as DownloaderSettings
from config.settings import NodeSection, Settings
from messages.ids import JobId, NodeId
from messages.jobs import ModelRequest, ModelRequested
from services.downloader.service import Downloader
from services.hub.failures import HubUnavailable, NotEnoughDisk
from tests.loopback_hub.server import LoopbackHub

SIZE_BYTES = 24 << 20
WEIGHTS = os.urandom(1 << 20) * (SIZE_BYTES >> 20)
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS}
KILLED = "tests.integration.hub.killed_downloader"
SAID = ModelRequested(
    origin=NodeId("origin-1"),
    job_id=JobId("job-1"),
    request=ModelRequest(model_name="org/model"),
)


def settings_in(home: Path) -> Settings:
    return Settings(
        node=NodeSection(node_id="origin-1", home=str(home)),
        downloader=DownloaderSettings(keep_free_bytes=0),
    )


def wait_until(true: Callable[[], bool], timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


def part_bytes(home: Path) -> int:
    return sum(path.stat().st_size for path in home.rglob("*.part"))


def test_a_killed_downloader_is_continued_from_the_bytes_on_disk(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    hub.add("org/model", FILES)
    hub.bytes_per_s = 8 << 20
    home = tmp_path / "home"
    command = [sys.executable, "-m", KILLED, "org/model", str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as killed:
        try:
            wait_until(lambda: part_bytes(home) >= 8 << 20)
        finally:
            killed.kill()
    there = part_bytes(home)
    assert 0 < there < SIZE_BYTES
    hub.bytes_per_s = 0
    hub.requests.clear()
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    (ranged,) = (seen for seen in hub.asked("/cdn/") if seen.body_bytes)
    assert ranged.range == f"bytes={there}-"
    assert ranged.body_bytes == SIZE_BYTES - there
    assert (Path(done.stdout.splitlines()[-1]) / "model.safetensors").read_bytes() == WEIGHTS
    assert part_bytes(home) == 0


async def test_a_part_that_the_disk_garbled_is_found_out_and_fetched_again(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    commit = hub.add("org/model", FILES)
    making = tmp_path / "home/origin/models/.partial" / f"org--model@{commit[:22]}"
    await anyio.Path(making).mkdir(parents=True)
    await anyio.Path(making / "model.safetensors.part").write_bytes(b"\0" * (1 << 20))
    (fact,) = await Downloader(settings_in(tmp_path / "home")).download(SAID)
    assert await anyio.Path(fact.model_path, "model.safetensors").read_bytes() == WEIGHTS


async def test_cancelling_stops_the_transfer_at_once_and_keeps_what_arrived(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    hub.add("org/model", FILES)
    hub.bytes_per_s = 4 << 20
    home = tmp_path / "home"
    async with anyio.create_task_group() as group:
        group.start_soon(Downloader(settings_in(home)).download, SAID)
        with anyio.fail_after(20):
            await anyio.to_thread.run_sync(wait_until, lambda: part_bytes(home) >= 2 << 20)
        began = time.monotonic()
        group.cancel_scope.cancel()
    assert time.monotonic() - began < 0.5
    assert 0 < part_bytes(home) < SIZE_BYTES
    assert list((home / "origin/models").glob("org--*")) == []


async def test_a_hub_that_never_answers_does_not_hold_up_a_cancel(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    began = time.monotonic()
    async with listener:
        with anyio.move_on_after(0.3) as scope:
            await Downloader(settings_in(tmp_path)).download(SAID)
    assert scope.cancelled_caught
    assert time.monotonic() - began < 2


async def test_two_jobs_for_one_model_fetch_it_once(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add("org/model", FILES)
    hub.bytes_per_s = 32 << 20
    paths = []

    async def one() -> None:
        (fact,) = await Downloader(settings_in(tmp_path / "home")).download(SAID)
        paths.append(fact.model_path)

    async with anyio.create_task_group() as group:
        group.start_soon(one)
        group.start_soon(one)
    assert len(paths) == 2
    assert len(set(paths)) == 1
    assert hub.file_bytes == SIZE_BYTES + len(FILES["config.json"])


async def test_no_error_or_log_line_holds_the_token(
    hub: LoopbackHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_neverwritethisdown")
    hub.add("org/model", FILES, gated=True)
    caplog.set_level("DEBUG")
    for name in ("org/model", "org/absent", "no//name"):
        request = ModelRequest(model_name=name)
        said = ModelRequested(origin=NodeId("origin-1"), job_id=JobId("j"), request=request)
        with pytest.raises(Exception, match=r".+") as raised:
            await Downloader(settings_in(tmp_path / "home")).download(said)
        told = f"{raised.value!r} {raised.value} {getattr(raised.value, 'advice', '')}"
        assert "neverwritethisdown" not in told
    shown = capsys.readouterr()
    assert "neverwritethisdown" not in shown.out + shown.err + caplog.text


async def test_a_disk_that_fills_up_meanwhile_says_how_much_is_missing(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/model", FILES)
    write = os.pwrite

    def full(descriptor: int, data: bytes, at: int) -> int:
        if at >= 4 << 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data, at)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(NotEnoughDisk) as refused:
        await Downloader(settings_in(tmp_path / "home")).download(SAID)
    assert 0 < refused.value.needed_bytes <= SIZE_BYTES - (4 << 20)


async def test_a_hub_that_names_a_path_as_its_commit_is_not_believed(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    hub.add("org/model", FILES)
    repo = hub.repos["org/model"]
    repo.commits["../../outside"] = repo.commits[repo.refs["main"]]
    repo.refs["main"] = "../../outside"
    with pytest.raises(HubUnavailable, match="not as a Hub does"):
        await Downloader(settings_in(tmp_path / "home")).download(SAID)
