"""Giving up rights for good, without privileges: Landlock for files, seccomp for system calls.

Linux only (Landlock since 5.13, x86-64 and ARM64). Imported by the counting child as a plain file,
before anything else is: standard library only. Nothing here can be undone by the process.
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
# socket, connect, execve, execveat, ptrace, process_vm_readv, io_uring_setup, kill, bpf
_REFUSED = {
    "x86_64": (0xC000003E, (41, 42, 59, 322, 101, 310, 425, 62, 321)),
    "aarch64": (0xC00000B7, (198, 203, 221, 281, 117, 270, 425, 129, 280)),
}
_EPERM = 1
_LOAD, _EQUAL, _ABOVE, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000

_libc = ctypes.CDLL(None, use_errno=True)


def confine(scratch: str) -> str:
    """Confine this process to `scratch`; returns "" or why it could not be done."""
    if platform.machine() not in _REFUSED:
        return f"no confinement is known for {platform.machine()}"
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return "the kernel refuses no_new_privs"
    return _restrict_files(scratch) or _restrict_calls()


def _restrict_files(scratch: str) -> str:
    abi = _libc.syscall(_LANDLOCK_CREATE, None, 0, 1)
    if abi < 1:
        return "the kernel has no Landlock (it needs Linux 5.13 with landlock among its LSMs)"
    rights = _RIGHTS_BY_ABI.get(abi, _RIGHTS_BY_ABI[3])
    attributes = struct.pack("Q", rights)
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
    """A classic BPF program: the wrong architecture is killed, refused calls fail with EPERM."""
    architecture, calls = _REFUSED[platform.machine()]
    body = [_step(_LOAD, 0, 0, 4), _step(_EQUAL, 1, 0, architecture), _step(_RETURN, 0, 0, _KILL)]
    body += [_step(_LOAD, 0, 0, 0), _step(_ABOVE, 0, 1, 0x40000000), _step(_RETURN, 0, 0, _KILL)]
    for call in calls:
        body += [_step(_EQUAL, 0, 1, call), _step(_RETURN, 0, 0, _ERRNO | _EPERM)]
    body.append(_step(_RETURN, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(body))
    program = _Program(len(body), ctypes.cast(code, ctypes.c_void_p))
    failed = _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)
    return "the kernel refuses to restrict system calls" if failed else ""


def _step(code: int, yes: int, no: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)
