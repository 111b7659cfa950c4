"""An origin's shelf: what was used least of late gives way, and what a job may need stays."""

import math
import os
import subprocess
import time
from pathlib import Path

import pytest

from messages.ids import NodeId, PlanId
from messages.shards import StageManifest
from messages.wire import encode
from services.checkpoint.layout import StageLayout
from services.checkpoint.shelf import OriginShelf, ShelvedStage
from services.checkpoint.shelf_prune import prune_shelf


def put(shelf: OriginShelf, name: str, *, used_before_s: float = 0.0, cut_bytes: int = 0) -> str:
    """A stage on the shelf; with `cut_bytes` its files too."""
    manifest = StageManifest(
        plan_id=PlanId(name),
        model_name="org/m",
        revision="",
        directory="org--m",
        node_id=NodeId("n"),
        stage=0,
        stages=1,
        files=(),
        size_bytes=0,
    )
    layout = StageLayout(
        plan_id=PlanId(name),
        model_name="org/m",
        revision="",
        directory="org--m",
        node_id=NodeId("n"),
        stage=0,
        stages=1,
        chunk_bytes=4096,
        files=(),
    )
    room = None
    if cut_bytes:
        room = shelf.room()
        (room / "model.safetensors").write_bytes(bytes(cut_bytes))
    sha256 = shelf.put(encode(manifest), ShelvedStage(layout=layout, paths={}), room)
    then = time.time() - used_before_s
    os.utime(shelf.root / sha256 / "manifest.json", (then, then))
    return sha256


@pytest.fixture
def shelf(tmp_path: Path) -> OriginShelf:
    return OriginShelf(tmp_path / "stages")


def test_what_is_in_use_or_was_used_of_late_stays(shelf: OriginShelf) -> None:
    old, running, being_cut = (put(shelf, f"p{k}", used_before_s=900) for k in range(3))
    now = put(shelf, "p3")
    os.utime(shelf.root / being_cut / "manifest.json", (time.time() - 300,) * 2)
    (taken,) = prune_shelf(shelf, keep=[running], since=time.time() - 600)
    assert (taken.directory, taken.model_name) == (shelf.root / old, "org/m")
    assert set(shelf) == {running, being_cut, now}
    prune_shelf(shelf, keep=[], since=math.inf)
    assert set(shelf) == {now}
    assert [entry.name for entry in shelf.root.iterdir()] == [now]


def test_the_least_recently_used_goes_first_and_only_as_much_as_must(shelf: OriginShelf) -> None:
    ages = {put(shelf, f"p{k}", used_before_s=900 + k, cut_bytes=10_000): k for k in (2, 0, 3, 1)}
    quota_bytes = sum(map(shelf.size_bytes, shelf)) - 15_000
    taken = prune_shelf(shelf, quota_bytes, keep=[], since=math.inf)
    assert [ages[one.directory.name] for one in taken] == [3, 2]
    assert all(one.size_bytes > 10_000 for one in taken)


def test_the_same_cut_again_counts_as_a_use_and_ends_with_the_stage(shelf: OriginShelf) -> None:
    one, other = (put(shelf, f"p{k}", used_before_s=900) for k in range(2))
    shelf.remember("key", {"n": one})
    shelf.remember("other", {"n": other})
    assert shelf.recall("key") == {"n": one}
    prune_shelf(shelf, keep=[], since=math.inf)
    assert set(shelf) == {one}
    assert [cut.stem for cut in (shelf.root / "cuts").iterdir()] == ["key"]
    assert shelf.recall("other") is None
    shelf.remove(one)
    assert shelf.recall("key") is None


def test_a_sweep_takes_what_dead_processes_left_and_nothing_else(shelf: OriginShelf) -> None:
    whole = put(shelf, "p0", cut_bytes=10)
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = [shelf.root / f".making-{gone.pid}-0123456789ab", shelf.root / ".making-x-0123456789ab"]
    for place in left:
        (place / "files").mkdir(parents=True)
        (place / "files" / "half").write_bytes(b"half")
    mine, other = shelf.room(), shelf.root / "not-of-the-shelf"
    other.mkdir()
    shelf.sweep()
    assert set(shelf.root.iterdir()) == {shelf.root / whole, mine, other}


def test_the_same_stage_again_takes_the_place_of_the_older_entry(shelf: OriginShelf) -> None:
    sha256 = put(shelf, "p0", cut_bytes=10)
    place = shelf.files(sha256)
    assert place is not None
    (place / "model.safetensors").write_bytes(b"older")
    assert put(shelf, "p0", cut_bytes=20) == sha256
    assert [entry.name for entry in shelf.root.iterdir()] == [sha256]
    assert (place / "model.safetensors").read_bytes() == bytes(20)
