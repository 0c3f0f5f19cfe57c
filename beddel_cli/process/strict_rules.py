"""Landlock rules and a second system-call filter, for where no namespaces stand around a program.

The rules give reading of system folders, of some devices and of the files that programs look for
there, and writing of the scratch folder alone. The filter is put on top of the usual one and
refuses what namespaces made harmless: sockets, which would be the host's; queues and shared memory
that have the host's names; and, since the program sees every path of the host and Landlock judges
only opening, making and removing, all that changes a file by its name without opening it.

Where the program runs under its caller's own id, it is refused too what one process may do to
another of the same id. Signals to processes outside are then stopped by Landlock (from version 6
on), without which this is not tried at all.

Numbers and sources: as in `filter`; landlock(7), "Filesystem actions" and "Current limitations";
unix(7) on sending from a datagram socket that is a half of a pair.
"""

from __future__ import annotations

import errno
import os
import struct

from beddel_cli.process import kernel
from beddel_cli.process.filesystem import DEVICES, SYSTEM_FOLDERS, etc_names
from beddel_cli.process.filter import Step, judge_calls, load, pairs, refuse
from beddel_cli.process.rights import handled_rights, read_rights, written_rights
from beddel_cli.record import record

# Since this version Landlock keeps signals, and connections to abstract sockets, in.
SCOPES_SINCE = 6
_NETWORK_SINCE, _BIND_AND_CONNECT = 4, 0b11
_ABSTRACT_SOCKETS, _SIGNALS = 1, 2
_TRUNCATE_SINCE = 3
# Of the host's /proc: what the program would see of an own one too, and what tells of no process.
PROC_SHOWN = ("/proc/cpuinfo", "/proc/meminfo")

# name: (x86_64, aarch64), as in `filter`.
STRICT_NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "socketpair": (53, 199),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "shmdt": (67, 197),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "mq_timedsend": (242, 182),
    "mq_timedreceive": (243, 183),
    "mq_notify": (244, 184),
    "mq_getsetattr": (245, 185),
    "truncate": (76, 45),
    "chmod": (90, None),
    "chown": (92, None),
    "lchown": (94, None),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "fchownat": (260, 54),
    "fchmodat": (268, 53),
    "utimensat": (280, 88),
    "fchmodat2": (452, 452),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "getxattr": (191, 8),
    "lgetxattr": (192, 9),
    "listxattr": (194, 11),
    "llistxattr": (195, 12),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "setxattrat": (463, 463),
    "getxattrat": (464, 464),
    "listxattrat": (465, 465),
    "removexattrat": (466, 466),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "prlimit64": (302, 261),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
}
SOCKETS = ("socket", "connect", "bind")
QUEUES = (
    *("shmget", "shmat", "shmctl", "shmdt", "semget", "semop", "semctl", "semtimedop"),
    *("msgget", "msgsnd", "msgrcv", "msgctl", "mq_open", "mq_unlink", "mq_timedsend"),
    *("mq_timedreceive", "mq_notify", "mq_getsetattr"),
)
# Attributes of any file, by its name. Answered as by a file system that has none.
ATTRIBUTES = (
    *("setxattr", "lsetxattr", "getxattr", "lgetxattr", "listxattr", "llistxattr"),
    *("removexattr", "lremovexattr"),
)
NEW_ATTRIBUTES = ("setxattrat", "getxattrat", "listxattrat", "removexattrat")
# Mode, owner and times of a file by its name: an own id could change those of all its files.
BY_NAME = ("chown", "lchown", "fchownat", "utime", "utimes", "futimesat")
# Of these, what programs cannot do without; the guardian does it for them, in the scratch folder.
ASKED = ("chmod", "fchmodat", "fchmodat2", "utimensat")
# Calls on a process, and which argument says which; 0 is the caller itself.
_PROCESS_ARGUMENTS = {
    "prlimit64": 0,
    "sched_setparam": 0,
    "sched_setscheduler": 0,
    "sched_setaffinity": 0,
    "sched_setattr": 0,
}
_PRIORITIES = {"setpriority": 0, "ioprio_set": 1}  # PRIO_PROCESS, IOPRIO_WHO_PROCESS
_EQUAL, _AND, _ALLOW = 0x15, 0x54, 0x7FFF0000
_PASS: Step = (0x06, 0, 0, _ALLOW)
_HAND_OVER: Step = (0x06, 0, 0, 0x7FC00000)


@record
class Strict:
    """What the second filter depends on.

    Attributes:
        own_id: whether the program's id is the caller's.
        asks: whether somebody listens for the calls of `ASKED`; they are refused otherwise.
    """

    own_id: bool
    landlock_abi: int
    asks: bool = False


