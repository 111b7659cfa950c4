"""A server of the Kubernetes cluster, told to stop as its pod's hook and the kubelet do it."""

import re
import signal
from pathlib import Path
from typing import Any

import anyio
import nats
import yaml

from services.console import children, embedded
from tests.bus_fixture import until
from tests.integration.deploy.conftest import wait_for_port
from tests.integration.deploy.test_nats import free_ports

FOLDER = Path(__file__).parents[3] / "deploy" / "kubernetes" / "components" / "nats-cluster"


def pod() -> dict[str, Any]:
    documents = yaml.safe_load_all((FOLDER / "nats.yaml").read_text())
    (found,) = (d for d in documents if d["kind"] == "StatefulSet")
    spec: dict[str, Any] = found["spec"]["template"]["spec"]
    return spec


def lame_duck() -> dict[str, int]:
    """The seconds of both times."""
    text = (FOLDER / "nats.conf").read_text()
    found = re.findall(r'^(lame_duck_\w+): "(\d+)s"$', text, re.MULTILINE)
    return {key: int(seconds) for key, seconds in found}


def test_a_pod_is_given_longer_than_its_server_takes_to_let_clients_go() -> None:
    times = lame_duck()
    assert times.keys() == {"lame_duck_grace_period", "lame_duck_duration"}
    assert sum(times.values()) < pod()["terminationGracePeriodSeconds"]


async def test_the_hook_has_the_server_let_go_and_a_sigterm_does_not_cut_that_short(
    tmp_path: Path,
) -> None:
    (port,) = free_ports(1)
    times = {**lame_duck(), "lame_duck_grace_period": 2}
    config = tmp_path / "nats.conf"
    config.write_text("".join(f'{key}: "{seconds}s"\n' for key, seconds in times.items()))
    log_file = tmp_path / "nats.log"
    command = [embedded.nats_server(), "-c", str(config), "-a", "127.0.0.1", "-p", str(port)]
    process = children.spawn(command, log_file)
    try:
        wait_for_port(port, log_file)
        client = await nats.connect(f"nats://127.0.0.1:{port}", allow_reconnect=False)
        (container,) = pod()["containers"]
        program, *arguments = container["lifecycle"]["preStop"]["exec"]["command"]
        assert program == "nats-server"
        # In its pod the server is process 1.
        hook = [word.replace("ldm=1", f"ldm={process.pid}") for word in arguments]
        with anyio.fail_after(30):
            await anyio.run_process([command[0], *hook])
        await until(lambda: "Entering lame duck mode" in log_file.read_text())
        process.send_signal(signal.SIGTERM)
        await until(lambda: "terminated" in log_file.read_text())
        await client.flush()
        await until(lambda: client.is_closed)
        await until(lambda: process.poll() is not None)
        assert process.returncode == 0
    finally:
        children.end(process)
        process.wait(10)
