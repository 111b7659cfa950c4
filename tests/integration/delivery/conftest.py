"""The rig of a delivery, for each test its own."""

from pathlib import Path

import pytest

from config.settings import Settings
from services.runtime.bus import Bus
from tests.integration.delivery.rig import Rig, write_model


@pytest.fixture
def rig(bus: Bus, settings: Settings, tmp_path: Path) -> Rig:
    """A bus and a model at the origin."""
    return Rig(bus, settings, tmp_path, write_model(tmp_path / "model"))
