"""Start a command on a machine that lacks something, made so by a seccomp filter.

`block_syscalls.py BLOCK[,BLOCK…] COMMAND ARGUMENTS…`: a block names one of `BLOCKS` below. The
filter answers with an errno, as a kernel without the feature or a container would, and everything
the command starts is under it too.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from dataclasses import dataclass

_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARGUMENTS = 0, 16
_ARM = os.uname().machine == "aarch64"
_PRCTL = 167 if _ARM else 157
_SECCOMP = 277 if _ARM else 317
_CAPSET = 91 if _ARM else 126
_PRLIMIT = 261 if _ARM else 302
_SETRLIMIT = 164 if _ARM else 160
_UNSHARE, _CLONE, _MOUNT, _PIVOT_ROOT = (97, 220, 40, 41) if _ARM else (272, 56, 165, 155)
_OPEN_TREE, _CLONE_PARENT_AND_SIGCHLD = 428, 0x8000 | 17
_OPENAT = 56 if _ARM else 257
_UNNAMED = os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC
_SET_SECCOMP, _SET_NO_NEW_PRIVS = 22, 38


@dataclass(frozen=True, slots=True)
class Block:
    """A system call, the errno it fails with, and a first argument if only that one fails.

    `argument`: which one it is instead of the first, from 0.
    """

    number: int
    errno: int
    first: int | None = None
    argument: int = 0


BLOCKS: dict[str, tuple[Block, ...]] = {
    "none": (),
    "landlock-missing": (Block(444, errno.ENOSYS), Block(446, errno.ENOSYS)),
    "landlock-off": (Block(444, errno.EOPNOTSUPP),),
    "landlock-not-permitted": (Block(444, errno.EPERM),),
    "landlock-restrict": (Block(446, errno.EPERM),),
    "landlock-no-room": (Block(446, errno.E2BIG),),
    "seccomp-missing": (
        Block(_PRCTL, errno.EINVAL, _SET_SECCOMP),
        Block(_SECCOMP, errno.EINVAL),
    ),
    "seccomp-not-permitted": (
        Block(_PRCTL, errno.EPERM, _SET_SECCOMP),
        Block(_SECCOMP, errno.EPERM),
    ),
    "no-new-privs": (Block(_PRCTL, errno.EINVAL, _SET_NO_NEW_PRIVS),),
    "capset": (Block(_CAPSET, errno.EPERM),),
    "openat2-missing": (Block(437, errno.ENOSYS),),
    "openat2-not-permitted": (Block(437, errno.EPERM),),
    "unnamed-files-missing": (Block(_OPENAT, errno.EOPNOTSUPP, _UNNAMED, argument=2),),
    "unshare-refused": (Block(_UNSHARE, errno.EPERM),),
    "unshare-missing": (Block(_UNSHARE, errno.ENOSYS),),
    "clone-refused": (Block(_CLONE, errno.EPERM, _CLONE_PARENT_AND_SIGCHLD),),
    "mount-refused": (Block(_MOUNT, errno.EPERM),),
    "open-tree-missing": (Block(_OPEN_TREE, errno.ENOSYS),),
    "pivot-root-refused": (Block(_PIVOT_ROOT, errno.EPERM),),
    "rlimits": (Block(_PRLIMIT, errno.EPERM), Block(_SETRLIMIT, errno.EPERM)),
}


def filter_of(blocks: tuple[Block, ...]) -> bytes:
    """Assemble the filter."""
    program: list[tuple[int, int, int, int]] = []
    for block in blocks:
        program.append((_LOAD, 0, 0, _NUMBER))
        answer = (_RETURN, 0, 0, _ERRNO | block.errno)
        if block.first is None:
            program += [(_JUMP_EQUAL, 0, 1, block.number), answer]
        else:
            program += [
                (_JUMP_EQUAL, 0, 3, block.number),
                (_LOAD, 0, 0, _ARGUMENTS + 8 * block.argument),
                (_JUMP_EQUAL, 0, 1, block.first),
                answer,
            ]
    program.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("<HBBI", *step) for step in program)


def install(names: str) -> None:
    """Put the filter in force for this process and all it starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    program = filter_of(tuple(block for name in names.split(",") for block in BLOCKS[name]))
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    pointer = ctypes.create_string_buffer(header, len(header))
    # Root may do without no_new_privs, so that taking that away can be tried as well.
    if os.geteuid() != 0 and libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    if libc.prctl(_SET_SECCOMP, 2, ctypes.c_ulong(ctypes.addressof(pointer)), 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_SECCOMP")


if __name__ == "__main__":
    install(sys.argv[1])
    os.execv(sys.argv[2], sys.argv[2:])
