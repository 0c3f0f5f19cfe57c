"""Open what a program will be shown, once, and judge what was opened.

A source is opened with O_PATH, which touches nothing: no device is started, no FIFO waited for.
Links are followed, and no magic link of /proc; from then on the descriptor is the source. Where it
lies is read back from the descriptor, and the rules are applied to that, so exchanging folders or
links between the judgement and the mount changes nothing. A descriptor that can no longer be found
under the name the kernel gives for it (deleted, moved meanwhile) is refused.

Sources: openat2(2), open(2) on O_PATH, proc(5) on /proc/PID/fd.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from contextlib import suppress

from beddel_cli.errors import BeddelError, JobError, NotFoundError, UsageError
from beddel_cli.process.mount_rules import (
    Protected,
    Source,
    check_no_writer,
    check_requests,
    judge_reach,
    judge_source,
    judge_workspace,
    refused,
)
from beddel_cli.process.program import Mount
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from beddel_cli.files import Reach
    from beddel_cli.home import Places
    from beddel_cli.process.mount_rules import MountRequest

_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_AT_FDCWD = -100
# Old filters of containers answer EPERM to a call they do not know.
_NO_OPENAT2 = (errno.ENOSYS, errno.EPERM)
# Identities of what is not there, or cannot be looked at, which nothing else has.
_NOT_THERE, _NOT_KNOWN = (-1, -1), (-2, -2)
_FLAGS = os.O_PATH | os.O_CLOEXEC
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


# The backslash last: what it makes is not read again.
_MOUNTINFO_ESCAPES = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))


@record
class Opened:
    """The workspace and the mounts of one program, judged and open. Use it in a `with`."""

    workspace: Mount | None
    mounts: tuple[Mount, ...]

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        for mount in (*self.mounts, *(() if self.workspace is None else (self.workspace,))):
            os.close(mount.descriptor)


def protected_folders(
    places: Places, environ: Mapping[str, str], signing_key: str | None = None
) -> tuple[Protected, ...]:
    """Give what is never shown: the caller's home, beddel's own folders with all in them, and the
    files of the signing key and of its passphrase; and what is not to be changed: our own code.
    """
    import pwd

    homes = [environ.get("HOME", "")]
    with suppress(KeyError):  # a user without an entry, as in containers, has only a HOME
        homes.append(pwd.getpwuid(os.getuid()).pw_dir)
    # Many service accounts have a home that is not there, or `/`, which is refused anyway.
    found = [
        _protected("your home folder", home, tree=False)
        for home in homes
        if os.path.isabs(home) and os.path.isdir(home) and os.path.realpath(home) != "/"
    ]
    found.append(_protected("beddel's home", places.home, tree=True))
    found.append(_protected("beddel's cache", places.cache, tree=True))
    code = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    found.append(_protected("beddel-cli itself", code, tree=True, may_be_read=True))
    if signing_key is not None:
        found.append(_protected("the signing key", signing_key, tree=False))
    if passphrase := environ.get("BEDDEL_KEY_PASSWORD_FILE"):
        found.append(_protected("the signing key's passphrase", passphrase, tree=False))
    return tuple(found)


def _protected(what: str, path: str, *, tree: bool, may_be_read: bool = False) -> Protected:
    real = os.path.realpath(path)
    return Protected(what, real, _chain(real, _NOT_THERE), tree, may_be_read)


def open_sources(
    workspace: MountRequest | None,
    mounts: Sequence[MountRequest],
    protected: Sequence[Protected],
    reach: Reach,
    *,
    write_back: bool = False,
) -> Opened:
    """Open the workspace and the mounts of a program, in order, and judge each.

    Args:
        reach: where those requests that come from a job may lie.
        write_back: whether the run will put files into the workspace's own folder.

    Raises:
        RefusedError: one of them may not be shown.
        NotFoundError: one of them is not there.
        JobError, UsageError: one cannot be opened, or targets meet.
    """
    check_requests((*(() if workspace is None else (workspace,)), *mounts))
    opened: list[Mount] = []
    try:
        for request in mounts:
            opened.append(_open(request, protected, reach, changes=request.writable))
        shown = None
        if workspace is not None:
            shown = _open(workspace, protected, reach, changes=write_back, is_workspace=True)
            opened.append(shown)
            pairs = zip(mounts, opened, strict=False)
            check_no_writer(shown.source, [(r, m.source) for r, m in pairs if m.writable])
    except BaseException:
        for mount in opened:
            os.close(mount.descriptor)
        raise
    return Opened(shown, tuple(opened[: len(mounts)]))


def check_outputs_apart(
    opened: Opened, outputs: Sequence[tuple[str, str]], *, write_back: bool
) -> None:
    """Let no file of ours be written where the program can exchange or take what is on its way.

    Args:
        outputs: an option and its path, for each file that will be written after the run.
        write_back: whether what the program makes is put into the workspace's own folder first.

    Raises:
        UsageError: one of them lies in a `rw` mount, or in such a workspace.
    """
    changed = [mount for mount in opened.mounts if mount.writable]
    if write_back and opened.workspace is not None:
        changed.append(opened.workspace)
    writable = {}
    for mount in changed:
        status = os.fstat(mount.descriptor)
        writable[status.st_dev, status.st_ino] = mount.source
    for flag, path in outputs:
        chains = (_chain(os.path.realpath(way), _NOT_THERE) for way in (path, _folder_of(path)))
        for identity in (each for chain in chains for each in chain):
            if identity in writable:
                raise UsageError(
                    f"{flag} {path!r} lies in {writable[identity]!r}, which the program may change",
                    expected="a file that the program cannot reach",
                    got=path,
                )


def _folder_of(path: str) -> str:
    return os.path.dirname(path) or "."


def _open(
    request: MountRequest,
    protected: Sequence[Protected],
    reach: Reach,
    *,
    changes: bool,
    is_workspace: bool = False,
) -> Mount:
    start = _start(request, reach)
    try:
        descriptor = open_path(start, request.source)
    except OSError as error:
        raise _open_error(request, error) from error
    try:
        source = _describe(request, descriptor)
        if request.by_job:
            own = None if reach.own is None else _place_of(reach.own[1])
            allowed = [place for _, fd in reach.allowed if (place := _place_of(fd)) is not None]
            judge_reach(request, source.path, own, allowed, changes=changes)
        closed = [each for each in protected if changes or not each.may_be_read]
        (judge_workspace if is_workspace else judge_source)(request, source, closed)
        _check_readable(request, source, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return Mount(
        source=source.path,
        descriptor=descriptor,
        target=request.target,
        writable=request.writable,
        folder=source.kind == "folder",
    )


def _check_readable(request: MountRequest, source: Source, descriptor: int) -> None:
    """Let only a file pass whose bytes we may read: they are digested, and shown by our rights.

    Raises:
        RefusedError: we may not.
    """
    if source.kind != "file" or os.access(
        f"/proc/self/fd/{descriptor}", os.R_OK, effective_ids=True
    ):
        return
    raise refused(request, f"user {os.geteuid()} may not read it", "name a file that you may read")


def _start(request: MountRequest, reach: Reach) -> int:
    """Give the folder in which a request's relative source starts."""
    if not request.by_job:
        return _AT_FDCWD
    if reach.own is not None:
        return reach.own[1]
    if os.path.isabs(request.source):
        return _AT_FDCWD
    raise JobError(
        f"{request.source!r} is relative, and this job comes from no folder",
        place=request.place,
        expected="an absolute path",
        got=request.source,
    )


