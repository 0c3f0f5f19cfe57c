"""Where beddel keeps things, and the one way it writes a file whole.

Keys and receipts live under BEDDEL_HOME, compiled code under BEDDEL_CACHE_DIR; CI uploads caches,
so the two never share a folder. A folder is used through a descriptor that was checked after it
was opened: ours, not writable by others, not a link. Checking a path and then using the path
would leave a moment in which it can be exchanged.

Links on the way to a folder are followed only when root or we made them, and one at a time, so
that each is judged before it is used. Everything here fails closed.
"""

from __future__ import annotations

import errno
import os
import stat

from beddel_cli.errors import HomeError, ReceiptWriteError, UsageError
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST_LINKS = 40  # as the kernel's own limit: path_resolution(7)
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
# Systems without these cannot run guests either; the module must still import there for `verify`.
_O_PATH = getattr(os, "O_PATH", 0)
_O_FOLDER = getattr(os, "O_DIRECTORY", 0)
_O_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_O_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_O_TMPFILE = getattr(os, "O_TMPFILE", 0)
# Of file systems, kernels and containers without unnamed files, or without /proc to name them by.
_NOT_UNNAMED = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.ENOSYS)


class NoFolderError(HomeError):
    """The folder is not there, and was not to be made."""


@record
class Places:
    """The two folders, as absolute paths. Neither need exist yet."""

    home: str
    cache: str


@record
class Folder:
    """A folder that was opened and then checked. Close it, or use it in a `with`."""

    path: str
    fd: int

    def child(self, name: str, *, create: bool = True) -> Folder:
        """Open a folder in this one under the same rules.

        Raises:
            NoFolderError: it is missing and `create` is false.
            HomeError: it cannot be made, is a link, or is not safe to use.
        """
        path = os.path.join(self.path, name)
        try:
            step = _step(self.fd, name, path, create=create)
        except OSError as error:
            raise _folder_error(path, error) from error
        try:
            return _checked(step, path)
        finally:
            os.close(step)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def locate(environ: Mapping[str, str]) -> Places:
    """Decide where home and cache are, without making either.

    HOME and the XDG folders count only when they belong to the user we run as: under `sudo` they
    are often still the caller's, and root's files do not belong there. BEDDEL_HOME and
    BEDDEL_CACHE_DIR are taken at their word.

    Raises:
        HomeError: this user has no home, or the two folders are the same or inside each other.

    Source: XDG Base Directory Specification 0.8 (relative values are ignored).
    """
    home = _place(environ, "BEDDEL_HOME", "XDG_DATA_HOME", ".local/share")
    cache = _place(environ, "BEDDEL_CACHE_DIR", "XDG_CACHE_HOME", ".cache")
    _check_apart(home, cache)
    return Places(home, cache)


def open_folder(path: str, *, create: bool = True) -> Folder:
    """Open a folder of ours, and make it (0700, whatever the umask) if it is not there.

    Raises:
        NoFolderError: it is missing and `create` is false.
        HomeError: it cannot be made, it is a link or reached by a link of another user's, it
            belongs to someone else, or others may write to it.
    """
    if not _O_PATH:
        raise HomeError(
            "this system keeps no beddel home: runs and their keys need Linux",
            hint="verify with --key PUB.pem",
        )
    path = os.path.abspath(path)
    here = os.open("/", _O_PATH | _O_CLOEXEC)
    pending = [name for name in reversed(path.split("/")) if name]
    walked = "/"
    links = 0
    try:
        while pending:
            name = pending.pop()
            walked = os.path.join(walked, name)
            step = _step(here, name, walked, create=create)
            status = os.fstat(step)
            if not stat.S_ISLNK(status.st_mode) or not pending:
                # In this order: a signal may raise right after the close, and `finally` is next.
                before, here = here, step
                os.close(before)
                continue
            try:
                links += 1
                target = _link_target(step, status, walked, links)
            finally:
                os.close(step)
            pending.extend(part for part in reversed(target.split("/")) if part not in ("", "."))
            walked = os.path.dirname(walked)
            if target.startswith("/"):
                before, here = here, os.open("/", _O_PATH | _O_CLOEXEC)
                os.close(before)
                walked = "/"
        return _checked(here, path)
    except OSError as error:
        raise _folder_error(path, error) from error
    finally:
        os.close(here)


