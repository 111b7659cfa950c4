"""The units, judged by systemd's own tools on a root of their own; the installer run twice."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SERVICES = {
    "requester", "downloader", "profiler", "uploader", "planner", "splitter", "distributor",
}  # fmt: skip

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze judges the units, and this machine has no systemd",
)


def install(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        [ROOT / "deploy" / "systemd" / "install", "--root", root, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    return done.stdout


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A root folder with the units, and a stand-in for the program they start."""
    install(tmp_path, "--auth", "origin")
    program = tmp_path / "opt" / "williw" / "bin" / "williw"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return tmp_path


def analyze(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", f"--root={root}", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def files(root: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(file.relative_to(root)): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in sorted(root.rglob("*"))
        if file.is_file()
    }


def test_systemd_finds_nothing_wrong_with_the_units(installed: Path) -> None:
    units = [f"williw@{service}.service" for service in sorted(SERVICES)]
    names = [*units, "williw.target", "williw-origin.target", "williw-node.target"]
    done = analyze(installed, "verify", "--man=no", "--recursive-errors=no", *names)
    ours = [line for line in done.stderr.splitlines() if "williw" in line]
    assert ours == []
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_what_a_service_may_do_is_little(installed: Path, service: str) -> None:
    done = analyze(
        installed,
        "security",
        "--offline=true",
        "--threshold=25",
        f"williw@{service}.service",
    )
    assert done.returncode == 0, done.stdout[-400:]
    assert re.search(r"Overall exposure level for williw@\S+: \d", done.stdout)


def test_a_laxer_unit_is_refused_so_the_judgement_means_something(installed: Path) -> None:
    unit = installed / "etc" / "systemd" / "system" / "williw@.service"
    strict = unit.read_text()
    unit.write_text(strict.replace("CapabilityBoundingSet=\n", "").replace("PrivateUsers=yes", ""))
    done = analyze(
        installed, "security", "--offline=true", "--threshold=25", "williw@planner.service"
    )
    assert done.returncode != 0


def test_installing_again_changes_nothing_and_keeps_what_was_edited(tmp_path: Path) -> None:
    assert "installed" in install(tmp_path, "node")
    settings = tmp_path / "etc" / "williw" / "williw.toml"
    settings.write_text('[node]\nnode_id = "kept"\n')
    before = files(tmp_path)
    assert install(tmp_path, "node") == ""
    assert files(tmp_path) == before


def test_the_installer_says_what_it_was_not_told(tmp_path: Path) -> None:
    done = subprocess.run(
        [ROOT / "deploy" / "systemd" / "install", "--root", tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 2
    assert "origin or node" in done.stderr


def test_the_page_that_the_units_name_is_installed(installed: Path) -> None:
    unit = (installed / "etc" / "systemd" / "system" / "williw@.service").read_text()
    pages = re.findall(r"file:/(\S+)", unit)
    assert pages
    assert all((installed / page).is_file() for page in pages)


def test_an_origin_runs_every_service_and_a_node_only_its_distributor() -> None:
    def wanted(target: str) -> set[str]:
        text = (ROOT / "deploy" / "systemd" / target).read_text()
        return set(re.findall(r"williw@(\w+)\.service", text))

    assert wanted("williw-origin.target") == SERVICES
    assert wanted("williw-node.target") == {"distributor"}
