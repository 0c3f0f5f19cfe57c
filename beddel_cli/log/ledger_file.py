"""The file of a log: made whole, judged before it is opened, and SQLite's errors in our words.

A log appears complete or not at all: it is made under another name and linked into place. Commits
are synced to disk before they count. On file systems of which not every one keeps SQLite's shared
memory coherent, the older journal is used; what SQLite made of the wish is read back.

Source: https://www.sqlite.org/wal.html; https://www.sqlite.org/lockingv3.html.
"""

from __future__ import annotations

import os
import stat

from beddel_cli.errors import LedgerError
from beddel_cli.home import shell_word
from beddel_cli.log.sqlite_core import Error, connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sqlite3 import Connection

    from beddel_cli.home import Folder

BUSY_SECONDS = 30.0
# While a file is opened SQLite waits by itself; afterwards the store does.
_OPENING_SECONDS = 5.0
_SHORT_WAIT_MS = 2

# No value of a log is larger, nor is a statement about it. 0 is SQLITE_LIMIT_LENGTH:
# https://www.sqlite.org/c3ref/c_limit_attached.html.
_LIMIT_LENGTH = 0
_MOST_VALUE_BYTES = 2 << 20
# Of what opening a log for writing makes beside it: https://www.sqlite.org/walformat.html.
_ROOM_BYTES = 64 << 10
_ROOM_FILES = 2

_APPLICATION_ID = 0x62646C67
_FORMAT = 1
_SCHEMA = """
CREATE TABLE log(
  one INTEGER PRIMARY KEY CHECK (one = 1),
  origin TEXT NOT NULL
);
CREATE TABLE entry(
  idx INTEGER PRIMARY KEY CHECK (idx >= 0),
  nodes BLOB NOT NULL CHECK (typeof(nodes) = 'blob'),
  signature BLOB NOT NULL CHECK (typeof(signature) = 'blob' AND length(signature) = 68),
  data BLOB NOT NULL CHECK (typeof(data) = 'blob')
);
"""
# File systems that may be shared between machines, or whose memory maps may not be coherent:
# statfs(2) and linux/magic.h.
_SHARED_FILE_SYSTEMS = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB 2",
    0x01021997: "9p",
    0x65735546: "FUSE",
    0x5346414F: "AFS",
    0x6B414653: "AFS",
    0x00C36400: "Ceph",
    0x0BD00BD0: "Lustre",
    0x01161970: "GFS2",
    0x7461636F: "OCFS2",
    0x73757245: "Coda",
    0x786F4256: "vboxsf",
    0xAAD7AAEA: "PanFS",
    0x47504653: "GPFS",
}


class DamagedError(LedgerError):
    """What is in the log's file is not what was put there."""


def journal_mode_on(file_system: int) -> str:
    """Decide which journal is sound on a file system, by its number in statfs(2)."""
    return "delete" if file_system in _SHARED_FILE_SYSTEMS else "wal"


def _journal_mode(folder_fd: int) -> str:
    return journal_mode_on(_file_system(folder_fd))


def _file_system(descriptor: int) -> int:
    """Give the number of the file system that an open file is on.

    Source: fstatfs(2); `f_type` is the first word of `struct statfs` on every 64-bit Linux.
    """
    import ctypes

    buffer = (ctypes.c_ulong * 32)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fstatfs(descriptor, ctypes.byref(buffer)) != 0:
        raise LedgerError(f"cannot tell the log's file system: {os.strerror(ctypes.get_errno())}")
    return int(buffer[0]) & 0xFFFFFFFF


