"""A server that keeps nothing: said as what it is, with the exit code of a bus out of reach."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from config import load
from services.console import app, children, embedded
from services.requester.service import build
from services.runtime import actor
from tests.integration.deploy.conftest import wait_for_port


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The address of a running nats-server without JetStream."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [embedded.nats_server(), "-a", "127.0.0.1", "-p", str(port)]
    process = children.spawn(command, tmp_path / "nats.log")
    try:
        wait_for_port(port, tmp_path / "nats.log")
        yield f"nats://127.0.0.1:{port}"
    finally:
        children.end(process)
        process.wait()


@pytest.mark.parametrize("provisioned", [True, False])
async def test_a_service_ends_with_the_code_of_an_unreachable_bus(
    url: str, provisioned: bool
) -> None:
    settings = load.load(environ={}, overrides={"bus": {"url": url}})
    assert await actor.run(settings, [build], provisioned=provisioned) == actor.EXIT_BUS


def test_provisioning_says_what_is_missing(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["provision", "--nats-url", url, "--origin", "a"]) == actor.EXIT_BUS
    assert "JetStream" in capsys.readouterr().err
