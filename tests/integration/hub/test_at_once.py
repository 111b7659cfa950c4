"""How many models are fetched at once, and what need not wait for them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from config.settings import Settings
from services.downloader import service
from services.downloader.service import Downloader
from tests.bus_fixture import until
from tests.integration.faults.tiny import write_model
from tests.integration.hub.downloading import asked


class Bringing:
    """A bringer that never comes back, and whom it was sent for."""

    sent_for: list[str]

    def __init__(self, *_: object) -> None:
        pass

    async def bring(self, request: Any, _cancelled: Callable[[], object]) -> None:
        Bringing.sent_for.append(request.model_name)
        await anyio.sleep_forever()


async def test_as_many_are_fetched_as_is_set_and_a_local_model_waits_for_none_of_them(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "Bringer", Bringing)
    Bringing.sent_for = []
    model = write_model(tmp_path / "local" / "tiny")
    roots = msgspec.structs.replace(settings.downloader, local_roots=(str(model.parent),))
    downloader = Downloader(
        msgspec.structs.replace(settings, downloader=roots), at_once=anyio.CapacityLimiter(2)
    )
    async with anyio.create_task_group() as group:
        for name in ("org/a", "org/b", "org/c"):
            group.start_soon(downloader.download, asked(name))
        await until(lambda: downloader.at_once.statistics().tasks_waiting == 1)
        with anyio.fail_after(20):
            (fact,) = await downloader.download(asked(str(model)))
        assert fact.model_path == str(model)
        assert len(Bringing.sent_for) == 2
        group.cancel_scope.cancel()
