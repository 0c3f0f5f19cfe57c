"""Say loudly what a test could not check here.

On a person's machine a missing capability skips the test and says why. In CI, where `.ci/run` names
what it provides, the same is a failure: a check nobody runs is no check.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import NoReturn

import pytest

from beddel_cli.process.cgroup import Asked, make_leaf

_CREATE_RULESET = 444
_CLONE_NEWUSER = 0x10000000


def _linux() -> str | None:
    return None if sys.platform == "linux" else f"guests run on Linux, and this is {sys.platform}"


def _root() -> str | None:
    return None if os.geteuid() == 0 else "needs root"


def _x86_64() -> str | None:
    machine = platform.machine()
    return None if machine == "x86_64" else f"x86-64 only, and this is {machine}"


def _landlock() -> str | None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    version = libc.syscall(ctypes.c_long(_CREATE_RULESET), None, ctypes.c_size_t(0), 1)
    return None if version > 0 else f"no Landlock: {os.strerror(ctypes.get_errno())}"


def _landlock_scopes() -> str | None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    version = libc.syscall(ctypes.c_long(_CREATE_RULESET), None, ctypes.c_size_t(0), 1)
    return None if version >= 6 else f"Landlock keeps signals in from ABI 6 on, this is {version}"


def _trace() -> str | None:
    """CAP_SYS_PTRACE, which reading the memory of a non-dumpable process takes."""
    with open("/proc/self/status", encoding="ascii") as file:
        sets = dict(line.split(":\t") for line in file if ":\t" in line)
    return None if int(sets["CapEff"], 16) & (1 << 19) else "needs CAP_SYS_PTRACE"


def _native_engine() -> str | None:
    if importlib.util.find_spec("quickjs") or shutil.which("node"):
        return None
    return "needs a JavaScript engine outside of the isolate: pip install quickjs-ng, or node"


def _full_device() -> str | None:
    return None if os.path.exists("/dev/full") else "needs /dev/full"


def _overlay() -> str | None:
    """An overlay with `userxattr` in a mount namespace of our own."""
    if shutil.which("unshare") is None:
        return "needs unshare(1)"
    namespaces = "-m" if os.geteuid() == 0 else "-Urm"
    script = (
        "d=$(mktemp -d) && mount -t tmpfs tmpfs $d && mkdir $d/l $d/u $d/w $d/m && mount -t overlay"
        " -o lowerdir=$d/l,upperdir=$d/u,workdir=$d/w,userxattr overlay $d/m; code=$?;"
        " cd /; umount -l $d; rmdir $d; exit $code"
    )
    command = ["unshare", namespaces, "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"no overlay: {done.stderr.strip()}"


def _cgroup() -> str | None:
    """A leaf that limits memory, processes and CPUs, whatever the version."""
    leaf, problems = make_leaf(Asked(64 << 20, 16, 500))
    held = set(leaf.held) if leaf is not None else set()
    if leaf is not None:
        leaf.remove()
    if held == {"memory", "pids", "cpu", "cpuacct"}:
        return None
    return "; ".join(f"{each.what}: {os.strerror(each.errno)}" for each in problems)


def _process_namespace() -> str | None:
    """A process-id namespace: as root, or in a user namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    pid = os.fork()
    if pid == 0:
        failed = libc.unshare(0x20000000 | (0 if os.geteuid() == 0 else 0x10000000))
        os._exit(ctypes.get_errno() if failed else 0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return f"no process-id namespace: {os.strerror(status)}" if status else None


def _user_namespaces() -> str | None:
    """A child tries, since no setting says it all: sysctls, AppArmor, seccomp, limits."""
    libc = ctypes.CDLL(None, use_errno=True)
    child = os.fork()
    if child == 0:
        os._exit(min(ctypes.get_errno(), 125) if libc.unshare(_CLONE_NEWUSER) else 0)
    _, status = os.waitpid(child, 0)
    number = os.waitstatus_to_exitcode(status)
    return None if number == 0 else f"user namespaces are refused: {os.strerror(number)}"


def _system_python() -> str | None:
    return None if os.path.exists("/usr/bin/python3") else "needs /usr/bin/python3 for the probes"


def _compiler() -> str | None:
    return None if shutil.which("cc") else "needs a C compiler"


_PROBES: dict[str, Callable[[], str | None]] = {
    "linux": _linux,
    "root": _root,
    "x86-64": _x86_64,
    "landlock": _landlock,
    "landlock-scopes": _landlock_scopes,
    "trace": _trace,
    "native-engine": _native_engine,
    "full-device": _full_device,
    "overlay": _overlay,
    "cgroup": _cgroup,
    "process-namespace": _process_namespace,
    "user-namespaces": _user_namespaces,
    "system-python": _system_python,
    "compiler": _compiler,
}


def has(name: str) -> bool:
    """Tell whether this machine has a capability."""
    return _PROBES[name]() is None


def require(name: str) -> None:
    """Go on only where this machine has a capability: skip with the reason, or fail in CI."""
    reason = _PROBES[name]()
    if reason is not None:
        give_up(f"{name}: {reason}")


def give_up(reason: str) -> NoReturn:
    """End the test because this machine cannot show what it checks: a skip, a failure in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"not checked in CI: {reason}", pytrace=False)
    pytest.skip(reason)
