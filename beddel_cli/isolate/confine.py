"""Give up every right the worker will not need, for good, before it sees a byte of the job.

Landlock, seccomp and no_new_privs bind the calling thread and what it starts later, so `confine`
insists on exactly one thread. Nothing here reads policy: the list is the same for every job, and
what could not be done comes back as an errno for `plan` to judge.

The list of system calls is an allow-list. Whatever is not on it kills the process on the spot: the
worker has no honest use for it, so one attempt ends the run as a worker fault.

Sources: landlock(7), seccomp(2), capabilities(7), prctl(2), include/uapi/linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct

from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# prctl(2)
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2

# Landlock's three calls carry the same numbers on every architecture.
_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_RESTRICT_SELF = 446
_LANDLOCK_CREATE_RULESET_VERSION = 1

_CAPABILITY_VERSION_3 = 0x20080522

# Native memory of the worker beside the isolate's own limit: interpreter, engine, buffers of the
# largest input and output. RLIMIT_AS is of no use, since the engine reserves address space it
# never touches; RLIMIT_DATA counts writable private memory only.
WORKER_DATA_BYTES = 256 << 20

# BPF, from linux/filter.h and linux/seccomp.h.
_LOAD_WORD, _JUMP_EQUAL, _JUMP_SET, _AND, _RETURN = 0x20, 0x15, 0x45, 0x54, 0x06
_ALLOW = 0x7FFF0000
_KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000
_DATA_NUMBER, _DATA_ARCH, _DATA_ARGUMENTS = 0, 4, 16

_USED_UP = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
_PROT_EXEC = 4
_MAP_SHARED = 1
_MAP_GROWSDOWN = 0x100
_PROT_WRITE = 2
# A thread shares memory and the thread group; every namespace flag must be absent.
_CLONE_VM_AND_THREAD = 0x00010100
_CLONE_NAMESPACES = 0x7E020080


@record
class Machine:
    """System-call numbers of one architecture, by what the worker needs them for."""

    audit_arch: int
    allowed: tuple[int, ...]
    no_exec_memory: tuple[int, ...]
    clone: int
    denied: tuple[tuple[int, int], ...]


# allowed, in order: read write munmap brk mremap madvise rt_sigaction rt_sigprocmask rt_sigreturn
# sigaltstack sched_yield futex clock_gettime clock_nanosleep getpid gettid getrandom
# set_robust_list rseq exit exit_group. no_exec_memory: mmap mprotect. denied with an errno, since
# the C library falls back on its own: clone3, prctl, sched_getaffinity.
MACHINES = {
    "x86_64": Machine(
        audit_arch=0xC000003E,
        allowed=(
            *(0, 1, 11, 12, 25, 28, 13, 14, 15, 131, 24, 202, 228, 230, 39, 186, 318),
            *(273, 334, 60, 231),
        ),
        no_exec_memory=(9, 10),
        clone=56,
        denied=((435, errno.ENOSYS), (157, errno.EPERM), (204, errno.EPERM)),
    ),
    "aarch64": Machine(
        audit_arch=0xC00000B7,
        allowed=(
            *(63, 64, 215, 214, 216, 233, 134, 135, 139, 132, 124, 98, 113, 115, 172, 178, 278),
            *(99, 293, 93, 94),
        ),
        no_exec_memory=(222, 226),
        clone=220,
        denied=((435, errno.ENOSYS), (167, errno.EPERM), (123, errno.EPERM)),
    ),
}


@record
class Confinement:
    """What each step came to: 0 done, otherwise the errno it failed with.

    `landlock_abi` is 0 where the kernel has none. `landlock_probe` is the errno of opening `/`
    after the restriction: EACCES proves that it bites, 0 that it does not.
    """

    no_new_privs: int
    capabilities: int
    rlimits: int
    landlock: int
    landlock_abi: int
    landlock_probe: int
    seccomp: int


def filter_program(machine: Machine) -> bytes:
    """Assemble the seccomp filter: pure bytes, one `struct sock_filter` per eight of them."""
    program: list[tuple[int, int, int, int]] = [
        (_LOAD_WORD, 0, 0, _DATA_ARCH),
        (_JUMP_EQUAL, 1, 0, machine.audit_arch),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD_WORD, 0, 0, _DATA_NUMBER),
    ]
    for number in machine.allowed:
        program += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for number, error in machine.denied:
        program += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | error)]
    # The fourth argument of mmap is its flags: RLIMIT_DATA does not count shared memory, which is
    # of no use to a lone process.
    program += [
        (_JUMP_EQUAL, 0, 3, machine.no_exec_memory[0]),
        (_LOAD_WORD, 0, 0, _DATA_ARGUMENTS + 24),
        (_JUMP_SET, 0, 1, _MAP_SHARED | _MAP_GROWSDOWN),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD_WORD, 0, 0, _DATA_NUMBER),
    ]
    # Dirty pages made read-only leave RLIMIT_DATA's count, so memory only ever gains PROT_WRITE.
    program += [
        (_JUMP_EQUAL, 0, 4, machine.no_exec_memory[1]),
        (_LOAD_WORD, 0, 0, _DATA_ARGUMENTS + 16),
        (_JUMP_SET, 1, 0, _PROT_WRITE),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD_WORD, 0, 0, _DATA_NUMBER),
    ]
    for number in machine.no_exec_memory:
        # The third argument is the protection: no new executable memory, so no new native code.
        program += [
            (_JUMP_EQUAL, 0, 4, number),
            (_LOAD_WORD, 0, 0, _DATA_ARGUMENTS + 16),
            (_JUMP_SET, 0, 1, _PROT_EXEC),
            (_RETURN, 0, 0, _KILL_PROCESS),
            (_RETURN, 0, 0, _ALLOW),
        ]
    program += [
        (_JUMP_EQUAL, 0, 4, machine.clone),
        (_LOAD_WORD, 0, 0, _DATA_ARGUMENTS),
        (_AND, 0, 0, _CLONE_VM_AND_THREAD | _CLONE_NAMESPACES),
        (_JUMP_EQUAL, 0, 1, _CLONE_VM_AND_THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _KILL_PROCESS),
    ]
    return b"".join(struct.pack("<HBBI", *step) for step in program)


def landlock_attributes(abi: int) -> bytes:
    """Give a `struct landlock_ruleset_attr` that handles every right this ABI knows: deny all."""
    rights = 0x1FFF | (0x2000 if abi >= 2 else 0) | (0x4000 if abi >= 3 else 0)
    rights |= 0x8000 if abi >= 5 else 0
    attributes = struct.pack("<Q", rights)
    if abi >= 4:
        attributes += struct.pack("<Q", 0b11)  # TCP bind and connect
    if abi >= 6:
        attributes += struct.pack("<Q", 0b11)  # abstract sockets and signals of others
    return attributes


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


def _prctl(option: int, *arguments: int) -> None:
    padded = (*arguments, 0, 0, 0, 0)[:4]
    _check(_libc().prctl(ctypes.c_int(option), *(ctypes.c_ulong(value) for value in padded)))


def die_with_parent(parent: int) -> None:
    """Be killed when the parent dies, however it dies.

    Raises:
        ProcessLookupError: the parent is gone already, so that no signal would ever come.
    """
    _prctl(_PR_SET_PDEATHSIG, 9)
    if os.getppid() != parent:
        raise ProcessLookupError(errno.ESRCH, "the supervisor is gone")


def _no_new_privs() -> None:
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _drop_capabilities() -> None:
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc().capset(header, bytes(24)))


def _lower_rlimits() -> None:
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_DATA, WORKER_DATA_BYTES),
        (resource.RLIMIT_STACK, 8 << 20),
    ):
        # Not setrlimit, which turns EPERM into a ValueError as well.
        hard = resource.getrlimit(limit)[1]
        least = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.prlimit(0, limit, (least, least))


def landlock_abi() -> int:
    """Give the kernel's Landlock version.

    Raises:
        OSError: ENOSYS where it is not built in, EOPNOTSUPP where it is off at boot.
    """
    return _check(
        _libc().syscall(
            ctypes.c_long(_LANDLOCK_CREATE_RULESET),
            None,
            ctypes.c_size_t(0),
            ctypes.c_uint(_LANDLOCK_CREATE_RULESET_VERSION),
        )
    )


def _restrict_files_and_network(abi: int) -> None:
    attributes = landlock_attributes(abi)
    libc = _libc()
    ruleset = _check(
        libc.syscall(
            ctypes.c_long(_LANDLOCK_CREATE_RULESET),
            attributes,
            ctypes.c_size_t(len(attributes)),
            ctypes.c_uint(0),
        )
    )
    try:
        _check(
            libc.syscall(
                ctypes.c_long(_LANDLOCK_RESTRICT_SELF), ctypes.c_int(ruleset), ctypes.c_uint(0)
            )
        )
    finally:
        os.close(ruleset)


def _filter_system_calls() -> None:
    machine = MACHINES.get(os.uname().machine)
    if machine is None:
        raise OSError(errno.ENOSYS, "no list of system calls for this architecture")
    program = filter_program(machine)
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: u16 count, padding, pointer.
    header = struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    address = ctypes.create_string_buffer(header, len(header))
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(address))


def _errno_of(step: Callable[[], object]) -> int:
    """Give 0 for a step that is done, or the errno it failed with.

    Raises:
        OSError: something is used up at this moment, which is no lack of the machine's.
    """
    try:
        step()
    except OSError as error:
        if error.errno in _USED_UP:
            raise
        return error.errno or errno.EIO
    except ValueError:
        # `resource` turns EINVAL into this.
        return errno.EINVAL
    return 0


def _probe_landlock() -> int:
    def open_root() -> None:
        os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    return _errno_of(open_root)


def task_count() -> int:
    """Count this process's threads.

    Source: proc(5), /proc/PID/task.
    """
    return len(os.listdir("/proc/self/task"))


def confine() -> Confinement:
    """Apply every restriction, in the one order that works, and say how each step went.

    Seccomp comes last, since it takes away the calls the other steps need. A step that fails does
    not stop the ones after it: the plan decides whether that is acceptable.

    Raises:
        RuntimeError: more than one thread is running, so that a restriction would miss the others.
    """
    if task_count() != 1:
        raise RuntimeError("the worker has more than one thread before confinement")
    _prctl(_PR_SET_DUMPABLE, 0)
    no_new_privs = _errno_of(_no_new_privs)
    abi = 0
    landlock = _errno_of(landlock_abi)
    if landlock == 0:
        abi = landlock_abi()
        landlock = _errno_of(lambda: _restrict_files_and_network(abi))
    probe = _probe_landlock()
    capabilities = _errno_of(_drop_capabilities)
    rlimits = _errno_of(_lower_rlimits)
    seccomp = _errno_of(_filter_system_calls)
    return Confinement(
        no_new_privs=no_new_privs,
        capabilities=capabilities,
        rlimits=rlimits,
        landlock=landlock,
        landlock_abi=abi,
        landlock_probe=probe,
        seccomp=seccomp,
    )
