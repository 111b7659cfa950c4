"""The counting child's process from start to end; no wait for it is without a bound."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

_SCRIPT = Path(__file__).with_name("count_child.py")
_ANSWER_LIMIT_BYTES = 64 << 20
_CPU_LIMIT_S = 3600
_LOOK_S = 0.1
_END_S = 5.0
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "LANG": "C.UTF-8",
}


class Answer(msgspec.Struct, frozen=True):
    """A line of the child's: a count, why there is none, or at first whether it is confined."""

    total: int = 0
    modules: dict[str, int] = {}
    error: str = ""
    confined: bool = True


class Patience(NamedTuple):
    """How long a count is waited for: until a moment of the monotonic clock, or until given up."""

    deadline: float
    given_up: threading.Event

    def wait(self, descriptor: int, event: int) -> None:
        """Return when `descriptor` is ready for `event`; TimeoutError where patience ends."""
        poll = select.poll()
        poll.register(descriptor, event)
        while not self.given_up.is_set():
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("it took too long")
            if poll.poll(1000 * min(left, _LOOK_S)):
                return
        raise TimeoutError("nobody waits for it any more")


class CountingChild:
    """One process, started when made, until `end`; not for several threads at once."""

    def __init__(self) -> None:
        self._scratch = tempfile.TemporaryDirectory(
            prefix="williw-count-", ignore_cleanup_errors=True
        )
        scratch = self._scratch.name
        homes = dict.fromkeys(("HOME", "TMPDIR", "HF_HOME", "XDG_CACHE_HOME"), scratch)
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(_SCRIPT), scratch, str(_CPU_LIMIT_S)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd=scratch,
            env=_ENVIRONMENT | homes,
            start_new_session=True,
        )
        self.pid = self._process.pid

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def ask(self, request: bytes, patience: Patience) -> Answer:
        """The answer to one line; OSError, TimeoutError or MsgspecError where there is none."""
        if self._process.stdin is None:
            raise OSError("no process")
        descriptor, left = self._process.stdin.fileno(), memoryview(request + b"\n")
        os.set_blocking(descriptor, False)
        while left:
            patience.wait(descriptor, select.POLLOUT)
            left = left[os.write(descriptor, left) :]
        return self.read(patience)

    def read(self, patience: Patience) -> Answer:
        """Its next line; the first comes unasked. Raises what `ask` raises."""
        if self._process.stdout is None:
            raise OSError("no output")
        descriptor, body = self._process.stdout.fileno(), bytearray()
        while not body.endswith(b"\n"):
            patience.wait(descriptor, select.POLLIN)
            piece = os.read(descriptor, 1 << 20)
            if not piece or len(body) > _ANSWER_LIMIT_BYTES:
                raise OSError("it ended before its answer")
            body += piece
        return msgspec.json.decode(bytes(body), type=Answer)

    def end(self) -> None:
        """Kill it and what it may have started, within seconds, whoever holds its pipes."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._scratch.cleanup()
