"""The log of one tenant: an append-only Merkle tree in one SQLite file, safe with many writers.

Each row is one entry: its bytes, the tree nodes it completed, and the signature of the checkpoint
over everything up to it. So an append touches one page, a proof reads one row for each level, and
every size the log ever had can be held against a signature.

Nothing of the head is kept between appends: each takes the write lock, reads the row of complete
subtrees, and checks the signature over them before it signs anything that builds on them. Whoever
alters the file without the key would otherwise have the next run sign the forgery.

A log appears complete or not at all: it is made under another name and linked into place. Commits
are synced to disk before they count. On file systems of which not every one keeps SQLite's shared
memory coherent, the older journal is used; what SQLite made of the wish is read back.

Source: https://www.sqlite.org/wal.html; https://www.sqlite.org/lockingv3.html.
"""

from __future__ import annotations

import os
import stat
from time import monotonic

from beddel_cli.checkpoint import (
    NoteSignature,
    checkpoint_text,
    ed25519_key_hash,
    make_note,
    raw_public_key,
)
from beddel_cli.errors import LedgerError, VerificationError, bug
from beddel_cli.home import NoFolderError, open_folder, shell_word
from beddel_cli.merkle import (
    HASH_BYTES,
    complete_subtrees,
    completed_nodes,
    join_subtrees,
    leaf_hash,
    node_hash,
)
from beddel_cli.record import record
from beddel_cli.sqlite_core import Error, OperationalError, connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from sqlite3 import Connection
    from typing import Any, Protocol

    from beddel_cli.checkpoint import VerifyingKey
    from beddel_cli.home import Folder

    class Signer(Protocol):
        """The log's private key."""

        @property
        def public_raw(self) -> bytes: ...
        def sign(self, message: bytes) -> bytes: ...


FOLDER = "logs"
SUFFIX = ".sqlite3"
BUSY_SECONDS = 30.0
# SQLite waits for a lock deaf to signals, so it waits in small pieces.
_WAIT_SECONDS = 0.5
ORIGIN_HEAD = "beddel-cli.invalid/log/"
MAX_ENTRY_BYTES = 1 << 20

_APPLICATION_ID = 0x62646C67
_FORMAT = 1
_SIGNATURE_BYTES = 68
_TENANT_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
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


@record
class Appended:
    """An entry that is in the log, on disk.

    Attributes:
        path: leads from the entry to the root over the log up to and with it.
        checkpoint: the signed note over that root.
    """

    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes


@record
class Row:
    """One entry as it is stored; nothing about it is checked."""

    index: int
    nodes: bytes
    signature: bytes
    data: bytes


