"""The fixture `hub`: a loopback Hub that huggingface_hub is pointed at, with a cache of its own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loopback_hub.server import LoopbackHub

# huggingface_hub reads these when it is first imported, which tests do later than this.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A Hub of this test's own; HF_ENDPOINT and HF_HOME mean it, and no token is set."""
    with LoopbackHub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.delenv("HF_HUB_CACHE", raising=False)
        yield server
