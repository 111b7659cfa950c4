"""Which Hub, and who we are there; read at each call, as the Hub's own tools name it.

The library keeps what HF_ENDPOINT and HF_HOME were when it was first imported.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit


def endpoint() -> str:
    """The Hub's address, as HF_ENDPOINT says now."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def host() -> str:
    """The Hub's host and port, without a password that its address may hold."""
    return urlsplit(endpoint()).netloc.rpartition("@")[2]


def token() -> str | None:
    """The Hub token of this machine: HF_TOKEN, else the one that `hf auth login` kept."""
    from huggingface_hub import get_token

    return get_token()


def cache_directory() -> Path:
    """The Hub's own cache on this machine, as its tools would find it now."""
    environ = os.environ
    if environ.get("HF_HUB_CACHE"):
        return Path(environ["HF_HUB_CACHE"]).expanduser()
    home = environ.get("HF_HOME") or Path(environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    return Path(home).expanduser() / "hub"
