"""The wheel: the same bytes each time, whole, and able to bring a model with what it declares."""

import json
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from services.console import embedded
from tests.integration.deploy import dockerfile, packed
from tests.integration.faults.tiny import write_model

ROOMS = ("config/", "messages/", "services/")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the checkout's tracked files, built elsewhere."""
    folder = tmp_path_factory.mktemp("wheel")
    source = dockerfile.copy(dockerfile.tracked(), folder / "source")
    return packed.build(source, folder / "made")


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_a_second_build_in_another_place_gives_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    elsewhere = dockerfile.copy(dockerfile.tracked(), tmp_path / "elsewhere" / "again")
    assert packed.build(elsewhere, tmp_path / "made").read_bytes() == wheel.read_bytes()


def test_a_changed_file_changes_them(wheel: Path, tmp_path: Path) -> None:
    source = dockerfile.copy(dockerfile.tracked(), tmp_path / "source")
    with (source / "config" / "williw.toml").open("a") as settings:
        settings.write("\n")
    assert packed.build(source, tmp_path / "made").read_bytes() != wheel.read_bytes()


def test_it_holds_every_tracked_file_of_the_three_rooms_and_nothing_else(names: set[str]) -> None:
    wanted = {path for path in dockerfile.tracked() if path.startswith(ROOMS)}
    assert "config/williw.toml" in wanted
    assert {name for name in names if ".dist-info/" not in name} == wanted


def test_it_brings_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (entries,) = [n for n in archive.namelist() if n.endswith("/entry_points.txt")]
        text = archive.read(entries).decode()
    assert text.split() == ["[console_scripts]", "williw", "=", "services.console.__main__:main"]


@pytest.mark.slow
@pytest.mark.xdist_group("up")
def test_with_what_it_declares_and_no_torch_it_brings_a_model_to_two_nodes(
    wheel: Path, tmp_path: Path
) -> None:
    libraries = packed.closure(packed.requirements(wheel))
    assert not {"torch", "transformers", "williw"} & libraries
    binaries = packed.environment(tmp_path / "venv", wheel, libraries)
    (binaries / "nats-server").symlink_to(embedded.nats_server())
    work = tmp_path / "work"
    work.mkdir()

    found = _run([str(binaries / "python"), "-c", _WHERE], work).stdout.split()
    assert [Path(each).is_relative_to(tmp_path / "venv") for each in found] == [True] * 3, found

    model = write_model(tmp_path / "models" / "tiny")
    command = [str(binaries / "williw"), "up", str(model), "--nodes", "2", "--exit-when-done"]
    done = _run([*command, "--home", str(tmp_path / "home"), "--json"], work)
    assert done.returncode == 0, done.stdout + done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["type"], last["verified"]) == ("JobCompleted", True), last
    assert list(work.iterdir()) == []


_WHERE = (
    "import config, messages, services; print(*(m.__file__ for m in (config, messages, services)))"
)


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program that knows nothing of this process' environment but where programs are."""
    return subprocess.run(
        command,
        cwd=folder,
        env={"PATH": os.defpath, "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
