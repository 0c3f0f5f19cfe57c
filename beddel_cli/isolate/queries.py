"""Ask what this machine offers, by questions that change nothing and start nothing.

Nothing is put in force here, so nothing is proved: `run` tries each protection in the worker and
looks at it from outside. What a question cannot see, such as a container that lets the question
pass and not the restriction itself, shows only there.

Sources: landlock_create_ruleset(2), LANDLOCK_CREATE_RULESET_VERSION; seccomp(2),
SECCOMP_GET_ACTION_AVAIL; PR_GET_NO_NEW_PRIVS(2const); capget(2); prlimit(2); proc_pid_status(5).
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct

from beddel_cli.errors import GuestError
from beddel_cli.isolate.confine import MACHINES, landlock_abi
from beddel_cli.offer import Offer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_PR_GET_NO_NEW_PRIVS = 39
_SECCOMP_GET_ACTION_AVAIL = 2
_SECCOMP_RET_KILL_PROCESS = 0x80000000
_SECCOMP_CALLS = {"x86_64": 317, "aarch64": 277}
_CAPABILITY_VERSION_3 = 0x20080522
# What the supervisor reads of a worker to confirm its confinement.
_STATUS_FIELDS = ("NoNewPrivs", "Seccomp", "Seccomp_filters", "CapEff", "Threads")


def ask_machine() -> Offer:
    """Ask the kernel, /proc and the installation what they offer.

    Raises:
        GuestError: the installation holds no guest or no engine.
    """
    from beddel_cli.guests import CODE_FILE, javascript_facts
    from beddel_cli.isolate.engine_settings import library_folder, library_version

    facts = javascript_facts()
    if not os.path.isfile(CODE_FILE):
        raise GuestError(
            f"the JavaScript guest is not usable: there is no {CODE_FILE}",
            hint="pip install --force-reinstall beddel-cli",
        )
    system = os.uname()
    return Offer(
        system=system.sysname,
        machine=system.machine,
        kernel=system.release,
        engine_version=library_version(library_folder()),
        guest_version=facts["quickjs_ng"],
        guest_digest=facts["wasm_sha256"],
        guest_pages=facts["memory_pages"],
        **ask_kernel(),
    )


def ask_kernel() -> dict[str, Any]:
    """Ask the kernel and /proc what holds any kind of job, as the fields of an offer."""
    abi, landlock = _answer(landlock_abi)
    return {
        "landlock": landlock,
        "landlock_abi": abi,
        "seccomp": _answer(_ask_seccomp)[1],
        "no_new_privs": _answer(_ask_no_new_privs)[1],
        "capabilities": _answer(_ask_capabilities)[1],
        "rlimits": _answer(_ask_rlimits)[1],
        "status_missing": _missing_status_fields(),
    }


def _answer(question: Callable[[], int]) -> tuple[int, int]:
    """Give the answer and 0, or 0 and the errno."""
    try:
        return question(), 0
    except OSError as error:
        return 0, error.errno or errno.EIO


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


def _ask_seccomp() -> int:
    machine = os.uname().machine
    if machine not in MACHINES:
        raise OSError(errno.ENOSYS, "no list of system calls for this architecture")
    action = struct.pack("<I", _SECCOMP_RET_KILL_PROCESS)
    return _checked(
        _libc().syscall(
            ctypes.c_long(_SECCOMP_CALLS[machine]),
            ctypes.c_uint(_SECCOMP_GET_ACTION_AVAIL),
            ctypes.c_uint(0),
            action,
        )
    )


def _ask_no_new_privs() -> int:
    zeros = (ctypes.c_ulong(0),) * 4
    return _checked(_libc().prctl(ctypes.c_int(_PR_GET_NO_NEW_PRIVS), *zeros))


def _ask_capabilities() -> int:
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    return _checked(_libc().capget(header, ctypes.create_string_buffer(24)))


def _ask_rlimits() -> int:
    resource.prlimit(0, resource.RLIMIT_NOFILE)
    return 0


def _missing_status_fields() -> tuple[str, ...]:
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            there = {line.partition(":")[0] for line in file}
    except OSError:
        there = set()
    return tuple(name for name in _STATUS_FIELDS if name not in there)
