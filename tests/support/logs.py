"""Logs made for tests, and what somebody with write access to the file would do to one."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from beddel_cli.log.checkpoint import checkpoint_text, ed25519_key_hash
from beddel_cli.log.ledger import Ledger, open_ledger
from beddel_cli.log.log_entry import finished_entry, started_entry
from beddel_cli.log.merkle import GrowingTree, leaf_hash
from beddel_cli.trust.keys import PublicKey, SigningKey, load_log_key, load_public_key

AT = "2026-01-02T03:04:{:02d}.000Z"


def run_entries(number: int, start: int, seconds: int = 0) -> tuple[bytes, bytes]:
    """Give the two entries of a run whose start is at an index."""
    run_id = f"{number:08x}"
    started = started_entry(
        at=AT.format(seconds % 60),
        run_id=run_id,
        tenant="default",
        job=(f"job-{number}", b"a job"),
        profile=("ultra-secure", "ab" * 32),
        runtime="javascript",
        key_id="cd" * 32,
    )
    finished = finished_entry(
        at=AT.format(seconds % 60),
        run_id=run_id,
        tenant="default",
        started=start,
        payload=b"receipt %d" % number,
        status="success",
        reason="ok",
        exit_code=0,
        key_id="cd" * 32,
    )
    return started, finished


def fill(ledger: Ledger, key: SigningKey, runs: int) -> list[bytes]:
    """Add whole runs; give the checkpoint made with each entry."""
    notes = []
    for _ in range(runs):
        start = ledger.size()
        for entry in run_entries(start // 2, start):
            notes.append(ledger.append(entry, key).checkpoint)
    return notes


def make_log(home: Path, runs: int, tenant: str = "default") -> tuple[SigningKey, list[bytes]]:
    """Make a home with a log of so many runs; give its key and every checkpoint."""
    key = load_log_key(str(home))
    with open_ledger(str(home), tenant) as ledger:
        return key, fill(ledger, key, runs)


def log_path(home: Path, tenant: str = "default") -> Path:
    return home / "logs" / f"{tenant}.sqlite3"


def public_of(key: SigningKey) -> PublicKey:
    return load_public_key(key.public_pem)


class Forger:
    """Somebody who can write to the file: with the log's key, or without it."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self.origin = self._connection.execute("SELECT origin FROM log").fetchone()[0]

    def entries(self) -> list[bytes]:
        return [row[0] for row in self._connection.execute("SELECT data FROM entry ORDER BY idx")]

    def execute(self, statement: str, *values: object) -> None:
        """Change the file and nothing that hangs on it."""
        self._connection.execute(statement, values)

    def rewrite(self, entries: Sequence[bytes], key: SigningKey | None = None) -> None:
        """Exchange all entries, with a tree that fits them.

        Without the key each place keeps its old signature, as far as there are any.
        """
        old = [row[0] for row in self._connection.execute("SELECT signature FROM entry")]
        self._connection.execute("BEGIN")
        self._connection.execute("DELETE FROM entry")
        tree = GrowingTree()
        for index, data in enumerate(entries):
            leaf = leaf_hash(data)
            nodes = b"".join([leaf, *tree.add(leaf)])
            if key is None:
                signature = old[min(index, len(old) - 1)]
            else:
                text = checkpoint_text(self.origin, tree.size, tree.root())
                signature = ed25519_key_hash(self.origin, key.public_raw) + key.sign(text)
            row = (index, nodes, signature, data)
            self._connection.execute("INSERT INTO entry VALUES (?, ?, ?, ?)", row)
        self._connection.execute("COMMIT")

    def blank_signatures(self) -> None:
        """Leave of each signature only which key it claims to be by."""
        self.execute(
            "UPDATE entry SET signature = CAST(substr(signature, 1, 4) || zeroblob(64) AS BLOB)"
        )

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Forger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
