"""The relay against a star, hop by hop limited, and one hop against a raw socket; no bus.

    python tests/benchmarks/bench_relay.py [--mib 320] [--receivers 4] [--mb-per-s 100]
                                           [--namespaces | --raw]

Every node is a process with the distributor's own server and receiver; what a node sends is limited
in the sender. --namespaces: every node in a network namespace of its own instead, whatever it sends
and receives limited by `tc … tbf` (root and iproute2), beside a plain HTTP download by all. Every
chunk is verified before it is used or relayed. Times are of the last node, as multiples of one hop
(size / rate). --raw: one receiver without a limit, beside a plain socket copy (sendfile to
recv_into, BLAKE3 of each chunk in the same thread, written to a file).
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import anyio

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from messages.ids import JobId, NodeId, PlanId, Sha256
from messages.shards import Access, ShardsReady, StageFile, StageManifest
from messages.wire import decode, encode
from services.checkpoint.chunks import digests_of_file, name_of_content
from services.distributor.access import Gate
from services.distributor.arrival import Arrival
from services.distributor.content import Content, WholeFile
from services.distributor.pace import Pace
from services.distributor.receive import Reception
from services.distributor.server import DataServer
from services.distributor.sources import Sources
from services.distributor.transfer import Source
from tests.benchmarks.namespaces import Namespaces, why_not
from tests.benchmarks.raw_socket import raw

CHUNK_BYTES = 1 << 20
JOB = JobId("bench")


class Everybody:
    """An access document that lets one token fetch the files of one manifest."""

    def __init__(self, manifest: StageManifest) -> None:
        digests = tuple(file.digest for file in manifest.files)
        token = Sha256(hashlib.sha256(b"token").hexdigest())
        self._access = Access(tokens={NodeId("n"): token}, files={NodeId("n"): digests})

    async def shards(self, job_id: JobId) -> ShardsReady:
        """A fact that says nothing more."""
        return ShardsReady(
            origin=NodeId("o"),
            job_id=job_id,
            plan_id=PlanId("bench"),
            stages=(),
        )

    async def access(self, _ready: ShardsReady) -> Access:
        """The document."""
        return self._access


def manifest_of(files: list[Path]) -> StageManifest:
    """A manifest of these files."""
    found = []
    for path in files:
        chunks = digests_of_file(path, CHUNK_BYTES, threads=2)
        size = path.stat().st_size
        found.append(
            StageFile(
                name=path.name,
                size_bytes=size,
                digest=name_of_content(size, chunks),
                chunk_bytes=CHUNK_BYTES,
                chunks=chunks,
            )
        )
    return StageManifest(
        plan_id=PlanId("bench"),
        model_name="m",
        revision="",
        directory="m",
        node_id=NodeId("n"),
        stage=0,
        stages=1,
        files=tuple(found),
        size_bytes=sum(file.size_bytes for file in found),
    )


async def node(
    folder: Path, name: str, rate: int, upstream: str, source: Path | None, host: str
) -> None:
    """One node: serves what it has or receives, fetches from `upstream`, prints when it is done."""
    manifest = decode((folder / "manifest.json").read_bytes(), StageManifest)
    arrival = Arrival(manifest, folder / name, folder / name)
    contents: dict[str, Content] = {}

    async def find(digest: str, _job: str, _node: str) -> tuple[Content, int] | None:
        found = contents.get(digest)
        return None if found is None else (found, CHUNK_BYTES)

    async def resolve(node_id: str) -> Source:
        url = (folder / f"{node_id}.url").read_text()
        return Source(node_id, url, JOB, NodeId("n"), "token")

    server = DataServer(Gate(Everybody(manifest)), find, Pace(rate))
    async with server.listening(host, 0) as port:
        if source is None:
            arrival.open()
            contents |= {f.board.file.digest: f for f in arrival.files.values()}
        else:
            for file in manifest.files:
                contents[file.digest] = WholeFile(source / file.name, file.size_bytes)
        (folder / f"{name}.tmp").write_text(f"http://{host}:{port}")
        (folder / f"{name}.tmp").rename(folder / f"{name}.url")
        print("ready", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        if source is None:
            reception = Reception(arrival, Sources(resolve))
            await reception.fetch({(upstream,): [file.digest for file in manifest.files]})
        print(json.dumps({"at": time.time(), "sent": server.sent_bytes}), flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        print(json.dumps({"sent": server.sent_bytes}), flush=True)


def run(
    folder: Path,
    data: Path,
    receivers: int,
    rate: int,
    shape: str,
    machines: Namespaces | None = None,
) -> tuple[list[float], int]:
    """Seconds until each receiver was done, and the bytes that the origin sent.

    `rate` limits what each sends, 0 nothing; shapes are chain, star, and http, a plain download.
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    started: list[subprocess.Popen[str]] = []
    for k in range(receivers + 1):
        host = "127.0.0.1" if machines is None else machines.address(k)
        command = _command(folder, data, k, rate, shape, host, machines)
        started.append(
            subprocess.Popen(
                command if machines is None else machines.within(k, command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
        )
    for process in started:
        _line(process)
    start = time.time()
    for process in started:
        _tell(process)
    done = [json.loads(_line(process))["at"] - start for process in started[1:]]
    _line(started[0])
    for process in started:
        _tell(process)
    sent = [json.loads(_line(process))["sent"] for process in started]
    for process in started:
        process.communicate(timeout=60)
    for k in range(1, receivers + 1):
        for path in (folder / f"n{k}").iterdir():
            path.unlink()
    return done, sent[0]


def _command(
    folder: Path,
    data: Path,
    k: int,
    rate: int,
    shape: str,
    host: str,
    machines: Namespaces | None,
) -> list[str]:
    source = ["--source", str(data)] if k == 0 else []
    if shape == "http" and machines is not None:
        (folder / f"n{k}").mkdir(exist_ok=True)
        command = [sys.executable, str(Path(__file__).with_name("plain_http.py")), "--host", host]
        out = str(folder / f"n{k}" / "model.safetensors")
        return [*command, *source, "--upstream", machines.address(0), "--out", out]
    upstream = "n0" if shape == "star" else f"n{max(k - 1, 0)}"
    command = [sys.executable, __file__, "--node", f"n{k}", "--folder", str(folder)]
    return [*command, "--host", host, "--rate", str(rate), "--upstream", upstream, *source]


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=320)
    parser.add_argument("--receivers", type=int, default=4)
    parser.add_argument("--mb-per-s", type=float, default=100.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=None)
    parser.add_argument("--raw", action="store_true")
    parser.add_argument("--namespaces", action="store_true")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--node")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rate", type=int, default=0)
    parser.add_argument("--upstream", default="")
    parser.add_argument("--source", type=Path)
    given = parser.parse_args()
    if given.node:
        arguments = (given.folder, given.node, given.rate, given.upstream, given.source, given.host)
        anyio.run(node, *arguments)
        return
    if given.namespaces and why_not():
        print(f"skipped: no limited network namespaces here: {why_not()}")
        return
    with tempfile.TemporaryDirectory(dir=given.dir) as name:
        folder, data = Path(name), Path(name) / "data"
        data.mkdir()
        with (data / "model.safetensors").open("wb") as file:
            for _ in range(given.mib):
                file.write(os.urandom(1 << 20))
        manifest = manifest_of([data / "model.safetensors"])
        (folder / "manifest.json").write_bytes(encode(manifest))
        size = manifest.size_bytes
        if given.raw:
            _compare_raw(folder, data, size, given.rounds)
        else:
            _compare_shapes(folder, data, size, given)


