"""What other nodes are told to dial."""

import socket

import pytest

from services.distributor.address import dialled

HERE = "nats://127.0.0.1:4222"


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("10.1.2.3", "10.1.2.3"),
        ("gpu-1.example.com", "gpu-1.example.com"),
        ("::1", "[::1]"),
        ("[::1]", "[::1]"),
    ],
)
def test_a_host_that_was_named_is_told_as_it_is(host: str, told: str) -> None:
    assert dialled(host, HERE) == told


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_of_every_address_the_one_that_leads_to_the_bus_is_told(host: str) -> None:
    assert dialled(host, HERE) == "127.0.0.1"
    assert dialled(host, "127.0.0.2,tls://elsewhere:4222") == "127.0.0.1"


def test_where_nothing_leads_to_the_bus_the_machine_s_name_is_told() -> None:
    assert dialled("0.0.0.0", "tls://no-such-host.invalid:4222") == socket.gethostname()
