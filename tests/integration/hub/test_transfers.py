"""The downloader against a Hub that fails in the middle."""

import pytest

from config.settings import Settings
from messages.failures import Passing
from services.hub.failures import (
    HubUnavailable,
    WrongDigest,
)
from tests.integration.hub.downloading import FILES, WANTED, downloaded, held, visible
from tests.loopback_hub.faults import Fault
from tests.loopback_hub.server import LoopbackHub

PASSING = [
    Fault("revision/main", status=429, times=9, retry_after_s=7),
    Fault("revision/main", status=500, times=9),
    Fault("resolve/.*/model-00001", status=503, times=99),
    Fault("/cdn/.*/model-00001", status=429, times=99, retry_after_s=3600),
    Fault("/cdn/.*/model-00001", stall_s=5, times=99),
]


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: f"{fault.match} {fault.status}")
async def test_trouble_of_the_hub_is_passing(
    hub: LoopbackHub, origin: Settings, fault: Fault
) -> None:
    hub.add("org/model", FILES)
    hub.fail(fault)
    with pytest.raises(Passing) as trouble:
        await downloaded(origin, "org/model")
    assert isinstance(trouble.value, HubUnavailable)
    if "revision" in fault.match and fault.retry_after_s:
        assert trouble.value.after_s == 7
    hub.faults.clear()
    assert (await downloaded(origin, "org/model")).files_downloaded == WANTED


MENDED = [
    Fault("/cdn/.*/model-00001", drop_after_bytes=1 << 20),
    Fault("/cdn/.*/model-00001", truncate_to=12345),
    Fault("/cdn/.*/model-00001", corrupt=True),
    Fault("/cdn/.*/model-00001", status=429, retry_after_s=0),
    Fault("resolve/.*/config.json", corrupt=True),
    Fault("resolve/.*/config.json", drop_after_bytes=3),
]


@pytest.mark.parametrize("fault", MENDED, ids=str)
async def test_a_transfer_that_goes_wrong_once_is_mended_on_the_spot(
    hub: LoopbackHub, origin: Settings, fault: Fault
) -> None:
    hub.add("org/model", FILES)
    hub.fail(fault)
    fact = await downloaded(origin, "org/model")
    assert held(fact) == {name: FILES[name] for name in WANTED}
    assert fault.times == 0


async def test_a_file_whose_bytes_are_wrong_twice_is_refused_and_never_visible(
    hub: LoopbackHub, origin: Settings
) -> None:
    hub.add("org/model", FILES)
    hub.fail(Fault("/cdn/.*/model-00002", corrupt=True, times=99))
    with pytest.raises(WrongDigest) as refused:
        await downloaded(origin, "org/model")
    assert refused.value.path == "model-00002-of-00002.safetensors"
    assert refused.value.expected != refused.value.found
    assert visible(origin) == []


async def test_a_server_without_ranges_sends_the_file_again_from_its_start(
    hub: LoopbackHub, origin: Settings
) -> None:
    hub.add("org/model", FILES)
    hub.fail(Fault("/cdn/.*/model-00001", drop_after_bytes=1 << 20))
    hub.fail(Fault("/cdn/.*/model-00001", no_ranges=True, times=99))
    fact = await downloaded(origin, "org/model")
    assert held(fact) == {name: FILES[name] for name in WANTED}