def _compare_raw(folder: Path, data: Path, size: int, rounds: int) -> None:
    ours, plain = [], []
    for _ in range(rounds):
        plain.append(raw(data / "model.safetensors", folder / "raw", CHUNK_BYTES))
        ours.append(run(folder, data, 1, 0, "chain")[0][0])
    rate = [size / min(times) / 1e9 for times in (plain, ours)]
    print(
        f"raw socket {rate[0]:.2f} GB/s, distributor {rate[1]:.2f} GB/s: {rate[1] / rate[0]:.2f} x"
    )


def _compare_shapes(folder: Path, data: Path, size: int, given: argparse.Namespace) -> None:
    rate = int(given.mb_per_s * 1e6)
    hop = size / rate
    print(
        f"{given.mib} MiB, {given.receivers} receivers, {given.mb_per_s:g} MB/s a hop = {hop:.2f} s"
    )
    if not given.namespaces:
        for shape in ("chain", "star"):
            _report(shape, hop, size, given, rate, folder, data, None)
        return
    with Namespaces(given.receivers + 1, rate) as machines:
        alone = [run(folder, data, 1, 0, "http", machines)[0][0] for _ in range(given.rounds)]
        hop = min(alone)
        print(f"a hop is plain HTTP to one receiver: {hop:.2f} s, {size / hop / 1e6:.1f} MB/s")
        for shape in ("chain", "star", "http"):
            _report(shape, hop, size, given, 0, folder, data, machines)


def _report(
    shape: str,
    hop: float,
    size: int,
    given: argparse.Namespace,
    rate: int,
    folder: Path,
    data: Path,
    machines: Namespaces | None,
) -> None:
    theory = 1 + (given.receivers - 1) * CHUNK_BYTES / size
    walls, sent = [], 0
    for _ in range(given.rounds):
        done, sent = run(folder, data, given.receivers, rate, shape, machines)
        walls.append(max(done) / hop)
    low, high = min(walls), max(walls)
    times = f"{low / theory:.3f}-{high / theory:.3f} of M/B + (N-1)c/B"
    more = "" if shape == "http" else f"; origin sent {sent / size:.2f} x"
    print(f"{shape}: last node {low:.3f}-{high:.3f} hops, {times}{more}")


if __name__ == "__main__":
    threading.stack_size(1 << 20)
    main()
