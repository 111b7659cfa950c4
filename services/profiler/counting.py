"""Counting on the meta device in a warm, confined child process, each architecture once.

The child is started by the first count that is not cached and answers the later ones at once;
importing torch takes seconds and hundreds of megabytes, which no message should wait for twice.
"""

import hashlib
import importlib.metadata
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from services.profiler.architecture import Config
from services.profiler.workload import Workload

_CHILD = Path(__file__).with_name("count_child.py")
_ANSWER_LIMIT_BYTES = 64 << 20
_CPU_LIMIT_S = 3600
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "LANG": "C.UTF-8",
}


class Counts(msgspec.Struct, frozen=True):
    """FLOP in all and within each module (its children included), by the module's name."""

    total: int
    modules: dict[str, int]


class Uncounted(msgspec.Struct, frozen=True):
    """Why there is no count; the closed form stands."""

    reason: str


class _Answer(msgspec.Struct, frozen=True):
    total: int = 0
    modules: dict[str, int] = {}
    error: str = ""
    confined: bool = True


class Counter:
    """Counts by configuration; safe to call from several threads, which take turns.

    `cache` is the folder of counts already taken; `timeout_s` ends a child that takes longer.
    """

    def __init__(self, cache: Path, timeout_s: float = 300.0) -> None:
        self._cache = cache
        self._timeout_s = timeout_s
        self._turn = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def count(self, config: Config, work: Workload) -> Counts | Uncounted:
        """FLOP of one forward pass of the model that `config` describes; blocks."""
        versions = _versions()
        if isinstance(versions, Uncounted):
            return versions
        request = msgspec.json.encode(
            {"config": dict(config), "batch": work.batch, "sequence": work.sequence},
            order="deterministic",
        )
        file = self._cache / f"{hashlib.sha256(request + versions).hexdigest()}.json"
        known = _cached(file)
        if known is not None:
            return known
        with self._turn:
            answer = _cached(file) or self._ask(request)
        if isinstance(answer, Counts):
            _keep(file, answer)
        return answer

    def close(self) -> None:
        """End the child, if one runs."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    async def keep(self) -> None:
        """Stay until cancelled, then end the child: a service's background task."""
        try:
            await anyio.sleep_forever()
        finally:
            self.close()

    def _ask(self, request: bytes) -> Counts | Uncounted:
        deadline = time.monotonic() + self._timeout_s
        try:
            child = self._child if self._alive() else self._start(deadline)
            answer = _exchange(child, request, deadline) if child else None
        except (OSError, TimeoutError, msgspec.MsgspecError) as error:
            self.close()
            return Uncounted(f"the counting process failed: {error}")
        if answer is None:
            return Uncounted("the counting process could not be confined")
        return Uncounted(answer.error) if answer.error else Counts(answer.total, answer.modules)

    def _alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def _start(self, deadline: float) -> subprocess.Popen[bytes] | None:
        self.close()
        self._scratch = tempfile.TemporaryDirectory(prefix="williw-count-")
        scratch = self._scratch.name
        homes = dict.fromkeys(("HOME", "TMPDIR", "HF_HOME", "XDG_CACHE_HOME"), scratch)
        self._child = subprocess.Popen(
            [sys.executable, "-I", str(_CHILD), scratch, str(_CPU_LIMIT_S)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=scratch,
            env=_ENVIRONMENT | homes,
            start_new_session=True,
        )
        hello = _read(self._child, deadline)
        if not hello.confined:
            self.close()
            return None
        return self._child


def _exchange(child: subprocess.Popen[bytes] | None, request: bytes, deadline: float) -> _Answer:
    if child is None or child.stdin is None:
        raise OSError("no process")
    child.stdin.write(request + b"\n")
    child.stdin.flush()
    return _read(child, deadline)


def _read(child: subprocess.Popen[bytes], deadline: float) -> _Answer:
    """One line of the child's; TimeoutError past the deadline, OSError where it ended."""
    if child.stdout is None:
        raise OSError("no output")
    descriptor, body = child.stdout.fileno(), bytearray()
    while not body.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            raise TimeoutError("it took too long")
        piece = os.read(descriptor, 1 << 20)
        if not piece or len(body) > _ANSWER_LIMIT_BYTES:
            raise OSError("it ended before its answer")
        body += piece
    return msgspec.json.decode(bytes(body), type=_Answer)


def _versions() -> bytes | Uncounted:
    """What a count depends on besides its request; Uncounted where it is not installed."""
    try:
        found = [importlib.metadata.version(name) for name in ("torch", "transformers")]
    except importlib.metadata.PackageNotFoundError as error:
        return Uncounted(f"{error.name} is not installed")
    return " ".join(found).encode()


def _cached(file: Path) -> Counts | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Counts)
    except (OSError, msgspec.MsgspecError):
        return None


def _keep(file: Path, counts: Counts) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as beside:
        beside.write(msgspec.json.encode(counts))
    Path(beside.name).replace(file)
