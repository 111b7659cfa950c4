"""Child processes that never outlive their parent, whatever ends it."""

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def spawn(
    command: Sequence[str], log_file: Path, environ: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, its output appended to `log_file`.

    The session keeps a terminal's Ctrl-C from it: the parent stops its children in its own order.
    The kernel kills it when the thread that called this ends, so call it from the main thread.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("ab") as log:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=None if environ is None else dict(environ),
            start_new_session=True,
            preexec_fn=dies_with(os.getpid()),  # noqa: PLW1509  # only prctl runs there, no Python locks are taken
        )


def end(process: subprocess.Popen[bytes], signal_number: int = signal.SIGKILL) -> None:
    """Signal the child's whole process group; nothing when it has ended already."""
    if process.poll() is not None:
        return
    try:
        os.killpg(process.pid, signal_number)
    except ProcessLookupError:
        return


def dies_with(parent: int) -> Callable[[], None]:
    """What a child calls first, so that the kernel kills it when `parent` ends."""

    def before_exec() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return before_exec
