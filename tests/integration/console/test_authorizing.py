"""`williw provision --auth` as a user meets it: keys, accounts, and a server that takes them."""

import json
import socket
import stat
from pathlib import Path

import anyio
import pytest

from config import load
from services.console import app, children, embedded, members
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
        ("--origin", "o", "--account", ""),
        ("--origin", "o", "--account", "SYS"),
        ("--origin", "o", "--account", "TEAM_B_TAP"),
        ("--origin", "o", "--node", "a.b", "--node", "a_b"),
        ("--origin", "a.b", "--node", "a_b"),
        ("--origin", "o", "--node", "o"),
    ],
)
def test_what_no_server_could_take_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert authorize(tmp_path / "a", *words, capsys=capsys)[0] == 2
    assert not (tmp_path / "a").exists()


def test_a_teams_account_stays_when_a_node_is_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--account", "TEAM_B", "--origin", "o-1", "--node", "n-1")
    assert authorize(tmp_path, *words, capsys=capsys)[1]["account"] == "TEAM_B"
    accounts = (tmp_path / keys.CONFIG_FILE).read_text()
    code, made = authorize(tmp_path, "--node", "n-2", capsys=capsys)
    assert (code, made["account"]) == (0, "TEAM_B")
    again = (tmp_path / keys.CONFIG_FILE).read_text()
    assert "WILLIW:" not in again
    assert set(accounts.splitlines()) < set(again.splitlines())
    assert "TEAM_B" in (tmp_path / keys.LEAF_CONFIG_FILE).read_text()


def test_a_list_of_before_that_names_no_account_keeps_that_of_its_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authorize(tmp_path, "--account", "TEAM_B", "--origin", "o-1", capsys=capsys)
    listed = json.loads((tmp_path / members.FILE).read_text())
    del listed["account"]
    (tmp_path / members.FILE).write_text(json.dumps(listed))
    assert authorize(tmp_path, "--node", "n-2", capsys=capsys)[1]["account"] == "TEAM_B"
    assert json.loads((tmp_path / members.FILE).read_text())["account"] == "TEAM_B"


def test_another_account_for_the_same_keys_is_refused_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authorize(tmp_path, "--origin", "o-1", capsys=capsys)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert app.run(["provision", "--auth", str(tmp_path), "--account", "TEAM_B"]) == 2
    said = capsys.readouterr().err
    assert "these keys are of account WILLIW, and TEAM_B is another" in said
    assert "a directory of its own" in said
    assert before == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}


def test_two_machines_that_become_one_id_are_named_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["provision", "--auth", str(tmp_path), "--node", "a.b", "--node", "a_b"]) == 2
    assert "'a.b' and 'a_b' both become the id 'a_b'" in capsys.readouterr().err


def test_a_machine_that_has_a_key_may_be_named_by_its_id_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authorize(tmp_path, "--origin", "o-1", "--node", "a.b", capsys=capsys)
    code, made = authorize(tmp_path, "--node", "a_b", "--node", "a_b", capsys=capsys)
    assert (code, made["nodes"]) == (0, ["a_b"])
    assert members.read(tmp_path / members.FILE).nodes == ("a.b",)


def test_an_account_without_keys_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["provision", "--account", "TEAM_B", "--origin", "o-1"]) == 2
    assert "--account is about keys: it needs --auth DIR" in capsys.readouterr().err


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
