"""Cutting against `cp`: the same bytes, synced, side by side in one run, each in its own process.

    python tests/benchmarks/bench_cut.py [--mib 1024] [--dir DIR] [--rounds 3] [--seed-way]
                                         [--stages 3] [--jobs 2]

Every way is followed by a sync of what it wrote. `cut` is williw's: ranges by the kernel and a
BLAKE3 digest of each chunk in the same pass, `--jobs` of the `--stages` side by side; `ranges` the
same without digests, one stage after the other; `digest` reads for
the digests only, which is all that an origin does with materialize = "none". With --seed-way also
AutoModel-like loading of every tensor and torch.save of each part.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from messages.ids import NodeId, PlanId
from messages.plans import MegaphonePlan, NodeShare, SplitPlan
from services.checkpoint.checkpoint import open_checkpoint
from services.checkpoint.layout import StageLayout
from services.checkpoint.sources import SourceFiles
from services.splitter import cutting
from services.splitter.cutter import Cutter, cutter

STAGES = int(os.environ.get("BENCH_STAGES", "3"))
JOBS = int(os.environ.get("BENCH_JOBS", "2"))


def make_model(directory: Path, mib: int) -> None:
    """Four files of equal tensors of 16 MiB and some small ones, as large models have them."""
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    rng = np.random.default_rng(0)
    block = rng.integers(0, 65536, (16 << 20) // 2, np.uint16).reshape(2048, -1)
    count = max(mib // 16, 4)
    for part in range(4):
        tensors: dict[str, np.ndarray[Any, Any]] = {}
        for k in range(part * count // 4, (part + 1) * count // 4):
            tensors[f"layers.{k}.weight"] = block + k
            tensors[f"layers.{k}.norm.weight"] = np.ones(2049, np.float32)
        save_file(tensors, directory / f"model-{part}.safetensors")


def plan_for(directory: Path) -> SplitPlan:
    """Contiguous parts whose borders lie within files."""
    names = open_checkpoint(directory).names
    parts = [
        names[k * len(names) // STAGES : (k + 1) * len(names) // STAGES] for k in range(STAGES)
    ]
    shares = {
        NodeId(f"n{k}"): NodeShare(layer_names=part, total_compute=0, compute_utilization=0)
        for k, part in enumerate(parts)
    }
    return SplitPlan(
        plan_id=PlanId("bench"),
        model_name="bench/model",
        model_url="",
        selected_nodes=(),
        split_plan=shares,
        megaphone_plan=MegaphonePlan(start_node=NodeId("n0"), chain=()),
    )


def cut(model: Path, out: Path) -> None:
    """williw's way: every stage written and digested."""
    made = cutter(model, plan_for(model), threads=JOBS)
    with SourceFiles(made.paths) as sources:
        made.side_by_side(
            lambda layout: made.cut(layout, sources, out / layout.node_id), made.layouts, JOBS
        )


def ranges(model: Path, out: Path) -> None:
    """The same copies without digests."""

    def one(_made: Cutter, layout: StageLayout, sources: SourceFiles) -> None:
        for file in layout.files:
            cutting.copy_file(file, sources, out / layout.node_id / file.name)

    _each(model, one)


def digest(model: Path, out: Path) -> None:
    """Digests only: what an origin reads once before it serves from the source."""
    _each(model, lambda made, layout, sources: made.cut(layout, sources))


def _each(model: Path, one: Callable[..., object]) -> None:
    made = cutter(model, plan_for(model), threads=2)
    with SourceFiles(made.paths) as sources:
        for layout in made.layouts:
            one(made, layout, sources)


def save(model: Path, out: Path) -> None:
    """safetensors: every tensor loaded, each stage saved with save_file."""
    from safetensors.torch import load_file
    from safetensors.torch import save_file as save_torch

    plan = plan_for(model)
    tensors = {}
    for path in sorted(model.glob("*.safetensors")):
        tensors.update(load_file(path))
    for node, share in plan.split_plan.items():
        save_torch({n: tensors[n] for n in share.layer_names}, out / f"{node}.safetensors")
        _sync(out / f"{node}.safetensors")


def seed(model: Path, out: Path) -> None:
    """The first script's way: the whole state_dict in memory, torch.save of each part."""
    import torch
    from safetensors.torch import load_file

    plan = plan_for(model)
    tensors = {}
    for path in sorted(model.glob("*.safetensors")):
        tensors.update({name: tensor.clone() for name, tensor in load_file(path).items()})
    for node, share in plan.split_plan.items():
        torch.save({n: tensors[n].clone() for n in share.layer_names}, out / f"{node}.pth")
        _sync(out / f"{node}.pth")


def cp(model: Path, out: Path) -> None:
    """`cp` of the same bytes, then a sync of each file."""
    files = sorted(model.glob("*.safetensors"))
    subprocess.run(["cp", "--reflink=never", *map(str, files), str(out)], check=True)
    for file in files:
        _sync(out / file.name)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


WAYS = {"cp": cp, "cut": cut, "ranges": ranges, "digest": digest, "save": save, "seed": seed}


def measure(way: str, model: Path, root: Path) -> tuple[float, float]:
    """Seconds within a fresh process after its imports, and its peak MB above theirs."""
    out = root / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    os.sync()
    command = [sys.executable, __file__, "--one", way, "--model", str(model), "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    figures = json.loads(done.stdout)
    shutil.rmtree(out)
    return figures["wall_s"], figures["above_mb"]


def one(way: str, model: Path, out: Path) -> None:
    """Run one way in this process and print its figures."""
    if way in ("save", "seed"):
        import safetensors.torch  # noqa: F401
        import torch  # noqa: F401
    before = _peak_kb()
    start = time.perf_counter()
    WAYS[way](model, out)
    wall_s = time.perf_counter() - start
    above = _peak_kb() - before
    print(json.dumps({"wall_s": wall_s, "above_mb": above / 1024}))


def _peak_kb() -> int:
    """The peak of this process; getrusage would count what its parent held before exec."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def main() -> None:
    """Measure every way in turn, several times, and print medians as ratios to cp."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--mib", type=int, default=1024)
    arguments.add_argument("--dir", type=Path, default=None)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seed-way", action="store_true")
    arguments.add_argument("--stages", type=int, default=STAGES)
    arguments.add_argument("--jobs", type=int, default=JOBS)
    arguments.add_argument("--one")
    arguments.add_argument("--model", type=Path)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    if given.one:
        one(given.one, given.model, given.out)
        return
    os.environ.update(BENCH_STAGES=str(given.stages), BENCH_JOBS=str(given.jobs))
    ways = ["cp", "ranges", "cut", "digest"] + (["save", "seed"] if given.seed_way else [])
    with tempfile.TemporaryDirectory(dir=given.dir) as folder:
        root = Path(folder)
        make_model(root / "model", given.mib)
        figures: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(given.rounds):
            for way in ways:
                figures[way].append(measure(way, root / "model", root))
    base = statistics.median(wall for wall, _ in figures["cp"])
    print(f"{given.mib} MiB in four files, {given.stages} stages, medians of {given.rounds} rounds")
    for way in ways:
        wall = statistics.median(wall for wall, _ in figures[way])
        above = statistics.median(memory for _, memory in figures[way])
        print(f"{way:8} {wall:6.2f} s  {wall / base:5.2f} x cp  {above:7.1f} MB above imports")


if __name__ == "__main__":
    main()