def open_path(start: int, path: str) -> int:
    """Open what a path leads to, following links but none of the magic ones of /proc.

    Raises:
        OSError: as openat2(2).
    """
    how = struct.pack("<QQQ", _FLAGS, 0, _RESOLVE_NO_MAGICLINKS)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    descriptor = libc.syscall(
        ctypes.c_long(_SYS_OPENAT2),
        ctypes.c_int(start),
        os.fsencode(path),
        how,
        ctypes.c_size_t(len(how)),
    )
    if descriptor >= 0:
        return int(descriptor)
    number = ctypes.get_errno()
    if number not in _NO_OPENAT2:
        raise OSError(number, os.strerror(number))
    return _open_by_steps(start, path)


def _open_by_steps(start: int, path: str) -> int:
    """Do the same without openat2: resolve to a path without links, then open that path.

    The path may be out of date by then, and a link on it is an error: it decides what is tried,
    and what is opened is judged like anything else.
    """
    base = "" if start == _AT_FDCWD else _place_of(start)
    if base is None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    resolved = os.path.realpath(os.path.join(base, path), strict=True)
    here = os.open("/", _FLAGS)
    for part in filter(None, resolved.split("/")):
        try:
            there = os.open(part, _FLAGS | os.O_NOFOLLOW, dir_fd=here)
        finally:
            os.close(here)
        here = there
    return here


def _describe(request: MountRequest, descriptor: int) -> Source:
    path = _place_of(descriptor)
    if path is None:
        raise refused(
            request,
            "it was moved or deleted while it was opened, or lies outside of what is visible here",
            "name a folder that stays where it is",
        )
    kind = _KINDS.get(stat.S_IFMT(os.fstat(descriptor).st_mode), "of an unknown kind")
    return Source(
        path,
        _chain(path, _NOT_KNOWN),
        kind,
        _file_system(descriptor),
        os.geteuid() == 0,
        _mount_inside(path) if kind == "folder" else None,
    )


def _mount_inside(path: str) -> str | None:
    """Give a place beneath a folder on which something is mounted: proc_pid_mountinfo(5)."""
    above = path.rstrip("/") + "/"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            place = line.split(" ", 5)[4]
            for escape, character in _MOUNTINFO_ESCAPES:
                place = place.replace(escape, character)
            if place.startswith(above):
                return place
    return None


def _place_of(descriptor: int) -> str | None:
    """Give the path of what is open, None if it cannot be found there."""
    path = os.readlink(f"/proc/self/fd/{descriptor}")
    if not path.startswith("/"):
        return None
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    here = os.fstat(descriptor)
    # A folder really called `x (deleted)` passes, and a deleted `x` does not.
    return path if (found.st_dev, found.st_ino) == (here.st_dev, here.st_ino) else None


def _chain(path: str, missing: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Give the identities of a path without links and of every folder above it, `/` last."""
    chain = []
    while True:
        try:
            status = os.stat(path, follow_symlinks=False)
            chain.append((status.st_dev, status.st_ino))
        except OSError:
            chain.append(missing)
        if path == "/":
            return tuple(chain)
        path = os.path.dirname(path)


def _file_system(descriptor: int) -> int:
    """Give the kind of file system something lies on: f_type of statfs(2)."""
    # f_type is the first word of struct statfs, which is 120 bytes long.
    answer = (ctypes.c_long * 32)()
    if ctypes.CDLL(None, use_errno=True).fstatfs(ctypes.c_int(descriptor), answer):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(answer[0])


def _open_error(request: MountRequest, error: OSError) -> BeddelError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFoundError(f"nothing to mount at {request.source!r}", place=request.place)
    if error.errno == errno.ELOOP:
        return refused(
            request,
            "it leads through a link of /proc, or through links without an end",
            "name the folder itself",
        )
    kind = JobError if request.by_job else UsageError
    why = error.strerror or str(error)
    return kind(f"cannot open {request.source!r} for a mount: {why}", place=request.place)
