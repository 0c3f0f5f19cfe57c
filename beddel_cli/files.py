"""Read a file that somebody named: opened once, regular only, size-capped.

The bytes that come back are the bytes that are used and digested; nothing is read twice.
"""

from __future__ import annotations

import errno
import os
import stat

from beddel_cli.errors import JobError, NotFoundError, Place

MAX_BYTES = 16 << 20
_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_BENEATH = 0x08


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
    # Non-blocking, so that a FIFO without a writer is an error and not a hang.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise _open_error(path, what, error) from error
    except ValueError:
        raise JobError(f"the name of the {what} holds a NUL character") from None
    return _read_regular(descriptor, path, what, max_bytes)


def read_beneath(folder: str, path: str, what: str, place: Place) -> bytes:
    """Read a regular file that a job names, which cannot lie outside of the job's folder.

    No `..`, absolute path or link leads out: the kernel resolves the path beneath `folder`.

    Raises:
        NotFoundError: there is none.
        JobError: outside the folder, not a regular file, not readable, or too large.
    """
    parent = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        descriptor = _open_beneath(parent, path)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.ELOOP):
            raise JobError(
                f"{path!r} lies outside the job's folder",
                place=place,
                hint="copy the file beside the job; a job cannot choose files elsewhere",
            ) from error
        problem = _open_error(path, what, error)
        problem.place = place
        raise problem from error
    finally:
        os.close(parent)
    return _read_regular(descriptor, path, what, MAX_BYTES, place)


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


def _open_beneath(folder: int, path: str) -> int:
    import ctypes
    import struct

    if "\0" in path:
        raise OSError(errno.EINVAL, "a NUL character in the name")
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    how = struct.pack("<QQQ", flags, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    descriptor = libc.syscall(
        ctypes.c_long(_SYS_OPENAT2),
        ctypes.c_int(folder),
        os.fsencode(path),
        how,
        ctypes.c_size_t(len(how)),
    )
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(descriptor)


def _open_error(path: str, what: str, error: OSError) -> JobError | NotFoundError:
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
