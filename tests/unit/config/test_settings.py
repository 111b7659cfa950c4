"""Settings: what the file documents is what the code does; typos and absurd values are errors."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

import config
from config.load import BadSettings, as_environ, load
from config.logging import masked, without_secrets
from config.settings import Settings

DOCUMENTED = Path(config.__file__).with_name("williw.toml")


def test_the_documented_file_names_every_setting_with_its_default() -> None:
    uncommented = re.sub(r"(?m)^# (?=\w+ = )", "", DOCUMENTED.read_text())
    documented = tomllib.loads(uncommented)
    defaults = msgspec.to_builtins(Settings())
    assert documented == msgspec.json.decode(msgspec.json.encode(defaults))


def test_the_file_overrides_defaults_and_the_environment_the_file(tmp_path: Path) -> None:
    file = tmp_path / "williw.toml"
    file.write_text('[bus]\nurl = "nats://file:1"\nlease_s = 7\n[node]\nnode_id = "n1"\n')
    settings = load(file, {"WILLIW_NATS_URL": "nats://env:1", "WILLIW_NODE_ORIGIN": "true"})
    assert (settings.bus.url, settings.bus.lease_s) == ("nats://env:1", 7.0)
    assert (settings.node.node_id, settings.node.origin) == ("n1", True)


def test_the_names_of_the_first_users_are_kept() -> None:
    settings = load(environ={"NODE_ID": "node_001", "METADATA_REPO": "me/metadata"})
    assert settings.node.node_id == "node_001"
    assert settings.uploader.metadata_repo == "me/metadata"


def test_the_relay_is_understood_where_it_stood_before(tmp_path: Path) -> None:
    file = tmp_path / "williw.toml"
    file.write_text('[distributor]\nrelay = "star"\nport = 7\n')
    settings = load(file, {})
    assert (settings.planner.relay, settings.distributor.port) == ("star", 7)
    assert load(environ={"WILLIW_DISTRIBUTOR_RELAY": "chain"}).planner.relay == "chain"
    assert load(file, {"WILLIW_PLANNER_RELAY": "auto"}).planner.relay == "auto"
    file.write_text('[distributor]\nrelay = "star"\n[planner]\nrelay = "chain"\n')
    assert load(file, {}).planner.relay == "chain"
    file.write_text('[distributor]\nrelay = "ring"\n')
    with pytest.raises(BadSettings, match="relay"):
        load(file, {})


def test_overrides_travel_to_a_child_by_its_environment() -> None:
    overrides: dict[str, dict[str, object]] = {
        "node": {"node_id": "n1", "origin": True, "compute_gflops": 12.5},
        "downloader": {"local_roots": ["/a, b", "/c"]},
        "bus": {"retry_delays_s": [0.5, 1]},
    }
    assert load(environ=as_environ(overrides)) == load(environ={}, overrides=overrides)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[buss]\n", r"unknown setting \[buss\].*did you mean bus\?"),
        ("[bus]\nlease = 3\n", r"unknown setting lease in \[bus\].*did you mean lease_s\?"),
        ("[bus]\nlease_s = -1\n", "lease_s"),
        ("[bus]\nlease_s = 'soon'\n", "lease_s"),
        ("[planner]\nheadroom = 1.5\n", "headroom"),
        ("[planner]\nheadroom = nan\n", "headroom"),
        ("[node]\nnode_id = 'a.b'\n", "node id 'a.b'"),
        ("[node]\nnode_id = '*'\n", "node id"),
        ("bus = 3\n", "must be a table"),
        ("[bus\n", "is not TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "williw.toml"
    file.write_text(text)
    with pytest.raises(BadSettings, match=said):
        load(file, {})


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="No such file"):
        load(tmp_path / "none.toml", {})


@pytest.mark.parametrize(
    "secret",
    [
        "hf_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789",
        "Bearer abc.def",
        "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY",
    ],
)
def test_a_secret_in_a_log_is_masked(secret: str) -> None:
    assert secret not in masked(f"cannot fetch with {secret}: 401")
    event = without_secrets(None, "", {"event": f"used {secret}", "token": "x", "n": 1})
    assert secret not in str(event)
    assert event["token"] == "***"
    assert event["n"] == 1


def test_user_and_password_of_an_address_are_masked() -> None:
    assert masked("nats://me:pw@host:4222") == "nats://***host:4222"
