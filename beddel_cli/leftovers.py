"""Names for what is not in its place yet, and the removal of what a run that died left under them.

A run that is killed between making something and renaming it leaves a temporary name behind. Each
is locked (flock) from the moment it is there by whoever makes it, and the lock dies with its maker:
what nobody holds is of the dead. The next run that needs a temporary name in that folder removes
it. Files need none where the file system has unnamed ones (`home.open_unnamed`).

Only what belongs to us is removed, and through no link. A folder is emptied only where nobody else
could have given another folder of ours such a name.

Sources: flock(2), open(2) on O_TMPFILE.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PREFIX, _SUFFIX = ".beddel-", ".tmp"
_DIGITS = 16
_ATTEMPTS = 10
# Twice as deep as what is collected. Who gives us a folder to write to may have put more there.
_LEVELS = 200
_NO_LOCKS = (errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_HELD_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_FOLDER = _HELD_FLAGS | getattr(os, "O_DIRECTORY", 0)
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def new_name() -> str:
    """Give a name that nobody can guess or have taken."""
    return f"{_PREFIX}{os.urandom(_DIGITS // 2).hex()}{_SUFFIX}"


def hold(descriptor: int) -> None:
    """Lock something of ours for as long as it is open.

    On a file system without such locks (NFS knows none for folders) nothing is ever taken for a
    dead run's, since that takes the lock too.
    """
    from fcntl import LOCK_EX, flock

    try:
        flock(descriptor, LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def make_held(make: Callable[[str], int]) -> tuple[str, int]:
    """Make something under a temporary name and lock it; gives the name and its descriptor.

    Args:
        make: makes it under the name it is given and opens it.

    Raises:
        OSError: of `make`.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        name = new_name()
        try:
            descriptor = make(name)
        except FileNotFoundError:
            # Another run may have taken it for a dead one's before it was locked.
            if attempt == _ATTEMPTS:
                raise
            continue
        hold(descriptor)
        if os.fstat(descriptor).st_nlink:
            return name, descriptor
        os.close(descriptor)
    raise OSError(errno.ENOENT, "what is made here is removed at once")


def remove_dead(folder: int) -> None:
    """Remove what runs that died left in a folder; what cannot be removed stays."""
    for name in os.listdir(folder):
        digits = name[len(_PREFIX) : -len(_SUFFIX)]
        if name != _PREFIX + digits + _SUFFIX or len(digits) != _DIGITS:
            continue
        try:
            _remove_if_dead(folder, name)
        except OSError:
            # Held by a run that lives, somebody else's, or taken away by another.
            continue


def _remove_if_dead(folder: int, name: str) -> None:
    from fcntl import LOCK_EX, LOCK_NB, flock

    descriptor = os.open(name, _HELD_FLAGS | os.O_NONBLOCK, dir_fd=folder)
    try:
        status, around = os.fstat(descriptor), os.fstat(folder)
        if status.st_uid not in (os.geteuid(), around.st_uid):
            return
        flock(descriptor, LOCK_EX | LOCK_NB)
        if stat.S_ISREG(status.st_mode):
            # Whoever can exchange this name for another file's could remove that file as well.
            os.unlink(name, dir_fd=folder)
        elif stat.S_ISDIR(status.st_mode) and _is_private(around):
            empty(descriptor)
            os.rmdir(name, dir_fd=folder)
    finally:
        os.close(descriptor)


def _is_private(folder: os.stat_result) -> bool:
    """Tell whether nobody else can rename things of ours in a folder."""
    sticky = folder.st_mode & stat.S_ISVTX
    return folder.st_uid in (0, os.geteuid()) and bool(sticky or not folder.st_mode & _OTHERS_WRITE)


def empty(folder: int, levels: int = _LEVELS) -> None:
    """Remove everything in a folder of ours, through no link.

    Raises:
        OSError: something cannot be removed, or lies deeper than `levels`.
    """
    if not levels:
        raise OSError(errno.ELOOP, "deeper than anything of ours")
    for name in os.listdir(folder):
        try:
            os.unlink(name, dir_fd=folder)
        except IsADirectoryError:
            inner = os.open(name, _FOLDER, dir_fd=folder)
            try:
                empty(inner, levels - 1)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=folder)
