"""The system calls that Python has no function for, as functions that raise OSError.

Thin on purpose: nothing here decides anything. Everything goes through one `syscall(2)`, whose
arguments are long words or bytes; the library handle holds the interpreter's lock, so that a raw
clone finds no thread of ours in a strange state.

Sources: the man pages of each call; include/uapi/linux/mount.h, landlock.h, prctl.h, capability.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

_ARM = os.uname().machine == "aarch64"
_PROCESS_LIBRARY = ctypes.PyDLL(None, use_errno=True)
_syscall = _PROCESS_LIBRARY.syscall
_syscall.restype = ctypes.c_long

MACHINES = ("x86_64", "aarch64")
_CLONE, _UNSHARE, _PIVOT_ROOT = (220, 97, 41) if _ARM else (56, 272, 155)
_MOUNT, _UMOUNT2, _CAPSET, _PRCTL = (40, 39, 91, 167) if _ARM else (165, 166, 126, 157)
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR, _CLOSE_RANGE, _OPENAT2 = 428, 429, 442, 436, 437
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446

NEW_MOUNTS, NEW_CGROUP, NEW_HOSTNAME, NEW_IPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
NEW_USERS, NEW_PIDS, NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000
_CLONE_PARENT, _SIGCHLD = 0x8000, 17

# mount(2)
READ_ONLY, NO_SUID, NO_DEVICES, NO_EXEC = 1, 2, 4, 8
REMOUNT = 32
_PRIVATE, _RECURSIVE = 0x40000, 0x4000
_DETACH = 2
# open_tree(2), mount_setattr(2), move_mount(2)
_AT_EMPTY_PATH, _AT_RECURSIVE, _OPEN_TREE_CLONE, _CLOEXEC = 0x1000, 0x8000, 1, 0o2000000
_ATTRIBUTE_IDMAP = 0x100000
_FROM_EMPTY_PATH, _TO_EMPTY_PATH = 0x4, 0x40
_AT_FDCWD = -100
# openat2(2)
_NO_SYMLINKS, _NO_MAGIC_LINKS, BENEATH = 0x04, 0x02, 0x08
NO_LINKS = _NO_SYMLINKS | _NO_MAGIC_LINKS

# seccomp(2)
_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER = (277 if _ARM else 317), 1, 8
# prctl(2)
SET_PDEATHSIG, SET_DUMPABLE, SET_NAME, SET_SECCOMP = 1, 4, 15, 22
CAPBSET_DROP, SET_SECUREBITS, SET_NO_NEW_PRIVS, CAP_AMBIENT = 24, 28, 38, 47
SET_THP_DISABLE = 41
SET_CHILD_SUBREAPER = 36
CAP_AMBIENT_CLEAR_ALL = 4
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522


def call(number: int, *arguments: int | bytes | None) -> int:
    """Make a system call.

    Raises:
        OSError: it failed.
    """
    words = [
        ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments
    ]
    result: int = _syscall(ctypes.c_long(number), *words)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def prctl(option: int, *values: int | bytes) -> int:
    """Make a prctl call, unused arguments zero.

    Raises:
        OSError: it failed.
    """
    return call(_PRCTL, option, *(*values, 0, 0, 0, 0)[:4])


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags` for fresh ones.

    Raises:
        OSError: refused; ENOSPC means a limit on their number.
    """
    call(_UNSHARE, flags)


