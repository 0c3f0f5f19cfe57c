"""The store: appends, proofs, what it refuses to open or to build on."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from beddel_cli.errors import HomeError, LedgerError
from beddel_cli.log import ledger as ledger_module
from beddel_cli.log import ledger_file
from beddel_cli.log.checkpoint import parse_checkpoint, parse_note, verify_checkpoint
from beddel_cli.log.ledger import (
    MAX_ENTRY_BYTES,
    Row,
    is_tenant,
    open_ledger,
    open_log_file,
    tenants,
)
from beddel_cli.log.ledger_file import DamagedError, journal_mode_on
from beddel_cli.log.merkle import GrowingTree, inclusion_path, leaf_hash, verify_inclusion
from beddel_cli.trust.keys import load_log_key
from tests.support.logs import Forger, fill, log_path, make_log, public_of


def test_a_log_is_made_once_and_found_again(tmp_path: Path) -> None:
    key = load_log_key(str(tmp_path))
    with open_ledger(str(tmp_path), "default") as first:
        origin = first.origin
        assert first.size() == 0
        first.append(b"one", key)
    with open_ledger(str(tmp_path), "default", create=False) as second:
        assert second.origin == origin
        assert second.size() == 1
    path = log_path(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["default.sqlite3"]


def test_each_log_has_an_origin_of_its_own(tmp_path: Path) -> None:
    origins = set()
    for home in ("a", "b"):
        for tenant in ("default", "acme"):
            with open_ledger(str(tmp_path / home), tenant) as ledger:
                origins.add(ledger.origin)
                assert ledger.origin.startswith("beddel-cli.invalid/log/")
                assert ledger.origin.endswith("/" + tenant)
    assert len(origins) == 4


def test_an_append_gives_its_proof_and_a_signed_checkpoint(tmp_path: Path) -> None:
    key = load_log_key(str(tmp_path))
    tree = GrowingTree()
    with open_ledger(str(tmp_path), "default") as ledger:
        for number in range(70):
            entry = b"entry %d" % number
            tree.add(leaf_hash(entry))
            done = ledger.append(entry, key)
            checkpoint, key_id = verify_checkpoint(done.checkpoint, [public_of(key)])
            assert (done.index, key_id) == (number, key.key_id)
            assert (checkpoint.origin, checkpoint.size) == (ledger.origin, number + 1)
            assert checkpoint.root == tree.root()
            verify_inclusion(leaf_hash(entry), number, number + 1, done.path, tree.root())
            assert done.path == inclusion_path(number, number + 1, ledger.read_node)
        for index in range(70):
            path = inclusion_path(index, 70, ledger.read_node)
            verify_inclusion(leaf_hash(b"entry %d" % index), index, 70, path, tree.root())


def test_rows_are_what_was_put_in(tmp_path: Path) -> None:
    _, notes = make_log(tmp_path, 3)
    with open_ledger(str(tmp_path), "default", create=False) as ledger:
        rows = list(ledger.rows())
        assert [row.index for row in rows] == list(range(6))
        for row, note in zip(rows, notes, strict=True):
            (signature,) = parse_note(note).signatures
            assert row.signature == signature.key_hash + signature.value
            assert row.nodes.startswith(leaf_hash(row.data))
        assert list(ledger.rows(4)) == rows[4:]
        assert ledger.row(5) == rows[5]
        assert ledger.row(6) is None


def test_two_open_logs_see_each_other(tmp_path: Path) -> None:
    """The head is read anew for each append, whoever made the one before."""
    key = load_log_key(str(tmp_path))
    with open_ledger(str(tmp_path), "default") as a, open_ledger(str(tmp_path), "default") as b:
        done = [each.append(b"%d" % number, key) for number in range(8) for each in (a, b)]
        assert [each.index for each in done] == list(range(16))
        sizes = [parse_checkpoint(parse_note(each.checkpoint).text).size for each in done]
        assert sizes == list(range(1, 17))


def test_a_reader_keeps_its_view(tmp_path: Path) -> None:
    key, _ = make_log(tmp_path, 2)
    with open_ledger(str(tmp_path), "default") as a, open_ledger(str(tmp_path), "default") as b:
        a.begin_reading()
        b.append(b"more", key)
        assert (a.size(), b.size()) == (4, 5)


def test_nothing_of_a_failed_append_is_left(tmp_path: Path) -> None:
    key, _ = make_log(tmp_path, 1)

    class Stopping:
        public_raw = key.public_raw

        def sign(self, message: bytes) -> bytes:
            raise KeyboardInterrupt

    with open_ledger(str(tmp_path), "default") as ledger:
        with pytest.raises(KeyboardInterrupt):
            ledger.append(b"never", Stopping())
        assert ledger.size() == 2
        assert ledger.append(b"next", key).index == 2


TENANTS = {"a", "acme", "0", "a-b", "x" * 63}
NO_TENANTS = {
    *("", ".", "..", "-a", "A", "a.b", "a/b", "../a", "/a", "a\\b", "a b", "a\x00", "a\n", "é"),
    *("x" * 64, "a_b", "~", "%2e"),
}


@pytest.mark.parametrize("name", sorted(TENANTS | NO_TENANTS))
def test_a_tenant_is_a_name_and_never_a_path(name: str, tmp_path: Path) -> None:
    assert is_tenant(name) == (name in TENANTS)
    if name in NO_TENANTS:
        with pytest.raises(AssertionError, match="unchecked tenant"):
            open_ledger(str(tmp_path), name)
        assert list(tmp_path.iterdir()) == []
    else:
        open_ledger(str(tmp_path), name).close()
        assert tenants(str(tmp_path)) == (name,)


def test_tenants_are_named_without_what_is_no_log(tmp_path: Path) -> None:
    assert tenants(str(tmp_path / "none")) == ()
    for tenant in ("b", "a"):
        open_ledger(str(tmp_path), tenant).close()
    (tmp_path / "logs" / "note.txt").write_text("x")
    (tmp_path / "logs" / ".beddel-0.tmp").write_text("x")
    assert tenants(str(tmp_path)) == ("a", "b")


def test_no_log_and_none_to_be_made(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with pytest.raises(LedgerError, match="has no log"):
        open_ledger(str(home), "default", create=False)
    assert not home.exists()


def test_a_log_behind_a_link_is_refused(tmp_path: Path) -> None:
    make_log(tmp_path, 1)
    path = log_path(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(LedgerError, match="not a regular file"):
        open_ledger(str(tmp_path), "default")


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_log_that_others_may_write_is_refused(mode: int, tmp_path: Path) -> None:
    make_log(tmp_path, 1)
    log_path(tmp_path).chmod(mode)
    with pytest.raises(LedgerError, match="others may write"):
        open_ledger(str(tmp_path), "default")
    log_path(tmp_path).chmod(0o644)
    open_ledger(str(tmp_path), "default").close()


def test_a_folder_that_others_may_write_is_refused(tmp_path: Path) -> None:
    make_log(tmp_path, 1)
    (tmp_path / "logs").chmod(0o777)
    with pytest.raises(HomeError, match="others may write"):
        open_ledger(str(tmp_path), "default")


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    make_log(tmp_path, 1)
    path = log_path(tmp_path)
    path.write_bytes(b"no database at all, and long enough to be taken for one" * 40)
    with pytest.raises(DamagedError, match="damaged"):
        open_ledger(str(tmp_path), "default")
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE entry(x)")
    other.close()
    path.chmod(0o600)
    with pytest.raises(LedgerError, match="not a log"):
        open_ledger(str(tmp_path), "default")
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("delete",)
    path.unlink()
    path.mkdir()
    with pytest.raises(LedgerError, match="not a regular file"):
        open_ledger(str(tmp_path), "default")


def test_a_log_of_a_later_format_is_left_alone(tmp_path: Path) -> None:
    make_log(tmp_path, 1)
    connection = sqlite3.connect(log_path(tmp_path))
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(LedgerError, match="version not known here"):
        open_ledger(str(tmp_path), "default")


def test_nothing_is_signed_on_top_of_altered_nodes(tmp_path: Path) -> None:
    """Else whoever can write the file has the next run sign for the forgery."""
    key, _ = make_log(tmp_path, 3)
    with Forger(log_path(tmp_path)) as forger:
        entries = forger.entries()
        forger.rewrite([*entries[:-1], entries[-1].replace(b"success", b"failure")])
    with open_ledger(str(tmp_path), "default") as ledger:
        with pytest.raises(DamagedError, match="altered"):
            ledger.append(b"more", key)
        assert ledger.size() == 6


def test_nothing_is_signed_on_top_of_an_altered_signature(tmp_path: Path) -> None:
    key, _ = make_log(tmp_path, 1)
    with Forger(log_path(tmp_path)) as forger:
        forger.blank_signatures()
    with (
        open_ledger(str(tmp_path), "default") as ledger,
        pytest.raises(DamagedError, match="altered"),
    ):
        ledger.append(b"more", key)


def test_nothing_is_signed_on_top_of_missing_nodes(tmp_path: Path) -> None:
    key, _ = make_log(tmp_path, 3)
    with Forger(log_path(tmp_path)) as forger:
        forger.execute("DELETE FROM entry WHERE idx = 3")
    with open_ledger(str(tmp_path), "default") as ledger, pytest.raises(DamagedError):
        ledger.append(b"more", key)


def test_another_key_does_not_go_on(tmp_path: Path) -> None:
    old, _ = make_log(tmp_path, 1)
    (tmp_path / "keys" / "log.pem").unlink()
    new = load_log_key(str(tmp_path))
    assert new.key_id != old.key_id
    with open_ledger(str(tmp_path), "default") as ledger:
        with pytest.raises(LedgerError, match="another key"):
            ledger.append(b"more", new)
        assert ledger.append(b"more", old).index == 2


def test_a_very_large_entry_is_our_bug(tmp_path: Path) -> None:
    key = load_log_key(str(tmp_path))
    with open_ledger(str(tmp_path), "default") as ledger:
        ledger.append(bytes(MAX_ENTRY_BYTES), key)
        with pytest.raises(AssertionError, match="bug"):
            ledger.append(bytes(MAX_ENTRY_BYTES + 1), key)


def test_the_log_says_when_others_keep_it_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "BUSY_SECONDS", 0.0)
    key, _ = make_log(tmp_path, 1)
    holder = sqlite3.connect(log_path(tmp_path), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with open_ledger(str(tmp_path), "default") as ledger:
        with pytest.raises(LedgerError, match="kept busy by others"):
            ledger.append(b"more", key)
        holder.execute("ROLLBACK")
        holder.close()
        assert ledger.append(b"more", key).index == 2


def test_an_append_waits_for_its_turn(tmp_path: Path) -> None:
    key, _ = make_log(tmp_path, 1)
    code = (
        "import sqlite3, sys, time\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('BEGIN IMMEDIATE'); print('held', flush=True); sys.stdin.read(1)\n"
        "c.execute('ROLLBACK')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, log_path(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        with open_ledger(str(tmp_path), "default") as ledger:
            # Longer than one of the pieces in which SQLite waits.
            releaser = subprocess.Popen(
                ["sh", "-c", "sleep 0.8; echo x"], stdout=holder.stdin.fileno()
            )
            assert ledger.append(b"more", key).index == 2
            releaser.wait()


def test_file_systems_that_machines_share_get_the_older_journal() -> None:
    for magic in (0x6969, 0xFF534D42, 0xFE534D42, 0x65735546, 0x01021997):
        assert journal_mode_on(magic) == "delete"
    for magic in (0xEF53, 0x58465342, 0x9123683E, 0x01021994, 0x794C7630):
        assert journal_mode_on(magic) == "wal"


def test_a_log_that_moves_to_such_a_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, _ = make_log(tmp_path, 1)
    connection = sqlite3.connect(log_path(tmp_path))
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
    monkeypatch.setattr(ledger_file, "_file_system", lambda _: 0x6969)
    with open_ledger(str(tmp_path), "default") as ledger:
        assert ledger.append(b"more", key).index == 2
        names = {each.name for each in (tmp_path / "logs").iterdir()}
        assert "default.sqlite3-wal" not in names
    connection = sqlite3.connect(log_path(tmp_path))
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    connection.close()


def test_a_journal_that_is_not_the_wanted_one_is_refused() -> None:
    """SQLite answers a wish it does not fulfil with what it has, and no error."""
    connection = sqlite3.connect(":memory:")
    assert connection.execute("PRAGMA journal_mode = wal").fetchone() == ("memory",)
    with pytest.raises(LedgerError, match="cannot be kept safely"):
        ledger_file._set_journal(connection, "somewhere", "wal")
    connection.close()


def test_a_journal_that_others_keep_from_changing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_log(tmp_path, 1)
    reader = sqlite3.connect(log_path(tmp_path), isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM entry").fetchone()
    monkeypatch.setattr(ledger_file, "_file_system", lambda _: 0x6969)
    with pytest.raises(LedgerError):
        open_ledger(str(tmp_path), "default")
    reader.close()


def test_real_file_system_is_told(tmp_path: Path) -> None:
    folder = os.open("/proc", os.O_RDONLY)
    try:
        assert ledger_file._file_system(folder) == 0x9FA0  # PROC_SUPER_MAGIC
    finally:
        os.close(folder)


def test_a_copy_is_read_and_not_written(tmp_path: Path) -> None:
    key, _ = make_log(tmp_path, 2)
    copy = tmp_path / "copy of it?#%.sqlite3"
    copy.write_bytes(log_path(tmp_path).read_bytes())
    with open_log_file(str(copy)) as ledger:
        assert ledger.size() == 4
        with pytest.raises(LedgerError, match="may not be written"):
            ledger.append(b"more", key)
    for place, why in ((tmp_path / "none", "cannot open"), (tmp_path, "not a regular file")):
        with pytest.raises(LedgerError, match=why):
            open_log_file(str(place))


def test_a_value_of_another_type_is_read_as_nothing(tmp_path: Path) -> None:
    make_log(tmp_path, 1)
    with Forger(log_path(tmp_path)) as forger:
        forger.execute("PRAGMA ignore_check_constraints = 1")
        forger.execute("UPDATE entry SET data = 'text', nodes = 7 WHERE idx = 1")
    with open_ledger(str(tmp_path), "default") as ledger:
        row = ledger.row(1)
        assert row is not None
        assert (row.nodes, row.data) == (b"", b"")
        with pytest.raises(DamagedError):
            ledger.read_node(0, 1)


def test_the_largest_index_there_can_be(tmp_path: Path) -> None:
    key, _ = make_log(tmp_path, 1)
    with Forger(log_path(tmp_path)) as forger:
        forger.execute("UPDATE entry SET idx = 9223372036854775807 WHERE idx = 1")
    with open_ledger(str(tmp_path), "default") as ledger:
        assert ledger.size() == 1 << 63
        assert [row.index for row in ledger.rows(1)] == [(1 << 63) - 1]
        assert list(ledger.rows(ledger.size())) == []
        with pytest.raises(LedgerError):
            ledger.append(b"more", key)


def test_row_is_a_value() -> None:
    assert Row(1, b"a", b"b", b"c") == Row(1, b"a", b"b", b"c")


def test_functools_stays_what_it_is() -> None:
    """The binding is loaded without it, and whoever imports it later gets the real one."""
    code = (
        "import sys\n"
        "assert 'functools' not in sys.modules, 'the control'\n"
        "import beddel_cli.log.ledger\n"
        "assert 'functools' not in sys.modules and 'collections' not in sys.modules\n"
        "import functools\n"
        "print(functools.partial(int, '7')(), functools.lru_cache(3)(len)('abc'))\n"
        "import sqlite3\n"
        "c = sqlite3.connect(':memory:', cached_statements=2)\n"
        "print([c.execute(f'SELECT {n % 5}').fetchone()[0] for n in range(12)])\n"
    )
    path = str(Path(ledger_module.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "7 3\n[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]\n"


def test_fill_makes_runs(tmp_path: Path) -> None:
    key = load_log_key(str(tmp_path))
    with open_ledger(str(tmp_path), "default") as ledger:
        assert len(fill(ledger, key, 2)) == ledger.size() == 4
