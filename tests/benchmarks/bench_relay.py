"""The relay against a star, hop by hop limited, and one hop against a raw socket; no bus.

    python tests/benchmarks/bench_relay.py [--mib 320] [--receivers 4] [--mb-per-s 100] [--raw]

Every node is a process with the distributor's own server and receiver; what a node sends is limited
in the sender. Every chunk is verified before it is used or relayed. Times are of the last node, as
multiples of one hop (size / rate). --raw: one receiver without a limit, beside a plain socket copy
(sendfile to recv_into, BLAKE3 of each chunk in the same thread, written to a file).
"""

import argparse
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import anyio
from blake3 import blake3

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


async def node(folder: Path, name: str, rate: int, upstream: str, source: Path | None) -> None:
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
    async with server.listening("127.0.0.1", 0) as port:
        if source is None:
            arrival.open()
            contents |= {f.board.file.digest: f for f in arrival.files.values()}
        else:
            for file in manifest.files:
                contents[file.digest] = WholeFile(source / file.name, file.size_bytes)
        (folder / f"{name}.tmp").write_text(f"http://127.0.0.1:{port}")
        (folder / f"{name}.tmp").rename(folder / f"{name}.url")
        print("ready", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        if source is None:
            reception = Reception(arrival, Sources(resolve))
            await reception.fetch({(upstream,): [file.digest for file in manifest.files]})
        print(json.dumps({"at": time.time(), "sent": server.sent_bytes}), flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        print(json.dumps({"sent": server.sent_bytes}), flush=True)


def run(folder: Path, data: Path, receivers: int, rate: int, shape: str) -> tuple[list[float], int]:
    """Seconds until each receiver was done, and the bytes that the origin sent."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    started: list[subprocess.Popen[str]] = []
    for k in range(receivers + 1):
        upstream = "n0" if shape == "star" else f"n{max(k - 1, 0)}"
        command = [sys.executable, __file__, "--node", f"n{k}", "--folder", str(folder)]
        command += ["--rate", str(rate), "--upstream", upstream]
        command += ["--source", str(data)] if k == 0 else []
        started.append(
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
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
        process.communicate()
    for k in range(1, receivers + 1):
        for path in (folder / f"n{k}").iterdir():
            path.unlink()
    return done, sent[0]


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def raw(path: Path, out: Path) -> float:
    """Seconds of a plain socket copy between two processes, digested and written."""
    listener = socket.create_server(("127.0.0.1", 0))
    sender = os.fork()
    if sender == 0:
        connection, _ = listener.accept()
        with path.open("rb") as file:
            connection.sendfile(file)
        os._exit(0)
    start = time.perf_counter()
    size = path.stat().st_size
    with socket.create_connection(listener.getsockname()) as connection, out.open("wb") as target:
        view = memoryview(bytearray(CHUNK_BYTES))
        os.ftruncate(target.fileno(), size)
        for position in range(0, size, CHUNK_BYTES):
            length, filled = min(CHUNK_BYTES, size - position), 0
            while filled < length:
                filled += connection.recv_into(view[filled:length])
            blake3(view[:length]).digest()
            os.pwrite(target.fileno(), view[:length], position)
    wall_s = time.perf_counter() - start
    os.waitpid(sender, 0)
    listener.close()
    return wall_s


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=320)
    parser.add_argument("--receivers", type=int, default=4)
    parser.add_argument("--mb-per-s", type=float, default=100.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=None)
    parser.add_argument("--raw", action="store_true")
    parser.add_argument("--node")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rate", type=int, default=0)
    parser.add_argument("--upstream", default="")
    parser.add_argument("--source", type=Path)
    given = parser.parse_args()
    if given.node:
        anyio.run(node, given.folder, given.node, given.rate, given.upstream, given.source)
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
        plain.append(raw(data / "model.safetensors", folder / "raw"))
        ours.append(run(folder, data, 1, 0, "chain")[0][0])
    rate = [size / min(times) / 1e9 for times in (plain, ours)]
    print(
        f"raw socket {rate[0]:.2f} GB/s, distributor {rate[1]:.2f} GB/s: {rate[1] / rate[0]:.2f} x"
    )


def _compare_shapes(folder: Path, data: Path, size: int, given: argparse.Namespace) -> None:
    rate = int(given.mb_per_s * 1e6)
    hop = size / rate
    theory = 1 + (given.receivers - 1) * CHUNK_BYTES / size
    print(
        f"{given.mib} MiB, {given.receivers} receivers, {given.mb_per_s:g} MB/s a hop = {hop:.2f} s"
    )
    for shape in ("chain", "star"):
        walls, sent = [], 0
        for _ in range(given.rounds):
            done, sent = run(folder, data, given.receivers, rate, shape)
            walls.append(max(done))
        low, high = min(walls) / hop, max(walls) / hop
        theory_is = f" ({low / theory:.3f} of theory)" if shape == "chain" else ""
        print(
            f"{shape}: last node {low:.3f}-{high:.3f} hops{theory_is}; "
            f"origin sent {sent / size:.2f} x"
        )


if __name__ == "__main__":
    threading.stack_size(1 << 20)
    main()
