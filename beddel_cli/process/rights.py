"""Give up every right, in the one order that works, and say how each step went.

All of this happens in the init before the program is forked from it, so that the supervisor can
check from outside what the program will be under. Order: capabilities, no_new_privs, Landlock
(which needs it), the system-call filter (which forbids the steps before), and only then the
rlimits: they are the job's to choose, and a low one of them must not make another step fail.

A machine without a protection says so in one of a few ways, which the plan judges. Whatever else
makes a step fail is no lack of the machine's, and nothing is started.

Sources: landlock(7), capabilities(7), setrlimit(2), include/uapi/linux/landlock.h.
"""

from __future__ import annotations

import errno
import os
import resource
import struct

from beddel_cli.process import kernel
from beddel_cli.process.filter import Grants, filter_program
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# linux/landlock.h
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
REFER, _TRUNCATE, _IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15
_FIRST_RIGHTS = 0x1FFF
_SCOPES = 0b11  # abstract sockets, and signals to processes outside
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEVICE

# How a kernel, or a filter around us, says that it does not have, or does not allow, a protection.
_LACKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EACCES)
# May be written by anyone wherever it is shown; only Landlock forbids it here.
PROBED_FILE = "/dev/random"
_PAGE = 4096


class StepError(OSError):
    """A step that failed although the machine has what it takes; `step` names it."""

    def __init__(self, step: str, error: OSError) -> None:
        super().__init__(error.errno, error.strerror, error.filename)
        self.step = step


@record
class Limits:
    """The rlimits of every process inside, but for the number of open files (`limit_files`).

    Attributes:
        processes: processes and threads that may be at once, the init not counted.
        data_bytes: writable private memory of one process; None where a cgroup counts memory.
    """

    processes: int
    file_bytes: int
    cpu_seconds: int
    data_bytes: int | None


@record
class Given:
    """What each step came to: 0 done, otherwise the errno by which the machine said it lacks it.

    `landlock_probe` is the errno of a write that nothing but Landlock forbids, 0 if it worked;
    None where the same write failed before the restriction, so that it proves nothing.
    """

    rlimits: int
    capabilities: int
    no_new_privs: int
    landlock: int
    landlock_abi: int
    landlock_probe: int | None
    seccomp: int


def rlimits(limits: Limits) -> tuple[tuple[int, int], ...]:
    """Give each rlimit to set, and its value."""
    values = [
        (resource.RLIMIT_CORE, 0),
        # The init itself counts too.
        (resource.RLIMIT_NPROC, limits.processes + 1),
        # One page more than the file system has room for: a full one says so first (ENOSPC).
        (resource.RLIMIT_FSIZE, limits.file_bytes + _PAGE),
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_MEMLOCK, 64 << 10),
        (resource.RLIMIT_MSGQUEUE, 800 << 10),
        (resource.RLIMIT_SIGPENDING, 1024),
        (resource.RLIMIT_RTPRIO, 0),
        (resource.RLIMIT_NICE, 0),
    ]
    if limits.data_bytes is not None:
        values.append((resource.RLIMIT_DATA, limits.data_bytes))
    return tuple(values)


def handled_rights(abi: int) -> int:
    """Give every right to files that this Landlock version knows."""
    rights = _FIRST_RIGHTS
    for since, right in ((2, REFER), (3, _TRUNCATE), (5, _IOCTL_DEVICE)):
        rights |= right if abi >= since else 0
    return rights


def ruleset_attributes(abi: int) -> bytes:
    """Give a `struct landlock_ruleset_attr` that handles all files, and all scopes.

    Connections by TCP are left to the network namespace, in which there is only loopback.
    """
    words = [handled_rights(abi)]
    if abi >= 6:
        words += [0, _SCOPES]
    return struct.pack(f"<{len(words)}Q", *words)


def written_rights(abi: int, *, folder: bool) -> int:
    """Give the rights on a place that may be written to: all but making device nodes."""
    rights = handled_rights(abi) & ~(_MAKE_CHAR | _MAKE_BLOCK)
    return rights if folder else rights & _OF_FILES


def read_rights(*, folder: bool) -> int:
    """Give the rights on a place that may be read and executed."""
    return _READ if folder else _READ & _OF_FILES


def usual_filters() -> dict[Grants, bytes]:
    """Assemble the filters that most programs get, ahead of knowing the program."""
    machine = os.uname().machine
    if machine not in kernel.MACHINES:
        return {}
    usual = (Grants(unix_sockets=True, ownerless_memory=counted) for counted in (True, False))
    return {grants: filter_program(machine, grants) for grants in usual}