def write_whole(path: str, data: bytes, mode: int, *, synced: bool = True) -> None:
    """Put a file in place whole or not at all, on disk before this returns.

    With `synced` false it may be lost or cut if the machine fails: for what can be made again.

    Writes a file without a name, then gives it the name. Where something has that name, it gets a
    temporary one and is renamed, so a link that appears there in the meantime is replaced, never
    followed. `mode` holds whatever the umask.

    Raises:
        ReceiptWriteError: the name is taken by something that is not a regular file, the folder is
            missing or read-only, or the disk is full. Nothing is left behind.
    """
    folder_fd, name = _open_parent(path)
    try:
        replace(folder_fd, name, data, mode, synced=synced)
    except OSError as error:
        raise _write_error(path, error) from error
    finally:
        os.close(folder_fd)


def write_new(path: str, data: bytes, mode: int) -> None:
    """Do what `write_whole` does, but only where there is nothing of that name.

    Raises:
        UsageError: there is.
        ReceiptWriteError: as `write_whole`.
    """
    folder_fd, name = _open_parent(path)
    try:
        made = create_once(folder_fd, name, data, mode)
    except OSError as error:
        raise _write_error(path, error) from error
    finally:
        os.close(folder_fd)
    if not made:
        raise UsageError(f"{path!r} is there already", expected="the name of a new file")


def remove_stale(path: str) -> None:
    """Remove the file that `write_whole` would have replaced, where there is nothing to put there.

    Raises:
        ReceiptWriteError: it is there and cannot be removed.
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _write_error(path, error) from error


def _open_parent(path: str) -> tuple[int, str]:
    """Open the folder in which a file is to be written; gives it and the file's name there."""
    folder, name = os.path.split(path)
    if name in ("", ".", ".."):
        raise ReceiptWriteError(f"{path!r} names a folder, expected a file name")
    try:
        folder_fd = os.open(folder or ".", os.O_RDONLY | _O_FOLDER | _O_CLOEXEC)
    except OSError as error:
        raise _write_error(path, error) from error
    return folder_fd, name


def replace(folder_fd: int, name: str, data: bytes, mode: int, *, synced: bool = True) -> None:
    """Do what `write_whole` does, in a folder that is already open.

    Raises:
        ReceiptWriteError: the name is taken by something that is not a regular file.
        OSError: the file could not be written; `explain_write` says why.
    """
    try:
        there = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    except FileNotFoundError:
        pass
    else:
        if not stat.S_ISREG(there.st_mode):
            raise ReceiptWriteError(
                f"{name!r} exists and is {_kind(there.st_mode)}, expected a file or nothing",
                hint="give another file name; beddel never writes through links or into devices",
            )
    with open_temporary(folder_fd) as file:
        _write_all(file.fd, data, mode, synced=synced)
        file.take(name)
    if synced:
        os.fsync(folder_fd)


def create_once(folder_fd: int, name: str, data: bytes, mode: int) -> bool:
    """Make a file whole, or find that someone else was first (False) and leave theirs alone.

    Raises:
        OSError: the file could not be written; `explain_write` says why.

    Source: link(2).
    """
    with open_temporary(folder_fd) as file:
        _write_all(file.fd, data, mode)
        if not file.take_free(name):
            return False
    os.fsync(folder_fd)
    return True


def explain_write(path: str, error: OSError) -> tuple[str, str | None]:
    """Say why `path` could not be written, and what would help, if anything is known to."""
    folder = os.path.dirname(path) or "."
    say = {
        errno.ENOSPC: (f"the disk is full: cannot write {path!r}", "free some space on it"),
        errno.EDQUOT: (f"the disk quota is used up: cannot write {path!r}", None),
        errno.EFBIG: (f"the file size limit (ulimit -f) does not allow {path!r}", None),
        errno.EROFS: (f"the file system of {folder!r} is read-only", None),
        errno.EACCES: (f"folder {folder!r} may not be written by user {os.geteuid()}", None),
        errno.EPERM: (f"the system does not permit writing {path!r}", None),
        errno.ENOENT: (f"folder {folder!r} does not exist", f"mkdir -p {shell_word(folder)}"),
        errno.ENOTDIR: (f"{folder!r} is not a folder", None),
        errno.ENAMETOOLONG: (f"the file name {path!r} is too long", None),
    }
    if error.errno in say:
        return say[error.errno]
    return f"cannot write {path!r}: {os.strerror(error.errno or 0)}", None


