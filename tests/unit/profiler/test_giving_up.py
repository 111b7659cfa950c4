"""Counts that nobody waits for any more, and children that do not answer, end within a bound."""

import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from services.profiler import child as child_module
from services.profiler.child import CountingChild, Patience
from services.profiler.counting import Counter, Uncounted
from services.profiler.profile import in_thread
from services.profiler.workload import Workload

pytest.importorskip("transformers")
WORK = Workload(1, 16)
CONFIG = {"model_type": "llama"}
CONFINED = 'print(\'{"confined": true, "total": %d}\' % os.getpid(), flush=True)\n'


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What runs as the child: it says that it is confined, hears one line, and is silent."""
    path = tmp_path / "child.py"
    path.write_text(
        f"import os, sys, time\n{CONFINED}"
        "open(sys.argv[1] + '/asked', 'w').write(sys.stdin.readline())\n"
        "time.sleep(600)\n"
    )
    monkeypatch.setattr(child_module, "_SCRIPT", path)
    return path


@pytest.fixture
def counter(script: Path, tmp_path: Path) -> Iterator[Counter]:
    counting = Counter(tmp_path / "flops", timeout_s=600)
    yield counting
    counting.close()


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def at_work(counter: Counter) -> int:
    """The child's process id, once it was asked."""

    def asked() -> bool:
        running = counter._child
        file = Path(running._scratch.name, "asked") if running else None
        return file is not None and file.exists() and file.stat().st_size > 0

    until(asked)
    assert counter._child is not None
    return counter._child.pid


async def test_a_cancelled_count_ends_and_its_child_with_it(counter: Counter) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(in_thread, functools.partial(counter.count, CONFIG, WORK))
        pid = await anyio.to_thread.run_sync(at_work, counter)
        group.cancel_scope.cancel()
    await anyio.to_thread.run_sync(until, lambda: not runs(pid))


def test_a_count_that_waits_for_its_turn_is_given_up_alone(counter: Counter) -> None:
    first, second = threading.Event(), threading.Event()
    thread = threading.Thread(target=counter.count, args=(CONFIG, WORK, first))
    thread.start()
    try:
        pid = at_work(counter)
        second.set()
        answer = counter.count(CONFIG, Workload(2, 16), second)
        assert isinstance(answer, Uncounted)
        assert "nobody waits" in answer.reason
        assert runs(pid)
    finally:
        first.set()
        thread.join(60)
    assert not thread.is_alive()
    assert not runs(pid)


def test_a_child_that_stands_still_is_killed_all_the_same(counter: Counter) -> None:
    given_up = threading.Event()
    thread = threading.Thread(target=counter.count, args=(CONFIG, WORK, given_up))
    thread.start()
    pid = at_work(counter)
    os.kill(pid, signal.SIGSTOP)
    given_up.set()
    thread.join(60)
    assert not thread.is_alive()
    assert not runs(pid)


def test_a_request_that_nobody_reads_is_given_up(script: Path) -> None:
    script.write_text(f"import os, time\n{CONFINED}time.sleep(600)\n")
    started = CountingChild()
    given_up = threading.Event()
    timer = threading.Timer(0.3, given_up.set)
    try:
        patience = Patience(time.monotonic() + 60, given_up)
        assert started.read(patience).confined
        timer.start()
        with pytest.raises(TimeoutError, match="nobody waits"):
            started.ask(bytes(4 << 20), patience)
    finally:
        timer.cancel()
        started.end()


def test_ending_does_not_wait_for_whoever_holds_the_childs_pipes(script: Path) -> None:
    script.write_text(
        f"import os, time\nif os.fork() == 0:\n    os.setsid()\n    {CONFINED}time.sleep(600)\n"
    )
    started = CountingChild()
    heir = 0
    try:
        heir = started.read(Patience(time.monotonic() + 60, threading.Event())).total
        started.end()
        assert not started.alive()
        assert runs(heir)
    finally:
        started.end()
        if heir:
            os.kill(heir, signal.SIGKILL)


def test_what_a_child_started_ends_with_it(script: Path) -> None:
    script.write_text(f"import os, time\nif os.fork() == 0:\n    {CONFINED}time.sleep(600)\n")
    started = CountingChild()
    try:
        heir = started.read(Patience(time.monotonic() + 60, threading.Event())).total
        assert heir != started.pid
    finally:
        started.end()
    # A zombie where nobody reaps orphans.
    until(lambda: not runs(heir) or ") Z" in Path(f"/proc/{heir}/stat").read_text())
