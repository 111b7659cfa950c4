"""`williw split` as processes: two at once, and one that is killed."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from messages.wire import encode
from services.checkpoint.stage import verify
from tests.unit.splitter.small import NAMES, plan_of, write_model

HALVES, EIGHTHS = (NAMES[:4], NAMES[4:]), tuple((name,) for name in NAMES)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a model and an empty OUT."""
    write_model(tmp_path / "model", rows=4000)
    (tmp_path / "out").mkdir()
    return tmp_path


def split(place: Path, plan: Path, *words: str) -> subprocess.Popen[str]:
    command = ["split", str(place / "model"), "--plan", str(plan), "--out", str(place / "out")]
    return subprocess.Popen(
        [sys.executable, "-m", "services.console", *command, *words, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stages(place: Path) -> list[Path]:
    return sorted(entry for entry in (place / "out").iterdir() if not entry.name.startswith("."))


def test_two_splits_at_once_into_one_directory_are_whole_both(place: Path) -> None:
    plan = place / "plan.json"
    plan.write_bytes(encode(plan_of(*HALVES)))
    held = os.open(place / "out", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with ExitStack() as stack:
        both = [stack.enter_context(split(place, plan)) for _ in range(2)]
        for one in both:
            stack.callback(one.kill)
            assert one.stderr is not None
            assert "waiting for it" in one.stderr.readline()
        os.close(held)
        answers = [msgspec.json.decode(one.communicate(timeout=60)[0]) for one in both]
        assert [one.returncode for one in both] == [0, 0]
    written = [[stage["written"] for stage in answer["stages"]] for answer in answers]
    assert sorted(written) == [[False, False], [True, True]]
    assert len(list((place / "out").iterdir())) == 2
    assert verify(stages(place), place / "model").problems == ()


def test_a_split_that_is_killed_leaves_whole_stages_and_the_next_one_sweeps(place: Path) -> None:
    older, newer = place / "older.json", place / "newer.json"
    older.write_bytes(encode(plan_of(*HALVES)))
    newer.write_bytes(encode(plan_of(*EIGHTHS, plan_id="p2")))
    with split(place, older) as first:
        assert first.wait(timeout=60) == 0
    with split(place, newer, "--jobs", "4") as killed:
        while not any((place / "out").glob(".williw-cutting-*")):
            assert killed.poll() is None
            time.sleep(0.001)
        killed.send_signal(signal.SIGKILL)
        assert killed.wait(timeout=60) == -signal.SIGKILL
    assert any((place / "out").glob(".williw-cutting-*"))
    assert len(stages(place)) >= 2
    for stage in stages(place):
        assert verify([stage]).problems == ()
    with split(place, newer) as again:
        assert again.wait(timeout=60) == 0
    assert [entry.name for entry in stages(place)] == [f"n{k}" for k in range(8)]
    assert len(list((place / "out").iterdir())) == 8
    assert verify(stages(place), place / "model").problems == ()
