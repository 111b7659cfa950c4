"""What the counting child may not do, tried from within such a process."""

import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import services.profiler.confine
from services.profiler.confine import calls_program

CONFINE = Path(services.profiler.confine.__file__)
PROBE = """
import sys, json, os, pathlib, socket, subprocess
import ctypes, fcntl, platform, resource, signal, struct, threading
sys.path.insert(0, sys.argv[1])
from confine import confine
other = os.getppid()
held, pipe = os.pidfd_open(other), os.pipe()[0]
libc = ctypes.CDLL(None, use_errno=True)
signal.signal(signal.SIGUSR1, lambda *_: None)
problem = confine(sys.argv[2])
outside, secret, parent = map(pathlib.Path, sys.argv[3:6])
queued = struct.pack("3i", 0, 0, -1).ljust(128)
second = platform.machine() == "aarch64"

def called(numbers, *arguments):
    if libc.syscall(numbers[second], *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")

def threaded():
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()

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
    "fork": tried(lambda: os.fork() or os._exit(0)),
    "signal the parent": tried(lambda: os.kill(other, 0)),
    "tkill": tried(lambda: called((200, 130), other, 0)),
    "tgkill": tried(lambda: called((234, 131), other, other, 0)),
    "rt_sigqueueinfo": tried(lambda: called((129, 138), other, 0, queued)),
    "rt_tgsigqueueinfo": tried(lambda: called((297, 240), other, other, 0, queued)),
    "pidfd_open": tried(lambda: os.pidfd_open(other)),
    "pidfd_send_signal": tried(lambda: signal.pidfd_send_signal(held, 0)),
    "have a pipe signal the parent": tried(lambda: fcntl.fcntl(pipe, fcntl.F_SETOWN, other)),
    "read the parent's limits": tried(lambda: resource.prlimit(other, resource.RLIMIT_NOFILE)),
    "set a limit": tried(lambda: resource.prlimit(0, resource.RLIMIT_NOFILE, (64, 64))),
    "leave its group": tried(lambda: os.setpgid(0, 0)),
    "leave its session": tried(lambda: os.setsid()),
    "read its limits": tried(lambda: resource.prlimit(0, resource.RLIMIT_NOFILE)),
    "raise a signal": tried(lambda: signal.raise_signal(signal.SIGUSR1)),
    "start a thread": tried(threaded),
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
    for harmless in (
        "import the standard library",
        "read its limits",
        "raise a signal",
        "start a thread",
    ):
        assert attempts.pop(harmless) == "done", harmless
    assert set(attempts.values()) == {"PermissionError"}, attempts


def test_a_confined_process_crashes_as_any_other_does(tmp_path: Path) -> None:
    code = "import os, sys; sys.path.insert(0, sys.argv[1]); from confine import confine; "
    code += "confine(sys.argv[2]); os.abort()"
    arguments = [sys.executable, "-I", "-c", code, str(CONFINE.parent), str(tmp_path)]
    assert subprocess.run(arguments, check=False, timeout=60).returncode == -signal.SIGABRT


PID = 1234
ALLOWED, REFUSED, ABSENT, KILLED = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000


def verdict(machine: str, architecture: int, number: int, *arguments: int) -> int:
    """What the filter says of a system call, by running it as the kernel does."""
    seen = struct.pack("=IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    program, at, held = calls_program(machine, PID), 0, 0
    while True:
        code, yes, no, value = struct.unpack("=HBBI", program[at])
        at += 1
        if code == 0x20:
            held = int(struct.unpack_from("=I", seen, value)[0])
        elif code == 0x06:
            return int(value)
        else:
            holds = {0x15: held == value, 0x35: held >= value, 0x45: bool(held & value)}[code]
            at += yes if holds else no


ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# By the kernel's tables: asm/unistd_64.h and asm-generic/unistd.h.
REFUSALS: dict[str, dict[str, int]] = {
    "x86_64": {"kill": 62, "tkill": 200, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297}
    | {"pidfd_open": 434, "pidfd_send_signal": 424, "setsid": 112, "setpgid": 109}
    | {"setrlimit": 160, "fork": 57, "vfork": 58, "execve": 59, "socket": 41},
    "aarch64": {"kill": 129, "tkill": 130, "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240}
    | {"pidfd_open": 434, "pidfd_send_signal": 424, "setsid": 157, "setpgid": 154}
    | {"setrlimit": 164, "execve": 221, "socket": 198},
}
TGKILL, PRLIMIT, CLONE, FCNTL = (234, 131), (302, 261), (56, 220), (72, 25)


@pytest.mark.parametrize(("column", "machine"), [(0, "x86_64"), (1, "aarch64")])
def test_the_filter_of_an_architecture_looks_at_whom_a_call_is_for(
    column: int, machine: str
) -> None:
    def said(number: int, *arguments: int) -> int:
        return verdict(machine, ARCHITECTURES[machine], number, *arguments)

    assert {said(number) for number in REFUSALS[machine].values()} == {REFUSED}
    assert said(TGKILL[column], PID, 7, 6) == ALLOWED
    assert said(TGKILL[column], PID + 1, 7, 6) == REFUSED
    assert said(PRLIMIT[column], 0, 7, 0, 4096) == ALLOWED
    assert said(PRLIMIT[column], PID, 7, 0, 4096) == ALLOWED
    assert said(PRLIMIT[column], PID + 1, 7, 0, 4096) == REFUSED
    assert said(PRLIMIT[column], 0, 7, 4096) == REFUSED
    assert said(PRLIMIT[column], 0, 7, 1 << 40) == REFUSED
    assert said(CLONE[column], 0x3D0F00) == ALLOWED
    assert said(CLONE[column], 0x1200011) == REFUSED
    assert said(435) == ABSENT
    assert said(FCNTL[column], 3, 8, PID + 1) == REFUSED
    assert said(FCNTL[column], 3, 2, 1) == ALLOWED
    assert said(0) == ALLOWED
    other = ARCHITECTURES["aarch64" if machine == "x86_64" else "x86_64"]
    assert verdict(machine, other, 0) == KILLED
