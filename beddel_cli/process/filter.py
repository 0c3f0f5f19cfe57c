"""The system-call filter of a program, as bytes.

A worker of ours needs twenty calls and gets no more; a program may be anything, so here the list
says what is refused. Refused is what leads out of the walls, widens what the kernel can be attacked
through, or would leave something on the host: namespaces, mounts, keyrings, other processes'
memory, the clock, modules, exotic sockets, setuid bits, injected terminal input. What the kernel
learns after this was written is refused as unknown.

Where a call is refused by an argument, the kernel's own type of that argument says which bits
count: all of those below are read as 32 bits or fewer, so what stands in the upper half of the
register changes neither the kernel's answer nor ours. Where arguments lie behind a pointer, no
filter can see them: clone3 and openat2 are answered as on a kernel that has not got them, and the C
library does without.

Numbers: the kernel's scripts/syscall.tbl and arch/x86/entry/syscalls/syscall_64.tbl.
Sources: seccomp(2), clone(2), socket(2), open(2), mknod(2), personality(2), ioctl_tty(2).
"""

from __future__ import annotations

import errno
import struct

from beddel_cli.record import record

# linux/filter.h, linux/seccomp.h
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_EQUAL, _AT_LEAST, _ANY_BIT = 0x15, 0x35, 0x45
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# The last number judged here, and those between the old tables and the common ones (424 on).
_LAST = 469
_FIRST_COMMON = 424
_LAST_OF_OLD = {"x86_64": 334, "aarch64": 294}

# name: (x86_64, aarch64); None where the architecture has no such call.
NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "open": (2, None),
    "mmap": (9, 222),
    "ioctl": (16, 29),
    "shmget": (29, 194),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "clone": (56, 220),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mkdir": (83, None),
    "creat": (85, None),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fcntl": (72, 25),
    "setsockopt": (54, 208),
    "prctl": (157, 167),
    "madvise": (28, 233),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "ptrace": (101, 117),
    "syslog": (103, 116),
    "setgroups": (116, 159),
    "mknod": (133, None),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "prlimit64": (302, 261),
    "sched_setattr": (314, 274),
    "uselib": (134, None),
    "personality": (135, 92),
    "ustat": (136, None),
    "sysfs": (139, None),
    "vhangup": (153, 58),
    "modify_ldt": (154, None),
    "pivot_root": (155, 41),
    "_sysctl": (156, None),
    "adjtimex": (159, 171),
    "chroot": (161, 51),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "mount": (165, 40),
    "umount2": (166, 39),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, None),
    "ioperm": (173, None),
    "create_module": (174, None),
    "init_module": (175, 105),
    "delete_module": (176, 106),
    "get_kernel_syms": (177, None),
    "query_module": (178, None),
    "quotactl": (179, 60),
    "nfsservctl": (180, 42),
    "lookup_dcookie": (212, 18),
    "io_setup": (206, 0),
    "clock_settime": (227, 112),
    "kexec_load": (246, 104),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "inotify_init": (253, None),
    "inotify_add_watch": (254, 27),
    "migrate_pages": (256, 238),
    "openat": (257, 56),
    "mkdirat": (258, 34),
    "mknodat": (259, 33),
    "fchmodat": (268, 53),
    "unshare": (272, 97),
    "move_pages": (279, 239),
    "inotify_init1": (294, 26),
    "perf_event_open": (298, 241),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "clock_adjtime": (305, 266),
    "setns": (308, 268),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "finit_module": (313, 273),
    "memfd_create": (319, 279),
    "kexec_file_load": (320, 294),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "landlock_create_ruleset": (444, 444),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "clone3": (435, 435),
    "openat2": (437, 437),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "mount_setattr": (442, 442),
    "quotactl_fd": (443, 443),
    "memfd_secret": (447, 447),
    "process_mrelease": (448, 448),
    "cachestat": (451, 451),
    "fchmodat2": (452, 452),
    "statmount": (457, 457),
    "listmount": (458, 458),
    "lsm_get_self_attr": (459, 459),
    "lsm_set_self_attr": (460, 460),
    "lsm_list_modules": (461, 461),
    "setxattrat": (463, 463),
    "open_tree_attr": (467, 467),
    "file_setattr": (469, 469),
}

