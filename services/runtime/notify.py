"""Telling systemd: ready, still turning, stopping (sd_notify's protocol, sd_notify(3)).

The watchdog is fed from the event loop: a loop that stands still starves it, and systemd restarts
the service, which is the only thing left to do then.
"""

import os
import socket

import anyio
import structlog

from services.runtime.health import Watched

log = structlog.get_logger()
_LOOK_S = 0.2
_STATUS_EVERY_S = 1.0


def tell(*lines: str) -> bool:
    """Send these lines to the service manager; False where none listens.

    Never waits and never raises: a manager that does not listen is no reason to stop working.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    # A leading @ stands for the NUL byte of Linux's abstract socket names.
    place = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
            link.setblocking(False)
            link.sendto("\n".join(lines).encode(), place)
    except OSError as error:
        log.warning("systemd not told", error=error.strerror)
        return False
    return True


def watchdog_s() -> float | None:
    """How often to feed the watchdog: half of what it allows; None where it does not watch us."""
    allowed_us = os.environ.get("WATCHDOG_USEC", "")
    for_us = os.environ.get("WATCHDOG_PID") in (None, "", str(os.getpid()))
    if not for_us or not allowed_us.isdecimal() or int(allowed_us) == 0:
        return None
    return int(allowed_us) / 2e6


async def keep(watched: Watched) -> None:
    """READY=1 once messages are taken, then the watchdog and a line of status, until cancelled.

    Returns at once where no service manager listens.
    """
    if not os.environ.get("NOTIFY_SOCKET"):
        return
    feed_s = watchdog_s()
    status, was_ready = "", False
    while True:
        lacking = watched.lacking()
        lines = ["WATCHDOG=1"] if feed_s else []
        if not was_ready and not lacking:
            was_ready = True
            lines.append("READY=1")
        if status != (lacking or "ready"):
            status = lacking or "ready"
            lines.append(f"STATUS={status}")
        if lines:
            tell(*lines)
        await anyio.sleep(min(feed_s or _LOOK_S, _STATUS_EVERY_S if was_ready else _LOOK_S))
