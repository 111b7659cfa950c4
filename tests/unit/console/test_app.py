"""The command line as a contract: names, help, examples, exit codes of what needs no bus."""

import json
from pathlib import Path

import pytest

from messages.wire import encode
from services.console import app
from tests.unit.splitter.small import NAMES, plan_of, write_model

COMMANDS = (
    "up",
    "run",
    "request",
    "tap",
    "jobs",
    "status",
    "plan",
    "cancel",
    "retry",
    "explain",
    "nodes",
    "profile",
    "preview",
    "split",
    "verify",
    "provision",
    "schema",
    "doctor",
)
GROUPED = [["dead", name] for name in ("list", "show", "retry", "drop")] + [["node", "prune"]]
FLAGS = {
    "up": "--nodes --nodes-file --home --strategy --relay --batch-size --sequence-length "
    "--exit-when-done",
    "run": "--provision",
    "request": "--revision --batch-size --sequence-length --strategy --relay --wait",
    "profile": "--batch-size --sequence-length",
    "preview": "--metadata --nodes --strategy --headroom --replicas --objective --explain --add "
    "--without",
    "split": "--plan --out --node --jobs",
    "verify": "--model",
    "provision": "--node --origin",
}


@pytest.mark.parametrize("words", [[name] for name in COMMANDS] + GROUPED, ids=" ".join)
def test_every_command_has_help_with_an_example_and_json(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run([*words, "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"Example: williw {' '.join(words)}" in told
    assert "--json" in told
    for flag in FLAGS.get(words[0], "").split():
        assert flag in told


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in [*COMMANDS, "dead", "node"])


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["up", "--nodez", "3"],
        ["up", "--nodes", "0"],
        ["up", "--nodes", "3", "--nodes-file", "x"],
        ["up", "--nodes-file", "/nowhere.json"],
        ["up", "/no/such/model"],
        ["up", "../escape\n"],
        ["up", "--exit-when-done"],
        ["run"],
        ["run", "nobody"],
        ["request"],
        ["request", "a/b/c"],
        ["request", "org/name", "--batch-size", "0"],
        ["status", "no.such*id"],
        ["preview", "--nodes", "x"],
        ["preview", "--nodes", "/nowhere", "--metadata", "/nowhere"],
        ["verify"],
        ["verify", "/nowhere"],
        ["split", "/nowhere", "--plan", "x", "--out", "y"],
        ["split", ".", "--plan", "x", "--out", "y", "--jobs", "0"],
        ["split", ".", "--plan", "x", "--out", "y", "--jobs", "9999999"],
        ["node", "prune", "--models", "/nowhere"],
        ["node", "prune", "--models", ".", "--quota-bytes", "-1"],
        ["schema", "Nothing"],
        ["dead", "drop"],
        ["provision", "--node", "a/b"],
    ],
    ids=" ".join,
)
def test_what_the_user_got_wrong_is_exit_code_2(
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WILLIW_HOME", str(tmp_path))
    assert app.run(words) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err


def test_a_place_where_no_stage_can_go_is_exit_code_2_with_advice(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model, plan = write_model(tmp_path / "model"), tmp_path / "plan.json"
    plan.write_bytes(encode(plan_of(NAMES)))
    (tmp_path / "out" / "n0").mkdir(parents=True)
    (tmp_path / "out" / "n0" / "notes").write_text("mine")
    words = ["split", str(model), "--plan", str(plan), "--out"]
    for out in (tmp_path / "out", model / "stages"):
        assert app.run([*words, str(out)]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert str(out) in told.err
        assert "--out" in told.err
    assert app.run([*words, str(tmp_path / "other")]) == 0


def test_a_bad_setting_is_exit_code_2_and_names_the_one_that_was_meant(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WILLIW_CONFIG", "")
    file = tmp_path / "williw.toml"
    file.write_text("[bus]\nlease = 3\n")
    assert app.run(["--config", str(file), "jobs"]) == 2
    assert "did you mean lease_s?" in capsys.readouterr().err


def test_no_bus_is_exit_code_3(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WILLIW_BUS_CONNECT_TIMEOUT_S", "0.3")
    monkeypatch.setenv("WILLIW_NATS_URL", "nats://someone:secret@127.0.0.1:1")
    for words in (["jobs"], ["request", "org/name"], ["doctor"], ["tap"]):
        assert app.run(words) == 3, words
    told = capsys.readouterr()
    assert "no NATS server answers" in told.err
    assert "secret" not in told.out + told.err


def test_every_message_and_file_has_a_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["schema", "--json"]) == 0
    every = json.loads(capsys.readouterr().out)
    wanted = "ModelRequest SplitPlan ModelMetadata StageManifest Node NodeEntry Settings JobFailed"
    assert set(wanted.split()) <= set(every)
    assert app.run(["schema", "ModelRequest"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert one == every["ModelRequest"]
    assert one["$defs"]["ModelRequest"]["properties"]["model_name"]["maxLength"] == 512