# Answered EPERM whatever the arguments: what needs a right that nobody inside has, or must have.
FORBIDDEN = (
    *("unshare", "setns", "chroot", "pivot_root", "mount", "umount2", "open_tree", "move_mount"),
    *("fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "open_tree_attr"),
    *("add_key", "request_key", "keyctl", "bpf", "perf_event_open", "userfaultfd"),
    *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease"),
    *("pidfd_getfd", "kcmp", "name_to_handle_at", "open_by_handle_at", "lookup_dcookie"),
    *("fanotify_init", "fanotify_mark", "migrate_pages", "move_pages"),
    *("init_module", "finit_module", "delete_module", "create_module", "get_kernel_syms"),
    *("query_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff", "acct"),
    *("quotactl", "quotactl_fd", "nfsservctl", "syslog", "settimeofday", "clock_settime"),
    *("clock_adjtime", "adjtimex", "sethostname", "setdomainname", "setgroups", "vhangup"),
    *("iopl", "ioperm", "modify_ldt", "uselib", "ustat", "sysfs", "_sysctl"),
)
# Answered as by a kernel without them, since programs then have another way.
MISSING = (
    # Its requests count against a number for the whole machine (fs.aio-max-nr).
    "io_setup",
    # The system's folders are the host's own: watched, they tell what it and other programs start.
    *("inotify_init", "inotify_init1", "inotify_add_watch", "cachestat"),
    *("clone3", "openat2", "io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("memfd_secret", "statmount", "listmount", "file_setattr"),
    *("lsm_get_self_attr", "lsm_set_self_attr", "lsm_list_modules"),
)
# Answered as by a file system that has none. On a file of a tmpfs, an access control list of 64 KiB
# is memory that nothing counts, not even a cgroup.
ATTRIBUTES = ("setxattr", "lsetxattr", "fsetxattr", "setxattrat")
# Memory that belongs to no process and so shows in no sum over processes. A single semget may take
# megabytes of the kernel's own; 65,536 rules of one Landlock ruleset, 4 MiB in 20 ms.
OWNERLESS_MEMORY = ("shmget", "semget", "msgget", "memfd_create", "landlock_create_ruleset")
# mman.h. Pages of a shared mapping without a file stay when a process lets go of them
# (MADV_DONTNEED) or unmaps all but one, and are then in no process. Bit 0 is set in both kinds of
# shared mappings, MAP_SHARED and MAP_SHARED_VALIDATE.
_MAP_SHARED, _MAP_ANONYMOUS = 0x1, 0x20

# Huge pages that the host set aside for others; no figure of ours counts them. Most machines have
# none, and answer so too.
_MAP_HUGETLB, _MFD_HUGETLB = 0x40000, 0x4

# sched.h. CLONE_NEWTIME (0x80) lies where clone has its exit signal; none is that large.
CLONE_NAMESPACES = 0x7E020080
# asm-generic/ioctls.h: typed into a terminal, line disciplines, the console's own ioctls.
TIOCSTI, TIOCLINUX, TIOCCONS, TIOCSETD = 0x5412, 0x541C, 0x541D, 0x5423
_FORBIDDEN_IOCTLS = (TIOCSTI, TIOCLINUX, TIOCCONS, TIOCSETD)
# fcntl.h: leases, which hold up whoever opens the file on the host, and the watch on a folder that
# inotify came to replace.
_F_SETLEASE, _F_NOTIFY = 1024, 1026
_MADV_MERGEABLE = 12
# PER_LINUX, PER_LINUX32, both with UNAME26, and the question which it is.
HARMLESS_PERSONALITIES = (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)

_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_SOCK_STREAM, _SOCK_DGRAM, _SOCK_SEQPACKET, _SOCK_TYPE_MASK = 1, 2, 5, 0xF
# IPPROTO_IP (the default), ICMP, TCP, UDP, ICMPV6. Others would load modules.
_INTERNET_PROTOCOLS = (0, 1, 6, 17, 58)
_NETLINK_ROUTE = 0
# in.h, in6.h: to join a group or to hear a source in one, and an anycast address, of IPv4 (0) and
# IPv6 (41). Each membership takes memory, and a socket of n of them n² steps to be closed, which a
# killed process does not before that. Answered as where no interface has groups.
_JOINS = {0: (35, 39, 42, 46), 41: (20, 27, 42, 46)}
# asm-generic/socket.h; how much a socket may hold is a wish that the kernel cuts to what it allows.
_SOL_SOCKET, _SO_SNDBUF, _SO_RCVBUF = 1, 7, 8
# Programs that a socket runs for what it receives: SO_ATTACH_FILTER, SO_ATTACH_BPF and the two of
# SO_REUSEPORT. Each takes a hundred kilobytes of the kernel's own.
_SOCKET_FILTERS = (26, 50, 51, 52)
# prctl.h: a huge page stays whole while anybody, a pipe for instance, holds a small part of it.
SET_THP_DISABLE = 41
# What a process may set and ask of itself; all else is answered as by a kernel that does not know
# it. Not here: names of mappings and a table of futexes, memory that nothing counts (PR_SET_VMA,
# PR_FUTEX_HASH); processors kept from others (PR_SCHED_CORE); pages shared with whoever has the
# same (PR_SET_MEMORY_MERGE); lies about where its arguments are (PR_SET_MM).
PROCESS_OPTIONS = (
    *(1, 2, 3, 4, 7, 8, 15, 16),  # signal at the parent's death, dumpable, KEEPCAPS, name
    *(21, 22, 23, 24, 25, 26, 27, 28),  # seccomp, bounding set, time stamp counter, securebits
    *(29, 30, 33, 34, 36, 37, 38, 39),  # timer slack, MCE_KILL, subreaper, no_new_privs
    *(SET_THP_DISABLE, 42, 47),  # huge pages, ambient capabilities
    *(50, 51, 63, 64),  # vectors of aarch64
    *(52, 53, 54, 55, 56, 60, 61),  # speculation; keys and tags of pointers of aarch64
    *(59, 65, 66, 74, 75, 76),  # calls of its own to itself, no W^X, shadow stacks of aarch64
    # PR_SET_PTRACER, for a debugger that could do nothing here; PR_GET_AUXV
    *(0x59616D61, 0x41555856),
)

_SET_ID_BITS = 0o6000
_O_CREAT, _O_TMPFILE = 0o100, 0o20000000
_FORMAT_MASK, _CHARACTER_DEVICE, _BLOCK_DEVICE = 0o170000, 0o020000, 0o060000

# Calls with a mode, and which argument it is.
_MODE_ARGUMENTS = {
    "chmod": 1,
    "fchmod": 1,
    "fchmodat": 2,
    "fchmodat2": 2,
    "creat": 1,
    "mkdir": 1,
    "mkdirat": 2,
}
# Calls on another process of the same user, which the init is, and which argument says which.
_PROCESS_ARGUMENTS = {
    "prlimit64": 0,
    "sched_setparam": 0,
    "sched_setscheduler": 0,
    "sched_setaffinity": 0,
    "sched_setattr": 0,
}
_INIT = 1
# Calls on a process or on many; which number says that it is all of a user.
_OF_USER = {"setpriority": 2, "ioprio_set": 3}
_OPEN_FLAG_ARGUMENTS = {"open": 1, "openat": 2}
_DEVICE_MODE_ARGUMENTS = {"mknod": 1, "mknodat": 2}

Step = tuple[int, int, int, int]
_PASS: Step = (_RETURN, 0, 0, _ALLOW)


@record
class Grants:
    """What differs between programs.

    Attributes:
        unix_sockets: socket(AF_UNIX), and pairs of datagram sockets. Not with a writable mount,
            in which a socket of the host may lie; pairs of connected sockets are always to be had.
        ownerless_memory: SysV objects, memfds and shared mappings without a file, larger buffers
            and filters of sockets, Landlock rules, huge pages. Not where nothing counts them.
    """

    unix_sockets: bool
    ownerless_memory: bool


def filter_program(machine: str, grants: Grants) -> bytes:
    """Assemble the filter: one `struct sock_filter` per eight bytes.

    Checks by argument come first, being the frequent calls; the kernel remembers by itself which
    numbers are always allowed.

    Raises:
        KeyError: a machine other than x86_64 and aarch64.
    """
    judged = _judged_by_argument(grants)
    judged |= {name: [refuse(errno.EPERM)] for name in FORBIDDEN}
    judged |= {name: [refuse(errno.EOPNOTSUPP)] for name in ATTRIBUTES}
    missing = MISSING if grants.ownerless_memory else (*MISSING, *OWNERLESS_MEMORY)
    judged |= {name: [refuse(errno.ENOSYS)] for name in missing}
    return judge_calls(machine, judged, NUMBERS)


def judge_calls(
    machine: str,
    judged: dict[str, list[Step]],
    numbers: dict[str, tuple[int | None, int | None]],
) -> bytes:
    """Assemble a filter that judges each of some calls, and lets all others through.

    Raises:
        KeyError: a machine other than x86_64 and aarch64.
    """
    program = _start(machine)
    which = list(_AUDIT_ARCH).index(machine)
    for name, judge in judged.items():
        program += _on(numbers[name][which], judge)
    program.append(_PASS)
    return b"".join(struct.pack("<HBBI", *step) for step in program)


def _start(machine: str) -> list[Step]:
    """Let only numbers of this architecture's own table through.

    A call by another table (int 0x80 on x86-64) kills: its numbers mean other calls. x32 calls
    have bit 30 set and are above all known ones.
    """
    return [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 2, 0, _LAST + 1),
        (_AT_LEAST, 2, 0, _FIRST_COMMON),
        (_AT_LEAST, 0, 1, _LAST_OF_OLD[machine] + 1),
        refuse(errno.ENOSYS),
    ]


def _on(number: int | None, judge: list[Step]) -> list[Step]:
    """Judge one call. A judgement always returns: the loads in it lose the number."""
    return [] if number is None else [(_EQUAL, 0, len(judge), number), *judge]


def refuse(number: int) -> Step:
    """Give the step that answers with an errno."""
    return (_RETURN, 0, 0, _ERRNO | number)


def load(argument: int, *, upper: bool = False) -> Step:
    """Give the step that loads one half of an argument."""
    # Little-endian: the lower half of a register comes first.
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * argument + 4 * upper)


