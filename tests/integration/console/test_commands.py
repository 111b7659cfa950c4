"""Commands that ask the bus, against one running house."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import pytest

from messages.metadata import ModelMetadata
from messages.plans import SplitPlan
from messages.wire import decode
from services.console.embedded import EmbeddedNats
from tests.integration.console.household import Up, started, until, williw
from tests.integration.faults.tiny import write_model

pytestmark = [pytest.mark.xdist_group("up"), pytest.mark.slow]


class House:
    """A running `williw up` and the model its downloader may take."""

    def __init__(self, home: Path, model: Path) -> None:
        self.home, self.model = home, model

    def ask(self, *words: str, code: int = 0) -> Any:
        """The JSON that a command answers with the exit code that is expected."""
        done = williw(*words, "--json", "--home", str(self.home))
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1]) if done.stdout else None

    def job(self) -> str:
        """A job that was brought to its end."""
        last = self.ask("request", str(self.model), "--wait")
        assert last["type"] == "JobCompleted"
        return str(last["job_id"])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One house for all tests of this file."""
    model = write_model(tmp_path_factory.mktemp("models") / "tiny")
    home = tmp_path_factory.mktemp("home")
    with Up(home, str(model), "--nodes", "2") as up:
        up.all_up(9)
        yield House(home, model)
        up.signal(signal.SIGINT)
        assert up.end(timeout_s=20)[0] == 0


def test_a_job_is_listed_and_told_and_its_plan_printed(house: House) -> None:
    job = house.job()
    assert job in {one["job_id"] for one in house.ask("jobs")}
    state = house.ask("status", job)
    assert (state["status"], state["model_name"]) == ("completed", "local/tiny")
    assert set(state["delivered"]) == {"node_001", "node_002"}
    done = williw("plan", job, "--home", str(house.home))
    assert decode(done.stdout.encode(), SplitPlan).plan_id == house.ask("plan", job)["plan_id"]
    explanation = house.ask("explain", job, "--without", "node_002")["explanation"]
    assert {one["node_id"] for one in explanation["stages"]} == {"node_001", "node_002"}
    assert explanation["asked"]["change"] == "without node_002"


def test_a_job_that_nobody_knows_is_code_1(house: House) -> None:
    for words in (["status"], ["plan"], ["cancel"], ["retry"], ["explain"]):
        done = williw(*words, "job-unknown", "--home", str(house.home))
        assert done.returncode == 1
        assert "no job job-unknown is known" in done.stderr


def test_an_ended_job_is_not_cancelled_but_can_be_tried_again(house: House) -> None:
    job = house.job()
    house.ask("cancel", job, code=1)
    last = house.ask("retry", job, "--wait")
    assert (last["type"], last["generation"]) == ("JobCompleted", 2)
    assert {node["node_id"] for node in last["nodes"]} == {"node_001", "node_002"}
    assert [node["from"] for node in last["nodes"]] == [
        {"held": node["bytes"]} for node in last["nodes"]
    ], "what a node holds is not moved to it again"
    assert house.ask("status", job)["generation"] == 2


