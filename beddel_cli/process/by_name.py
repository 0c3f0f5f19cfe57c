"""Change mode and times of a file for a program that may not do so itself.

Landlock does not judge these, so under its caller's own id a program could change them of every
file that belongs to him, by its name or through a descriptor that may only read. The filter hands
such calls to the guardian, and the program waits. The guardian reads the name once, opens what it
says, and changes that very file if it lies in the scratch folder; nothing from outside can be moved
or linked there.

Source: seccomp_unotify(2), also on why the id is checked again; openat2(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from contextlib import suppress
from time import time_ns

from beddel_cli.process import kernel

# linux/seccomp.h
_RECEIVE, _SEND, _IS_VALID = 0xC0502100, 0xC0182101, 0x40082102
_REQUEST = struct.Struct("<QIIiIQ6Q")
_ANSWER = struct.Struct("<QqiI")
_NO_MAGIC_LINKS = 0x02
_AT_FDCWD = -100
_NO_FOLLOW, _EMPTY_PATH = 0x100, 0x1000
_NOW, _OMIT = 0x3FFFFFFF, 0x3FFFFFFE
_MODE_BITS = 0o1777
_PATH_BYTES = 4096


class NameKeeper:
    """Answers the calls that the filter hands over.

    Attributes:
        listener: readable when there is one to answer; `answer` may then be called.
    """

    def __init__(self, listener: int, numbers: dict[int, str], folders: tuple[str, ...]) -> None:
        """Take charge of a listener.

        Args:
            numbers: the names of the calls that are handed over.
            folders: real paths of the folders within which files may be changed.
        """
        self.listener = listener
        self._numbers = numbers
        self._folders = folders

    def answer(self) -> None:
        """Do, or refuse, what one call asks for."""
        data = bytearray(_REQUEST.size)
        try:
            fcntl.ioctl(self.listener, _RECEIVE, data)
        except OSError:
            return  # it was killed while it waited
        identity, pid, _, number, _, _, *arguments = _REQUEST.unpack(data)
        try:
            self._do(identity, pid, self._numbers.get(number, ""), arguments)
            code = 0
        except OSError as error:
            code = error.errno or errno.EIO
        with suppress(OSError):  # it was killed meanwhile
            fcntl.ioctl(self.listener, _SEND, _ANSWER.pack(identity, 0, -code, 0))

    def _do(self, identity: int, pid: int, call: str, arguments: list[int]) -> None:
        if call == "chmod":
            arguments = [_AT_FDCWD & 0xFFFFFFFF, *arguments]
        elif call == "fchmod":
            arguments.insert(1, 0)
        folder, name, value, flags = arguments[:4]
        if call in ("chmod", "fchmodat"):
            flags = 0
        # Without a name it is the file that the descriptor is open on.
        of_descriptor = call == "fchmod" or (call == "utimensat" and not name)
        if of_descriptor:
            flags = _EMPTY_PATH
        times = None
        if call == "utimensat" and value:
            times = struct.unpack("<4q", _read(pid, value, 32, whole=True))
        path = b"" if of_descriptor else _read(pid, name, _PATH_BYTES).partition(b"\0")[0]
        file = _open(
            pid, struct.unpack("<i", struct.pack("<I", folder & 0xFFFFFFFF))[0], path, flags
        )
        try:
            # Since then the process may have gone, and another one have its id.
            fcntl.ioctl(self.listener, _IS_VALID, struct.pack("<Q", identity))
            self._check_place(file)
            here = f"/proc/self/fd/{file}"
            if call != "utimensat":
                if stat.S_ISLNK(os.fstat(file).st_mode):
                    raise OSError(errno.EOPNOTSUPP, "a link has no mode")
                os.chmod(here, value & _MODE_BITS)
            else:
                os.utime(here, ns=_times(times, os.fstat(file)))
        finally:
            os.close(file)

    def _check_place(self, file: int) -> None:
        place = os.readlink(f"/proc/self/fd/{file}")
        if not any(place == each or place.startswith(f"{each}/") for each in self._folders):
            raise OSError(errno.EPERM, "not in the scratch folder")


def _read(pid: int, address: int, most: int, *, whole: bool = False) -> bytes:
    """Read a process's memory; EFAULT where there is none, or less than the whole."""
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(memory, most, address)
    except (OSError, OverflowError):
        data = b""
    finally:
        os.close(memory)
    if not data or (whole and len(data) != most):
        raise OSError(errno.EFAULT, "a bad address")
    return data


def _open(pid: int, folder: int, path: bytes, flags: int) -> int:
    """Open what a process means by a path, for nothing but to name it."""
    if not path and not flags & _EMPTY_PATH:
        raise OSError(errno.ENOENT, "an empty path")
    looking = os.O_PATH | os.O_CLOEXEC
    base = "cwd" if folder == _AT_FDCWD else f"fd/{folder}"
    try:
        here = os.open("/" if path.startswith(b"/") else f"/proc/{pid}/{base}", looking)
    except FileNotFoundError as error:
        raise OSError(errno.EBADF, "not open") from error
    if not path:
        return here
    try:
        no_follow = os.O_NOFOLLOW if flags & _NO_FOLLOW else 0
        return kernel.open_without_links(
            here, os.fsdecode(path), looking | no_follow, resolve=_NO_MAGIC_LINKS
        )
    finally:
        os.close(here)


def _times(asked: tuple[int, ...] | None, there: os.stat_result) -> tuple[int, int]:
    """Give the times to set, in nanoseconds; None asks for now."""
    if asked is None:
        now = time_ns()
        return now, now
    found = []
    for (seconds, rest), old in zip(
        (asked[:2], asked[2:]), (there.st_atime_ns, there.st_mtime_ns), strict=True
    ):
        if rest == _OMIT:
            found.append(old)
        elif rest == _NOW:
            found.append(time_ns())
        elif 0 <= rest < 1_000_000_000:
            found.append(seconds * 1_000_000_000 + rest)
        else:
            raise OSError(errno.EINVAL, "no such time")
    return found[0], found[1]
