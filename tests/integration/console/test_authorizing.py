"""`williw provision --auth` as a user meets it: keys, accounts, and a server that takes them."""

import json
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import nats
import pytest
from nats.aio.client import Client

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


@contextmanager
def serving(folder: Path, *auths: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server with the accounts in these directories of `folder`; its address and process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "nats.conf"
    included = "\n".join(f" include {auth}/{keys.CONFIG_FILE}" for auth in auths)
    config.write_text(
        f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{folder}/store" }}\n'
        f"accounts {{\n{included}\n}}\n"
    )
    process = children.spawn([embedded.nats_server(), "-c", str(config)], folder / "nats.log")
    try:
        wait_for_port(port, folder / "nats.log")
        yield f"nats://127.0.0.1:{port}", process
    finally:
        children.end(process)
        process.wait(10)


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
        ("--origin", "o", "--account", "TEAM_B_CLIENT"),
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


async def test_a_revoked_node_is_put_out_at_the_next_reload_and_nobody_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    auth = tmp_path / "auth"
    authorize(auth, "--origin", "o-1", "--node", "n-1", "--node", "n-2", capsys=capsys)
    # What the node has keeps lying there.
    for node in ("n-1", "n-2"):
        (tmp_path / f"{node}.nk").write_bytes((auth / node / keys.NODE_KEY).read_bytes())
    with serving(tmp_path, "auth") as (url, server):
        gone = await once(url, tmp_path / "n-1.nk")
        stays = await once(url, tmp_path / "n-2.nk")
        code, made = authorize(auth, "--revoke", "n-1", capsys=capsys)
        assert (code, made["nodes"], made["revoked"]) == (0, ["n-2"], ["n-1"])
        assert not (auth / "n-1").exists()
        server.send_signal(signal.SIGHUP)
        with anyio.fail_after(30):
            while not gone.is_closed:  # noqa: ASYNC110  # the server's doing
                await anyio.sleep(0.02)
        await stays.flush()
        await stays.close()
    accounts = (auth / keys.CONFIG_FILE).read_text()
    assert keys.seed(tmp_path / "n-2.nk") in accounts
    assert keys.seed(tmp_path / "n-1.nk") not in accounts


async def once(url: str, key: Path) -> Client:
    """A connection with this key that does not come back once it was lost."""
    return await nats.connect(url, nkeys_seed=str(key), allow_reconnect=False)


def test_a_key_named_in_both_is_made_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authorize(tmp_path, "--origin", "o-1", "--node", "a.b", capsys=capsys)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.nk")}
    code, made = authorize(tmp_path, "--revoke", "a_b", "--node", "a.b", capsys=capsys)
    assert (code, made["nodes"]) == (0, ["a_b"])
    changed = {file for file, body in before.items() if file.read_bytes() != body}
    assert changed == {tmp_path / "a_b" / keys.NODE_KEY}


@pytest.mark.parametrize(
    ("revoked", "said"), [("n-9", "n-9 has no key here"), ("o-1", "nobody would be left")]
)
def test_a_key_that_cannot_be_taken_away_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], revoked: str, said: str
) -> None:
    authorize(tmp_path, "--origin", "o-1", capsys=capsys)
    assert app.run(["provision", "--auth", str(tmp_path), "--revoke", revoked]) == 2
    assert said in capsys.readouterr().err
    assert (tmp_path / "o-1" / keys.NODE_KEY).exists()


async def test_two_teams_on_one_server_hear_nothing_of_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for team in ("TEAM_A", "TEAM_B"):
        authorize(tmp_path / team, "--account", team, "--origin", "o-1", capsys=capsys)
    with serving(tmp_path, "TEAM_A", "TEAM_B") as (url, _):
        bus = {"url": url, "connect_timeout_s": 5.0}
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
