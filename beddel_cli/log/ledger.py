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
from time import monotonic, sleep

from beddel_cli.errors import LedgerError, bug
from beddel_cli.home import NoFolderError, open_folder
from beddel_cli.log.checkpoint import (
    SIGNATURE_BYTES,
    NoteSignature,
    checkpoint_text,
    ed25519_key_hash,
    make_note,
)
from beddel_cli.log.ledger_file import (
    BUSY_SECONDS,
    DamagedError,
    Translated,
    check_file,
    file_state,
    make_file,
    open_file,
)
from beddel_cli.log.merkle import (
    HASH_BYTES,
    MOST_LEAVES,
    complete_subtrees,
    completed_nodes,
    join_subtrees,
    leaf_hash,
    node_hash,
)
from beddel_cli.log.sqlite_core import OperationalError
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from sqlite3 import Connection, Cursor
    from typing import Any, Protocol

    class Signer(Protocol):
        """The log's private key."""

        @property
        def public_raw(self) -> bytes: ...
        def sign(self, message: bytes) -> bytes: ...


FOLDER = "logs"
SUFFIX = ".sqlite3"
ORIGIN_HEAD = "beddel-cli.invalid/log/"
MAX_ENTRY_BYTES = 1 << 20

_MOST_NODES_BYTES = 64 * HASH_BYTES
_PAUSE_SECONDS = 0.001
# Of what no entry has, SQLite tells type and length without reading it.
_SOUND = "CASE WHEN typeof({0}) = 'blob' AND length({0}) <= {1} THEN {0} END"
_ROWS = ", ".join(
    (
        "SELECT idx",
        _SOUND.format("nodes", _MOST_NODES_BYTES),
        _SOUND.format("signature", SIGNATURE_BYTES),
        _SOUND.format("data", MAX_ENTRY_BYTES) + " FROM entry WHERE idx >= ? ORDER BY idx",
    )
)
_TENANT_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


@record
class Appended:
    """An entry that is in the log, on disk.

    Attributes:
        path: leads from the entry to the root over the log up to and with it.
        checkpoint: the signed note over that root.
        data: the entry.
    """

    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes
    data: bytes


@record
class Row:
    """One entry as it is stored; nothing about it is checked."""

    index: int
    nodes: bytes
    signature: bytes
    data: bytes


