"""A model of one file from a Hub on loopback: williw's way beside huggingface_hub's own.

    python tests/benchmarks/bench_download.py [--mib 512] [--rounds 3]

Both come from the same server process, alternately, into fresh directories. Ours computes SHA-256
and fsyncs; the library does neither.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

import anyio

from services.hub import hub, transfer


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        model.mkdir()
        with (model / "model.safetensors").open("wb") as file:
            for _ in range(chosen.mib):
                file.write(os.urandom(1 << 20))
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.loopback_hub", f"org/model={model}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert server.stdout is not None
            os.environ["HF_ENDPOINT"] = server.stdout.readline().split()[0].partition("=")[2]
            _compare(Path(folder), chosen.mib, chosen.rounds)
        finally:
            server.terminate()
            server.wait()


def _compare(folder: Path, mib: int, rounds: int) -> None:
    snapshot = anyio.run(hub.resolve, "org/model")
    ours, theirs = [], []
    for turn in range(rounds + 1):
        theirs.append(_timed(lambda into: _library(snapshot.commit, into), folder))
        ours.append(_timed(lambda into: _williw(snapshot, into), folder))
        if turn == 0:  # warms imports, connections and the page cache
            ours.clear()
            theirs.clear()
    mine, library = statistics.median(ours), statistics.median(theirs)
    print(f"{mib} MiB, median of {rounds}")
    print(f"  williw (SHA-256, fsync)  {mine:6.2f} s  {mib / mine:7.0f} MiB/s")
    print(f"  huggingface_hub          {library:6.2f} s  {mib / library:7.0f} MiB/s")
    print(f"  ratio {mine / library:.2f}")


def _timed(download: Callable[[Path], None], folder: Path) -> float:
    into = folder / "into"
    into.mkdir()
    began = time.perf_counter()
    download(into)
    took = time.perf_counter() - began
    shutil.rmtree(into)
    return took


def _williw(snapshot: hub.Snapshot, into: Path) -> None:
    source = transfer.Source(snapshot.model_name, snapshot.commit)
    anyio.run(transfer.fetch, source, snapshot.files, into)


def _library(commit: str, into: Path) -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download(
        "org/model",
        "model.safetensors",
        revision=commit,
        cache_dir=into,
        endpoint=os.environ["HF_ENDPOINT"],
    )


if __name__ == "__main__":
    main()