def strict_filter(machine: str, strict: Strict) -> bytes:
    """Assemble the second filter; raises KeyError for a machine that `filter` does not know."""
    eperm, enosys = [refuse(errno.EPERM)], [refuse(errno.ENOSYS)]
    judged = dict.fromkeys(SOCKETS, eperm)
    judged["socketpair"] = pairs(connected_only=True)
    judged |= dict.fromkeys((*QUEUES, *NEW_ATTRIBUTES), enosys)
    judged |= {name: [refuse(errno.EOPNOTSUPP)] for name in ATTRIBUTES}
    if strict.landlock_abi < _TRUNCATE_SINCE:
        judged["truncate"] = eperm
    if strict.own_id:
        asked = _HAND_OVER if strict.asks else refuse(errno.EPERM)
        judged |= dict.fromkeys(BY_NAME, eperm)
        judged |= {name: [asked] for name in ASKED}
        judged["utimensat"] = _of_descriptor(asked)
        for name, argument in _PROCESS_ARGUMENTS.items():
            judged[name] = [load(argument), (_EQUAL, 1, 0, 0), refuse(errno.EPERM), _PASS]
        for name, which in _PRIORITIES.items():
            judged[name] = _own_priority(which)
    return judge_calls(machine, judged, STRICT_NUMBERS)


def asked_numbers(machine: str) -> dict[int, str]:
    """Give the calls of `ASKED` by number."""
    index = ("x86_64", "aarch64").index(machine)
    numbered = ((STRICT_NUMBERS[name][index], name) for name in ASKED)
    return {number: name for number, name in numbered if number is not None}


def _of_descriptor(otherwise: Step) -> list[Step]:
    """Let times be set without a name, of the file that a descriptor is open on."""
    return [
        load(1),
        (_EQUAL, 0, 2, 0),
        load(1, upper=True),
        (_EQUAL, 1, 0, 0),
        otherwise,
        _PASS,
    ]


def _own_priority(which: int) -> list[Step]:
    return [
        load(0),
        (_EQUAL, 0, 2, which),
        load(1),
        (_EQUAL, 1, 0, 0),
        refuse(errno.EPERM),
        _PASS,
    ]


def signals_ruleset() -> int:
    """Give a set of rules that keeps signals among those who are under it."""
    return kernel.landlock_ruleset(struct.pack("<3Q", 0, 0, _SIGNALS))


@record
class Places:
    """What may be reached beside the system: descriptors, by what may be done there."""

    written: tuple[int, ...]
    read: tuple[int, ...]
    terminal: bool
    counts_memory: bool


def restrict_files(abi: int, places: Places) -> None:
    """Let this thread, and all it will start, reach system folders and the named places only.

    Raises:
        OSError: refused.
    """
    ruleset = kernel.landlock_ruleset(ruleset_attributes(abi))
    try:
        for path in _system_paths():
            _allow_path(ruleset, path, read_rights(folder=os.path.isdir(path)))
        for path in written_devices(places):
            _allow_path(ruleset, path, written_rights(abi, folder=False))
        for place in places.read:
            kernel.landlock_allow(ruleset, read_rights(folder=_is_folder(place)), place)
        for place in places.written:
            rights = read_rights(folder=True) | written_rights(abi, folder=True)
            kernel.landlock_allow(ruleset, rights, place)
        kernel.landlock_restrict(ruleset)
    finally:
        os.close(ruleset)


def ruleset_attributes(abi: int) -> bytes:
    """Give a `struct landlock_ruleset_attr` that handles everything this version can."""
    words = [handled_rights(abi)]
    if abi >= _NETWORK_SINCE:
        words.append(_BIND_AND_CONNECT)
    if abi >= SCOPES_SINCE:
        words.append(_ABSTRACT_SOCKETS | _SIGNALS)
    return struct.pack(f"<{len(words)}Q", *words)


def written_devices(places: Places) -> tuple[str, ...]:
    """Give the device files that may be written to (pure)."""
    return (
        *("/dev/null", "/dev/full"),
        # A shared mapping of it is memory that need not be in any process.
        *(("/dev/zero",) if places.counts_memory else ()),
        *(("/dev/tty",) if places.terminal else ()),
    )


def _system_paths() -> list[str]:
    paths = [f"/{name}" for name in SYSTEM_FOLDERS]
    paths += [f"/etc/{name}" for name in etc_names(os.listdir("/etc"))]
    paths += [f"/dev/{name}" for name in DEVICES]
    return [path for path in (*paths, *PROC_SHOWN) if os.access(path, os.R_OK)]


def _allow_path(ruleset: int, path: str, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        kernel.landlock_allow(ruleset, rights, descriptor)
    finally:
        os.close(descriptor)


def _is_folder(descriptor: int) -> bool:
    return os.fstat(descriptor).st_mode & 0o170000 == 0o040000
