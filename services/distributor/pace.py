"""A limit on what is sent: so many bytes a second, first come first served."""

import anyio

SLICE_BYTES = 1 << 20


class Pace:
    """At most `bytes_per_s` over all who share it, 0 for no limit; idling saves no credit."""

    def __init__(self, bytes_per_s: int) -> None:
        self.bytes_per_s = bytes_per_s
        self._free_at = 0.0
        self._turn = anyio.Lock()

    @property
    def slice_bytes(self) -> int:
        """What to send at a time: a chunk where a limit makes others wait."""
        return SLICE_BYTES if self.bytes_per_s else 4 << 20

    async def take(self, size_bytes: int) -> None:
        """Return when these bytes may be sent."""
        if not self.bytes_per_s:
            return
        async with self._turn:
            now = anyio.current_time()
            # A timer wakes late: up to 20 ms of that are caught up, or the rate is never reached.
            self._free_at = max(self._free_at, now - 0.02) + size_bytes / self.bytes_per_s
            if self._free_at > now:
                await anyio.sleep(self._free_at - now)
