"""Every way to change a log is found, and named by the first entry that is not what it was.

Who can write the file but has no key is found by the log's own signatures, however well the tree
is made to fit. Who has the key as well can write a log that agrees with itself: then only what was
kept elsewhere, an anchor or a receipt's proof, convicts, and the control shows that nothing else
does.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from beddel_cli.errors import UnverifiableError
from beddel_cli.log.audit import MOST_FINDINGS, Judgement, judge_log
from beddel_cli.log.checkpoint import Checkpoint, parse_checkpoint, parse_note
from beddel_cli.log.ledger import open_ledger, open_log_file
from beddel_cli.log.ledger_file import DamagedError
from beddel_cli.trust.keys import SigningKey, load_log_key
from tests.support.logs import Forger, fill, log_path, make_log, public_of, run_entries

RUNS = 8
ENTRIES = 2 * RUNS
MIDDLE = 7

Entries = list[bytes]


def judge(home: Path, key: SigningKey, anchors: list[Checkpoint] | None = None) -> Judgement:
    with open_log_file(str(log_path(home))) as ledger:
        return judge_log(ledger.origin, ledger.rows, [public_of(key)], anchors)


def checkpoint(note: bytes) -> Checkpoint:
    return parse_checkpoint(parse_note(note).text)


def edited(entries: Entries) -> None:
    entries[MIDDLE] = entries[MIDDLE].replace(b'"exitCode":0', b'"exitCode":1')


def dropped(entries: Entries) -> None:
    del entries[MIDDLE]


def swapped(entries: Entries) -> None:
    entries[MIDDLE], entries[MIDDLE + 2] = entries[MIDDLE + 2], entries[MIDDLE]


def inserted(entries: Entries) -> None:
    entries.insert(MIDDLE, run_entries(99, 4)[0])


def exchanged_whole(entries: Entries) -> None:
    entries[:] = [entry.replace(b"job-", b"bob-") for entry in entries]


CHANGES: dict[str, tuple[Callable[[Entries], None], int]] = {
    "edited": (edited, MIDDLE),
    "dropped": (dropped, MIDDLE),
    "swapped": (swapped, MIDDLE),
    "inserted": (inserted, MIDDLE),
    "exchanged whole": (exchanged_whole, 0),
}


def test_an_untouched_log_is_good(tmp_path: Path) -> None:
    """The control of everything below."""
    key, notes = make_log(tmp_path, RUNS)
    found = judge(tmp_path, key, [checkpoint(note) for note in notes])
    assert found.findings == ()
    assert (found.size, found.key_id) == (ENTRIES, key.key_id)
    assert (found.runs, found.open_runs, found.clock_back) == (RUNS, (), ())
    assert (found.anchors, found.anchored) == (ENTRIES, ENTRIES)


@pytest.mark.parametrize("name", CHANGES)
def test_without_the_key_however_well_the_tree_fits(name: str, tmp_path: Path) -> None:
    key, _ = make_log(tmp_path, RUNS)
    change, index = CHANGES[name]
    with Forger(log_path(tmp_path)) as forger:
        entries = forger.entries()
        change(entries)
        forger.rewrite(entries)
    found = judge(tmp_path, key)
    assert found.key_id is None
    assert index in {finding.index for finding in found.findings}
    convicting = [finding for finding in found.findings if "did not sign" in finding.what]
    assert [finding.index for finding in convicting] == [index]


@pytest.mark.parametrize("name", CHANGES)
def test_with_the_key_only_what_is_kept_elsewhere_convicts(name: str, tmp_path: Path) -> None:
    key, notes = make_log(tmp_path, RUNS)
    change, index = CHANGES[name]
    with Forger(log_path(tmp_path)) as forger:
        entries = forger.entries()
        change(entries)
        forger.rewrite(entries, key)
    alone = judge(tmp_path, key)
    assert alone.key_id == key.key_id
    assert not [finding for finding in alone.findings if "sign" in finding.what]
    # An anchor before the change says nothing against it; those behind it do, down to the entry.
    found = judge(tmp_path, key, [checkpoint(note) for note in notes])
    told = [finding.index for finding in found.findings if "anchor" in finding.what]
    assert (min(told), found.anchored) == (index, index)
    # A single anchor, at the end, gives the range.
    found = judge(tmp_path, key, [checkpoint(notes[-1])])
    (last,) = [finding for finding in found.findings if "anchor" in finding.what]
    assert last.index == (ENTRIES - 1 if name == "dropped" else 0)
    assert found.anchored == 0


RAW: dict[str, tuple[str, int, str]] = {
    "bytes": ("UPDATE entry SET data = CAST('x' AS BLOB) WHERE idx = 7", 7, "bytes"),
    "leaf": ("UPDATE entry SET nodes = zeroblob(length(nodes)) WHERE idx = 7", 7, "bytes"),
    "tree": (
        "UPDATE entry SET nodes = CAST(substr(nodes, 1, 32) || zeroblob(32) AS BLOB) WHERE idx = 1",
        1,
        "tree",
    ),
    "row": ("DELETE FROM entry WHERE idx = 7", 7, "missing"),
    "rows": ("DELETE FROM entry WHERE idx BETWEEN 3 AND 9", 3, "entries 3 to 9 are missing"),
    "first": ("DELETE FROM entry WHERE idx = 0", 0, "missing"),
    "signature of the last": (
        "UPDATE entry SET signature = zeroblob(68) WHERE idx = 15",
        15,
        "did not sign",
    ),
    "moved": ("UPDATE entry SET idx = 1000 WHERE idx = 15", 15, "missing"),
}


@pytest.mark.parametrize("name", RAW)
def test_a_change_of_the_file_alone(name: str, tmp_path: Path) -> None:
    key, _ = make_log(tmp_path, RUNS)
    statement, index, word = RAW[name]
    with Forger(log_path(tmp_path)) as forger:
        forger.execute(statement)
    found = judge(tmp_path, key)
    assert found.findings[0].index == index
    assert word in found.findings[0].what
    assert found.key_id is None or name in ("tree", "leaf")


def test_every_single_entry_is_held(tmp_path: Path) -> None:
    """Whichever entry is edited, with its tree made to fit: that one is named."""
    key, _ = make_log(tmp_path, RUNS)
    good = log_path(tmp_path).read_bytes()
    for index in range(ENTRIES):
        log_path(tmp_path).write_bytes(good)
        with Forger(log_path(tmp_path)) as forger:
            entries = forger.entries()
            entries[index] = entries[index].replace(b"2026", b"2025")
            forger.rewrite(entries)
        found = judge(tmp_path, key)
        assert [finding.index for finding in found.findings if "sign" in finding.what] == [index]


def test_a_cut_tail_agrees_with_itself_and_not_with_an_anchor(tmp_path: Path) -> None:
    key, notes = make_log(tmp_path, RUNS)
    with Forger(log_path(tmp_path)) as forger:
        forger.execute("DELETE FROM entry WHERE idx >= 10")
    assert judge(tmp_path, key).findings == ()
    found = judge(tmp_path, key, [checkpoint(notes[-1]), checkpoint(notes[5])])
    (finding,) = found.findings
    assert finding.index == 10
    assert "entries 10 to 15 are gone" in finding.what
    assert found.anchored == 6


def test_a_copy_without_the_file_beside_it_is_a_log_that_is_cut(tmp_path: Path) -> None:
    key, _ = make_log(tmp_path, RUNS)
    copy, whole = tmp_path / "copy.sqlite3", tmp_path / "whole.sqlite3"
    with open_ledger(str(tmp_path), "default") as ledger:
        newest = ledger.append(run_entries(99, ENTRIES)[0], key).checkpoint
        shutil.copy(log_path(tmp_path), copy)
        shutil.copy(log_path(tmp_path), whole)
        shutil.copy(f"{log_path(tmp_path)}-wal", f"{whole}-wal")
    assert not log_path(tmp_path).with_name("default.sqlite3-wal").exists(), "closed: one file"
    sizes = {}
    for path in (copy, whole, log_path(tmp_path)):
        with open_log_file(str(path)) as ledger:
            found = judge_log(ledger.origin, ledger.rows, [public_of(key)])
            assert (found.findings, found.key_id is None) == ((), False)
            sizes[path.name] = found.size
    assert sizes == {"copy.sqlite3": ENTRIES, "whole.sqlite3": 17, "default.sqlite3": 17}
    with open_log_file(str(copy)) as ledger:
        anchors = [checkpoint(newest)]
        (cut,) = judge_log(ledger.origin, ledger.rows, [public_of(key)], anchors).findings
    assert (cut.index, cut.what) == (ENTRIES, "entry 16 is gone: an anchor has 17 entries")


def test_an_emptied_log(tmp_path: Path) -> None:
    key, notes = make_log(tmp_path, RUNS)
    with Forger(log_path(tmp_path)) as forger:
        forger.execute("DELETE FROM entry")
    with pytest.raises(UnverifiableError, match="no entries"):
        judge(tmp_path, key)
    (finding,) = judge(tmp_path, key, [checkpoint(notes[-1])]).findings
    assert (finding.index, "entries 0 to 15 are gone" in finding.what) == (0, True)


def test_a_restored_old_copy_that_went_on(tmp_path: Path) -> None:
    """Cut back, then grown past the anchor by honest runs: the anchor still tells."""
    key, _ = make_log(tmp_path, 3)
    old = log_path(tmp_path).read_bytes()
    with open_ledger(str(tmp_path), "default") as ledger:
        anchors = [checkpoint(note) for note in fill(ledger, key, 2)]
    log_path(tmp_path).write_bytes(old)
    assert judge(tmp_path, key, anchors).findings[0].index == 6
    with open_ledger(str(tmp_path), "default") as ledger:
        for number in (50, 51, 52):
            for entry in run_entries(number, ledger.size()):
                ledger.append(entry, key)
    assert judge(tmp_path, key).findings == ()
    found = judge(tmp_path, key, anchors)
    assert found.findings[0].index == 0
    assert "one of entries 0 to 6" in found.findings[0].what


def test_a_forked_log(tmp_path: Path) -> None:
    """Two copies of one log, both with the key, both good alone; neither fits the other's head."""
    key, common = make_log(tmp_path / "a", 3)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    heads = {}
    for name, number in (("a", 10), ("b", 20)):
        home = str(tmp_path / name)
        with open_ledger(home, "default") as ledger:
            for entry in run_entries(number, 6):
                heads[name] = checkpoint(ledger.append(entry, key).checkpoint)
    for name, other in (("a", "b"), ("b", "a")):
        place = tmp_path / name
        assert judge(place, key, [checkpoint(common[-1]), heads[name]]).findings == ()
        found = judge(place, key, [checkpoint(common[-1]), heads[other]])
        assert found.findings[0].index == 6
        assert found.anchored == 6