def fork_sibling() -> int:
    """Fork a child whose parent is this process's own parent. Gives its id, 0 in the child.

    The interpreter is told before and after, as by os.fork.

    Raises:
        OSError: refused.
    """
    api = ctypes.pythonapi
    api.PyOS_BeforeFork()
    pid: int = _syscall(
        ctypes.c_long(_CLONE), ctypes.c_long(_CLONE_PARENT | _SIGCHLD), *(ctypes.c_long(0),) * 4
    )
    code = ctypes.get_errno()
    if pid == 0:
        api.PyOS_AfterFork_Child()
        return 0
    api.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(code, os.strerror(code))
    return pid


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Mount a new file system.

    Raises:
        OSError: refused.
    """
    call(
        _MOUNT, os.fsencode(source), os.fsencode(target), kind.encode(), flags, os.fsencode(options)
    )


def make_all_private() -> None:
    """Let no mount of this namespace pass on to, or come from, another one.

    Raises:
        OSError: refused.
    """
    call(_MOUNT, b"none", b"/", None, _PRIVATE | _RECURSIVE, None)


def unmount(path: str) -> None:
    """Take a mount and all on it out of the tree, in use or not.

    Raises:
        OSError: refused.
    """
    call(_UMOUNT2, os.fsencode(path), _DETACH)


def pivot_here() -> None:
    """Make the current folder, a mount, the root, and take the old root out of the tree.

    Raises:
        OSError: refused.
    """
    # pivot_root(2), "pivot_root(".", ".")": the old root ends up on top of the new one.
    call(_PIVOT_ROOT, b".", b".")
    call(_UMOUNT2, b".", _DETACH)
    os.chdir("/")


def clone_tree(path: str, *, folder: int = _AT_FDCWD, recursive: bool = True) -> int:
    """Give a descriptor of a detached copy of a mount, or of a part of one.

    Args:
        path: where it is; empty for `folder` itself.
        recursive: with the mounts below it.

    Raises:
        OSError: no such place, or refused.
    """
    flags = _OPEN_TREE_CLONE | _CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    return call(_OPEN_TREE, folder, os.fsencode(path), flags | (0 if path else _AT_EMPTY_PATH))


def restrict_tree(tree: int, attributes: int, *, users: int | None = None) -> None:
    """Add attributes (READ_ONLY and so on) to a mount and those below it.

    Args:
        users: a descriptor of a user namespace: ids on disk are then seen as its map says.

    Raises:
        OSError: refused; EINVAL with `users` means that the file system cannot.
    """
    idmap = 0 if users is None else _ATTRIBUTE_IDMAP
    words = struct.pack("<QQQQ", attributes | idmap, 0, 0, users or 0)
    call(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, words, len(words))


def restrict_mount(path: str, attributes: int) -> None:
    """Add attributes to the mount at a path, not to those below it.

    Raises:
        OSError: refused.
    """
    words = struct.pack("<QQQQ", attributes, 0, 0, 0)
    call(_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(path), 0, words, len(words))


def attach_tree(tree: int, target: int | str) -> None:
    """Put a detached mount at a place, by path or by descriptor; the descriptor is not closed.

    Raises:
        OSError: refused.
    """
    if isinstance(target, str):
        call(_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _FROM_EMPTY_PATH)
    else:
        call(_MOVE_MOUNT, tree, b"", target, b"", _FROM_EMPTY_PATH | _TO_EMPTY_PATH)


def open_without_links(folder: int, path: str, flags: int, *, resolve: int = NO_LINKS) -> int:
    """Open a path in which no component may be a link.

    Raises:
        OSError: no such file; ELOOP for a link.
    """
    how = struct.pack("<QQQ", flags | _CLOEXEC, 0, resolve)
    return call(_OPENAT2, folder, os.fsencode(path), how, len(how))


def close_from(first: int) -> None:
    """Close every descriptor from `first` on.

    Raises:
        OSError: refused.
    """
    call(_CLOSE_RANGE, first, 0xFFFFFFFF, 0)


def drop_capabilities() -> None:
    """Empty every capability set, and see to it that no later call or exec can refill one.

    Raises:
        OSError: refused.
    """
    lock_capabilities()
    empty_capabilities()


def lock_capabilities() -> None:
    """Empty the bounding set, and let no change of user or exec give a capability.

    Raises:
        OSError: EPERM without CAP_SETPCAP.
    """
    for capability in range(64):
        try:
            prctl(CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            break  # the last one this kernel knows was before
    # NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE, each locked, and KEEP_CAPS locked off.
    prctl(SET_SECUREBITS, 0b11101111)


def empty_capabilities() -> None:
    """Empty the sets of this thread; the bounding set stays as it is.

    Raises:
        OSError: refused.
    """
    prctl(CAP_AMBIENT, CAP_AMBIENT_CLEAR_ALL)
    call(_CAPSET, struct.pack("<Ii", _CAPABILITY_VERSION_3, 0), bytes(24))


def install_filter(program: bytes) -> None:
    """Put a system-call filter in force for this thread and all it will start.

    Raises:
        OSError: refused.
    """
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: u16 count, padding, pointer.
    header = struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    prctl(SET_SECCOMP, _SECCOMP_MODE_FILTER, header)


def install_listening_filter(program: bytes) -> int:
    """Put a filter in force as `install_filter`; gives the descriptor for calls it hands over.

    Raises:
        OSError: refused; EBUSY where there is such a filter around this process already.
    """
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    return call(_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER, header)


def landlock_abi() -> int:
    """Give the kernel's Landlock version.

    Raises:
        OSError: ENOSYS where it is not built in, EOPNOTSUPP where it is off at boot.
    """
    return call(_LANDLOCK_CREATE, None, 0, 1)


def landlock_ruleset(attributes: bytes) -> int:
    """Give a descriptor of a new set of rules.

    Raises:
        OSError: refused.
    """
    return call(_LANDLOCK_CREATE, attributes, len(attributes), 0)


def landlock_allow(ruleset: int, rights: int, place: int) -> None:
    """Allow rights on the file, or beneath the folder, of an O_PATH descriptor.

    Raises:
        OSError: refused.
    """
    call(_LANDLOCK_ADD, ruleset, 1, struct.pack("<Qi", rights, place), 0)


def landlock_restrict(ruleset: int) -> None:
    """Bind this thread, and all it will start, by the rules.

    Raises:
        OSError: refused.
    """
    call(_LANDLOCK_RESTRICT, ruleset, 0)


def wipe_command_line() -> None:
    """Blank this process's arguments and environment, as /proc/PID/cmdline and environ show them.

    The interpreter's own copies stay; the memory they are in can be read by nobody else.

    Raises:
        OSError: /proc is not there.

    Source: proc(5), /proc/PID/stat, fields 48 to 51.
    """
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    for start, end in ((int(fields[45]), int(fields[46])), (int(fields[47]), int(fields[48]))):
        if 0 < start < end:
            ctypes.memset(start, 0, end - start)
