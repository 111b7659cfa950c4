"""Making a finished directory visible under its name in one step, whatever stood there before."""

import ctypes
import errno
import os
import shutil
from pathlib import Path

_HERE = -100
"""AT_FDCWD of <fcntl.h>: relative paths are taken from the working directory."""
_EXCHANGE = 2
"""RENAME_EXCHANGE of <linux/fs.h>: the two names change places, and neither is ever missing."""
_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST)
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.EPERM)

_c_library = ctypes.CDLL(None, use_errno=True)


def appear(temporary: Path, final: Path) -> None:
    """Give the directory `temporary` the name `final`; an older directory there goes afterwards.

    A crash leaves under `final` the older one or the newer one, whole, and what is left of the
    other under `temporary`, or that name and `.old`. Raises OSError, as where `final` is a file.
    """
    older = None
    try:
        temporary.rename(final)
    except OSError as error:
        if error.errno not in _OCCUPIED:
            raise
        older = _take_the_place(temporary, final)
    sync_directory(final.parent)
    if older is not None:
        shutil.rmtree(older)


def sync_directory(directory: Path) -> None:
    """Have the names in a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _take_the_place(temporary: Path, final: Path) -> Path:
    """Where the older directory is now."""
    if _exchanged(temporary, final):
        return temporary
    aside = temporary.with_name(f"{temporary.name}.old")
    final.rename(aside)
    temporary.rename(final)
    return aside


def _exchanged(one: Path, other: Path) -> bool:
    """Whether two names changed places; not every file system and C library can."""
    if not hasattr(_c_library, "renameat2"):
        return False
    names = os.fsencode(one), os.fsencode(other)
    if _c_library.renameat2(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(other))
