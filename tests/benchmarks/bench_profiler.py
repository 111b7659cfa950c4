"""What reading headers costs beside loading the model, as ratios taken side by side in one run.

    python tests/benchmarks/bench_profiler.py [MODEL_DIR]

Without a directory it makes a Llama of about 1 GB (random weights) in a temporary folder.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 5
_MEASURE = """
import time
def report():
    seconds, work = time.perf_counter() - start, time.process_time() - worked
    # Not getrusage: its peak is inherited from the process that started this one.
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print(seconds, work, int(status["VmHWM"].split()[0]) / 1024)
"""
_OURS = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
{_MEASURE}
from pathlib import Path
from services.checkpoint.checkpoint import open_checkpoint
start, worked = time.perf_counter(), time.process_time()
found = open_checkpoint(Path(sys.argv[1]))
report()
"""
_SEEDS = f"""
import sys
{_MEASURE}
import torch
from transformers import AutoModel
start, worked = time.perf_counter(), time.process_time()
found = AutoModel.from_pretrained(sys.argv[1]).state_dict()
report()
"""
_MANY = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
{_MEASURE}
from services.checkpoint.headers import parse_header
body = open(sys.argv[1], "rb").read()
size = 8 + len(body) + int(sys.argv[2])
start, worked = time.perf_counter(), time.process_time()
found = parse_header(body, size, "many")
report()
"""


def processes(codes: Sequence[str], *arguments: str) -> list[tuple[float, ...]]:
    """Of each program: seconds as a process, without imports, of processors then; MiB resident.

    They take turns, so that a busy machine is busy for all; medians.
    """
    rows: list[list[tuple[float, ...]]] = [[] for _ in codes]
    for _ in range(ROUNDS):
        for code, row in zip(codes, rows, strict=True):
            row.append(process(code, *arguments))
    return [tuple(map(statistics.median, zip(*row, strict=True))) for row in rows]


def process(code: str, *arguments: str) -> tuple[float, ...]:
    """One run of a program that reports its own seconds, those of processors, and MiB."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    wall = time.perf_counter() - start
    return (wall, *map(float, done.stdout.split()[-3:]))


def timed(act: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def make_llama(folder: Path) -> None:
    """A Llama of about 1 GB in several files."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = LlamaConfig(
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=8,
        num_attention_heads=32,
        num_key_value_heads=4,
        vocab_size=32_000,
        dtype="bfloat16",
    )
    torch.set_default_dtype(torch.bfloat16)
    LlamaForCausalLM(settings).save_pretrained(folder, max_shard_size="300MB")


def many_header(count: int, metadata: dict[str, str]) -> tuple[bytes, int]:
    """A header of `count` tensors and the bytes of data it describes."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    header |= {
        f"model.layers.{n // 1000}.mlp.experts.{n % 1000}.gate_proj.weight": {
            "dtype": "BF16",
            "shape": [16, 4],
            "data_offsets": [128 * n, 128 * (n + 1)],
        }
        for n in range(count)
    }
    return json.dumps(header, separators=(",", ":")).encode(), 128 * count


def against_the_seed(model: Path) -> None:
    """Headers against AutoModel.from_pretrained and state_dict, each a process of its own."""
    ours, seeds = processes((_OURS, _SEEDS), str(model))
    print(f"{'':24}{'process s':>12}{'work s':>12}{'CPU s':>12}{'MiB':>10}")
    for name, row in (("headers", ours), ("from_pretrained", seeds)):
        print(f"{name:24}{row[0]:12.4f}{row[1]:12.5f}{row[2]:12.5f}{row[3]:10.1f}")
    print(
        f"ratios: process {seeds[0] / ours[0]:.0f}x (wanted 100), without imports "
        f"{seeds[1] / ours[1]:.0f}x (wanted 1000; CPU {seeds[2] / ours[2]:.0f}x), resident "
        f"{seeds[3] / ours[3]:.0f}x"
    )


def many_tensors(folder: Path) -> None:
    """100,000 tensors in one header: time, and memory against 20 MB + 6 x the header."""
    for kind, metadata in (("plain", {}), ("quotes in its metadata", {"spec": '{"a": "b"}'})):
        body, data = many_header(100_000, metadata)
        path = folder / "header.json"
        path.write_bytes(body)
        (_, inner, work, resident) = processes((_MANY,), str(path), str(data))[0]
        allowed = (20e6 + 6 * len(body)) / 2**20
        print(
            f"100,000 tensors, header of {len(body) / 1e6:.1f} MB, {kind}: {inner:.3f} s "
            f"(wanted 0.3; CPU {work:.3f} s), {resident:.0f} MiB resident "
            f"({resident / allowed:.2f} of the {allowed:.0f} allowed)"
        )


def counting(model: Path, folder: Path) -> None:
    """A first count with a cold child, one with a warm child, and one from the cache."""
    from services.profiler.counting import Counter
    from services.profiler.profile import profile_directory

    counter = Counter(folder / "flops")
    closed = timed(lambda: profile_directory(model))
    cold = timed(lambda: profile_directory(model, counter=counter))
    warm = timed(lambda: profile_directory(model, sequence_length=100, counter=counter))
    cached = timed(lambda: profile_directory(model, counter=counter))
    counter.close()
    print(
        f"profile: closed form {closed * 1e3:.1f} ms, counted with a cold child {cold:.2f} s, "
        f"a warm one {warm:.2f} s, from the cache {cached * 1e3:.1f} ms "
        f"({cold / cached:.0f}x, {warm / cached:.0f}x)"
    )


def main() -> None:
    """Print the ratios."""
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = Path(sys.argv[1]) if len(sys.argv) > 1 else folder / "llama"
        if not model.exists():
            code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path; "
            code += "from tests.benchmarks.bench_profiler import make_llama; "
            code += f"make_llama(Path({str(model)!r}))"
            subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
        against_the_seed(model)
        many_tensors(folder)
        counting(model, folder)


if __name__ == "__main__":
    main()
