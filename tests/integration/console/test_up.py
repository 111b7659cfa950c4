"""`williw up`: a whole house on one machine, its model brought, nothing left behind."""

import json
import signal
from pathlib import Path

import pytest

from tests.integration.console.household import Up, alive, kill_and_wait, until, williw
from tests.integration.faults.tiny import write_model

CHILDREN = {
    "requester",
    "downloader",
    "profiler",
    "uploader",
    "planner",
    "splitter",
    "distributor-node_001",
    "distributor-node_002",
    "distributor-node_003",
    "nats-server",
}
pytestmark = [pytest.mark.xdist_group("up"), pytest.mark.slow]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model on disk."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


def test_a_model_comes_to_three_nodes_verified_and_a_second_time_nothing_moves(
    model: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    with Up(home, str(model), "--exit-when-done") as up:
        code, lines = up.end()
    last = lines[-1]
    assert code == 0, last
    assert last["type"] == "JobCompleted"
    assert last["verified"] is True
    assert {line["job_id"] for line in lines} == {last["job_id"]}
    assert all(line["type"] and line["at"] > 1e9 for line in lines)
    assert {"download", "profile", "upload", "plan", "cut", "deliver"} <= set(last["stages"])
    assert last["plan"]["plan_id"]
    assert {node["node_id"] for node in last["nodes"]} == {"node_001", "node_002", "node_003"}
    for node in last["nodes"]:
        assert Path(node["stage_dir"], "williw.stage.json").is_file()
        assert sum(node["from"].values()) == node["bytes"]
    dirs = [node["stage_dir"] for node in last["nodes"]]
    checked = williw("verify", *dirs, "--model", str(model), "--json")
    assert checked.returncode == 0, checked.stdout
    assert json.loads(checked.stdout)["coverage"] == "whole"

    real = [Path(folder).resolve() for folder in dirs]
    with Up(home, str(model), "--exit-when-done") as up:
        code, lines = up.end()
    assert code == 0
    assert all(set(node["from"]) == {"held"} for node in lines[-1]["nodes"])
    assert [Path(folder).resolve() for folder in dirs] == real


def test_what_was_started_is_named_by_pid_files_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    with Up(tmp_path) as up:
        pids = up.all_up(len(CHILDREN))
        assert set(pids) == CHILDREN
        assert all(alive(pid) for pid in pids.values())
        url = (tmp_path / "run" / "nats.url").read_text().strip()
        assert url.startswith("nats://127.0.0.1:")
        up.signal(signal.SIGINT)
        code, _ = up.end(timeout_s=20)
    assert code == 0
    assert not [name for name, pid in pids.items() if alive(pid)]
    assert not list((tmp_path / "run").glob("*.pid"))
    assert not (tmp_path / "run" / "nats.url").exists()


def test_children_and_the_server_that_are_killed_are_started_again_and_work(
    model: Path, tmp_path: Path
) -> None:
    with Up(tmp_path, str(model)) as up:
        before = up.all_up(len(CHILDREN))
        killed = {"splitter", "planner", "nats-server"}
        for name in sorted(killed):
            kill_and_wait(before[name])
        until(lambda: not set(before.items()) & _of(up, killed), 30, "new processes")
        asked = williw("request", str(model), "--wait", "--json", "--home", str(tmp_path))
        last = json.loads(asked.stdout.splitlines()[-1])
        assert asked.returncode == 0, asked.stdout + asked.stderr
        assert last["type"] == "JobCompleted"
        assert _of(up, CHILDREN - killed) <= set(before.items())
        up.signal(signal.SIGTERM)
        assert up.end(timeout_s=20)[0] == 0


def test_nothing_outlives_an_up_that_is_killed_and_the_home_can_be_used_again(
    tmp_path: Path,
) -> None:
    with Up(tmp_path) as up:
        pids = up.all_up(len(CHILDREN))
        up.signal(signal.SIGKILL)
        until(lambda: not any(alive(pid) for pid in pids.values()), 20, "every child to end")
    with Up(tmp_path) as again:
        until(lambda: set(again.pids().values()) & set(pids.values()) == set(), 20, "new pids")
        again.all_up(len(CHILDREN))
        second = williw("up", "--home", str(tmp_path))
        assert second.returncode == 2
        assert "already" in second.stderr
        again.signal(signal.SIGINT)
        assert again.end(timeout_s=20)[0] == 0


def test_a_job_that_fails_ends_up_with_code_1_and_says_why(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with Up(tmp_path / "home", str(empty), "--nodes", "1", "--exit-when-done") as up:
        code, lines = up.end()
    assert code == 1
    assert lines[-1]["type"] == "JobFailed"
    assert lines[-1]["reason"]
    assert lines[-1]["advice"]


def _of(up: Up, names: set[str]) -> set[tuple[str, int]]:
    return {(name, pid) for name, pid in up.pids().items() if name in names}
