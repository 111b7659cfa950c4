"""`williw provision --auth` as a user meets it: keys, accounts, and a server that takes them."""

import json
import socket
import stat
from pathlib import Path

import anyio
import pytest

from config import load
from services.console import app, children, embedded
from services.runtime import connection, keys
from services.runtime.connection import BusUnreachable
from tests.integration.deploy.conftest import wait_for_port


def authorize(
    folder: Path, *more: str, capsys: pytest.CaptureFixture[str]
) -> tuple[int, dict[str, object]]:
    code = app.run(["provision", "--auth", str(folder), "--json", *more])
    out = capsys.readouterr().out
    return code, json.loads(out) if out else {}


def test_every_service_of_every_node_gets_a_key_that_only_its_owner_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, made = authorize(tmp_path / "a", "--origin", "o-1", "--node", "n-1", capsys=capsys)
    assert code == 0
    files = {str(f.relative_to(tmp_path / "a")): f for f in (tmp_path / "a").rglob("*.nk")}
    assert set(files) == {
        *(f"{name}.nk" for name in ("operator", "client", "tap")),
        *(
            f"o-1/{name}.nk"
            for name in (
                "requester", "downloader", "profiler", "uploader", "planner", "splitter",
                "distributor",
            )
        ),
        "n-1/distributor.nk",
    }  # fmt: skip
    assert {stat.S_IMODE(file.stat().st_mode) for file in files.values()} == {0o600}
    accounts = (tmp_path / "a" / keys.CONFIG_FILE).read_text()
    for file in files.values():
        assert file.read_text().strip() not in accounts
        assert keys.seed(file) in accounts
    assert made["origins"] == ["o-1"]
    assert made["nodes"] == ["n-1"]


def test_another_node_locks_nobody_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    authorize(tmp_path, "--origin", "o-1", "--node", "n-1", capsys=capsys)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.nk")}
    code, made = authorize(tmp_path, "--node", "n-2", capsys=capsys)
    assert code == 0
    assert made["nodes"] == ["n-1", "n-2"]
    assert {file: file.read_bytes() for file in before} == before
    accounts = (tmp_path / keys.CONFIG_FILE).read_text()
    assert all(keys.seed(file) in accounts for file in tmp_path.rglob("*.nk"))


@pytest.mark.parametrize(
    "words",
    [
        ("--origin", "../up"),
        ("--origin", "o", "--account", "team a"),
        ("--origin", "o", "--node", "o"),
    ],
)
def test_what_no_server_could_take_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert authorize(tmp_path / "a", *words, capsys=capsys)[0] == 2
    assert not (tmp_path / "a").exists()


async def test_two_teams_on_one_server_hear_nothing_of_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for team in ("TEAM_A", "TEAM_B"):
        authorize(tmp_path / team, "--account", team, "--origin", "o-1", capsys=capsys)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = tmp_path / "nats.conf"
    config.write_text(
        f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{tmp_path}/store" }}\n'
        f"accounts {{\n include TEAM_A/{keys.CONFIG_FILE}\n include TEAM_B/{keys.CONFIG_FILE}\n}}\n"
    )
    process = children.spawn([embedded.nats_server(), "-c", str(config)], tmp_path / "nats.log")
    try:
        wait_for_port(port, tmp_path / "nats.log")
        bus = {"url": f"nats://127.0.0.1:{port}", "connect_timeout_s": 5.0}
        heard: list[str] = []

        async def hear(message: object) -> None:
            heard.append(getattr(message, "subject", ""))

        clients = {}
        for team in ("TEAM_A", "TEAM_B"):
            own = {**bus, "nkey_file": str(tmp_path / team / "operator.nk")}
            settings = load.load(environ={}, overrides={"bus": own})
            clients[team] = await connection.connect(settings.bus, "operator")
        await clients["TEAM_B"].subscribe("williw.>", cb=hear)
        await clients["TEAM_B"].flush()
        await clients["TEAM_A"].publish("williw.model.request", b"{}")
        await clients["TEAM_A"].flush()
        await clients["TEAM_B"].publish("williw.progress.own", b"{}")
        # In order on one connection: had team A's been let through, it would be heard first.
        with anyio.fail_after(30):
            while "williw.progress.own" not in heard:  # noqa: ASYNC110  # filled by a callback
                await anyio.sleep(0.01)
        assert heard == ["williw.progress.own"]
        with pytest.raises(BusUnreachable):
            await connection.connect(load.load(environ={}, overrides={"bus": bus}).bus, "nobody")
        for client in clients.values():
            await client.close()
    finally:
        children.end(process)
        process.wait(10)