def shell_word(text: str) -> str:
    """Quote text for a command a user may paste. (`shlex` costs 13 ms of start-up through `re`.)"""
    if text and all(c.isascii() and (c.isalnum() or c in "@%+=:,./_-") for c in text):
        return text
    return "'" + text.replace("'", "'\"'\"'") + "'"


def _place(environ: Mapping[str, str], own: str, shared: str, below_home: str) -> str:
    asked = environ.get(own, "")
    if asked:
        return os.path.abspath(asked)
    base = environ.get(shared, "")
    if not os.path.isabs(base) or not _is_ours(_nearest(base)):
        base = os.path.join(_user_home(environ), below_home)
    return os.path.join(base, "beddel-cli")


def _user_home(environ: Mapping[str, str]) -> str:
    home = environ.get("HOME", "")
    if os.path.isabs(home) and _is_ours(home):
        return home
    import pwd

    user = os.geteuid()
    try:
        return pwd.getpwuid(user).pw_dir
    except KeyError:
        found = f"HOME={home!r} is not theirs" if home else "HOME is not set"
        raise HomeError(
            f"user {user} has no home folder: {found}, and the user database does not know them",
            hint=f"export BEDDEL_HOME=/tmp/beddel-{user} BEDDEL_CACHE_DIR=/tmp/beddel-cache-{user}",
        ) from None


def _nearest(path: str) -> str:
    """Give the path itself or the closest folder above it that exists."""
    while not os.path.lexists(path) and path != "/":
        path = os.path.dirname(path)
    return path


def _is_ours(path: str) -> bool:
    try:
        return os.stat(path).st_uid == os.geteuid()
    except OSError:
        return False


def _check_apart(home: str, cache: str) -> None:
    real_home, real_cache = os.path.realpath(home), os.path.realpath(cache)
    if os.path.commonpath([real_home, real_cache]) in (real_home, real_cache):
        raise HomeError(
            f"the cache folder {cache!r} and the home folder {home!r} overlap: "
            "caches are often uploaded, and keys must not be among them",
            hint="set BEDDEL_CACHE_DIR to a folder outside BEDDEL_HOME, and not around it",
        )


def _step(parent_fd: int, name: str, path: str, *, create: bool) -> int:
    """Open one path component, a link itself rather than what it points to."""
    flags = _O_PATH | _O_NOFOLLOW | _O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=parent_fd)
    except FileNotFoundError:
        if not create:
            raise NoFolderError(f"folder {path!r} does not exist") from None
    # mkdir(2) takes the umask off the mode, and a umask of 0777 would lock us out.
    before = os.umask(0o077)
    try:
        os.mkdir(name, 0o700, dir_fd=parent_fd)
    except FileExistsError:
        pass  # another beddel was first; its folder is checked like any other
    finally:
        os.umask(before)
    return os.open(name, flags, dir_fd=parent_fd)


def _link_target(link_fd: int, status: os.stat_result, path: str, links: int) -> str:
    if status.st_uid not in (0, os.geteuid()):
        raise HomeError(
            f"{path!r} is a link made by user {status.st_uid}; "
            f"only links of user {os.geteuid()} or root are followed",
            hint="set BEDDEL_HOME (or BEDDEL_CACHE_DIR) to a path without that link",
        )
    if links > _MOST_LINKS:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return os.readlink("", dir_fd=link_fd)


