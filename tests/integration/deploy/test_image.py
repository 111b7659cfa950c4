"""The Dockerfile: linted, its promises read from its instructions, its steps run as scripts.

No test builds an image: that needs an engine and an index. What is run is what needs neither.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.utils import canonicalize_name

from tests.integration.deploy import dockerfile, packed

STEPS = dockerfile.steps(dockerfile.FILE.read_text())
LINTER = shutil.which("hadolint", path=str(Path(sys.executable).parent))
PROJECT = tomllib.loads((dockerfile.REPOSITORY / "pyproject.toml").read_text())["project"]
KUBERNETES = dockerfile.REPOSITORY / "deploy" / "kubernetes"


def of(stage: str, name: str) -> list[str]:
    return [step.rest for step in STEPS if (step.stage, step.name) == (stage, name)]


def running(stage: str, word: str) -> dockerfile.Step:
    """The one RUN step of a stage that holds a word."""
    (found,) = [s for s in STEPS if (s.stage, s.name) == (stage, "RUN") and word in s.rest]
    return found


def lint(text: str) -> subprocess.CompletedProcess[str]:
    assert LINTER is not None
    return subprocess.run(
        [LINTER, "--no-color", "-"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@pytest.mark.skipif(LINTER is None, reason="hadolint is not installed beside this Python")
def test_the_linter_finds_nothing_here_and_something_in_a_worse_one() -> None:
    text = dockerfile.FILE.read_text()
    clean = lint(text)
    assert clean.returncode == 0, clean.stdout
    worse = lint(
        text.replace("ARG BASE=python:3.11.14-slim-bookworm", "").replace("${BASE}", "python")
    )
    assert worse.returncode == 1
    assert "DL3006" in worse.stdout


def test_kubernetes_images_are_its_targets() -> None:
    texts = [file.read_text() for file in sorted(KUBERNETES.rglob("*.yaml"))]
    named = set(re.findall(r"\bimage: (\S+)", "".join(texts))) - {"nats"}
    assert named == {"williw", "williw-profiler"}
    assert named <= {step.stage for step in STEPS}
    assert STEPS[-1].stage == "williw"


def test_the_user_and_the_volumes_are_those_that_kubernetes_gives() -> None:
    origin = next(yaml.safe_load_all((KUBERNETES / "base" / "origin.yaml").read_text()))
    pod = origin["spec"]["template"]["spec"]
    number = pod["securityContext"]["runAsUser"]
    for stage in ("common", "williw-profiler"):
        assert of(stage, "USER")[-1] == f"{number}:{number}"
    mounted = {
        m["mountPath"] for m in pod["containers"][0]["volumeMounts"] if not m.get("readOnly")
    }
    (volumes,) = of("common", "VOLUME")
    assert set(yaml.safe_load(volumes)) == mounted
    (environ,) = [e for e in of("common", "ENV") if "WILLIW_HOME" in e]
    values = dict(pair.split("=", 1) for pair in environ.split())
    for name in ("HOME", "WILLIW_HOME", "HF_HOME"):
        assert any(Path(values[name]).is_relative_to(volume) for volume in mounted), name


def test_the_image_is_the_command_and_leaves_probing_to_kubernetes() -> None:
    assert of("common", "ENTRYPOINT") == ['["williw"]']
    assert of("common", "HEALTHCHECK") == ["NONE"]


def test_its_version_is_the_project_s_and_its_base_has_a_whole_tag() -> None:
    assert f"VERSION={PROJECT['version']}" in of("common", "ARG")
    (base,) = of("", "ARG")
    assert re.fullmatch(r"BASE=python:3\.11\.\d+-slim-\w+", base)


def test_what_it_copies_is_in_the_context_and_the_context_is_no_more() -> None:
    copied = [Path(path) for rest in of("build", "COPY") for path in rest.split()[:-1]]
    copied.append(Path("constraints.txt"))  # mounted, for torch's number
    for one in copied:
        assert any(Path(path).is_relative_to(one) for path in dockerfile.context()), one
    for path in dockerfile.context():
        assert any(Path(path).is_relative_to(one) for one in copied), path


def test_only_the_profiler_s_image_has_torch_and_that_from_an_index_of_its_own() -> None:
    assert not any("torch" in step.rest for step in STEPS if step.stage in {"build", "common"})
    run = running("williw-profiler", "torch").rest
    assert run.index("--index-url") < run.index("/lock/profile.txt")
    assert of("williw-profiler", "ARG")[-1] == "TORCH_INDEX", "an index by default could be CUDA's"


def test_without_an_index_for_torch_the_profiler_s_image_says_so_and_stops(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    with pytest.raises(AssertionError, match="give --build-arg TORCH_INDEX="):
        dockerfile.run(running("williw-profiler", "torch"), tmp_path, TORCH_INDEX="")


def numbers() -> dict[str, str]:
    """The versions of constraints.txt."""
    lines = (dockerfile.REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and line[0] != "#"]
    return {str(canonicalize_name(name)): version for name, version in pins}


def locked(name: str) -> dict[str, str]:
    """The versions of a lock, each of which has the SHA-256 of a file at least."""
    text = (dockerfile.REPOSITORY / "deploy" / "lock" / f"{name}.txt").read_text()
    lines = [line for line in text.replace("\\\n", " ").splitlines() if not line.startswith("#")]
    found: dict[str, str] = {}
    for line in lines:
        pin, *hashes = line.split()
        project, version = pin.split("==")
        assert hashes
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes), line
        found[str(canonicalize_name(project))] = version
    return found


def test_the_locks_hold_the_hashes_of_what_the_images_install_in_the_versions_tested() -> None:
    base = packed.closure(tuple(PROJECT["dependencies"]))
    profiled = packed.closure(tuple(PROJECT["optional-dependencies"]["profile"]))
    assert locked("williw").keys() == base - {"nkeys"}
    assert locked("source").keys() == {"nkeys"}
    assert locked("profile").keys() == profiled - base - {"torch"}
    assert {"setuptools", "wheel"} <= locked("build").keys()
    for name in ("build", "source", "williw", "profile"):
        pins = locked(name)
        assert pins == {project: numbers()[project] for project in pins}


def test_nothing_is_installed_without_its_hash_but_torch_and_the_wheels_made_here() -> None:
    commands = [c for s in STEPS if s.name == "RUN" for c in s.rest.split(" && ")]
    pip = [c for c in commands if re.search(r"\bpip\b.* (install|wheel) ", c)]
    unchecked = [c for c in pip if "--require-hashes" not in c]
    assert len(pip) - len(unchecked) == 4
    for command in ("wheel . ", "--no-index /wheels/*.whl", '--index-url "${TORCH_INDEX}" torch'):
        (found,) = (c for c in unchecked if command in f"{c} ")
        unchecked.remove(found)
        assert "--no-deps" in found
    assert unchecked == []


def test_the_lock_pins_all_that_the_images_install() -> None:
    locked = numbers()
    asked = (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["profile"])
    names = packed.closure(asked) | {"setuptools", "wheel"}
    assert "torch" in names
    assert names <= locked.keys(), names - locked.keys()
    here = {name: importlib.metadata.version(name).split("+")[0] for name in names}
    assert here == {name: locked[name] for name in names}


def _built(root: Path, umask: int) -> Path:
    """Run the build stage on its context, as cloned under a umask; its wheel."""
    before = os.umask(umask)
    try:
        dockerfile.copy(dockerfile.context(), root / "src")
    finally:
        os.umask(before)
    scripts = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    dockerfile.run(running("build", "chmod"), root, PATH=scripts, SOURCE_DATE_EPOCH=packed.DATE)
    (wheel,) = (root / "wheels").glob("williw-*.whl")
    return wheel


def test_the_build_stage_makes_the_same_wheel_under_any_umask(tmp_path: Path) -> None:
    """The step before it fetches setuptools and nkeys: that needs an index, so it is not run."""
    one, other = _built(tmp_path / "one", 0o022), _built(tmp_path / "other", 0o077)
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_the_install_steps_make_an_environment_with_the_command_and_then_torch(
    tmp_path: Path,
) -> None:
    """What an index would give is lent by this environment. The account's step is not run: it
    would write into this machine's /etc.
    """
    _built(tmp_path, 0o022)
    dockerfile.copy(("constraints.txt",), tmp_path / "lock-numbers")
    for name in ("williw", "profile"):
        (tmp_path / "lock").mkdir(exist_ok=True)
        (tmp_path / "lock" / f"{name}.txt").write_text("")
    (tmp_path / "opt").mkdir()
    scripts = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    made = tmp_path / "opt" / "williw"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made], check=True, timeout=100)
    profile = (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["profile"])
    packed.lend(made, packed.closure(profile))
    dockerfile.run(running("common", "venv"), tmp_path, PATH=scripts)
    assert (made / "bin" / "williw").is_file()
    assert not list(made.glob("lib/python*/site-packages/pip"))

    image_path = f"{made / 'bin'}:{os.environ['PATH']}"
    torch = running("williw-profiler", "torch")
    dockerfile.run(torch, tmp_path, PATH=image_path, TORCH_INDEX="file:///lent")