def test_another_tenants_log_under_this_name(tmp_path: Path) -> None:
    """Its origin is signed, so it does not pass for the one an anchor is of."""
    key, _ = make_log(tmp_path, 2)
    with open_ledger(str(tmp_path), "acme") as other:
        fill(other, key, 2)
        theirs = other.origin
    with Forger(log_path(tmp_path)) as forger:
        forger.execute("UPDATE log SET origin = ?", theirs)
    with pytest.raises(UnverifiableError):
        judge(tmp_path, key)


def test_the_file_of_another_tenant_in_this_ones_place(tmp_path: Path) -> None:
    """One key signs all logs of a home, so nothing but the name in the origin tells them apart."""
    make_log(tmp_path, 2)
    make_log(tmp_path, 3, "acme")
    with open_ledger(str(tmp_path), "acme", create=False) as theirs:
        assert theirs.size() == 6
    shutil.copyfile(log_path(tmp_path, "acme"), log_path(tmp_path))
    for create in (False, True):
        with pytest.raises(DamagedError, match="not the one of tenant 'default'"):
            open_ledger(str(tmp_path), "default", create=create)


def test_an_anchor_convicts_a_log_that_another_key_wrote_anew(tmp_path: Path) -> None:
    """Without an anchor nothing is known of it; with one it is proved bad, not just unknown."""
    key, notes = make_log(tmp_path, RUNS)
    stranger = load_log_key(str(tmp_path / "other"))
    with Forger(log_path(tmp_path)) as forger:
        entries = forger.entries()
        edited(entries)
        forger.rewrite(entries, stranger)
    with pytest.raises(UnverifiableError, match="from entry 0 on"):
        judge(tmp_path, key)
    found = judge(tmp_path, key, [checkpoint(notes[MIDDLE - 1]), checkpoint(notes[MIDDLE])])
    assert (found.key_id, found.anchored) == (None, MIDDLE)
    assert MIDDLE in [finding.index for finding in found.findings if "anchor" in finding.what]


