"""The Secrets that `--auth --kubernetes` writes are those that the manifests name, key by key."""

import base64
import json
import re
import shlex
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from deploy.demo.servers import certify
from services.console import app, cluster_secrets, embedded, members
from services.console.embedded import EmbeddedNats

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "kubernetes"
PODS = ("williw-origin-0", "williw-origin-1")
MACHINES = ("gpu-1", "gpu-2.example.com", "a-" + 30 * "very-" + "long.name")
# Made with openssl, or by whoever certifies the site's machines: docs/deploy.md.
OTHERS = {"williw-nats-tls", "williw-hub"}


def documents(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(folder.glob("*.yaml")):
        yield from (each for each in yaml.safe_load_all(file.read_text()) if each)


def pod_of(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document.get("spec", {}).get("template", {}).get("spec", {})
    return found


def environ(workload: str, container: str) -> dict[str, str]:
    """The variables of a container that have a value of their own."""
    for folder in ("base", "components/nodes"):
        for document in documents(FOLDER / folder):
            for each in pod_of(document).get("containers", ()):
                if (document["metadata"]["name"], each["name"]) == (workload, container):
                    return {e["name"]: e["value"] for e in each.get("env", ()) if "value" in e}
    raise AssertionError(f"nobody knows {workload}/{container}")


def named_by_the_manifests() -> set[tuple[str, str]]:
    """Each Secret's key that a container mounts, in every pod that there will be."""
    found: set[tuple[str, str]] = set()
    for document in documents(FOLDER / "components" / "locked"):
        pod, workload = pod_of(document), document.get("metadata", {}).get("name", "")
        secrets = {v["name"]: v["secret"]["secretName"] for v in pod.get("volumes", ())}
        for container in pod.get("containers", ()):
            own = environ(workload, container["name"])
            for mount in container["volumeMounts"]:
                secret = secrets[mount["name"]]
                if secret in OTHERS:
                    continue
                for node_id in (own["NODE_ID"],) if "NODE_ID" in own else PODS:
                    for machine in MACHINES:
                        values = {"NODE_ID": node_id, "WILLIW_NODE_MACHINE": machine}
                        key = re.sub(r"\$\((\w+)\)", lambda m: values[m[1]], mount["subPathExpr"])  # noqa: B023
                        found.add((secret, key))
    return found


def command_of_the_page(folder: Path) -> list[str]:
    """The command line of docs/deploy.md that makes the Secrets, for these pods and machines."""
    page = (ROOT / "docs" / "deploy.md").read_text().replace("\\\n", " ")
    (line,) = re.findall(r"^williw (provision --auth auth --kubernetes .*)$", page, re.MULTILINE)
    words = shlex.split(line)
    assert words[words.index("--auth") + 1] == "auth"
    words = words[: words.index("--origin")]
    words[words.index("auth")] = str(folder)
    named = [("--origin", pod) for pod in PODS] + [("--node", machine) for machine in MACHINES]
    return [*words, *(word for pair in named for word in pair)]


@pytest.fixture
def made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A directory of keys with its Secrets, by the documented command."""
    assert app.run(command_of_the_page(tmp_path / "auth")) == 0
    assert f"apply --server-side -f {tmp_path}/auth/kubernetes.json" in capsys.readouterr().out
    return tmp_path / "auth"


def secrets(folder: Path) -> dict[str, dict[str, bytes]]:
    items = json.loads((folder / cluster_secrets.FILE).read_bytes())["items"]
    return {
        item["metadata"]["name"]: {k: base64.b64decode(v) for k, v in item["data"].items()}
        for item in items
    }


def test_every_key_that_a_manifest_names_is_written_and_every_one_written_is_named(
    made: Path,
) -> None:
    found = {(name, key) for name, data in secrets(made).items() for key in data}
    assert ("williw-node-keys", "gpu-2.example.com.distributor.nk") in found
    # The servers mount theirs whole, and include the one file in it.
    conf = (FOLDER / "components" / "nats-cluster" / "nats.conf").read_text()
    (included,) = re.findall(r"include ../nats-auth/(\S+)", conf)
    # Every copy of the planner and the requester shows the first origin's key.
    spare = {("williw-keys", f"{PODS[1]}.{name}.nk") for name in ("planner", "requester")}
    assert found - spare == named_by_the_manifests() | {("williw-auth", included)}


def test_each_secret_holds_the_file_that_it_is_called_for(made: Path) -> None:
    kept = secrets(made)
    for key, body in {**kept["williw-keys"], **kept["williw-node-keys"]}.items():
        owner, service = key.removesuffix(".nk").rsplit(".", 1)
        node_id = next((i for i, name in _ids(made).items() if name == owner), owner)
        assert body == (made / node_id / f"{service}.nk").read_bytes()
    assert kept["williw-operator"]["operator.nk"] == (made / "operator.nk").read_bytes()
    every = [body for data in kept.values() for key, body in data.items() if key.endswith(".nk")]
    assert len(set(every)) == len(every)


def _ids(folder: Path) -> dict[str, str]:
    found = members.read(folder / members.FILE)
    return dict(zip(found.node_ids, found.nodes, strict=True))


def test_kubernetes_takes_them_and_nobody_else_reads_the_file(made: Path) -> None:
    file = made / cluster_secrets.FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for item in json.loads(file.read_bytes())["items"]:
        kubernetes_validate.validate(item, "1.32", strict=True)
        assert all(re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", key) for key in item["data"])


def test_another_machine_leaves_the_others_keys_and_names_as_they_were(made: Path) -> None:
    before = secrets(made)
    assert app.run(["provision", "--auth", str(made), "--kubernetes", "--node", "b.example"]) == 0
    after = secrets(made)
    assert set(after["williw-node-keys"]) - set(before["williw-node-keys"]) == {
        "b.example.distributor.nk"
    }
    for name in ("williw-keys", "williw-node-keys"):
        assert before[name].items() <= after[name].items()


def test_more_nodes_than_a_secret_can_list_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [word for k in range(1300) for word in ("--node", f"n-{k}.example.com")]
    words = ["provision", "--auth", str(tmp_path / "many"), *nodes]
    assert app.run(words) == 0
    assert app.run([*words, "--kubernetes"]) == 2
    assert "the Secret williw-auth would hold" in capsys.readouterr().err


@pytest.mark.parametrize("component", ["nats", "nats-cluster"])
def test_the_servers_take_their_configuration_from_where_a_pod_has_it(
    made: Path, tmp_path: Path, component: str
) -> None:
    etc = tmp_path / "etc"
    certify(etc / "nats-tls")
    for name in ("crt", "key"):
        (etc / "nats-tls" / f"server.{name}").rename(etc / "nats-tls" / f"tls.{name}")
    (etc / "nats-auth").mkdir()
    conf = secrets(made)["williw-auth"]["williw-auth.conf"]
    (etc / "nats-auth" / "williw-auth.conf").write_bytes(conf)
    (etc / "nats").mkdir()
    text = (FOLDER / "components" / component / "nats.conf").read_text()
    for place in ("/etc/nats-tls", "/data"):
        text = text.replace(f" {place}", f" {tmp_path}{place}")
    (etc / "nats" / "nats.conf").write_text(text)
    done = subprocess.run(
        [embedded.nats_server(), "-t", "--config", etc / "nats" / "nats.conf"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "is valid" in done.stdout + done.stderr


def test_the_job_makes_a_consumer_for_every_member_of_the_list(
    made: Path, nats_server: EmbeddedNats, capsys: pytest.CaptureFixture[str]
) -> None:
    (job,) = [d for d in documents(FOLDER / "components" / "locked") if d["kind"] == "Job"]
    (container,) = pod_of(job)["containers"]
    args = [
        str(made / "members.json") if word == "/etc/williw/members.json" else word
        for word in container["args"]
    ]
    capsys.readouterr()
    assert app.run([*args, "--json", "--nats-url", nats_server.url]) == 0
    consumers = json.loads(capsys.readouterr().out)["consumers"]
    ids = [*PODS, *_ids(made)]
    assert len(ids) == len(PODS) + len(MACHINES)
    assert {f"distributor-node_assigned-{each}" for each in ids} <= set(consumers)
    assert {f"splitter-split_planned-{pod}" for pod in PODS} <= set(consumers)
