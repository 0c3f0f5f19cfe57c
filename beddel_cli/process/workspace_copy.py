"""Copy a workspace into a scratch folder, and tell afterwards what a program changed of it.

Where no overlay can be had the program works on a copy. It is bounded in bytes and entries, made
from descriptor to descriptor through no link, and takes regular files, folders, and links that stay
inside. What the kernel noted of each copy (inode and time of change, which nobody can set back)
tells afterwards which of them the program touched.

Root reads everything, and copies for a program only what the owner of the workspace may read.

Source: inode(7) on st_ctime.
"""

from __future__ import annotations

import os
import stat
from time import sleep

from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from beddel_cli.process.collect_rules import Manifest

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20
# As deep as what is collected.
MAX_DEPTH = 100


class TooLargeError(Exception):
    """The workspace holds more than may be copied. `what` and `most` say of what."""

    def __init__(self, what: str, most: int) -> None:
        super().__init__(what)
        self.what, self.most = what, most


@record
class Copied:
    """What was copied: `before` for `changed_since`, and the paths that were left out, with why."""

    before: Manifest
    left_out: tuple[tuple[bytes, str], ...]


def copy_workspace(
    source: int, target: int, most_bytes: int, most_entries: int, identity: int | None
) -> Copied:
    """Copy a folder into an empty one.

    Args:
        source: O_PATH descriptor of the workspace.
        identity: the program's id where it is not the caller's own; the copies belong to it.

    Raises:
        TooLargeError: it holds more.
        OSError: the copy cannot be written.
    """
    copier = _Copier(os.fstat(source), most_bytes, most_entries, identity)
    here = os.open(".", _FOLDER, dir_fd=source)
    try:
        copier.folder(here, target, ())
    finally:
        os.close(here)
    _outlast(target, max((time or 0 for _, time in copier.before.values()), default=0))
    return Copied(copier.before, tuple(copier.left_out))


def _outlast(folder: int, last_ns: int) -> None:
    """Wait until a change would be noted with a later time than all that were: one tick at most."""
    status = os.fstat(folder)
    while status.st_ctime_ns <= last_ns:
        sleep(0.001)
        os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns))
        status = os.fstat(folder)


class _Copier:
    """What is left of the bounds, and what was noted so far."""

    def __init__(
        self, owner: os.stat_result, most_bytes: int, most_entries: int, identity: int | None
    ) -> None:
        self._owner, self._identity = owner, identity
        self._most_bytes, self._bytes_left = most_bytes, most_bytes
        self._most_entries, self._entries_left = most_entries, most_entries
        self.before: dict[bytes, tuple[int, int | None]] = {}
        self.left_out: list[tuple[bytes, str]] = []

    def folder(self, source: int, target: int, path: tuple[bytes, ...]) -> None:
        """Copy what is in a folder."""
        for name in sorted(os.fsencode(name) for name in os.listdir(source)):
            self._entries_left -= 1
            if self._entries_left < 0:
                raise TooLargeError("files and folders", self._most_entries)
            try:
                here = os.open(name, _LOOK, dir_fd=source)
            except FileNotFoundError:
                continue  # gone since it was listed
            try:
                why = self._entry(here, name, target, (*path, name))
            except PermissionError:
                why = "it cannot be read"
            finally:
                os.close(here)
            if why is not None:
                self.left_out.append((b"/".join((*path, name)), why))

    def _entry(self, here: int, name: bytes, target: int, path: tuple[bytes, ...]) -> str | None:
        """Copy one entry; gives why it was left out."""
        status = os.fstat(here)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFLNK:
            return self._link(os.readlink(b"", dir_fd=here), name, target, path)
        if kind not in (stat.S_IFREG, stat.S_IFDIR):
            return "it is neither a file nor a folder"
        if not self._may_read(status):
            return "it cannot be read"
        if kind == stat.S_IFREG:
            self._file(here, status, name, target, path)
            return None
        if len(path) > MAX_DEPTH:
            raise TooLargeError("levels of folders", MAX_DEPTH)
        self._inner_folder(here, status, name, target, path)
        return None

    def _may_read(self, status: os.stat_result) -> bool:
        """Tell whether the owner of the workspace may, where it is root who asks."""
        if os.geteuid() != 0:
            return True  # the kernel judges
        owner, mode = self._owner, status.st_mode
        shift = 6 if status.st_uid == owner.st_uid else 3 if status.st_gid == owner.st_gid else 0
        wanted = 0o5 if stat.S_ISDIR(mode) else 0o4
        return mode >> shift & wanted == wanted

    def _link(self, text: bytes, name: bytes, target: int, path: tuple[bytes, ...]) -> str | None:
        if not stays_inside(text, len(path) - 1):
            return "a link that leads out of it"
        os.symlink(text, name, dir_fd=target)
        made = os.open(name, _LOOK, dir_fd=target)
        try:
            if self._identity is not None:
                os.chown(name, self._identity, self._identity, dir_fd=target, follow_symlinks=False)
            status = os.fstat(made)
        finally:
            os.close(made)
        self.before[b"/".join(path)] = (status.st_ino, status.st_ctime_ns)
        return None

    def _inner_folder(
        self,
        here: int,
        status: os.stat_result,
        name: bytes,
        target: int,
        path: tuple[bytes, ...],
    ) -> None:
        source = os.open(f"/proc/self/fd/{here}", _FOLDER & ~os.O_NOFOLLOW)
        try:
            os.mkdir(name, 0o700, dir_fd=target)
            made = os.open(name, _FOLDER, dir_fd=target)
            try:
                self.folder(source, made, path)
                self._finish(made, status, 0o700)
                self.before[b"/".join(path)] = (os.fstat(made).st_ino, None)
            finally:
                os.close(made)
        finally:
            os.close(source)

    def _file(
        self,
        here: int,
        status: os.stat_result,
        name: bytes,
        target: int,
        path: tuple[bytes, ...],
    ) -> None:
        source = os.open(f"/proc/self/fd/{here}", _READ)
        try:
            made = os.open(name, _CREATE, 0o600, dir_fd=target)
            try:
                self._content(source, made)
                self._finish(made, status, 0o600)
                found = os.fstat(made)
            finally:
                os.close(made)
        finally:
            os.close(source)
        self.before[b"/".join(path)] = (found.st_ino, found.st_ctime_ns)

    def _content(self, source: int, target: int) -> None:
        while data := os.read(source, _CHUNK):
            self._bytes_left -= len(data)
            if self._bytes_left < 0:
                raise TooLargeError("bytes", self._most_bytes)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(target, rest) :]

    def _finish(self, made: int, status: os.stat_result, least: int) -> None:
        """Give a copy its owner, mode and times; without setuid, setgid and sticky bits."""
        if self._identity is not None:
            os.fchown(made, self._identity, self._identity)
        os.fchmod(made, status.st_mode & 0o777 | least)
        os.utime(made, ns=(status.st_atime_ns, status.st_mtime_ns))


def stays_inside(text: bytes, depth: int) -> bool:
    """Tell whether a link's text, read at this many folders below the top, leads out (pure)."""
    if text.startswith(b"/"):
        return False
    for part in text.split(b"/"):
        depth += -1 if part == b".." else 0 if part in (b"", b".") else 1
        if depth < 0:
            return False
    return True