class Ledger:
    """An open log. Close it, or use it in a `with`."""

    def __init__(self, connection: Connection, path: str, origin: str) -> None:
        self._connection = connection
        self.path = path
        self.origin = origin
        self._known_good: tuple[bytes, bytes] | None = None

    def size(self) -> int:
        """Give the number of entries, by the largest index there is.

        Raises:
            LedgerError: it cannot be read.
        """
        return int(self._one("SELECT coalesce(max(idx) + 1, 0) FROM entry"))

    def append(self, data: bytes, key: Signer, older_keys: Sequence[VerifyingKey] = ()) -> Appended:
        """Add one entry and give its proof; on disk, or not there at all.

        Args:
            older_keys: what may have signed the log's newest checkpoint before `key` took over.

        Raises:
            LedgerError: the log is busy, damaged, altered, or the disk takes no more.
        """
        if len(data) > MAX_ENTRY_BYTES:
            raise bug(f"a log entry of {len(data)} bytes")
        with _Translated(self.path):
            self._begin_writing()
            try:
                appended = self._append(data, key, older_keys)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        return appended

    def _begin_writing(self) -> None:
        """Take the write lock, which one process at a time has."""
        deadline = monotonic() + BUSY_SECONDS
        while True:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                return
            except OperationalError as error:
                busy = error.sqlite_errorname.startswith("SQLITE_BUSY")
                if not busy or monotonic() > deadline:
                    raise

    def _append(self, data: bytes, key: Signer, older_keys: Sequence[VerifyingKey]) -> Appended:
        index = self.size()
        subtrees = complete_subtrees(0, index)
        before = self._read_nodes(subtrees)
        self._check_head(index, join_subtrees(before), key, older_keys)
        nodes_before = dict(zip(subtrees, before, strict=True))
        leaf = root = leaf_hash(data)
        nodes = completed_nodes(index, leaf, lambda level, at: nodes_before[level, at])
        # Up from the last leaf, everything beside the way is a complete subtree on its left.
        path = tuple(reversed(before))
        for step in path:
            root = node_hash(step, root)
        text = checkpoint_text(self.origin, index + 1, root)
        signature = NoteSignature(
            self.origin, ed25519_key_hash(self.origin, key.public_raw), key.sign(text)
        )
        stored = signature.key_hash + signature.value
        hashes = b"".join(value for _, _, value in nodes)
        row = (index, hashes, stored, data)
        self._connection.execute("INSERT INTO entry VALUES (?, ?, ?, ?)", row)
        self._known_good = (text, stored)
        return Appended(index, path, make_note(text, [signature]))

    def _check_head(
        self, size: int, root: bytes, key: Signer, older_keys: Sequence[VerifyingKey]
    ) -> None:
        """Check that the newest checkpoint, which is about to be built on, was signed."""
        if size == 0:
            return
        signature = self.signature(size - 1)
        text = checkpoint_text(self.origin, size, root)
        key_hash, value = signature[:4], signature[4:]
        if (text, signature) == self._known_good:
            return
        if key_hash == ed25519_key_hash(self.origin, key.public_raw):
            # Ed25519 has one signature for a key and a text, and making it is cheaper than
            # loading what would verify it. RFC 8032 section 5.1.6.
            if key.sign(text) != value:
                raise self._altered(size)
            return
        for older in older_keys:
            if key_hash == ed25519_key_hash(self.origin, raw_public_key(older)):
                try:
                    older.verify(value, text)
                except VerificationError as error:
                    raise self._altered(size) from error
                return
        raise LedgerError(
            f"log {self.path!r} was signed by another key than this one's, so nothing is added",
            hint="put back the log key it was made with, or move the log away to begin a new one",
        )

    def _altered(self, size: int) -> DamagedError:
        return DamagedError(
            f"log {self.path!r} was altered: the signature over its {size} entries is not good",
            hint="beddel-cli audit verify",
        )

    def signature(self, index: int) -> bytes:
        """Give key hash and signature of the checkpoint that was made with an entry.

        Raises:
            LedgerError: it cannot be read.
        """
        with _Translated(self.path):
            row = self._connection.execute(
                "SELECT signature FROM entry WHERE idx = ?", (index,)
            ).fetchone()
        if row is None or type(row[0]) is not bytes or len(row[0]) != _SIGNATURE_BYTES:
            raise self._damaged(f"the signature of entry {index}")
        return row[0]

    def read_node(self, level: int, position: int) -> bytes:
        """Give a complete node of the tree, as stored.

        Raises:
            LedgerError: it is not there.
        """
        return self._read_nodes([(level, position)])[0]

    def _read_nodes(self, names: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read nodes from the rows that completed them."""
        if not names:
            return []
        rows = [((position + 1) << level) - 1 for level, position in names]
        marks = ",".join("?" * len(rows))
        with _Translated(self.path):
            found = dict(
                self._connection.execute(
                    f"SELECT idx, nodes FROM entry WHERE idx IN ({marks})",  # noqa: S608
                    rows,
                )
            )
        values = []
        for row, (level, position) in zip(rows, names, strict=True):
            nodes = found.get(row)
            value = b""
            if type(nodes) is bytes:
                value = nodes[level * HASH_BYTES : (level + 1) * HASH_BYTES]
            if len(value) != HASH_BYTES:
                raise self._damaged(f"the node over entries {position << level} to {row}")
            values.append(value)
        return values

    def _damaged(self, what: str) -> DamagedError:
        return DamagedError(
            f"log {self.path!r} is damaged: {what} is missing", hint="beddel-cli audit verify"
        )

    def rows(self, start: int = 0) -> Iterator[Row]:
        """Give the stored entries in their order, one at a time.

        Raises:
            LedgerError: it cannot be read to its end.
        """
        with _Translated(self.path):
            query = "SELECT idx, nodes, signature, data FROM entry WHERE idx >= ? ORDER BY idx"
            for row in self._connection.execute(query, (start,)):
                yield Row(row[0], *(part if type(part) is bytes else b"" for part in row[1:]))

    def row(self, index: int) -> Row | None:
        """Give one stored entry, None if there is none of this index.

        Raises:
            LedgerError: it cannot be read.
        """
        return next((row for row in self.rows(index) if row.index == index), None)

    def begin_reading(self) -> None:
        """See from here on the log as it is now, whoever adds to it meanwhile.

        Raises:
            LedgerError: it cannot be read.
        """
        with _Translated(self.path):
            self._connection.execute("BEGIN")
            self._connection.execute("SELECT max(idx) FROM entry").fetchone()

    def _one(self, query: str) -> Any:
        with _Translated(self.path):
            return self._connection.execute(query).fetchone()[0]

    def close(self) -> None:
        """Give the file back."""
        with _Translated(self.path):
            self._connection.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_ledger(home: str, tenant: str, *, create: bool = True) -> Ledger:
    """Open the log of a tenant; make it if it is not there and may be made.

    Raises:
        LedgerError: there is none, it is not one of ours, or not safe to use.
        HomeError: the home folder cannot be used.
    """
    name = file_name(tenant)
    try:
        with (
            open_folder(home, create=create) as folder,
            folder.child(FOLDER, create=create) as logs,
        ):
            path = os.path.join(logs.path, name)
            if not _is_there(logs, name):
                if not create:
                    raise _no_log(tenant, home)
                _make(logs, name, tenant)
            return _open(path, _journal_mode(logs.fd), writable=True)
    except NoFolderError:
        raise _no_log(tenant, home) from None


def open_log_file(path: str) -> Ledger:
    """Open a log by its path, to read it.

    Raises:
        LedgerError: it is not a log, or cannot be opened.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise LedgerError(f"{path!r} is not a regular file, expected a log")
    except OSError as error:
        raise LedgerError(f"cannot open log {path!r}: {os.strerror(error.errno or 0)}") from error
    return _open(os.path.abspath(path), None, writable=False)


def tenants(home: str) -> tuple[str, ...]:
    """Name the tenants that have a log, in alphabetical order.

    Raises:
        HomeError: the home folder cannot be used.
    """
    try:
        with (
            open_folder(home, create=False) as folder,
            folder.child(FOLDER, create=False) as logs,
        ):
            names = [entry.removesuffix(SUFFIX) for entry in os.listdir(logs.fd)]
            found = [name for name in names if name + SUFFIX in os.listdir(logs.fd)]
    except NoFolderError:
        return ()
    return tuple(sorted(name for name in found if is_tenant(name)))


def is_tenant(name: str) -> bool:
    """Tell whether a tenant may have this name: it is part of a file's, and never a path."""
    return 0 < len(name) <= 63 and set(name) <= _TENANT_CHARACTERS and not name.startswith("-")


def file_name(tenant: str) -> str:
    """Give the name of a tenant's log in its folder."""
    if not is_tenant(tenant):
        raise bug(f"an unchecked tenant: {tenant!r}")
    return tenant + SUFFIX


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


def _is_there(logs: Folder, name: str) -> bool:
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


def _make(logs: Folder, name: str, tenant: str) -> None:
    """Put an empty log in place, unless another beddel is first."""
    temporary = f".beddel-{os.urandom(8).hex()}.tmp"
    path = os.path.join(logs.path, temporary)
    final = os.path.join(logs.path, name)
    origin = f"{ORIGIN_HEAD}{os.urandom(16).hex()}/{tenant}"
    try:
        os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=logs.fd))
        os.chmod(temporary, 0o600, dir_fd=logs.fd)
        try:
            with _Translated(final):
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