def _checked(folder_fd: int, path: str) -> Folder:
    """Judge an opened folder; give it back under a descriptor that can also be synced."""
    status = os.fstat(folder_fd)
    user = os.geteuid()
    if not stat.S_ISDIR(status.st_mode):
        hint = f"rm {shell_word(path)}" if stat.S_ISLNK(status.st_mode) else None
        raise HomeError(f"{path!r} is {_kind(status.st_mode)}, expected a folder", hint=hint)
    if status.st_uid != user:
        raise HomeError(
            f"folder {path!r} belongs to user {status.st_uid}, expected user {user}",
            hint=f"sudo chown -R {user} {shell_word(path)}",
        )
    if status.st_mode & _OTHERS_WRITE:
        raise HomeError(
            f"folder {path!r} has mode {stat.S_IMODE(status.st_mode):04o}: "
            "others may write to it, expected 0700",
            hint=f"chmod 700 {shell_word(path)}",
        )
    try:
        usable = os.open(".", os.O_RDONLY | _O_FOLDER | _O_CLOEXEC, dir_fd=folder_fd)
    except OSError as error:
        raise _folder_error(path, error) from error
    return Folder(path, usable)


def _folder_error(path: str, error: OSError) -> HomeError:
    return HomeError(
        f"cannot open or make folder {path!r}: {os.strerror(error.errno or 0)}",
        hint="set BEDDEL_HOME (or BEDDEL_CACHE_DIR) to a folder you can write to",
    )


def _write_error(path: str, error: OSError) -> ReceiptWriteError:
    message, hint = explain_write(path, error)
    return ReceiptWriteError(message, hint=hint)


class Temporary:
    """A file of ours that has no name yet, or a temporary one. Use it in a `with`.

    Without a name it is gone when this process is, whatever ended it.
    """

    def __init__(self, folder: int, fd: int, name: str | None) -> None:
        self.fd = fd
        self._folder = folder
        self._name = name

    def take(self, name: str | bytes) -> None:
        """Give it its name, in place of what has that.

        Raises:
            OSError: as rename(2).
        """
        if self._name is None and self.take_free(name):
            return
        if self._name is None:
            self._name = self._take_temporary_name()
        os.rename(self._name, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._name = None

    def take_free(self, name: str | bytes) -> bool:
        """Give it a name that is free, and tell whether it was.

        A hard link appears complete or not at all and never replaces, which neither open(2) with
        O_EXCL nor rename(2) gives.

        Raises:
            OSError: as link(2).
        """
        try:
            self._link(name)
        except FileExistsError:
            return False
        return True

    def _link(self, name: str | bytes) -> None:
        unnamed = self._name is None
        os.link(
            f"/proc/self/fd/{self.fd}" if self._name is None else self._name,
            name,
            src_dir_fd=self._folder,
            dst_dir_fd=self._folder,
            follow_symlinks=unnamed,
        )

    def _take_temporary_name(self) -> str:
        from beddel_cli.leftovers import hold, new_name, remove_dead

        remove_dead(self._folder)
        hold(self.fd)
        name = new_name()
        self._link(name)
        return name

    def __enter__(self) -> Temporary:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._name is not None:
                os.unlink(self._name, dir_fd=self._folder)
        except FileNotFoundError:
            return  # taken away by who may write there
        finally:
            os.close(self.fd)


def open_temporary(folder_fd: int) -> Temporary:
    """Open a new file for writing, mode 0600, on the file system of a folder.

    Raises:
        OSError: it cannot be made.
    """
    if _O_TMPFILE:
        try:
            fd = os.open(".", os.O_WRONLY | _O_TMPFILE | _O_CLOEXEC, 0o600, dir_fd=folder_fd)
        except OSError as error:
            if error.errno not in _NOT_UNNAMED:
                raise
        else:
            if os.access(f"/proc/self/fd/{fd}", os.F_OK):
                return Temporary(folder_fd, fd, None)
            os.close(fd)
    from beddel_cli.leftovers import make_held, remove_dead

    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _O_NOFOLLOW | _O_CLOEXEC
    remove_dead(folder_fd)
    name, fd = make_held(lambda name: os.open(name, flags, 0o600, dir_fd=folder_fd))
    return Temporary(folder_fd, fd, name)


def _write_all(fd: int, data: bytes, mode: int, *, synced: bool = True) -> None:
    os.fchmod(fd, mode)
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
    if synced:
        os.fsync(fd)


def _kind(mode: int) -> str:
    names = {
        stat.S_IFREG: "a regular file",
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a link",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    return names.get(stat.S_IFMT(mode), "of an unknown kind")
