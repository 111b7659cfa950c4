"""A disk that fills up while stages are cut: said with its figures, nothing half made left."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.checkpoint.stage import verify
from services.splitter.failures import NotEnoughDisk
from services.splitter.split import split_directory
from tests.unit.splitter.small import NAMES, plan_of, write_model

PAGE = 4096


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mount a file system of so many bytes, for the length of the test."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a tmpfs")
    place = tmp_path / "small"
    place.mkdir()

    def mount(size_bytes: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(place)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"no tmpfs can be mounted here: {made.stderr.strip()}")
        return place

    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", str(place)], capture_output=True, check=False)


def test_a_disk_that_fills_up_ends_the_cut_with_whole_stages_only(
    tmp_path: Path, tmpfs: Callable[[int], Path]
) -> None:
    model, plan = write_model(tmp_path / "model"), plan_of(*((name,) for name in NAMES))
    whole = split_directory(model, plan, tmp_path / "whole")
    needed = sum(stage.size_bytes for stage in whole)
    # Enough by the bytes of its files, too little by the pages that they take.
    out = tmpfs(-(-needed // PAGE) * PAGE)
    with pytest.raises(NotEnoughDisk) as refused:
        split_directory(model, plan, out)
    assert (refused.value.needed_bytes, refused.value.path) == (needed, out)
    assert not [entry for entry in out.iterdir() if entry.name.startswith(".")]
    for stage in out.iterdir():
        assert verify([stage]).problems == ()
    assert len(list(out.iterdir())) < len(NAMES)
