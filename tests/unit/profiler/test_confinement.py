"""What the counting child may not do, tried from within such a process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import services.profiler.confine

CONFINE = Path(services.profiler.confine.__file__)
PROBE = """
import sys, json, os, pathlib, socket, subprocess
sys.path.insert(0, sys.argv[1])
from confine import confine
problem = confine(sys.argv[2])
outside, secret, parent = map(pathlib.Path, sys.argv[3:6])

def tried(act):
    try:
        act()
        return "done"
    except BaseException as error:
        return type(error).__name__

print(json.dumps({
    "problem": problem,
    "write inside": tried(lambda: pathlib.Path(sys.argv[2], "ok").write_text("ok")),
    "write outside": tried(lambda: (outside / "bad").write_text("bad")),
    "make a folder outside": tried(lambda: (outside / "dir").mkdir()),
    "change a file outside": tried(lambda: secret.open("a").write("x")),
    "truncate outside": tried(lambda: os.truncate(secret, 0)),
    "remove outside": tried(lambda: secret.unlink()),
    "read a secret": tried(lambda: secret.read_text()),
    "read the parent's environment": tried(lambda: parent.read_bytes()),
    "open a socket": tried(lambda: socket.socket()),
    "open a unix socket": tried(lambda: socket.socket(socket.AF_UNIX)),
    "run a program": tried(lambda: subprocess.run(["/bin/true"], check=True)),
    "signal the parent": tried(lambda: os.kill(os.getppid(), 0)),
    "import the standard library": tried(lambda: __import__("decimal")),
}))
"""


@pytest.fixture
def attempts(tmp_path: Path) -> dict[str, str]:
    scratch, outside = tmp_path / "scratch", tmp_path / "outside"
    scratch.mkdir()
    outside.mkdir()
    secret = tmp_path / "token"
    secret.write_text("hf_secret")
    environ = f"/proc/{os.getpid()}/environ"
    arguments = [str(CONFINE.parent), str(scratch), str(outside), str(secret), environ]
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROBE, *arguments], capture_output=True, check=True, timeout=60
    )
    assert secret.read_text() == "hf_secret"
    assert list(outside.iterdir()) == []
    found: dict[str, str] = json.loads(done.stdout)
    if "no Landlock" in found["problem"]:
        pytest.skip(found["problem"])
    return found


def test_a_confined_process_can_do_nothing_outside_its_folder(attempts: dict[str, str]) -> None:
    assert attempts.pop("problem") == ""
    assert attempts.pop("write inside") == "done"
    assert attempts.pop("import the standard library") == "done"
    assert set(attempts.values()) == {"PermissionError"}, attempts