def _judged_by_argument(grants: Grants) -> dict[str, list[Step]]:
    judged = {
        name: [load(flags), (_ANY_BIT, 0, 3, _O_CREAT | _O_TMPFILE), *_without_set_id(flags + 1)]
        for name, flags in _OPEN_FLAG_ARGUMENTS.items()
    }
    judged["ioctl"] = [
        load(1),
        *(step for request in _FORBIDDEN_IOCTLS for step in _deny_value(request, errno.EPERM)),
        _PASS,
    ]
    judged["fcntl"] = [
        load(1),
        *_deny_value(_F_SETLEASE, errno.EPERM),
        *_deny_value(_F_NOTIFY, errno.EPERM),
        _PASS,
    ]
    judged["clone"] = [
        load(0),
        (_ANY_BIT, 0, 1, CLONE_NAMESPACES),
        refuse(errno.EPERM),
        _PASS,
    ]
    judged["socket"] = _sockets(grants)
    judged["socketpair"] = pairs(connected_only=not grants.unix_sockets)
    judged["personality"] = [
        load(0),
        *(step for value in HARMLESS_PERSONALITIES for step in ((_EQUAL, 0, 1, value), _PASS)),
        refuse(errno.EPERM),
    ]
    judged |= {name: _without_set_id(mode) for name, mode in _MODE_ARGUMENTS.items()}
    judged |= {name: _no_device(mode) for name, mode in _DEVICE_MODE_ARGUMENTS.items()}
    # With a limit of no descriptors, or no CPU time, the init could not tell how a program ended.
    judged |= {
        name: [load(process), *_deny_value(_INIT, errno.EPERM), _PASS]
        for name, process in _PROCESS_ARGUMENTS.items()
    }
    judged |= {name: _one_process(user) for name, user in _OF_USER.items()}
    judged["prctl"] = _process_options(grants)
    judged["setsockopt"] = _socket_options(grants)
    # Pages that are the host's too are slower to write to: a way to ask what others hold.
    judged["madvise"] = [load(2), *_deny_value(_MADV_MERGEABLE, errno.EINVAL), _PASS]
    judged["mmap"] = [load(3), *_deny_bit(_MAP_HUGETLB, errno.ENOMEM), _PASS]
    if grants.ownerless_memory:
        judged["memfd_create"] = [load(1), *_deny_bit(_MFD_HUGETLB, errno.ENOMEM), _PASS]
    else:
        both = _MAP_SHARED | _MAP_ANONYMOUS
        judged["mmap"][-1:] = [(_AND, 0, 0, both), *_deny_value(both, errno.EPERM), _PASS]
    return judged


