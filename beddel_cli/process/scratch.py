"""The one folder a program may write to where it has no file system of its own.

It lies in the machine's folder for temporary files, under a name by which a later run can tell that
nobody is left who would remove it, as leaves of cgroups are named. Its top belongs to the caller
and is closed to writing by the program, so that nothing of the program's can take its place; below
it are `workspace` and `tmp`, which belong to the program.

What the program left in it is hostile: it is walked and removed by descriptor, through no link, and
however deep it is.

Sources: openat(2), unlinkat(2), renameat(2); sticky folders in inode(7).
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from time import monotonic_ns

from beddel_cli.process.cgroup import is_stale, own_namespace, run_name
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "beddel-"
WORKSPACE, TEMPORARY = "workspace", "tmp"
_PLACES = ("/tmp", "/var/tmp")  # noqa: S108
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOKING = stat.S_IRUSR | stat.S_IXUSR
_BLOCK = 512
# Folders nested deeper than this are as many as are too many; each level takes a descriptor.
MAX_DEPTH = 200
# Looking at many files takes long; it may take this part of the time.
_SHARE = 10
_SOONEST_NS, _LATEST_NS = 20_000_000, 1_000_000_000


@record
class Scratch:
    """A scratch folder: its path, and descriptors of the two folders of the program's in it."""

    path: str
    workspace: int
    temporary: int


def choose_path(environ: Mapping[str, str]) -> str:
    """Give a path at which a scratch folder can be made.

    Raises:
        OSError: no folder for temporary files is fit for it.
    """
    own = environ.get("TMPDIR", "")
    for place in (own, *_PLACES):
        if place.startswith("/") and _fits(place):
            return os.path.join(os.path.realpath(place), run_name())
    raise OSError(errno.ENOENT, f"none of {' and '.join(_PLACES)} can be used for scratch files")


def _fits(place: str) -> bool:
    """Tell whether we may make something there that is kept, and the program may pass."""
    try:
        path = os.path.realpath(place)
        return _is_kept(place) and os.access(path, os.W_OK | os.X_OK) and _passable(path)
    except OSError:
        return False


def _is_kept(place: str) -> bool:
    """Tell whether nobody but us may rename what is ours there."""
    status = os.stat(place)
    open_to_others = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
    owners = {0, os.geteuid()}
    if place in _PLACES:
        # In a container whose root is nobody's outside, the system's folders show as nobody's.
        owners.add(_overflow_id())
    return status.st_uid in owners and not open_to_others


def _overflow_id() -> int:
    with open("/proc/sys/kernel/overflowuid", encoding="ascii") as file:
        return int(file.read())


def _passable(path: str) -> bool:
    """Tell whether an id that owns nothing gets there, which only root's programs are."""
    while os.geteuid() == 0 and path != "/":
        if not os.stat(path).st_mode & stat.S_IXOTH:
            return False
        path = os.path.dirname(path)
    return True


def make(path: str, identity: int | None) -> Scratch:
    """Make a scratch folder whose inner folders belong to the program.

    Args:
        identity: the program's id where it is not the caller's own.

    Raises:
        OSError: it cannot be made.
    """
    os.mkdir(path, 0o700)
    top = os.open(path, _FOLDER)
    try:
        folders = []
        for name in (WORKSPACE, TEMPORARY):
            os.mkdir(name, 0o700, dir_fd=top)
            folders.append(_open_unseen(name, _FOLDER, top))
            if identity is not None:
                os.fchown(folders[-1], identity, identity)
        if identity is not None:
            os.fchmod(top, 0o711)
    finally:
        os.close(top)
    return Scratch(path, folders[0], folders[1])


def remove(path: str) -> None:
    """Remove a scratch folder and all in it; nothing happens where there is none of ours.

    Nobody may be writing to it any more.

    Raises:
        OSError: something in it cannot be removed.
    """
    try:
        top = os.open(path, _FOLDER)
    except FileNotFoundError:
        return
    try:
        if os.fstat(top).st_uid != os.geteuid():
            raise OSError(errno.EPERM, "a scratch folder that is not ours", path)
        os.fchmod(top, 0o700)
        _empty(top)
    finally:
        os.close(top)
    os.rmdir(path)


def _empty(top: int) -> None:
    """Remove all in a folder. What lies deep is first moved up, so that depth costs nothing."""
    # A removal that was cut short may have left names of its own.
    count, own = 0, os.urandom(6).hex()
    while names := os.listdir(top):
        for name in names:
            if not _is_folder(top, name):
                os.unlink(name, dir_fd=top)
                continue
            inner = _open_whatever_mode(top, name)
            try:
                for below in os.listdir(inner):
                    if _is_folder(inner, below):
                        # A folder without rights of its owner cannot be moved by an ordinary user.
                        os.close(_open_whatever_mode(inner, below))
                        count += 1
                        os.rename(below, f".{own}.{count}", src_dir_fd=inner, dst_dir_fd=top)
                    else:
                        os.unlink(below, dir_fd=inner)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=top)


