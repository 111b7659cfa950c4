"""Where the file system shares blocks, stages take hardly any room and are the model still."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from messages.ids import NodeId, PlanId
from messages.plans import MegaphonePlan, NodeShare, SplitPlan
from services.checkpoint.checkpoint import open_checkpoint
from services.checkpoint.stage import verify
from services.splitter.split import split_directory

_MAKE = {"xfs": ("mkfs.xfs", "-q", "-m", "reflink=1"), "btrfs": ("mkfs.btrfs", "-q")}


def command(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(words, capture_output=True, timeout=60, check=False)


@pytest.fixture(params=sorted(_MAKE))
def sharing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system in a file; skipped where this machine cannot mount one."""
    make = _MAKE[request.param]
    if shutil.which(make[0]) is None or shutil.which("mount") is None:
        pytest.skip(f"{make[0]} is not here")
    image, place = tmp_path / "image", tmp_path / "mounted"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(512 << 20)
    made = command(*make, str(image))
    mounted = command("mount", "-o", "loop", str(image), str(place))
    if made.returncode or mounted.returncode:
        pytest.skip(f"no {request.param} can be mounted here: {mounted.stderr.decode()}")
    try:
        yield place
    finally:
        command("umount", str(place))


def write_model(directory: Path, layers: int = 10) -> int:
    """A model in two files of 4 MiB tensors; its bytes."""
    directory.mkdir()
    rng = np.random.default_rng(0)
    names = [f"model.layers.{k}.weight" for k in range(layers)]
    index = {}
    for part, mine in enumerate((names[: layers // 2], names[layers // 2 :])):
        name = f"model-{part + 1:05d}-of-00002.safetensors"
        tensors = {n: rng.standard_normal((1024, 1024)).astype(np.float32) for n in mine}
        save_file(tensors, directory / name)
        index.update(dict.fromkeys(mine, name))
    body = msgspec.json.encode({"metadata": {}, "weight_map": index})
    (directory / "model.safetensors.index.json").write_bytes(body)
    (directory / "config.json").write_text("{}")
    return sum(path.stat().st_size for path in directory.glob("*.safetensors"))


def used_bytes(place: Path) -> int:
    command("sync", "-f", str(place))
    return shutil.disk_usage(place).used


def test_stages_share_their_blocks_with_the_model(sharing: Path) -> None:
    size = write_model(sharing / "model")
    names = open_checkpoint(sharing / "model").names
    shares = {
        NodeId(node): NodeShare(layer_names=part, total_compute=0, compute_utilization=0)
        for node, part in (("a", names[:5]), ("b", names[5:]))
    }
    plan = SplitPlan(
        plan_id=PlanId("p"),
        model_name="local/model",
        model_url="",
        selected_nodes=(),
        split_plan=shares,
        megaphone_plan=MegaphonePlan(start_node=NodeId("a"), chain=()),
    )
    before = used_bytes(sharing)
    stages = split_directory(sharing / "model", plan, sharing / "out")
    taken = used_bytes(sharing) - before
    assert taken < size / 4, f"{taken} bytes for stages of {size}"
    report = verify([stage.directory for stage in stages], sharing / "model")
    assert report.ok, report.problems
    assert report.coverage == "whole"