SCHEMAS = {
    "a trigger": ("CREATE TRIGGER t BEFORE INSERT ON entry BEGIN SELECT RAISE(IGNORE); END",),
    "a view": (
        "ALTER TABLE entry RENAME TO hidden",
        "CREATE VIEW entry AS SELECT * FROM hidden WHERE idx < 4",
    ),
    "a view without end": (
        "DROP TABLE entry",
        "CREATE VIEW entry AS WITH RECURSIVE r(idx) AS (SELECT 0 UNION ALL SELECT idx + 1 FROM r)"
        " SELECT idx, x'' AS nodes, x'' AS signature, x'' AS data FROM r",
    ),
    "text for an index": (
        "ALTER TABLE entry RENAME TO hidden",
        "CREATE TABLE entry(idx, nodes, signature, data)",
        "INSERT INTO entry SELECT 'x' || idx, nodes, signature, data FROM hidden",
    ),
    "a table more": ("CREATE TABLE more(x)",),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_tables_that_are_not_those_of_a_log(name: str, tmp_path: Path) -> None:
    """A trigger could swallow what a run is told is in the log, a view hide what is there."""
    make_log(tmp_path, 4)
    with Forger(log_path(tmp_path)) as forger:
        for statement in SCHEMAS[name]:
            forger.execute(statement)
    with pytest.raises(DamagedError, match="its tables are not those of a log"):
        open_ledger(str(tmp_path), "default")
    with pytest.raises(DamagedError, match="its tables are not those of a log"):
        open_log_file(str(log_path(tmp_path)))


def test_a_run_without_an_end_is_shown(tmp_path: Path) -> None:
    key, _ = make_log(tmp_path, 1)
    with open_ledger(str(tmp_path), "default") as ledger:
        ledger.append(run_entries(7, 2)[0], key)
        fill_start = ledger.size()
        for entry in run_entries(8, fill_start):
            ledger.append(entry, key)
    found = judge(tmp_path, key)
    assert found.findings == ()
    (run,) = found.open_runs
    assert (run.index, run.run_id, found.runs) == (2, "00000007", 3)


def test_an_end_without_its_start_is_bad(tmp_path: Path) -> None:
    """Signed and in place, and still not what beddel writes."""
    key, _ = make_log(tmp_path, 1)
    with open_ledger(str(tmp_path), "default") as ledger:
        for start in (0, 5):
            ledger.append(run_entries(0, start)[1], key)
        ledger.append(run_entries(1, 4)[0], key)
        ledger.append(run_entries(2, 4)[1], key)
        ledger.append(b"not an entry", key)
    found = judge(tmp_path, key)
    assert [finding.index for finding in found.findings] == [2, 3, 5, 6]
    assert found.key_id == key.key_id


def test_a_clock_that_went_back_is_told_and_is_not_bad(tmp_path: Path) -> None:
    key = load_log_key(str(tmp_path))
    with open_ledger(str(tmp_path), "default") as ledger:
        for number, seconds in enumerate((10, 20, 5, 6, 30)):
            for entry in run_entries(number, ledger.size(), seconds):
                ledger.append(entry, key)
    found = judge(tmp_path, key)
    assert (found.findings, found.clock_back) == ((), (4,))


def test_nothing_is_verified_without_a_key_or_with_another(tmp_path: Path) -> None:
    make_log(tmp_path, 2)
    stranger = load_log_key(str(tmp_path / "other"))
    with open_log_file(str(log_path(tmp_path))) as ledger:
        for keys in ([], [public_of(stranger)]):
            with pytest.raises(UnverifiableError):
                judge_log(ledger.origin, ledger.rows, keys)


def test_far_into_a_long_log(tmp_path: Path) -> None:
    """The search goes by blocks: an edit in the third block, and one in the last entry."""
    key = load_log_key(str(tmp_path))
    with open_ledger(str(tmp_path), "default") as ledger:
        ledger.append(run_entries(0, 0)[0], key)
    entries = [run_entries(n, 2 * n) for n in range(1200)]
    flat = [entry for pair in entries for entry in pair]
    with Forger(log_path(tmp_path)) as forger:
        forger.execute("PRAGMA synchronous = OFF")
        forger.rewrite(flat, key)
    assert judge(tmp_path, key).findings == ()
    good = log_path(tmp_path).read_bytes()
    for index in (0, 1023, 1024, 2047, 2048, 2399):
        log_path(tmp_path).write_bytes(good)
        with Forger(log_path(tmp_path)) as forger:
            forger.execute("PRAGMA synchronous = OFF")
            changed = [*flat]
            changed[index] = changed[index].replace(b"2026", b"2025")
            forger.rewrite(changed)
        found = judge(tmp_path, key)
        assert [finding.index for finding in found.findings if "sign" in finding.what] == [index]


UNCHECKED = "PRAGMA ignore_check_constraints = 1"
# What is done to the signatures or beside them, and the indices of what is then found.
SIGNATURES: dict[str, tuple[tuple[str, ...], list[int]]] = {
    "one, of another entry": (
        ("UPDATE entry SET signature = (SELECT signature FROM entry WHERE idx = 2) WHERE idx = 7",),
        [7],
    ),
    "some, blanked": (
        (
            "UPDATE entry SET signature = CAST(substr(signature, 1, 4) || zeroblob(64) AS BLOB) "
            "WHERE idx IN (0, 3, 14)",
        ),
        [0, 3, 14],
    ),
    "all but the last": (
        (
            "UPDATE entry SET signature = CAST(substr(signature, 1, 4) || zeroblob(64) AS BLOB) "
            "WHERE idx < 15",
        ),
        list(range(15)),
    ),
    "of another length": (
        (UNCHECKED, "UPDATE entry SET signature = x'01' WHERE idx IN (4, 15)"),
        [4, 15],
    ),
    "of another key": (
        (
            "UPDATE entry SET signature = CAST(x'01020304' || substr(signature, 5) AS BLOB) "
            "WHERE idx = 0",
        ),
        [0],
    ),
    "a row in front": (
        (UNCHECKED, "INSERT INTO entry SELECT -5, nodes, signature, data FROM entry WHERE idx = 1"),
        [-5],
    ),
    "all, the key they name too": (
        ("UPDATE entry SET signature = zeroblob(68)",),
        list(range(16)),
    ),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_signature_is_as_much_of_the_log_as_an_entry(name: str, tmp_path: Path) -> None:
    """The newest alone vouches for all entries; those in front tell which one was altered."""
    key, _ = make_log(tmp_path, RUNS)
    statements, indices = SIGNATURES[name]
    with Forger(log_path(tmp_path)) as forger:
        for statement in statements:
            forger.execute(statement)
    found = judge(tmp_path, key)
    assert [finding.index for finding in found.findings] == indices
    assert found.findings_count == len(indices)


def test_with_blanked_signatures_only_what_was_touched_is_named(tmp_path: Path) -> None:
    """And what cannot be told any more is said to be so."""
    key, _ = make_log(tmp_path, RUNS)
    with Forger(log_path(tmp_path)) as forger:
        forger.execute(
            "UPDATE entry SET signature = CAST(substr(signature, 1, 4) || zeroblob(64) AS BLOB) "
            "WHERE idx BETWEEN 3 AND 11"
        )
        entries = forger.entries()
        edited(entries)
        forger.rewrite(entries)
    found = judge(tmp_path, key)
    assert [finding.index for finding in found.findings] == list(range(3, 12))
    assert "nothing vouches for entries 3 to 15" in found.findings[0].what
    assert all("it is blank" in finding.what for finding in found.findings)


def test_more_altered_signatures_than_are_listed_are_counted(tmp_path: Path) -> None:
    key, _ = make_log(tmp_path, 130)
    with Forger(log_path(tmp_path)) as forger:
        forger.execute("UPDATE entry SET signature = randomblob(68) WHERE idx < 259")
    found = judge(tmp_path, key)
    assert (found.findings_count, found.key_id) == (259, key.key_id)
    assert [finding.index for finding in found.findings] == list(range(MOST_FINDINGS))
    with Forger(log_path(tmp_path)) as forger:
        forger.execute("UPDATE entry SET signature = zeroblob(68)")
    found = judge(tmp_path, key)
    assert (found.findings_count, found.key_id) == (260, None)


def test_the_newest_signature_alone_vouches_for_the_entries(tmp_path: Path) -> None:
    """Which is enough for what is anchored; when it is bad, the others are asked after all."""
    key, _ = make_log(tmp_path, RUNS)
    with Forger(log_path(tmp_path)) as forger:
        forger.execute("UPDATE entry SET signature = zeroblob(68) WHERE idx = 3")
    with open_log_file(str(log_path(tmp_path))) as ledger:
        keys = [public_of(key)]
        found = judge_log(ledger.origin, ledger.rows, keys, every_signature=False)
        assert (found.findings, found.key_id) == ((), key.key_id)
    with Forger(log_path(tmp_path)) as forger:
        forger.execute("UPDATE entry SET signature = zeroblob(68) WHERE idx = 15")
    with open_log_file(str(log_path(tmp_path))) as ledger:
        found = judge_log(ledger.origin, ledger.rows, keys, every_signature=False)
        assert ([finding.index for finding in found.findings], found.key_id) == ([3, 15], None)


def test_a_huge_value_is_found_and_not_read(tmp_path: Path) -> None:
    key, _ = make_log(tmp_path, RUNS)
    with Forger(log_path(tmp_path)) as forger:
        forger.execute(UNCHECKED)
        for name, index in (("data", 5), ("nodes", 7), ("signature", 9)):
            statement = "UPDATE entry SET {} = zeroblob(60000000) WHERE idx = ?"
            forger.execute(statement.format(name), index)
    code = (
        "import sys\n"
        "from beddel_cli.log.audit import judge_log\n"
        "from beddel_cli.log.ledger import open_log_file\n"
        "from beddel_cli.trust.keys import load_public_key\n"
        "def peak():\n"
        "    status = open('/proc/self/status').read()\n"
        "    return int(status.partition('VmHWM:')[2].split()[0])\n"
        "with open_log_file(sys.argv[1]) as log:\n"
        "    key = load_public_key(sys.stdin.buffer.read())\n"
        "    list(log.rows(11))\n"
        "    before = peak()\n"
        "    found = judge_log(log.origin, log.rows, [key])\n"
        "print(peak() - before, *sorted({each.index for each in found.findings}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, log_path(tmp_path)],
        input=key.public_pem,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    more_kib, *indices = map(int, done.stdout.split())
    assert indices == [5, 7, 9]
    assert more_kib < 30_000


@pytest.mark.parametrize("fits", [True, False])
def test_what_hangs_on_an_altered_entry_is_not_blamed_itself(fits: bool, tmp_path: Path) -> None:
    """The end of a run whose start was altered, and the tree stored with entries behind it."""
    key, _ = make_log(tmp_path, RUNS)
    with Forger(log_path(tmp_path)) as forger:
        entries = forger.entries()
        altered = entries[6].replace(b'"runId":"0', b'"runId":"1')
        assert altered != entries[6]
        if fits:
            forger.rewrite([*entries[:6], altered, *entries[7:]])
        else:
            forger.execute("UPDATE entry SET data = ? WHERE idx = 6", altered)
    found = judge(tmp_path, key)
    assert {finding.index for finding in found.findings} == {6}