class Ledger:
    """An open log. Close it, or use it in a `with`."""

    def __init__(
        self,
        connection: Connection,
        path: str,
        origin: str,
        as_opened: tuple[int, int, int] | None = None,
    ) -> None:
        """Take what was opened.

        Args:
            as_opened: state of a file that is read without a lock, so that on closing it can be
                told whether somebody wrote to it meanwhile.
        """
        self._connection = connection
        self.path = path
        self.origin = origin
        self._as_opened = as_opened
        self._known_good: tuple[bytes, bytes] | None = None

    def size(self) -> int:
        """Give the number of entries, by the largest index there is.

        Raises:
            LedgerError: it cannot be read.
        """
        last = self._one("SELECT max(idx) FROM entry")
        return 0 if last is None else int(last) + 1

    def append(self, data: bytes | Callable[[], bytes], key: Signer) -> Appended:
        """Add one entry and give its proof; on disk, or not there at all.

        Args:
            data: the entry; or what makes it once it is this writer's turn, so that the time it
                reads then agrees with its place among the entries of others.

        Raises:
            LedgerError: the log is busy, damaged, altered, or the disk takes no more.
        """
        with Translated(self.path):
            self._execute("BEGIN IMMEDIATE")
            try:
                appended = self._append(data if isinstance(data, bytes) else data(), key)
                self._execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        return appended

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> Cursor:
        """Run a statement; while another process is in the way, wait in small steps.

        SQLite's own waiting is deaf to signals, and its steps grow so long that of many writers
        some get nothing for seconds.
        """
        deadline = None
        while True:
            try:
                return self._connection.execute(statement, values)
            except OperationalError as error:
                if not error.sqlite_errorname.startswith("SQLITE_BUSY"):
                    raise
                deadline = deadline or monotonic() + BUSY_SECONDS
                if monotonic() > deadline:
                    raise
                sleep(_PAUSE_SECONDS)

    def _append(self, data: bytes, key: Signer) -> Appended:
        if len(data) > MAX_ENTRY_BYTES:
            raise bug(f"a log entry of {len(data)} bytes")
        index = self.size()
        subtrees = complete_subtrees(0, index)
        before = self._read_nodes(subtrees)
        self._check_head(index, join_subtrees(before), key)
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
        self._execute("INSERT INTO entry VALUES (?, ?, ?, ?)", row)
        self._known_good = (text, stored)
        return Appended(index, path, make_note(text, [signature]), data)

    def _check_head(self, size: int, root: bytes, key: Signer) -> None:
        """Check that the newest checkpoint, which is about to be built on, was signed."""
        if size == 0:
            return
        signature = self.signature(size - 1)
        text = checkpoint_text(self.origin, size, root)
        key_hash, value = signature[:4], signature[4:]
        if (text, signature) == self._known_good:
            return
        if key_hash != ed25519_key_hash(self.origin, key.public_raw):
            raise LedgerError(
                f"log {self.path!r} was signed by another key, so nothing is added",
                hint="put back the key it was made with, or move the log away: a new one begins",
            )
        # Ed25519 has one signature for a key and a text, and making it is cheaper than loading what
        # would verify it. RFC 8032 section 5.1.6.
        if key.sign(text) != value:
            raise self._altered(size)

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
        with Translated(self.path):
            row = self._execute("SELECT signature FROM entry WHERE idx = ?", (index,)).fetchone()
        if row is None or type(row[0]) is not bytes or len(row[0]) != SIGNATURE_BYTES:
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
        with Translated(self.path):
            found = dict(
                self._execute(
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

    def root(self, size: int) -> bytes:
        """Give the root over the first entries, from the stored tree.

        Raises:
            LedgerError: a node of it is not there.
        """
        return join_subtrees(self._read_nodes(complete_subtrees(0, size)))

    def rows(self, start: int = 0) -> Iterator[Row]:
        """Give the stored entries in their order, one at a time.

        Of what is no blob, or larger than any that is written, nothing is read; it is then empty.

        Raises:
            LedgerError: it cannot be read to its end.
        """
        if start > MOST_LEAVES:
            return
        with Translated(self.path):
            for index, *parts in self._execute(_ROWS, (start,)):
                yield Row(index, *(b"" if part is None else part for part in parts))

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
        with Translated(self.path):
            self._execute("BEGIN")
            self._execute("SELECT max(idx) FROM entry").fetchone()

    def _one(self, query: str) -> Any:
        with Translated(self.path):
            return self._execute(query).fetchone()[0]

    def close(self) -> None:
        """Give the file back.

        Raises:
            LedgerError: it was read without a lock, and somebody wrote to it meanwhile.
        """
        with Translated(self.path):
            self._connection.close()
        if self._as_opened not in (None, file_state(self.path)):
            raise LedgerError(
                f"log {self.path!r} was written to while it was read, so what was read of it may "
                "never have been",
                hint="try again",
            )

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
            if not check_file(logs, name):
                if not create:
                    raise _no_log(tenant, home)
                make_file(logs, name, f"{ORIGIN_HEAD}{os.urandom(16).hex()}/{tenant}")
            ledger = Ledger(*open_file(os.path.join(logs.path, name), logs.fd))
    except NoFolderError:
        raise _no_log(tenant, home) from None
    if ledger.origin.startswith(ORIGIN_HEAD) and ledger.origin.endswith(f"/{tenant}"):
        return ledger
    ledger.close()
    raise _of_another(ledger, tenant)


def open_log_file(path: str) -> Ledger:
    """Open a log by its path, to read it.

    Raises:
        LedgerError: it is not a log, or cannot be opened.
    """
    path = os.path.abspath(path)
    as_opened = file_state(path)
    return Ledger(*open_file(path, None), as_opened)


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


def _of_another(ledger: Ledger, tenant: str) -> DamagedError:
    """All logs of a home have one key, so what tells them apart is the origin that it signs."""
    return DamagedError(
        f"log {ledger.path!r} is not the one of tenant {tenant!r}: another was put in its place",
        expected=f"{ORIGIN_HEAD}…/{tenant}",
        got=ledger.origin,
    )


def _no_log(tenant: str, home: str) -> LedgerError:
    return LedgerError(
        f"tenant {tenant!r} has no log in {home!r}", hint="the first `beddel-cli run` makes one"
    )
