"""The units, judged by systemd's own tools on a root of their own; the installer run twice."""

import re
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from config import load
from tests.integration.deploy import packed

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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "origin or node"),
        (("origin", "node"), "an origin is a node too"),
        (("origin", "--root"), "--root needs a value"),
        (("node", "--wheel"), "--wheel needs a value"),
        (("node", "--wheel", "absent.whl"), "absent.whl is no file"),
        (("node", "--rot", "x"), "--rot is none of these"),
    ],
)
def test_the_installer_says_what_it_was_not_told(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    done = subprocess.run(
        [ROOT / "deploy" / "systemd" / "install", "--root", tmp_path, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "usage: install" in done.stderr
    assert list(tmp_path.iterdir()) == []


def wheel_saying(folder: Path, text: str) -> Path:
    """A wheel of williw's name and version, without dependencies, that says this."""
    folder.mkdir()
    file = folder / "williw-0.1.0-py3-none-any.whl"
    metadata = "Metadata-Version: 2.1\nName: williw\nVersion: 0.1.0\nProvides-Extra: profile\n"
    kind = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("said.py", f"print({text!r})\n")
        archive.writestr("williw-0.1.0.dist-info/METADATA", metadata)
        archive.writestr("williw-0.1.0.dist-info/WHEEL", kind)
        archive.writestr("williw-0.1.0.dist-info/RECORD", "")
    return file


def test_a_new_wheel_of_the_same_version_takes_the_place_of_the_old(tmp_path: Path) -> None:
    root = tmp_path / "root"
    # As the installer makes it, but with this environment's pip: making one takes seconds.
    environment = root / "opt" / "williw"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    packed.lend(environment, {"pip"})

    def runs() -> str:
        command = [str(environment / "bin" / "python"), "-c", "import said"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    old, new = wheel_saying(tmp_path / "old", "old"), wheel_saying(tmp_path / "new", "new")
    assert f"installed {old}" in install(root, "--wheel", str(old), "origin")
    assert runs() == "old\n"
    assert install(root, "--wheel", str(old), "origin") == ""
    told = install(root, "--wheel", str(new), "origin")
    assert f"installed {new}" in told
    assert "restart" in told
    assert runs() == "new\n"
    assert install(root, "--wheel", str(new), "origin") == ""


@pytest.mark.parametrize("role", ["origin", "node"])
def test_the_environment_is_written_once_and_each_of_its_lines_is_a_setting(
    tmp_path: Path, role: str
) -> None:
    install(tmp_path, role)
    file = tmp_path / "etc" / "williw" / "environment"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = file.read_text().splitlines()
    set_already = [line for line in lines if line and not line.startswith("#")]
    assert set_already == (["WILLIW_NODE_ORIGIN=true"] if role == "origin" else [])
    offered = dict(
        line.removeprefix("#").split("=", 1) for line in lines if re.match(r"#?[A-Z_]+=", line)
    )
    settings = load.load(environ=offered)
    assert (settings.node.node_id, settings.node.origin) == ("node-a", True)
    assert settings.distributor.host == "0.0.0.0"
    file.write_text("NODE_ID=mine\n")
    install(tmp_path, role)
    assert file.read_text() == "NODE_ID=mine\n"


def test_whoever_stops_a_target_stops_the_services_it_started() -> None:
    folder = ROOT / "deploy" / "systemd"
    targets = {file.name for file in folder.glob("*.target")}
    (parts,) = re.findall(r"^PartOf=(.*)$", (folder / "williw@.service").read_text(), re.MULTILINE)
    assert set(parts.split()) == targets
    for role in targets - {"williw.target"}:
        assert "\nPartOf=williw.target\n" in (folder / role).read_text()


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
