"""The rooms and who may import whom; what the folder tree promises is checked here."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SERVICES = {
    "requester", "downloader", "profiler", "uploader", "planner", "splitter", "distributor",
}  # fmt: skip
ROOMS = {"runtime", "checkpoint", "hub"}
EDGES = {"nats": "runtime", "huggingface_hub": "hub"}
SOURCES = sorted(
    file for room in ("messages", "config", "services") for file in (ROOT / room).rglob("*.py")
)


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def room_of(file: Path) -> str:
    parts = file.relative_to(ROOT).parts
    return parts[1] if parts[0] == "services" and len(parts) > 2 else parts[0]


@pytest.mark.parametrize("name", ["messages", "config", "services"])
def test_our_packages_are_ours(name: str) -> None:
    found = importlib.import_module(name).__file__
    assert found is not None
    assert Path(found).is_relative_to(ROOT)


def test_messages_import_the_standard_library_and_msgspec_only() -> None:
    allowed = sys.stdlib_module_names | {"msgspec", "messages"}
    for file in SOURCES:
        if room_of(file) == "messages":
            assert {name.split(".")[0] for name in imports(file)} <= allowed, file


def test_services_never_import_each_other() -> None:
    for file in SOURCES:
        room = room_of(file)
        if room not in SERVICES:
            continue
        for name in imports(file):
            if name.startswith("services."):
                assert name.split(".")[1] in ROOMS | {room}, f"{file} imports {name}"


def test_the_lower_floors_import_no_service_and_not_the_console() -> None:
    for file in SOURCES:
        room = room_of(file)
        allowed = {
            "config": set(),
            "runtime": {"runtime"},
            "checkpoint": {"checkpoint"},
            "hub": {"hub"},
        }
        if room in allowed:
            above = {n.split(".")[1] for n in imports(file) if n.startswith("services.")}
            assert above <= allowed[room], f"{file} imports {above}"


def test_nobody_imports_the_console() -> None:
    for file in SOURCES:
        if room_of(file) != "console":
            assert not [n for n in imports(file) if n.startswith("services.console")], file


@pytest.mark.parametrize("library", sorted(EDGES))
def test_each_outside_system_stands_behind_one_room(library: str) -> None:
    for file in SOURCES:
        found = {name.split(".")[0] for name in imports(file)}
        if library in found:
            assert room_of(file) == EDGES[library], f"{file} imports {library}"


def test_no_room_is_named_for_nothing_and_no_file_is_too_long() -> None:
    lengths = {file: len(file.read_text().splitlines()) for file in SOURCES}
    assert not [f for f in SOURCES if f.stem in {"utils", "util", "common", "helpers", "misc"}]
    assert not {file: n for file, n in lengths.items() if n > 300}
    assert sorted(lengths.values())[len(lengths) // 2] <= 120


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_has_one_anatomy(service: str) -> None:
    folder = ROOT / "services" / service
    assert (folder / "service.py").is_file()
    main = (folder / "__main__.py").read_text()
    assert f"from services.{service}.service import build" in main


def test_a_service_starts_without_the_heavy_libraries() -> None:
    for service in sorted(SERVICES):
        loaded = _modules_after_importing(f"services.{service}.service")
        heavy = loaded & {"torch", "transformers", "huggingface_hub", "scipy"}
        assert not heavy, f"{service} imports {heavy} at start"


def _modules_after_importing(name: str) -> set[str]:
    program = f"import sys, {name}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {module.split(".")[0] for module in done.stdout.split()}


def test_a_handler_bound_to_a_subject_of_another_type_is_an_error_of_mypy(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from collections.abc import Iterable\n"
        "from messages.base import Fact\n"
        "from messages.models import ModelDownloaded\n"
        "from messages.subjects import MODEL_DOWNLOADED, MODEL_REQUESTED\n"
        "from services.runtime.service import Route\n"
        "async def handle(fact: ModelDownloaded) -> Iterable[Fact]:\n"
        "    return ()\n"
        "right = Route(MODEL_DOWNLOADED, handle)\n"
        "wrong = Route(MODEL_REQUESTED, handle)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(wrong)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [int(found[1]) for found in re.finditer(r"wrong\.py:(\d+): error", done.stdout)]
    assert lines == [9], done.stdout