def _one_process(all_of_user: int) -> list[Step]:
    """Judge whom a call concerns: not the init, which is of every program's user."""
    of_user = _deny_value(all_of_user, errno.EPERM)
    return [load(0), *of_user, load(1), *_deny_value(_INIT, errno.EPERM), _PASS]


def _process_options(grants: Grants) -> list[Step]:
    held = [] if grants.ownerless_memory else _deny_value(SET_THP_DISABLE, errno.EPERM)
    known = (step for value in PROCESS_OPTIONS for step in ((_EQUAL, 0, 1, value), _PASS))
    return [load(0), *held, *known, refuse(errno.EINVAL)]


def _socket_options(grants: Grants) -> list[Step]:
    """Judge the level, then the option: the groups, and what would raise what a socket can hold."""
    judged = {
        level: [step for value in joins for step in _deny_value(value, errno.ENODEV)]
        for level, joins in _JOINS.items()
    }
    if not grants.ownerless_memory:
        # Answered as done: each is a wish, and a program that is refused may give up over it.
        sizes = [step for value in (_SO_SNDBUF, _SO_RCVBUF) for step in _deny_value(value, 0)]
        sizes += [step for value in _SOCKET_FILTERS for step in _deny_value(value, errno.EPERM)]
        judged[_SOL_SOCKET] = sizes
    steps = [load(1)]
    for level, options in judged.items():
        steps += [(_EQUAL, 0, len(options) + 2, level), load(2), *options, _PASS]
    return [*steps, _PASS]