def _is_folder(folder: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


def _open_whatever_mode(folder: int, name: str) -> int:
    """Open a folder of ours for changing what is in it, though its mode may forbid that."""
    here = os.open(name, _LOOK | os.O_DIRECTORY, dir_fd=folder)
    try:
        by_descriptor = f"/proc/self/fd/{here}"
        os.chmod(by_descriptor, 0o700)
        return os.open(by_descriptor, _FOLDER & ~os.O_NOFOLLOW)
    finally:
        os.close(here)


def sweep(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Remove scratch folders of our own user whose supervisor is dead; gives their paths."""
    namespace = own_namespace()
    removed = []
    for place in dict.fromkeys((environ.get("TMPDIR", ""), *_PLACES)):
        try:
            # Where others may rename, one of ours may have come to such a name by them.
            known = place.startswith("/") and namespace is not None and _is_kept(place)
            names = os.listdir(place) if known else []
        except OSError:
            continue
        for name in names:
            path = os.path.join(place, name)
            if name.startswith(PREFIX) and _is_left(path, name, namespace or 0):
                try:
                    remove(path)
                except OSError:
                    continue  # another run is at it, or a file of it cannot be removed
                removed.append(path)
    return tuple(removed)


def _is_left(path: str, name: str, namespace: int) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return ours and is_stale(path, name, namespace)


class ScratchMeter:
    """Measures what lies in a scratch folder while a program writes to it: samples, not a cap.

    Attributes:
        next_ns: when to look next, on the monotonic clock.
        used_bytes, used_inodes: at the last look, beyond what was there when it was made.
    """

    def __init__(self, scratch: Scratch, most_bytes: int, most_inodes: int) -> None:
        self._folders = (scratch.workspace, scratch.temporary)
        self._most_bytes, self._most_inodes = most_bytes, most_inodes
        self._before = (0, 0)
        self._too_deep = False
        self._unseen, self._unseen_looks = False, 0
        self.used_bytes = self.used_inodes = 0
        self.next_ns = 0
        self._before = self._walk()

    def look(self) -> str | None:
        """Look now; gives the key of the limit that is exceeded."""
        started = monotonic_ns()
        found_bytes, found_inodes = self._walk()
        ended = monotonic_ns()
        pause = (ended - started) * _SHARE
        self.next_ns = ended + min(max(pause, _SOONEST_NS), _LATEST_NS)
        self.used_bytes = max(0, found_bytes - self._before[0])
        self.used_inodes = max(0, found_inodes - self._before[1])
        # Once may be chance: a folder that was closed just while it was looked into.
        self._unseen_looks = self._unseen_looks + 1 if self._unseen else 0
        if self.used_bytes > self._most_bytes or self._unseen_looks > 1:
            return "disk"
        return "inodes" if self._too_deep or self.used_inodes > self._most_inodes else None

    def _walk(self) -> tuple[int, int]:
        """Give bytes on disk and inodes; no more is counted than it takes to exceed a limit."""
        most = self._before[1] + 2 * self._most_inodes + 2
        seen: set[tuple[int, int]] = set()
        total, self._unseen = 0, False
        for folder in self._folders:
            total += self._count(os.dup(folder), 0, seen, most)
        return total, len(seen)

    def _count(self, folder: int, depth: int, seen: set[tuple[int, int]], most: int) -> int:
        """Give the bytes below a folder, which is closed, each inode once."""
        total = 0
        try:
            _open_up(folder)
            with os.scandir(folder) as entries:
                for entry in entries:
                    if len(seen) > most:
                        break
                    with suppress(FileNotFoundError, NotADirectoryError):  # gone meanwhile
                        total += self._weigh(folder, entry.name, depth, seen, most)
        except FileNotFoundError:
            return total  # it is gone itself
        except OSError:
            # Closed again while it was looked at, or of a kind that cannot be: not measured.
            self._unseen = True
        finally:
            os.close(folder)
        return total

    def _weigh(
        self, folder: int, name: str, depth: int, seen: set[tuple[int, int]], most: int
    ) -> int:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        inode = (status.st_dev, status.st_ino)
        total = 0 if inode in seen else status.st_blocks * _BLOCK
        seen.add(inode)
        if not stat.S_ISDIR(status.st_mode):
            return total
        if depth >= MAX_DEPTH:
            self._too_deep = True
            return total
        return total + self._count(_open_closed(folder, name), depth + 1, seen, most)


def _open_closed(folder: int, name: str) -> int:
    """Open a folder of the program's for reading, also where the program may not read it now."""
    here = os.open(name, _LOOK | os.O_DIRECTORY, dir_fd=folder)
    try:
        _open_up(here)
        return _open_unseen(f"/proc/self/fd/{here}", _FOLDER & ~os.O_NOFOLLOW)
    finally:
        os.close(here)


def _open_unseen(path: str, flags: int, folder: int | None = None) -> int:
    """Open for reading without a time of access, which would tell the program where we look."""
    try:
        return os.open(path, flags | os.O_NOATIME, dir_fd=folder)
    except PermissionError:
        # Only an owner may, or root with all its rights.
        return os.open(path, flags, dir_fd=folder)


def _open_up(folder: int) -> None:
    """Let an ordinary user look into a folder of his own program's; root needs no such right."""
    mode = os.fstat(folder).st_mode
    if os.geteuid() != 0 and mode & _LOOKING != _LOOKING:
        os.chmod(f"/proc/self/fd/{folder}", stat.S_IMODE(mode) | _LOOKING)
