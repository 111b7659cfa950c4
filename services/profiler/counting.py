"""Counting on the meta device in a warm, confined child process, each architecture once.

The child is started by the first count that is not cached and answers the later ones at once;
importing torch takes seconds and hundreds of megabytes, which no message should wait for twice.
"""

import hashlib
import importlib.metadata
import tempfile
import threading
import time
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from services.profiler.architecture import Config
from services.profiler.child import CountingChild, Patience
from services.profiler.workload import Workload

_TURN_S = 0.1


class Counts(msgspec.Struct, frozen=True):
    """FLOP in all and within each module (its children included), by the module's name."""

    total: int
    modules: dict[str, int]


class Uncounted(msgspec.Struct, frozen=True):
    """Why there is no count; the closed form stands."""

    reason: str


class Counter:
    """Counts by configuration; safe to call from several threads, which take turns.

    `cache` is the folder of counts already taken; `timeout_s` ends a child that takes longer.
    """

    def __init__(self, cache: Path, timeout_s: float = 300.0) -> None:
        self._cache = cache
        self._timeout_s = timeout_s
        self._turn = threading.Lock()
        self._child: CountingChild | None = None

    def count(
        self, config: Config, work: Workload, given_up: threading.Event | None = None
    ) -> Counts | Uncounted:
        """FLOP of one forward pass of the model that `config` describes; blocks.

        Once `given_up` is set it returns within a second, and a child at work for it is killed.
        """
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
        unwanted = given_up or threading.Event()
        while not self._turn.acquire(timeout=_TURN_S):
            if unwanted.is_set():
                return Uncounted("nobody waits for the count any more")
        try:
            answer = _cached(file) or self._ask(request, unwanted)
        finally:
            self._turn.release()
        if isinstance(answer, Counts):
            _keep(file, answer)
        return answer

    def close(self) -> None:
        """End the child, if one runs; returns within seconds."""
        child, self._child = self._child, None
        if child is not None:
            child.end()

    async def keep(self) -> None:
        """Stay until cancelled, then end the child: a service's background task."""
        try:
            await anyio.sleep_forever()
        finally:
            self.close()

    def _ask(self, request: bytes, given_up: threading.Event) -> Counts | Uncounted:
        patience = Patience(time.monotonic() + self._timeout_s, given_up)
        try:
            child = self._confined(patience)
            answer = child.ask(request, patience) if child else None
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            self.close()
            return Uncounted(f"the counting process failed: {error}")
        if answer is None:
            return Uncounted("the counting process could not be confined")
        return Uncounted(answer.error) if answer.error else Counts(answer.total, answer.modules)

    def _confined(self, patience: Patience) -> CountingChild | None:
        """The child that runs, or a new one; None where it cannot be confined."""
        if self._child is not None and self._child.alive():
            return self._child
        self.close()
        self._child = child = CountingChild()
        if child.read(patience).confined:
            return child
        self.close()
        return None


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
