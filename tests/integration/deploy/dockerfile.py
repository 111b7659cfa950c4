"""A Dockerfile as its instructions, and its steps run in a folder instead of a container."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
FILE = REPOSITORY / "deploy" / "Dockerfile"
IGNORED = REPOSITORY / ".dockerignore"
# What stands for these folders of the image stands in a folder of the test's.
_FOLDERS = re.compile(r"(?<![\w./}])/(?=(?:src|wheels|lock|lock-numbers|opt/williw)\b)")


@dataclass(frozen=True)
class Step:
    """An instruction of a stage, on one line."""

    stage: str
    name: str
    rest: str


def steps(text: str) -> tuple[Step, ...]:
    """The instructions in order; those before the first FROM are of the stage ""."""
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", text))
    found: list[Step] = []
    stage = ""
    for line in filter(None, (line.strip() for line in joined.splitlines())):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stage = rest.split(" AS ")[1]
        found.append(Step(stage, name, " ".join(rest.split())))
    return tuple(found)


def tracked() -> tuple[str, ...]:
    """The paths that git knows and that are there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    ).stdout
    return tuple(p for p in listed.split("\0") if p and (REPOSITORY / p).is_file())


def context() -> tuple[str, ...]:
    """The tracked paths that .dockerignore lets through: `*`, then files and folders."""
    lines = [line for line in IGNORED.read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    kept = [Path(line[1:]) for line in lines if line.startswith("!")]
    return tuple(p for p in tracked() if any(Path(p).is_relative_to(one) for one in kept))


def copy(paths: tuple[str, ...], folder: Path) -> Path:
    """Copy the checkout's `paths` below `folder`, with the modes that this process' umask gives."""
    for path in paths:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / path, target)
    return folder


def run(step: Step, root: Path, **more: str) -> None:
    """Run a RUN step with `root` for `/`, without an index; AssertionError with what it said."""
    command = re.sub(r"--mount=\S+ ", "", step.rest)
    command = command.replace("/usr/local/bin/python", sys.executable)
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON"))}
    done = subprocess.run(
        ["/bin/sh", "-c", _FOLDERS.sub(f"{root}/", command)],
        cwd=root / "src",
        env={**environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INDEX": "1", **more},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
