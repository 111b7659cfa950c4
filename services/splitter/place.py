"""Where `williw split` writes: one process at a time, what is not its own left alone."""

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from services.checkpoint.description import BadStage, read_description
from services.splitter.cutting import shares_blocks
from services.splitter.failures import NotEnoughDisk, Occupied

_ROOM = re.compile(r"^\.williw-cutting-\d+-[0-9a-f]{12}(\.old)?\Z")
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)
_ADVICE = "move it away, or name another directory as --out"
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def held(out: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Have the directory `out`, made where it is missing, for this process alone.

    Calls `waiting` once if another process has it, and waits. What a process that was killed left
    half made there is removed.
    """
    descriptor, new, alone = _locked(out, waiting)
    try:
        if alone:
            _sweep(out)
        yield
    except BaseException:
        if new:
            with suppress(OSError):  # it holds something: it stays
                out.rmdir()
        raise
    finally:
        os.close(descriptor)


@contextmanager
def room(out: Path) -> Iterator[Path]:
    """A new directory in `out` to cut a stage in; what is left of it at the end is removed."""
    place = out / f".williw-cutting-{os.getpid()}-{os.urandom(6).hex()}"
    place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def check_apart(out: Path, model_dir: Path) -> None:
    """Occupied where `out` is the model's directory or within it: stages would be part of it."""
    if out.resolve().is_relative_to(model_dir.resolve()):
        raise Occupied(
            f"{out} is in the model's own directory {model_dir}",
            advice="name a directory outside of it as --out",
        )
    if out.exists() and not out.is_dir():
        raise Occupied(f"{out} is no directory", advice="name another as --out")


def check_free(finals: Iterable[Path], model_dir: Path) -> None:
    """Occupied where something else than an older stage stands in one of these places."""
    model = model_dir.resolve()
    for final in finals:
        if final.is_symlink() or (final.exists() and not final.is_dir()):
            what = "a symbolic link" if final.is_symlink() else "no directory"
            raise Occupied(f"{final} is {what}, and a stage should go there", advice=_ADVICE)
        if final.is_dir() and model.is_relative_to(final.resolve()):
            raise Occupied(f"{final} holds the model, and a stage should go there", advice=_ADVICE)
        if final.is_dir() and any(final.iterdir()):
            _check_stage(final)


def check_space(out: Path, needed_bytes: int, source: Path) -> None:
    """NotEnoughDisk where so much does not fit in `out`, unless it shares blocks with `source`."""
    if needed_bytes > shutil.disk_usage(out).free and not shares_blocks(source, out):
        raise no_space(out, needed_bytes)


def no_space(out: Path, needed_bytes: int) -> NotEnoughDisk:
    """What to say where so much does not fit."""
    free_bytes = shutil.disk_usage(out).free
    return NotEnoughDisk(
        needed_bytes, free_bytes, out, "free some, or name a directory on another disk as --out"
    )


def is_full(error: OSError) -> bool:
    """Whether the disk, or the quota on it, had no more room."""
    return error.errno in _FULL


def _check_stage(final: Path) -> None:
    try:
        read_description(final)
    except BadStage as error:
        raise Occupied(
            f"a stage should go to {final}, which is none ({error.reason})", advice=_ADVICE
        ) from None


def _sweep(out: Path) -> None:
    for entry in out.iterdir():
        if _ROOM.match(entry.name):
            shutil.rmtree(entry, ignore_errors=True)


def _locked(out: Path, waiting: Callable[[], None]) -> tuple[int, bool, bool]:
    """The directory, open, with a lock that ends with the process; whether it is new, and locked.

    Some file systems have no locks: two at once do twice what one would have done, no more.
    """
    while True:
        new = not out.exists()
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            alone = _lock(descriptor, waiting)
            if os.path.samestat(os.fstat(descriptor), out.stat()):
                return descriptor, new, alone
        except FileNotFoundError:
            pass  # who had it removed it
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, waiting: Callable[[], None]) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        waiting()
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True
