"""Having the disk begin to write while more is on its way: a sync then waits for little."""

import ctypes

_START_WRITING = 2
"""SYNC_FILE_RANGE_WRITE of <fcntl.h>: it waits for nothing and promises nothing."""

_c_library = ctypes.CDLL(None, use_errno=True)


def start_writing(descriptor: int, start: int, size_bytes: int) -> None:
    """Begin to write these bytes of a file; a hint, which some systems do not take.

    Python has no name for sync_file_range; posix_fadvise would drop what was written from memory.
    """
    if hasattr(_c_library, "sync_file_range"):
        low, length = ctypes.c_int64(start), ctypes.c_int64(size_bytes)
        _c_library.sync_file_range(descriptor, low, length, _START_WRITING)
