"""Giving up rights for good, without privileges: Landlock for files, seccomp for system calls.

Linux only (Landlock since 5.13, x86-64 and ARM64). Imported by the counting child as a plain file,
before anything else is: standard library only. Nothing here can be undone by the process.
What is given up: files outside, sockets, new programs and processes, and signals, limits and groups
of other processes.
"""

import ctypes
import os
import platform
import struct
import sys
from pathlib import Path

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_RIGHTS_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | (1 << 14)
_READ = _READ_FILE | _READ_DIR
_READABLE = (
    "/usr",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/sys/devices/system",
    "/dev/null",
    "/dev/urandom",
)
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# System calls by their numbers on x86-64 and ARM64, None where there is no such call.
_REFUSED: tuple[tuple[int | None, int | None], ...] = (
    (41, 198),  # socket
    (42, 203),  # connect
    (57, None),  # fork
    (58, None),  # vfork
    (59, 221),  # execve
    (322, 281),  # execveat
    (101, 117),  # ptrace
    (310, 270),  # process_vm_readv
    (311, 271),  # process_vm_writev
    (425, 425),  # io_uring_setup
    (321, 280),  # bpf
    (62, 129),  # kill
    (200, 130),  # tkill
    (129, 138),  # rt_sigqueueinfo
    (297, 240),  # rt_tgsigqueueinfo
    (434, 434),  # pidfd_open
    (424, 424),  # pidfd_send_signal
    (438, 438),  # pidfd_getfd
    (112, 157),  # setsid
    (109, 154),  # setpgid
    (160, 164),  # setrlimit
    (272, 97),  # unshare
    (308, 268),  # setns
)
_TGKILL, _PRLIMIT, _CLONE, _CLONE3, _FCNTL = (234, 131), (302, 261), (56, 220), (435, 435), (72, 25)
_SETTING_OWNERS = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: whom input and output signal
_CLONE_THREAD = 0x10000
_EPERM, _ENOSYS = 1, 38
_LOAD, _EQUAL, _ABOVE, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_ARGUMENTS = 16  # where they begin in what a filter sees, 8 bytes each
_SCOPED = 0b11  # abstract sockets and signals, to processes outside

_libc = ctypes.CDLL(None, use_errno=True)


def confine(scratch: str) -> str:
    """Confine this process to `scratch`; returns "" or why it could not be done."""
    if platform.machine() not in _ARCHITECTURES:
        return f"no confinement is known for {platform.machine()}"
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return "the kernel refuses no_new_privs"
    return _restrict_files(scratch) or _restrict_calls()


def _restrict_files(scratch: str) -> str:
    abi = _libc.syscall(_LANDLOCK_CREATE, None, 0, 1)
    if abi < 1:
        return "the kernel has no Landlock (it needs Linux 5.13 with landlock among its LSMs)"
    rights = _RIGHTS_BY_ABI.get(abi, _RIGHTS_BY_ABI[3])
    attributes = struct.pack("Q", rights) if abi < 6 else struct.pack("QQQ", rights, 0, _SCOPED)
    ruleset = _libc.syscall(_LANDLOCK_CREATE, attributes, len(attributes), 0)
    if ruleset < 0:
        return "the kernel refuses a Landlock ruleset"
    try:
        for folder in {*_READABLE, sys.prefix, sys.base_prefix, sys.exec_prefix}:
            _allow(ruleset, folder, _READ & rights)
        _allow(ruleset, scratch, rights & ~_EXECUTE)
        failed = _libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)
    return "the kernel refuses to restrict files" if failed else ""


def _allow(ruleset: int, path: str, rights: int) -> None:
    if not Path(path).exists():
        return
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not Path(path).is_dir():
            rights &= _FILE_RIGHTS
        rule = struct.pack("=Qi", rights, descriptor)
        _libc.syscall(_LANDLOCK_ADD, ruleset, 1, rule, 0)
    finally:
        os.close(descriptor)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _restrict_calls() -> str:
    body = calls_program(platform.machine(), os.getpid())
    code = ctypes.create_string_buffer(b"".join(body))
    program = _Program(len(body), ctypes.cast(code, ctypes.c_void_p))
    failed = _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)
    return "the kernel refuses to restrict system calls" if failed else ""


def calls_program(machine: str, pid: int) -> list[bytes]:
    """Classic BPF for process `pid`: a wrong architecture is killed, refused calls fail with EPERM.

    Threads may be made, new processes not; a signal may go to this process, as abort and raise send
    it; limits may be read, not set.
    """
    column = list(_ARCHITECTURES).index(machine)
    fail, allow = _step(_RETURN, 0, 0, _ERRNO | _EPERM), _step(_RETURN, 0, 0, _ALLOW)
    body = [_step(_LOAD, 0, 0, 4), _step(_EQUAL, 1, 0, _ARCHITECTURES[machine])]
    body += [_step(_RETURN, 0, 0, _KILL), _step(_LOAD, 0, 0, 0)]
    body += [_step(_ABOVE, 0, 1, 0x40000000), _step(_RETURN, 0, 0, _KILL)]
    for numbers in _REFUSED:
        number = numbers[column]
        if number is not None:
            body += _on(number, [fail])
    first = _step(_LOAD, 0, 0, _ARGUMENTS)
    body += _on(_TGKILL[column], [first, _step(_EQUAL, 1, 0, pid), fail, allow])
    body += _on(_CLONE[column], [first, _step(_ANY_BIT, 1, 0, _CLONE_THREAD), fail, allow])
    # Its flags are where no filter sees them; whoever is told that it is not there uses clone.
    body += _on(_CLONE3[column], [_step(_RETURN, 0, 0, _ERRNO | _ENOSYS)])
    own = [first, _step(_EQUAL, 2, 0, 0), _step(_EQUAL, 1, 0, pid), fail]
    for half in (0, 4):
        own += [_step(_LOAD, 0, 0, _ARGUMENTS + 8 * 2 + half), _step(_EQUAL, 1, 0, 0), fail]
    body += _on(_PRLIMIT[column], [*own, allow])
    command = [_step(_LOAD, 0, 0, _ARGUMENTS + 8)]
    for setting in _SETTING_OWNERS:
        command += [_step(_EQUAL, 0, 1, setting), fail]
    return [*body, *_on(_FCNTL[column], [*command, allow]), allow]


def _on(number: int, steps: list[bytes]) -> list[bytes]:
    """Steps that end in a verdict, for one system call only."""
    return [_step(_EQUAL, 0, len(steps), number), *steps]


def _step(code: int, yes: int, no: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)