def give_up(
    limits: Limits,
    writable: tuple[str, ...],
    grants: Grants,
    filters: dict[Grants, bytes],
) -> Given:
    """Apply every restriction, and say how each step went.

    What the machine lacks does not stop the steps after it: the plan decides whether that is
    acceptable.

    Args:
        writable: the places that may be written to, as they are called inside.
        filters: those that are assembled already.

    Raises:
        StepError: a step failed for another reason.
    """
    return give_up_by(
        limits,
        kernel.drop_capabilities,
        lambda abi: _restrict_files(abi, writable),
        lambda: kernel.install_filter(filters.get(grants) or _program(grants)),
    )


def give_up_by(
    limits: Limits,
    drop_capabilities: Callable[[], None],
    restrict_files: Callable[[int], None],
    install_filters: Callable[[], None],
) -> Given:
    """Do as `give_up`, with the steps as the caller has them; Landlock's is given its version.

    Raises:
        StepError: as `give_up`.
    """
    step = _errno_of
    capabilities = step("capabilities", drop_capabilities)
    no_new_privs = step("no-new-privs", lambda: kernel.prctl(kernel.SET_NO_NEW_PRIVS, 1))
    control = _probe_errno()
    abi = 0
    landlock = step("landlock", kernel.landlock_abi)
    if landlock == 0:
        abi = kernel.landlock_abi()
        try:
            restrict_files(abi)
        except OSError as error:
            # The kernel has it: rules that cannot be made are never a Landlock that is not there.
            raise StepError("landlock", error) from error
    probe = _probe_errno() if control == 0 else None
    seccomp = step("seccomp", install_filters)
    limited = step("rlimits", lambda: _lower(limits))
    return Given(
        rlimits=limited,
        capabilities=capabilities,
        no_new_privs=no_new_privs,
        landlock=landlock,
        landlock_abi=abi,
        landlock_probe=probe,
        seccomp=seccomp,
    )


def _program(grants: Grants) -> bytes:
    machine = os.uname().machine
    if machine not in kernel.MACHINES:
        raise OSError(errno.ENOSYS, "no list of system calls for this architecture")
    return filter_program(machine, grants)


def limit_files(most: int) -> None:
    """Let this process, and all it will start, have so many open files.

    For the program alone, and last of all: what the init has open is passed on to the supervisor,
    and how many of a user's descriptors may be on their way is judged by this limit too.

    Raises:
        OSError: refused.

    Source: unix(7) on ETOOMANYREFS.
    """
    try:
        _lower_one(resource.RLIMIT_NOFILE, most)
    except OSError as error:
        if error.errno not in _LACKS:
            raise  # a machine that lacks rlimits has said so in `give_up`, for the plan to judge


def _lower(limits: Limits) -> None:
    for limit, value in rlimits(limits):
        _lower_one(limit, value)
    # Nothing is changed by it; it shows that this one can be set too, when its time comes.
    resource.prlimit(0, resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE))


def _lower_one(limit: int, value: int) -> None:
    # Not setrlimit, which turns EPERM into a ValueError as well.
    hard = resource.getrlimit(limit)[1]
    least = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.prlimit(0, limit, (least, least))


def _restrict_files(abi: int, writable: tuple[str, ...]) -> None:
    ruleset = kernel.landlock_ruleset(ruleset_attributes(abi))
    try:
        _allow(ruleset, "/", lambda _: _READ)
        for place in writable:
            _allow(ruleset, place, lambda folder: written_rights(abi, folder=folder))
        kernel.landlock_restrict(ruleset)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, place: str, rights: Callable[[bool], int]) -> None:
    descriptor = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        folder = os.fstat(descriptor).st_mode & 0o170000 == 0o040000
        kernel.landlock_allow(ruleset, rights(folder), descriptor)
    finally:
        os.close(descriptor)


def _probe_errno() -> int:
    """Give the errno of opening for writing what nothing but Landlock forbids; 0 if it opens.

    Opened, never written: opening is what is judged.
    """
    try:
        os.close(os.open(PROBED_FILE, os.O_WRONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _errno_of(name: str, step: Callable[[], object]) -> int:
    """Give 0 for a step that is done, or the errno by which the machine says it lacks it.

    Raises:
        StepError: it failed for another reason.
    """
    try:
        step()
    except OSError as error:
        if error.errno not in _LACKS:
            raise StepError(name, error) from error
        return error.errno
    except ValueError:
        # `resource` turns EINVAL into this.
        return errno.EINVAL
    return 0
