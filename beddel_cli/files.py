"""Read a file that somebody named: opened once, regular only, size-capped.

The bytes that come back are the bytes that are used and digested; nothing is read twice.

Names on a command line are the user's own and open as any name does. Names in a job are not: a
file counts only where it really lies, with every link resolved, and that has to be beneath a folder
of the job's `Reach`. The kernel resolves a name beneath the job's folder (openat2). Where it finds
that the name leads out, links are resolved here, to a path without any, and that path is opened
beneath the folder it falls into, following nothing. The path may be out of date by then; it decides
what is tried, never what is permitted. A kernel or container without openat2 gets the second way
alone, one component at a time.

Sources: openat2(2), path_resolution(7).
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from beddel_cli.errors import JobError, NotFoundError, Place, RefusedError, UsageError, bug
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_BYTES = 16 << 20


def _flags(*names: str) -> int:
    """Give open(2) flags, without those this system lacks: `verify` reads files anywhere."""
    return sum(getattr(os, name, 0) for name in names)


# Non-blocking, so that a FIFO without a writer is an error and not a hang.
_READ = _flags("O_RDONLY", "O_CLOEXEC", "O_NOCTTY", "O_NONBLOCK", "O_BINARY")
_FOLDER = _flags("O_PATH", "O_DIRECTORY", "O_CLOEXEC")
_NO_LINK = _flags("O_NOFOLLOW")
_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
# Old filters of containers answer EPERM to a call they do not know.
_NO_OPENAT2 = (errno.ENOSYS, errno.EPERM)
# Out of the folder, through a magic link or a loop, or renamed under us: look where it leads.
_LOOK_FURTHER = (*_NO_OPENAT2, errno.EXDEV, errno.ELOOP, errno.EAGAIN)
_PROC_SUPER_MAGIC = 0x9FA0


@record
class Reach:
    """Where a job may name files: its own folder and those the command line allows.

    Each folder is opened once, so that exchanging it later changes nothing. Use it in a `with`.

    Attributes:
        own: the job's folder, in which relative names start; None for a job without one.
        allowed: the folders of `--allow-path`.
    """

    own: tuple[str, int] | None
    allowed: tuple[tuple[str, int], ...]

    def folders(self) -> tuple[tuple[str, int], ...]:
        """Give every folder by path and descriptor."""
        return self.allowed if self.own is None else (self.own, *self.allowed)

    def __enter__(self) -> Reach:
        return self

    def __exit__(self, *_: object) -> None:
        for _path, descriptor in self.folders():
            os.close(descriptor)


def open_reach(job: str | None, allowed: Sequence[str] = ()) -> Reach:
    """Open the folder of a job file, and the folders of `--allow-path`.

    Args:
        job: the path of the job file; None when it has none.
        allowed: folders that the command line names; links to them are followed.

    Raises:
        NotFoundError, JobError: the job's folder is not there or cannot be entered.
        UsageError: one of `allowed` is not a folder that can be opened.
    """
    opened: list[tuple[str, int]] = []
    try:
        for path in allowed:
            try:
                opened.append((path, os.open(path, _FOLDER)))
            except (OSError, ValueError) as error:
                why = error.strerror if isinstance(error, OSError) else "a NUL character in it"
                raise UsageError(
                    f"--allow-path {path!r} cannot be opened: {why}", expected="a folder"
                ) from error
        own = None
        if job is not None:
            folder = os.path.dirname(job) or "."
            try:
                own = (folder, os.open(folder, _FOLDER))
            except (OSError, ValueError) as error:
                raise _open_error(job, "job", error) from error
    except (UsageError, JobError, NotFoundError):
        for _path, descriptor in opened:
            os.close(descriptor)
        raise
    return Reach(own, tuple(opened))


def read_file(path: str, what: str, max_bytes: int = MAX_BYTES) -> bytes:
    """Read a whole regular file named on the command line; links are followed.

    Args:
        path: the file.
        what: what it is to the user, such as `job`, for messages.
        max_bytes: the most it may hold.

    Raises:
        NotFoundError: there is none.
        JobError: not a regular file, not readable, or too large.
    """
    try:
        descriptor = os.open(path, _READ)
    except (OSError, ValueError) as error:
        raise _open_error(path, what, error) from error
    return _read_regular(descriptor, path, what, max_bytes)


def read_job_file(reach: Reach, path: str) -> bytes:
    """Read the job file in whose folder a reach starts, in the very folder that was opened.

    Raises:
        NotFoundError, JobError: as `read_file`.
    """
    if reach.own is None:
        raise bug("a job file without a folder")
    try:
        descriptor = os.open(os.path.basename(path), _READ, dir_fd=reach.own[1])
    except (OSError, ValueError) as error:
        raise _open_error(path, "job", error) from error
    return _read_regular(descriptor, path, "job", MAX_BYTES)


def read_named(
    reach: Reach, name: str, what: str, place: Place, max_bytes: int = MAX_BYTES
) -> bytes:
    """Read a regular file that a job names.

    Args:
        name: as the job has it.
        what: what it is to the user, such as `code file`, for messages.
        place: where in the job it is named.

    Raises:
        RefusedError: it does not lie within the job's reach.
        NotFoundError: there is none.
        JobError: not a regular file, not readable, or too large.
    """
    try:
        descriptor = open_named(reach, name)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.EXDEV:
            raise _refused(reach, name, what, place) from error
        problem = _open_error(name, what, error)
        problem.place = place
        raise problem from error
    if _on_proc(descriptor):
        os.close(descriptor)
        raise JobError(f"the {what} {name!r} is not a regular file", place=place)
    return _read_regular(descriptor, name, what, max_bytes, place)


def open_named(reach: Reach, name: str) -> int:
    """Open, for reading, a file of any kind that a job names; a relative name needs `reach.own`.

    Raises:
        OSError: EXDEV when it lies beneath none of the folders; else as open(2).
        ValueError: no file can have that name.
    """
    os.fsencode(name)
    if not name:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    if name.endswith("/"):
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if reach.own is not None:
        try:
            return _openat2(reach.own[1], name, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
        except OSError as error:
            if error.errno not in _LOOK_FURTHER:
                raise
    elif not os.path.isabs(name):
        raise bug("a relative name without a folder to start in")
    start = "/" if reach.own is None else reach.own[0]
    leads_to = os.path.realpath(os.path.join(start, name))
    for path, folder in reach.folders():
        rest = _rest_beneath(os.path.realpath(path), leads_to)
        if rest is not None:
            return _open_without_links(folder, rest)
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


def read_stdin(what: str, max_bytes: int = MAX_BYTES) -> bytes:
    """Read standard input to its end.

    Raises:
        JobError: it is closed, a terminal nobody types at, or too large.
    """
    parts = []
    left = max_bytes + 1
    try:
        while left and (part := os.read(0, min(left, 1 << 20))):
            parts.append(part)
            left -= len(part)
    except OSError as error:
        raise JobError(f"cannot read the {what} from standard input: {error.strerror}") from error
    if not left:
        raise JobError(
            f"the {what} on standard input is too large", expected=f"at most {max_bytes} bytes"
        )
    return b"".join(parts)


def _rest_beneath(folder: str, path: str) -> str | None:
    """Give what follows a folder in a path, both without links; None if it lies elsewhere."""
    if path == folder:
        return "."
    above = folder.rstrip("/") + "/"
    return path[len(above) :] if path.startswith(above) else None


def _open_without_links(folder: int, path: str) -> int:
    """Open what lies at a path of plain names beneath a folder; a link on it is an error."""
    try:
        resolve = _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS
        return _openat2(folder, path, resolve)
    except OSError as error:
        if error.errno not in _NO_OPENAT2:
            raise
    *folders, last = path.split("/")
    here = os.dup(folder)
    try:
        for part in folders:
            there = os.open(part, _FOLDER | _NO_LINK, dir_fd=here)
            # In this order: a signal may raise right after the close, and `finally` is next.
            before, here = here, there
            os.close(before)
        return os.open(last, _READ | _NO_LINK, dir_fd=here)
    finally:
        os.close(here)


def _openat2(folder: int, path: str, resolve: int) -> int:
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    import ctypes
    import struct

    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError("a NUL character")
    how = struct.pack("<QQQ", _READ, 0, resolve)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    descriptor = libc.syscall(
        ctypes.c_long(_SYS_OPENAT2),
        ctypes.c_int(folder),
        encoded,
        how,
        ctypes.c_size_t(len(how)),
    )
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(descriptor)


def _on_proc(descriptor: int) -> bool:
    """Tell whether a file is one of /proc: the state of a process, such as its environment.

    A job cannot have those even where the folder it may name files in holds a /proc.
    """
    if sys.platform != "linux":
        return False
    import ctypes

    # f_type is the first word of struct statfs, which is 120 bytes long: statfs(2).
    answer = (ctypes.c_long * 32)()
    failed = ctypes.CDLL(None).fstatfs(ctypes.c_int(descriptor), answer)
    return bool(failed) or answer[0] == _PROC_SUPER_MAGIC


def _refused(reach: Reach, name: str, what: str, place: Place) -> RefusedError:
    allowed = ", ".join(repr(path) for path, _ in reach.allowed)
    if reach.own is None:
        found = f"allowed: {allowed or 'no folder'}"
    else:
        found = "allowed: the job's folder" + (f", {allowed}" if allowed else "")
    return RefusedError(
        f"the {what} {name!r} lies outside of where this job may name files",
        reason="files",
        needs=f"file {name!r}",
        found=found,
        fix="copy it into the job's folder, or run with --allow-path DIR, a folder that holds it",
        place=place,
    )


def _open_error(path: str, what: str, error: OSError | ValueError) -> JobError | NotFoundError:
    if not isinstance(error, OSError):
        # A NUL character, or one that has no byte form in the file system's encoding.
        return JobError(f"no file can have the name of the {what}: {path!r}")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFoundError(f"no {what} at {path!r}")
    return JobError(f"cannot read the {what} {path!r}: {error.strerror}")


def _read_regular(
    descriptor: int, path: str, what: str, max_bytes: int, place: Place | None = None
) -> bytes:
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise JobError(f"the {what} {path!r} is not a regular file", place=place)
        parts = []
        left = max_bytes + 1
        while left and (part := os.read(descriptor, min(left, 1 << 20))):
            parts.append(part)
            left -= len(part)
    except OSError as error:
        raise JobError(f"cannot read the {what} {path!r}: {error.strerror}", place=place) from error
    finally:
        os.close(descriptor)
    if not left:
        raise JobError(
            f"the {what} {path!r} is too large",
            place=place,
            expected=f"at most {max_bytes} bytes",
        )
    return b"".join(parts)
