"""What the tests of downloads share: the settings of the origin that downloads."""

from pathlib import Path

import pytest

from config.settings import Downloader as DownloaderSettings
from config.settings import NodeSection, Settings


@pytest.fixture
def origin(tmp_path: Path) -> Settings:
    return Settings(
        node=NodeSection(node_id="origin-1", home=str(tmp_path / "home")),
        downloader=DownloaderSettings(keep_free_bytes=0),
    )
