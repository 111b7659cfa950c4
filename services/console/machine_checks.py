"""What `williw doctor` looks at on this machine: the disk, and the Hub token."""

import os
import shutil
from pathlib import Path

from config.settings import Settings
from messages.failures import Passing, Permanent
from services.console.checks import Check

_LITTLE_DISK_BYTES = 5 << 30
_HUB_TIMEOUT_S = 6.0


async def local_checks(settings: Settings) -> list[Check]:
    """The disk and the Hub token."""
    return [_disk(settings.home), await _hub_token(settings)]


def _disk(home: Path) -> Check:
    existing = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    found = f"{free / 1e9:.1f} GB free for {home}"
    if not os.access(existing, os.W_OK):
        mend = "set WILLIW_HOME to a directory that can be written"
        return Check(name="disk", outcome="wrong", found=f"{existing} is read-only", mend=mend)
    if free < _LITTLE_DISK_BYTES:
        mend = "make room, `williw node prune`, or set WILLIW_HOME to another disk"
        return Check(name="disk", outcome="warning", found=found, mend=mend)
    return Check(name="disk", outcome="ok", found=found)


async def _hub_token(settings: Settings) -> Check:
    """Whether there is a token and the Hub knows it. The token itself goes nowhere else."""
    from services.hub.account import endpoint, token

    if token() is None:
        repo = settings.uploader.metadata_repo
        return Check(
            name="hub token",
            outcome="wrong" if repo else "ok",
            found="none" + (f", but metadata is to go to {repo}" if repo else ""),
            mend="set HF_TOKEN, or run `hf auth login`" if repo else "",
        )
    from services.hub.client import call

    try:
        await call("", lambda api: api.whoami(), timeout_s=_HUB_TIMEOUT_S)
    except Permanent:
        mend = "make a new one on the Hub and set HF_TOKEN"
        found = f"{endpoint()} refuses it"
        return Check(name="hub token", outcome="wrong", found=found, mend=mend)
    except (Passing, TimeoutError, OSError):
        found = f"present; {endpoint()} is not reachable, so not tried"
        return Check(name="hub token", outcome="warning", found=found)
    return Check(name="hub token", outcome="ok", found="present and valid")
