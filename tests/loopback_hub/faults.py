"""What can go wrong between a client and the Hub, switched on by a test for matching requests."""

import re
from dataclasses import dataclass


@dataclass
class Fault:
    """The next `times` requests whose "METHOD path" `match` finds go wrong in this way.

    `delay_s` passes before anything is done; `status` answers with it (with `code` and
    `retry_after_s`); `drop_after_bytes` closes the connection there; `stall_s` sends headers and
    then nothing for so long; `corrupt` changes a byte; `truncate_to` announces and sends a shorter
    body; `lose_answer` does what was asked and closes the connection; `no_ranges` answers a range
    request with the whole file.
    """

    match: str
    times: int = 1
    status: int = 0
    code: str = ""
    retry_after_s: float | None = None
    drop_after_bytes: int | None = None
    delay_s: float = 0.0
    stall_s: float = 0.0
    corrupt: bool = False
    truncate_to: int | None = None
    lose_answer: bool = False
    no_ranges: bool = False

    def takes(self, method: str, path: str) -> bool:
        """Whether this request goes wrong; counts it."""
        if self.times <= 0 or re.search(self.match, f"{method} {path}") is None:
            return False
        self.times -= 1
        return True


NO_FAULT = Fault(match="", times=0)