def test_tap_shows_a_job_from_its_first_fact_to_its_end(house: House) -> None:
    job = house.job()
    done = williw("tap", job, "--json", "--home", str(house.home))
    kinds = [json.loads(line)["type"] for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert kinds[0] == "ModelRequested"
    assert kinds[-1] == "JobCompleted"
    assert {"ModelDownloaded", "ModelProfiled", "MetadataReady", "SplitPlanned"} <= set(kinds)


def test_a_tap_of_all_sees_what_is_said_from_now_on_and_ends_at_ctrl_c(house: House) -> None:
    seen: list[dict[str, Any]] = []
    with started("tap", "--json", "--home", str(house.home)) as tap:
        assert tap.stderr is not None
        assert tap.stderr.readline().startswith("listening")
        job = house.job()
        seen += _until_ended(tap, job)
        tap.send_signal(signal.SIGINT)
        assert tap.wait(timeout=10) == 0
    assert {one["type"] for one in seen if one["job_id"] == job} >= {"JobCompleted"}


def test_nodes_are_listed_as_a_nodes_file_has_them(house: House) -> None:
    nodes = house.ask("nodes")
    assert [one["node_id"] for one in nodes] == ["node_001", "node_002"]
    assert [one["origin"] for one in nodes] == [True, False]
    assert all(one["data_url"].startswith("http://127.0.0.1:") for one in nodes)


def test_pruning_takes_what_the_origin_kept_for_a_job_that_ended(house: House) -> None:
    house.job()
    shelf = house.home / "origin" / "stages"
    kept = list(shelf.glob("*/manifest.json"))
    assert kept
    for manifest in kept:
        os.utime(manifest, (1e9, 1e9))
    pruned = house.ask("node", "prune")["stages"]
    assert {str(manifest.parent) for manifest in kept} <= {one["directory"] for one in pruned}
    assert not list(shelf.glob("*/manifest.json"))
    house.job()


def test_without_a_bus_what_the_origin_keeps_is_left(tmp_path: Path) -> None:
    manifest = tmp_path / "origin" / "stages" / ("0" * 64) / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_bytes(b"{}")
    os.utime(manifest, (1e9, 1e9))
    done = williw("node", "prune", "--home", str(tmp_path), WILLIW_NATS_URL="nats://127.0.0.1:1")
    assert (done.returncode, "are left" in done.stderr) == (0, True), done.stderr
    assert manifest.exists()


def test_the_doctor_finds_nothing_wrong_in_a_running_house(house: House) -> None:
    found = house.ask("doctor")
    outcomes = {check["name"]: check["outcome"] for check in found["checks"]}
    assert found["ok"]
    assert outcomes["durability"] == "ok"
    assert {"bus", "jetstream", "provisioned", "clock", "nodes", "disk"} <= set(outcomes)


def test_the_doctor_says_what_a_bare_server_lacks(tmp_path: Path) -> None:
    with EmbeddedNats(tmp_path / "nats") as server:
        done = williw("doctor", "--nats-url", server.url, "--json", WILLIW_HOME=str(tmp_path))
        found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
        assert done.returncode == 1
        assert "williw provision" in found["provisioned"]["mend"]
        made = williw("provision", "--origin", "a", "--node", "b", "--nats-url", server.url)
        assert made.returncode == 0, made.stderr
        assert "distributor-node_assigned-b" in made.stdout
        done = williw("doctor", "--nats-url", server.url, WILLIW_HOME=str(tmp_path), NODE_ID="a")
        assert done.returncode == 0, done.stdout


def test_a_message_that_nobody_can_read_is_a_dead_letter_to_be_dropped(house: House) -> None:
    async def publish() -> None:
        client = await nats.connect((house.home / "run" / "nats.url").read_text().strip())
        await client.jetstream().publish("williw.model.request", b'{"model_name": 7}')
        await client.close()

    asyncio.run(publish())
    until(lambda: house.ask("dead", "list"), 20, "a dead letter")
    (letter,) = house.ask("dead", "list")
    number = str(letter["number"])
    assert house.ask("dead", "show", number)["message"] == {"model_name": 7}
    house.ask("dead", "retry", number, code=1)
    house.ask("dead", "drop", number)
    assert house.ask("dead", "list") == []
    house.ask("dead", "show", number, code=1)
    house.ask("dead", "drop", number, code=1)


def test_profile_preview_split_and_verify_make_a_chain_without_a_bus(
    house: House, tmp_path: Path
) -> None:
    metadata = tmp_path / "metadata.json"
    done = williw("profile", str(house.model), "--closed-form")
    assert decode(done.stdout.encode(), ModelMetadata).layers
    metadata.write_text(done.stdout)
    nodes = tmp_path / "nodes.toml"
    nodes.write_text(
        '[[nodes]]\nnode_id = "a"\ncompute_gflops = 10\nmemory_bytes = 1e9\n'
        '[[nodes]]\nnode_id = "b"\ncompute_gflops = 20\nmemory_bytes = 1e9\n'
    )
    words = ["preview", "--metadata", str(metadata), "--nodes", str(nodes), "--replicas", "1"]
    done = williw(*words)
    assert done.returncode == 0, done.stderr
    decode(done.stdout.encode(), SplitPlan)
    (tmp_path / "plan.json").write_text(done.stdout)
    out = tmp_path / "stages"
    cut = williw(
        "split", str(house.model), "--plan", str(tmp_path / "plan.json"), "--out", str(out)
    )
    assert cut.returncode == 0, cut.stderr
    dirs = [str(folder) for folder in sorted(out.iterdir())]
    assert williw("verify", *dirs, "--model", str(house.model)).returncode == 0
    assert williw("verify", dirs[0], "--model", str(house.model)).returncode == 1
    weights = next(Path(dirs[0]).glob("*.safetensors"))
    body = bytearray(weights.read_bytes())
    body[-1] ^= 1
    weights.write_bytes(body)
    assert williw("verify", *dirs).returncode == 1


def test_a_plan_that_cannot_be_is_code_1_with_the_reason(house: House, tmp_path: Path) -> None:
    metadata, nodes = tmp_path / "metadata.json", tmp_path / "nodes.json"
    metadata.write_text(williw("profile", str(house.model), "--closed-form").stdout)
    nodes.write_text('[{"node_id": "a", "compute_gflops": 1, "memory_bytes": 10}]')
    done = williw("preview", "--metadata", str(metadata), "--nodes", str(nodes))
    assert done.returncode == 1
    assert "memory" in done.stderr


def _until_ended(tap: subprocess.Popen[str], job: str) -> list[dict[str, Any]]:
    assert tap.stdout is not None
    seen: list[dict[str, Any]] = []
    for line in tap.stdout:
        seen.append(json.loads(line))
        if seen[-1]["job_id"] == job and seen[-1]["type"] == "JobCompleted":
            break
    return seen
