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
from beddel_cli.process.rights import REFER, handled_rights, read_rights, written_rights
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
    "fallocate": (285, 47),
    "chmod": (90, None),
    "chown": (92, None),
    "lchown": (94, None),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "fchownat": (260, 54),
    "fchmod": (91, 52),
    "fchown": (93, 55),
    "fchmodat": (268, 53),
    "utimensat": (280, 88),
    "fchmodat2": (452, 452),
    "ioctl": (16, 29),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "getxattr": (191, 8),
    "lgetxattr": (192, 9),
    "listxattr": (194, 11),
    "llistxattr": (195, 12),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
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
# Attributes of any file by its name, and changing those of one that is open. Answered as by a file
# system that has none.
ATTRIBUTES = (
    *("setxattr", "lsetxattr", "getxattr", "lgetxattr", "listxattr", "llistxattr"),
    *("removexattr", "lremovexattr", "fsetxattr", "fremovexattr"),
)
NEW_ATTRIBUTES = ("setxattrat", "getxattrat", "listxattrat", "removexattrat")
# Gigabytes within a millisecond, where what is on disk is looked at every 20 ms at best. Without it
# the C library's posix_fallocate writes to each block.
INSTANT_BYTES = "fallocate"
# Mode, owner and times of a file by its name, or of one that is open for reading alone: an own id
# could change those of all its files.
BY_NAME = ("chown", "lchown", "fchown", "fchownat", "utime", "utimes", "futimesat")
# Of these, what programs cannot do without; the guardian does it for them, in the scratch folder.
ASKED = ("chmod", "fchmod", "fchmodat", "fchmodat2", "utimensat")
# asm-generic/ioctls.h: requests of terminals, and those of every file, are numbered 0x54NN.
_ANY_FILE, _ANY_FILE_MASK = 0x5400, 0xFFFFFF00
# linux/fs.h: what asks about a file or shares its blocks with one that is open for writing. All
# others are answered as by a file that knows none: chattr, subvolumes, a pair asked for addresses.
_FILE_REQUESTS = (
    *(0x80086601, 0x801C581F, 0xC020660B, 2),  # GETFLAGS, FSGETXATTR, FIEMAP, FIGETBSZ
    *(0x40049409, 0x4020940D, 0xC0189436),  # FICLONE, FICLONERANGE, FIDEDUPERANGE
)
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
        guardian: its process id.
    """

    own_id: bool
    landlock_abi: int
    asks: bool = False
    guardian: int = 1


def strict_filter(machine: str, strict: Strict) -> bytes:
    """Assemble the second filter; raises KeyError for a machine that `filter` does not know."""
    eperm, enosys = [refuse(errno.EPERM)], [refuse(errno.ENOSYS)]
    judged = dict.fromkeys(SOCKETS, eperm)
    judged["socketpair"] = pairs(connected_only=True)
    judged |= dict.fromkeys((*QUEUES, *NEW_ATTRIBUTES), enosys)
    judged |= {name: [refuse(errno.EOPNOTSUPP)] for name in (*ATTRIBUTES, INSTANT_BYTES)}
    judged["ioctl"] = _file_requests()
    allowed = _only_itself() if strict.own_id else _all_but(strict.guardian)
    judged |= {name: [load(argument), *allowed] for name, argument in _PROCESS_ARGUMENTS.items()}
    judged |= {
        name: _priorities(which, allowed, own_id=strict.own_id)
        for name, which in _PRIORITIES.items()
    }
    if strict.landlock_abi < _TRUNCATE_SINCE:
        judged["truncate"] = eperm
    if strict.own_id:
        asked = _HAND_OVER if strict.asks else refuse(errno.EPERM)
        judged |= dict.fromkeys(BY_NAME, eperm)
        judged |= {name: [asked] for name in ASKED}
    return judge_calls(machine, judged, STRICT_NUMBERS)


def asked_numbers(machine: str) -> dict[int, str]:
    """Give the calls of `ASKED` by number."""
    index = ("x86_64", "aarch64").index(machine)
    numbered = ((STRICT_NUMBERS[name][index], name) for name in ASKED)
    return {number: name for number, name in numbered if number is not None}


def _file_requests() -> list[Step]:
    """Let only those requests through that concern one file or terminal."""
    return [
        load(1),
        *(step for value in _FILE_REQUESTS for step in ((_EQUAL, 0, 1, value), _PASS)),
        (_AND, 0, 0, _ANY_FILE_MASK),
        (_EQUAL, 1, 0, _ANY_FILE),
        refuse(errno.ENOTTY),
        _PASS,
    ]


def _only_itself() -> list[Step]:
    """Let a call through whose loaded argument says the caller, as 0."""
    return [(_EQUAL, 1, 0, 0), refuse(errno.EPERM), _PASS]


def _all_but(process: int) -> list[Step]:
    """Let a call through whose loaded argument does not say this process."""
    return [(_EQUAL, 0, 1, process), refuse(errno.EPERM), _PASS]


def _priorities(which: int, allowed: list[Step], *, own_id: bool) -> list[Step]:
    """Judge who gets another priority: one process, or a group or user that the caller is of."""
    many = [refuse(errno.EPERM)] if own_id else [load(1), *_only_itself()]
    return [load(0), (_EQUAL, 0, 1 + len(allowed), which), load(1), *allowed, *many]


def keep_signals_in() -> None:
    """Let this thread, and all it will start, signal only each other.

    Rules of any kind forbid to link and rename from folder to folder unless they say otherwise, as
    these do for all folders: the program's own rules say in which of them it may.

    Raises:
        OSError: refused.
    """
    ruleset = kernel.landlock_ruleset(struct.pack("<3Q", REFER, 0, _SIGNALS))
    try:
        _allow_path(ruleset, "/", REFER)
        kernel.landlock_restrict(ruleset)
    finally:
        os.close(ruleset)


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