def check_file(logs: Folder, name: str) -> bool:
    """Judge the file before SQLite opens it by its name; the folder is ours alone."""
    path = os.path.join(logs.path, name)
    try:
        status = os.stat(name, dir_fd=logs.fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(status.st_mode):
        raise LedgerError(f"log {path!r} is not a regular file", hint=f"rm {shell_word(path)}")
    if status.st_uid != os.geteuid():
        raise LedgerError(
            f"log {path!r} belongs to user {status.st_uid}, expected {os.geteuid()}",
            hint=f"sudo chown {os.geteuid()} {shell_word(path)}",
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise LedgerError(
            f"log {path!r} has mode {stat.S_IMODE(status.st_mode):04o}: others may write to it",
            hint=f"chmod 600 {shell_word(path)}",
        )
    # Else SQLite would open it to read, and leave files beside it that are no more writable.
    if not os.access(name, os.R_OK | os.W_OK, dir_fd=logs.fd, effective_ids=True):
        raise _not_writable(path)
    return True


def make_file(logs: Folder, name: str, origin: str) -> None:
    """Put an empty log in place, unless another beddel is first."""
    temporary = f".beddel-{os.urandom(8).hex()}.tmp"
    path = os.path.join(logs.path, temporary)
    final = os.path.join(logs.path, name)
    try:
        os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=logs.fd))
        os.chmod(temporary, 0o600, dir_fd=logs.fd)
        try:
            with Translated(final):
                _fill(path, origin, _journal_mode(logs.fd))
            os.link(temporary, name, src_dir_fd=logs.fd, dst_dir_fd=logs.fd, follow_symlinks=False)
        except FileExistsError:
            pass
        finally:
            _remove(logs, temporary)
        os.fsync(logs.fd)
    except OSError as error:
        raise LedgerError(f"cannot make log {final!r}: {os.strerror(error.errno or 0)}") from error


def _remove(logs: Folder, temporary: str) -> None:
    for ending in ("", "-journal", "-wal", "-shm"):
        try:
            os.unlink(temporary + ending, dir_fd=logs.fd)
        except FileNotFoundError:
            continue


def _fill(path: str, origin: str, journal_mode: str) -> None:
    connection = _connect(path)
    try:
        connection.executescript(f"PRAGMA synchronous = FULL; BEGIN; {_SCHEMA}")
        connection.execute("INSERT INTO log VALUES (1, ?)", (origin,))
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {_FORMAT}")
        connection.execute("COMMIT")
        _set_journal(connection, path, journal_mode)
    finally:
        connection.close()


def open_file(path: str, folder_fd: int | None) -> tuple[Connection, str, str]:
    """Open the file of a log: a connection, its path, and the log's origin.

    To read, nothing is written beside it, and no lock taken on it, where no entries are kept beside
    it either: so a copy on a medium that takes no writing can be judged, and stays as it was.

    Args:
        folder_fd: the folder it is in, of which the file system decides the journal; None to read.

    Raises:
        LedgerError: it is not a log, or cannot be used.
    """
    writable = folder_fd is not None
    _check_regular(path)
    alone = not writable and not _is_part_beside(path)
    with Translated(path):
        connection = _connect(path, writable=writable, immutable=alone)
        try:
            connection.setlimit(_LIMIT_LENGTH, _MOST_VALUE_BYTES)
            _check_form(connection, path)
            if folder_fd is not None:
                connection.execute("PRAGMA synchronous = FULL")
                _set_journal(connection, path, _journal_mode(folder_fd))
            row = connection.execute("SELECT origin FROM log").fetchone()
            if row is None or not isinstance(row[0], str):
                raise DamagedError(f"log {path!r} is damaged: it does not say its origin")
            connection.execute(f"PRAGMA busy_timeout = {_SHORT_WAIT_MS}")
            return connection, path, row[0]
        except BaseException:
            connection.close()
            raise


def _is_part_beside(path: str) -> bool:
    """Tell whether some of a log is in a journal beside it, and refuse if that cannot be read."""
    wal = path + "-wal"
    in_wal, in_journal = (_size(name) for name in (wal, path + "-journal"))
    if in_wal and not os.path.exists(f"{path}-shm") and not _may_write(os.path.dirname(path)):
        raise LedgerError(
            f"the newest entries of log {path!r} are in {wal!r}, which SQLite reads only where a "
            f"file may be made beside it, and user {os.geteuid()} may make none there",
            hint=f"to a folder that you may write: cp {shell_word(path)} {shell_word(wal)} FOLDER",
        )
    return bool(in_wal or in_journal)


def _size(path: str) -> int:
    state = file_state(path)
    return 0 if state is None else state[1]


def _may_write(folder: str) -> bool:
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=True)