def _deny_value(value: int, number: int) -> list[Step]:
    return [(_EQUAL, 0, 1, value), refuse(number)]


def _deny_bit(bit: int, number: int) -> list[Step]:
    return [(_ANY_BIT, 0, 1, bit), refuse(number)]


def _without_set_id(mode: int) -> list[Step]:
    """Refuse setuid and setgid bits: through a writable mount they would outlive the run."""
    return [load(mode), (_ANY_BIT, 0, 1, _SET_ID_BITS), refuse(errno.EPERM), _PASS]


def _no_device(mode: int) -> list[Step]:
    return [
        load(mode),
        (_ANY_BIT, 3, 0, _SET_ID_BITS),
        (_AND, 0, 0, _FORMAT_MASK),
        (_EQUAL, 1, 0, _CHARACTER_DEVICE),
        (_EQUAL, 0, 1, _BLOCK_DEVICE),
        refuse(errno.EPERM),
        _PASS,
    ]


def pairs(*, connected_only: bool) -> list[Step]:
    """Let pairs of sockets be made, or only of such as cannot send to a socket that has a name."""
    of_unix = [load(0), (_EQUAL, 1, 0, _AF_UNIX), refuse(errno.EAFNOSUPPORT)]
    if not connected_only:
        return [*of_unix, _PASS]
    return [
        *of_unix,
        load(1),
        (_AND, 0, 0, _SOCK_TYPE_MASK),
        (_EQUAL, 2, 0, _SOCK_STREAM),
        (_EQUAL, 1, 0, _SOCK_SEQPACKET),
        refuse(errno.EPERM),
        _PASS,
    ]


def _sockets(grants: Grants) -> list[Step]:
    internet = [
        load(1),
        (_AND, 0, 0, _SOCK_TYPE_MASK),
        (_EQUAL, 2, 0, _SOCK_STREAM),
        (_EQUAL, 1, 0, _SOCK_DGRAM),
        refuse(errno.EPERM),
        load(2),
        *(step for value in _INTERNET_PROTOCOLS for step in ((_EQUAL, 0, 1, value), _PASS)),
        refuse(errno.EPROTONOSUPPORT),
    ]
    netlink = [
        load(2),
        (_EQUAL, 1, 0, _NETLINK_ROUTE),
        refuse(errno.EPROTONOSUPPORT),
        _PASS,
    ]
    local = [_PASS] if grants.unix_sockets else [refuse(errno.EPERM)]
    return [
        load(0),
        (_EQUAL, 0, len(local), _AF_UNIX),
        *local,
        (_EQUAL, 0, len(netlink), _AF_NETLINK),
        *netlink,
        (_EQUAL, 1, 0, _AF_INET),
        (_EQUAL, 0, len(internet), _AF_INET6),
        *internet,
        refuse(errno.EAFNOSUPPORT),
    ]
