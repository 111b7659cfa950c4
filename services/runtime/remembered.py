"""What was worked out before, by a key that names everything it was made from: few, and bounded."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """The `count` values used last, of `size_bytes` in all at most; for any thread.

    A key must change whenever the value would: a digest of what was read, never a path alone.
    """

    def __init__(self, count: int = 64, size_bytes: int = 4 << 20) -> None:
        self._count, self._most_bytes = count, size_bytes
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._held_bytes = 0
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """The value kept under this key, now the one used last; None where there is none."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def keep(self, key: K, value: V, size_bytes: int) -> None:
        """Keep a value of this size; those used longest ago give way, or it is too large itself."""
        with self._lock:
            _, before = self._values.pop(key, (None, 0))
            self._held_bytes -= before
            if size_bytes > self._most_bytes:
                return
            self._values[key] = value, size_bytes
            self._held_bytes += size_bytes
            while len(self._values) > self._count or self._held_bytes > self._most_bytes:
                _, (_, gone) = self._values.popitem(last=False)
                self._held_bytes -= gone
