"""What tells that a model's directory is as it was, without a byte of its files being read."""

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

import msgspec

SETTLED_S = 0.1
"""Two changes within one tick of a file system's clock have the same time: wait for some ticks."""
_Status = tuple[str, int, int, int, int, int]


def stamp_of(directory: Path) -> str | None:
    """A digest that changes when any file of a directory, or of its folders one level down, does.

    It is of every name, inode, size and time, links followed; what is hidden is in no model. None
    while something was changed just now, or cannot be looked at: then nothing may be concluded.
    """
    try:
        found = _folder(f"{directory}/", deeper=True)
    except OSError:
        return None
    changed_ns = max(status[-1] for status in found)
    if changed_ns > time.time_ns() - SETTLED_S * 1e9:
        return None
    return hashlib.sha256(msgspec.msgpack.encode(found)).hexdigest()


def _folder(path: str, *, deeper: bool) -> list[_Status]:
    """The folder itself and what is in it, in name order."""
    found = [_status("", os.stat(path))]  # noqa: PTH116  # paths cost more than what they ask for
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            if deeper and entry.is_dir():
                found += _folder(f"{entry.path}/", deeper=False)
            status = entry.stat(follow_symlinks=False)
            with suppress(OSError):  # a link that leads nowhere
                status = entry.stat()
            found.append(_status(entry.name, status))
    return found


def _status(name: str, found: os.stat_result) -> _Status:
    return (name, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
