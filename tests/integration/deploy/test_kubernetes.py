"""The manifests: rendered by kubectl, judged by Kubernetes' schemas and by what williw needs."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from config import load
from config.settings import Settings
from services.console.household import SERVICES

FOLDER = Path(__file__).parents[3] / "deploy" / "kubernetes"
OVERLAYS = ("origin", "nodes", "gpu", "cluster")
KUBERNETES = "1.32"
# Not Kubernetes' own kind, so that its schemas do not know it.
FOREIGN = {"ScaledObject"}
OTHERS_NAMES = {
    "NODE_ID", "POD_IP", "HF_HOME", "HF_TOKEN_PATH", "HF_HUB_DISABLE_TELEMETRY",
    "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES",
}  # fmt: skip

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl renders the manifests, and it is not here"
)


@pytest.fixture(scope="module", params=OVERLAYS)
def objects(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return rendered(request.param)


def rendered(overlay: str) -> list[dict[str, Any]]:
    """The objects of an overlay as kubectl makes them."""
    done = subprocess.run(
        ["kubectl", "kustomize", FOLDER / "overlays" / overlay],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each workload with its pod's spec."""
    for each in objects:
        if each["kind"] in {"StatefulSet", "Deployment", "DaemonSet", "Job"}:
            yield each, each["spec"]["template"]["spec"]


def containers(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for _, pod in pods(objects):
        yield from pod["containers"]


def services(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (one for one in containers(objects) if one["name"] in SERVICES)


def environ(objects: list[dict[str, Any]]) -> dict[str, str]:
    found = [o for o in objects if o["kind"] == "ConfigMap" and "WILLIW_HOME" in o["data"]]
    assert len(found) == 1
    return dict(found[0]["data"])


def test_every_object_is_one_that_kubernetes_takes(objects: list[dict[str, Any]]) -> None:
    for each in objects:
        if each["kind"] not in FOREIGN:
            kubernetes_validate.validate(each, KUBERNETES, strict=True)


def test_a_misspelt_key_is_refused_so_the_judgement_means_something(
    objects: list[dict[str, Any]],
) -> None:
    workload, _ = next(pods(objects))
    wrong = {**workload, "spec": {**workload["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_every_pod_is_restricted(objects: list[dict[str, Any]]) -> None:
    for _, pod in pods(objects):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert not any("hostPath" in volume for volume in pod["volumes"])
    for container in containers(objects):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


def test_each_service_runs_and_is_probed_on_its_own_port(objects: list[dict[str, Any]]) -> None:
    for container in services(objects):
        name = container["name"]
        assert container["args"][0] == "run"
        assert container["args"][-1] == name
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        values = {e["name"]: e.get("value") for e in container["env"]}
        assert values["WILLIW_HEALTH_PORT"] == str(ports[name])
        for probe, path in (
            ("startup", "/livez"),
            ("readiness", "/readyz"),
            ("liveness", "/livez"),
        ):
            asked = container[f"{probe}Probe"]["httpGet"]
            assert (asked["path"], asked["port"]) == (path, name)


def test_an_origin_has_every_service_of_an_origin(objects: list[dict[str, Any]]) -> None:
    found = {
        w["metadata"]["name"]: {c["name"] for c in pod["containers"]} for w, pod in pods(objects)
    }
    assert found["williw-origin"] == set(SERVICES) - {"planner", "requester"}
    assert found["williw-planner"] == {"planner"}
    assert found["williw-requester"] == {"requester"}
    assert set.union(*found.values()) >= set(SERVICES)


def test_stopping_is_given_longer_than_the_services_take(objects: list[dict[str, Any]]) -> None:
    for workload, pod in pods(objects):
        if workload["kind"] != "Job":
            assert pod["terminationGracePeriodSeconds"] > Settings().bus.grace_s * 2


def test_every_setting_is_one_that_config_knows(objects: list[dict[str, Any]]) -> None:
    known = (
        {
            f"WILLIW_{section}_{key}".upper()
            for section, kind in load.sections().items()
            for key in kind.__struct_fields__
        }
        | {"WILLIW_NATS_URL", "WILLIW_HOME"}
        | OTHERS_NAMES
    )
    assert environ(objects).keys() <= known
    for container in services(objects):
        values = {e["name"]: e.get("value", "stands-for-it") for e in container["env"]}
        assert values.keys() <= known
        load.load(environ={**environ(objects), **values})


def allowed_on(pod: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a pod may run on a machine with these labels."""
    affinity = pod.get("affinity", {}).get("nodeAffinity", {})
    terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {})
    holds = {
        "In": lambda one: labels.get(one["key"]) in one["values"],
        "NotIn": lambda one: labels.get(one["key"]) not in one["values"],
    }
    return all(
        holds[one["operator"]](one)
        for term in terms.get("nodeSelectorTerms", ())
        for one in term["matchExpressions"]
    )


def test_no_machine_is_announced_by_two_distributors(objects: list[dict[str, Any]]) -> None:
    announcing = {
        w["metadata"]["name"]: (w["spec"]["template"]["metadata"]["labels"], pod)
        for w, pod in pods(objects)
        if any(container["name"] == "distributor" for container in pod["containers"])
    }
    for labels in ({}, {"williw/role": "origin"}, {"williw/role": "other"}):
        allowed = [name for name, (_, pod) in announcing.items() if allowed_on(pod, labels)]
        assert len(allowed) == 1
    own, origin = announcing["williw-origin"]
    (apart,) = origin["affinity"]["podAntiAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    assert apart["topologyKey"] == "kubernetes.io/hostname"
    assert apart["labelSelector"]["matchLabels"].items() <= own.items()


def test_with_gpus_a_distributor_goes_where_gpus_keep_others_away_and_sees_them() -> None:
    (pod,) = (p for w, p in pods(rendered("gpu")) if w["kind"] == "DaemonSet")
    (other,) = (p for w, p in pods(rendered("nodes")) if w["kind"] == "DaemonSet")
    assert pod["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]
    assert pod["runtimeClassName"] == "nvidia"
    (container,), (plain,) = pod["containers"], other["containers"]
    seen = {e["name"]: e.get("value") for e in container["env"]}
    assert seen["NVIDIA_VISIBLE_DEVICES"] == "all"
    # It takes no GPU away from the engines.
    assert container["resources"] == plain["resources"]
    assert [e for e in container["env"] if not e["name"].startswith("NVIDIA_")] == plain["env"]