def file_state(path: str) -> tuple[int, int, int] | None:
    """Give what changes when a file is written; None where it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _check_regular(path: str) -> None:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise LedgerError(f"{path!r} is not a regular file, expected a log")
    except OSError as error:
        raise LedgerError(f"cannot open log {path!r}: {os.strerror(error.errno or 0)}") from error


def _check_form(connection: Connection, path: str) -> None:
    names = ("application_id", "user_version")
    found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]
    if found != [_APPLICATION_ID, _FORMAT]:
        raise LedgerError(
            f"{path!r} is not a log, or of a version not known here",
            expected=f"application {_APPLICATION_ID:#x}, format {_FORMAT}",
            got=f"application {found[0]:#x}, format {found[1]}",
        )
    made = [row[0] for row in connection.execute("SELECT sql FROM sqlite_master ORDER BY rowid")]
    if made != [part.strip() for part in _SCHEMA.split(";")[:-1]]:
        # A trigger would decide what an entry becomes, a view what a reader is shown.
        raise DamagedError(f"log {path!r} was altered: its tables are not those of a log")


def _set_journal(connection: Connection, path: str, wanted: str) -> None:
    """Have the wanted journal, or refuse: SQLite answers with what it has, without an error."""
    if connection.execute("PRAGMA journal_mode").fetchone()[0] == wanted:
        return
    got = connection.execute(f"PRAGMA journal_mode = {wanted}").fetchone()[0]
    if got != wanted:
        raise LedgerError(
            f"log {path!r} cannot be kept safely on this file system",
            hint="set BEDDEL_HOME to a folder on a local disk",
            expected=f"journal mode {wanted}",
            got=f"journal mode {got}",
        )


def _connect(path: str, *, writable: bool = True, immutable: bool = False) -> Connection:
    if writable:
        return connect(path, timeout=_OPENING_SECONDS, isolation_level=None)
    from urllib.parse import quote

    uri = f"file:{quote(os.fsencode(path))}?mode=ro{'&immutable=1' if immutable else ''}"
    return connect(uri, timeout=_OPENING_SECONDS, isolation_level=None, uri=True)


class Translated:
    """Turn what SQLite raises into a LedgerError that says what to do about it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Error):
            raise _explain(self._path, error) from error
        if isinstance(error, UnicodeDecodeError):
            # Of a text in the file, or of SQLite's message about one.
            raise DamagedError(f"log {self._path!r} is damaged: not valid UTF-8") from error


def _explain(path: str, error: BaseException) -> LedgerError:
    code = getattr(error, "sqlite_errorname", "") or ""
    # Of a file beside the log that cannot be made or grow, SQLite does not say why.
    if code.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN")) and _is_full(os.path.dirname(path)):
        code = "SQLITE_FULL"
    say: tuple[tuple[str, str, str | None], ...] = (
        ("SQLITE_BUSY", f"log {path!r} was kept busy by others for {BUSY_SECONDS:.0f} s", None),
        ("SQLITE_FULL", f"the disk is full: cannot add to log {path!r}", "free some space on it"),
        (
            "SQLITE_CANTOPEN",
            f"cannot open log {path!r}, or a file beside it",
            "its folder must be writable: copy the log with the files beside it to one that is",
        ),
    )
    if code.startswith("SQLITE_READONLY"):
        return _not_writable(path)
    # The last is the binding's own: text that is none has no code of SQLite's.
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or "decode to UTF-8" in str(error):
        return DamagedError(f"log {path!r} is damaged: {error}")
    if code == "SQLITE_TOOBIG":
        return DamagedError(
            f"log {path!r} is damaged: a value in it is larger than any that is put"
        )
    for head, message, hint in say:
        if code.startswith(head):
            return LedgerError(message, hint=hint)
    return LedgerError(f"cannot use log {path!r}: {error} ({code or 'no code'})")


def _is_full(folder: str) -> bool:
    """Tell whether a file system has no room for SQLite's files, or takes no more files."""
    try:
        room = os.statvfs(folder)
    except OSError:
        return False
    # Where the number of files is not limited, both figures are 0.
    files_left = room.f_favail if room.f_files else _ROOM_FILES
    return room.f_bavail * room.f_frsize < _ROOM_BYTES or files_left < _ROOM_FILES


def _not_writable(path: str) -> LedgerError:
    folder = shell_word(os.path.dirname(path))
    return LedgerError(
        f"log {path!r} or its folder may not be written by user {os.geteuid()}",
        hint=f"chmod u+rwx {folder}; chmod u+rw {shell_word(path)}*",
    )
