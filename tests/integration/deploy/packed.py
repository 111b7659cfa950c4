"""A wheel of this checkout, what it declares, and an environment that holds that and no more."""

import importlib.metadata
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

DATE = "1700000000"


def build(source: Path, folder: Path) -> Path:
    """Build the wheel of `source` into `folder`; returns its file."""
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--no-index", "-w", str(folder)],
        cwd=source,
        env={**os.environ, "SOURCE_DATE_EPOCH": DATE, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def requirements(wheel: Path) -> tuple[str, ...]:
    """What the wheel's metadata asks for, its extras' included."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = {n.split("/")[0] for n in archive.namelist() if ".dist-info/" in n}
        text = archive.read(f"{name}/METADATA").decode()
    prefix = "Requires-Dist: "
    return tuple(r.removeprefix(prefix) for r in text.splitlines() if r.startswith(prefix))


def closure(asked: tuple[str, ...], *extras: str) -> set[str]:
    """The installed distributions that requirements lead to here, by their canonical names."""
    found: set[tuple[str, str]] = set()

    def follow(lines: tuple[str, ...], extra: str) -> None:
        for line in lines:
            one = Requirement(line)
            if one.marker is not None and not one.marker.evaluate({"extra": extra}):
                continue
            name = canonicalize_name(one.name)
            for wanted in ("", *one.extras):
                if (name, wanted) not in found:
                    found.add((name, wanted))
                    follow(tuple(importlib.metadata.requires(name) or ()), wanted)

    for extra in ("", *extras):
        follow(asked, extra)
    return {name for name, _ in found}


def environment(folder: Path, wheel: Path, names: set[str]) -> Path:
    """A new environment with the wheel and those distributions of this one; returns its bin."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=100)
    bin_folder = folder / "bin"
    command = [sys.executable, "-m", "pip", "--python", str(bin_folder / "python"), "install"]
    subprocess.run(
        [*command, "--quiet", "--no-deps", "--no-index", str(wheel)],
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        check=True,
        timeout=100,
    )
    lend(folder, names)
    return bin_folder


def lend(folder: Path, names: set[str]) -> None:
    """Let an environment import those distributions of this one.

    They are links in a folder that a .pth names: site-packages itself would bring everything, an
    editable williw included.
    """
    libraries = folder / "libraries"
    libraries.mkdir()
    for name in sorted(names):
        for part in _parts(name):
            if not (libraries / part.name).is_symlink():
                (libraries / part.name).symlink_to(part)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(f"{libraries}\n")


def _parts(name: str) -> Iterator[Path]:
    """The folders and files of a distribution that stand in site-packages itself."""
    distribution = importlib.metadata.distribution(name)
    for first in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
        yield Path(str(distribution.locate_file(first)))