def _open(path: str, journal_mode: str | None, *, writable: bool) -> Ledger:
    with _Translated(path):
        connection = _connect(path, writable=writable)
        try:
            found = [
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("application_id", "user_version")
            ]
            if found != [_APPLICATION_ID, _FORMAT]:
                raise LedgerError(
                    f"{path!r} is not a log, or of a version not known here",
                    expected=f"application {_APPLICATION_ID:#x}, format {_FORMAT}",
                    got=f"application {found[0]:#x}, format {found[1]}",
                )
            if journal_mode is not None:
                connection.execute("PRAGMA synchronous = FULL")
                _set_journal(connection, path, journal_mode)
            row = connection.execute("SELECT origin FROM log").fetchone()
            if row is None or not isinstance(row[0], str):
                raise DamagedError(f"log {path!r} is damaged: it does not say its origin")
            return Ledger(connection, path, row[0])
        except BaseException:
            connection.close()
            raise


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


def _connect(path: str, *, writable: bool = True) -> Connection:
    if writable:
        return connect(path, timeout=_WAIT_SECONDS, isolation_level=None)
    from urllib.parse import quote

    uri = f"file:{quote(os.fsencode(path))}?mode=ro"
    return connect(uri, timeout=_WAIT_SECONDS, isolation_level=None, uri=True)


class _Translated:
    """Turn what SQLite raises into a LedgerError that says what to do about it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Error):
            raise _explain(self._path, error) from error


def _explain(path: str, error: BaseException) -> LedgerError:
    code = getattr(error, "sqlite_errorname", "") or ""
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
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return DamagedError(f"log {path!r} is damaged: {error}")
    for head, message, hint in say:
        if code.startswith(head):
            return LedgerError(message, hint=hint)
    return LedgerError(f"cannot use log {path!r}: {error} ({code or 'no code'})")


def _not_writable(path: str) -> LedgerError:
    folder = shell_word(os.path.dirname(path))
    return LedgerError(
        f"log {path!r} or its folder may not be written by user {os.geteuid()}",
        hint=f"chmod u+rwx {folder}; chmod u+rw {shell_word(path)}*",
    )


def _no_log(tenant: str, home: str) -> LedgerError:
    return LedgerError(
        f"tenant {tenant!r} has no log in {home!r}", hint="the first `beddel-cli run` makes one"
    )
