"""`audit` as a user has it: what it prints, how it exits, and where it keeps a log's head."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from beddel_cli.errors import LedgerError, UnverifiableError, VerificationError
from beddel_cli.log.audit_anchor import (
    GIT_BRANCH,
    GIT_LOCAL_VARIABLES,
    append_to_file,
    notes_in,
    read_anchors,
    send_to_syslog,
)
from beddel_cli.log.checkpoint import parse_note, verify_checkpoint, verify_proof
from beddel_cli.log.ledger import open_ledger, open_log_file
from beddel_cli.trust.keys import load_public_key
from tests.support import drop_capabilities
from tests.support.capabilities import give_up, require
from tests.support.cli import COMMAND, Home
from tests.support.logs import Forger, fill, log_path, make_log, public_of, run_entries

VERIFY_KEYS = {
    *("schema", "exit_code", "valid", "tenant", "path", "origin", "size", "root", "key_id"),
    *("key_trusted_because", "findings", "findings_count", "runs", "open_runs", "clock_back"),
    *("anchors", "anchored", "unanchored", "error"),
}


def cut(home: Home, entries: int) -> None:
    with Forger(log_path(home.home)) as forger:
        forger.execute("DELETE FROM entry WHERE idx >= ?", entries)


def edit(home: Home, index: int) -> None:
    with Forger(log_path(home.home)) as forger:
        entries = forger.entries()
        entries[index] = entries[index].replace(b"2026", b"2025")
        forger.rewrite(entries)


def verify(home: Home, *arguments: str | Path) -> dict[str, Any]:
    result = home.run("audit", "verify", "--json", *arguments)
    document = result.json
    assert document["exit_code"] == result.returncode
    return document


def test_a_good_log(home: Home) -> None:
    make_log(home.home, 3)
    found = verify(home)
    assert set(found) == VERIFY_KEYS
    assert (found["exit_code"], found["valid"], found["size"], found["runs"]) == (0, True, 6, 3)
    assert (found["anchored"], found["unanchored"]) == (None, {"first": 0, "last": 5})
    result = home.run("audit", "verify")
    assert result.returncode == 0
    assert result.stdout.startswith(b"good\n")
    assert b"not asked" in result.stdout


def test_a_bad_log_is_named_by_its_entry(home: Home) -> None:
    make_log(home.home, 3)
    edit(home, 2)
    found = verify(home)
    assert (found["exit_code"], found["valid"], found["key_id"]) == (1, False, None)
    assert [item["index"] for item in found["findings"]] == [2]
    result = home.run("audit", "verify")
    assert result.returncode == 1
    assert result.stdout.startswith(b"NOT GOOD\n")
    assert b"BAD      entry 2:" in result.stdout


def test_never_good_when_nothing_was_verified(home: Home) -> None:
    assert home.run("audit", "verify").returncode == 2
    assert not home.home.exists()
    open_ledger(str(home.home), "default").close()
    make_log(home.work / "other", 1)
    stranger = home.work / "other" / "keys" / "log.pub.pem"
    empty = verify(home, "--key", stranger)
    assert (empty["exit_code"], "no entries" in empty["error"]["message"]) == (2, True)
    shutil.rmtree(home.home)
    make_log(home.home, 1)
    assert verify(home, "--key", stranger)["exit_code"] == 2
    (home.home / "keys" / "log.pub.pem").unlink()
    assert verify(home)["exit_code"] == 2
    assert verify(home, "--tenant", "other")["exit_code"] == 2
    assert verify(home, "--log", "none")["exit_code"] == 2


def test_a_file_that_is_none_is_bad_and_named(home: Home) -> None:
    make_log(home.home, 1)
    log_path(home.home).write_bytes(b"nothing of the kind" * 1000)
    assert verify(home)["exit_code"] == 1


def test_a_smashed_page_is_bad(home: Home) -> None:
    make_log(home.home, 40)
    data = bytearray(log_path(home.home).read_bytes())
    at = len(data) - 4096
    data[at : at + 200] = os.urandom(200)
    log_path(home.home).write_bytes(data)
    assert verify(home)["exit_code"] == 1


@pytest.mark.parametrize("word", [b"CHECK", b"entry", b"TEXT"])
def test_a_smashed_word_of_the_tables_is_bad(word: bytes, home: Home) -> None:
    """SQLite's message quotes it, and is then no UTF-8."""
    make_log(home.home, 1)
    data = log_path(home.home).read_bytes()
    assert word in data
    log_path(home.home).write_bytes(data.replace(word, b"\xcd" + word[1:]))
    found = verify(home)
    assert (found["exit_code"], found["error"]["code"]) == (1, "log")
    assert b"Traceback" not in home.run("audit", "list").stderr


def test_a_log_is_verified_elsewhere_with_its_public_key(home: Home) -> None:
    make_log(home.home, 2)
    copy, key = home.work / "copy.sqlite3", home.work / "log.pub.pem"
    shutil.copy(log_path(home.home), copy)
    shutil.copy(home.home / "keys" / "log.pub.pem", key)
    elsewhere = Home(home.work / "none", home.work / "cache", home.work)
    found = verify(elsewhere, "--log", copy, "--key", key)
    assert (found["exit_code"], found["key_trusted_because"]) == (0, "given with --key")
    assert not elsewhere.home.exists()
    both = home.run("audit", "verify", "--log", copy, "--tenant", "default")
    assert both.returncode == 2


@pytest.mark.parametrize("kind", ["file", "git", "proofs"])
def test_anchors_tell_what_a_log_alone_does_not(kind: str, home: Home) -> None:
    if kind == "git" and shutil.which("git") is None:
        give_up("git is not installed")
    key, _ = make_log(home.home, 2)
    repository, kept = home.work / "repository", home.work / "kept.txt"
    receipts = str(home.home / "receipts")
    place = {"file": str(kept), "git": f"git:{repository}", "proofs": receipts}[kind]
    if kind == "git":
        subprocess.run(["git", "init", "-q", repository], check=True)
        (repository / "mine").write_text("untouched")
    to = f"file:{kept}" if kind == "file" else f"git:{repository}"
    for _ in range(2):
        if kind == "proofs":
            assert home.run("run", home.job("return 1")).returncode == 0
        else:
            with open_ledger(str(home.home), "default") as ledger:
                fill(ledger, key, 1)
            done = home.run("audit", "anchor", "--to", to, "--json")
            assert done.returncode == 0, done.message
            assert done.json["size"] == int(done.json["checkpoint"].split("\n")[1])
    found = verify(home, "--against-anchor", place)
    assert (found["exit_code"], found["anchors"]) == (0, 2), found
    assert found["anchored"] == {"first": 0, "last": 7}
    with open_ledger(str(home.home), "default") as ledger:
        fill(ledger, key, 1)
    found = verify(home, "--against-anchor", place)
    assert found["unanchored"] == {"first": 8, "last": 9}
    # Cut behind the anchor: nothing convicts. Cut into it: the entry is named.
    cut(home, 8)
    assert verify(home, "--against-anchor", place)["exit_code"] == 0
    cut(home, 7)
    assert verify(home)["exit_code"] == 0
    found = verify(home, "--against-anchor", place)
    assert (found["exit_code"], found["findings"][0]["index"]) == (1, 7)
    if kind == "git":
        status = subprocess.run(
            ["git", "-C", repository, "status", "--porcelain"], capture_output=True, check=True
        )
        assert status.stdout == b"?? mine\n"


def test_a_file_without_anchors_could_tell_nothing_and_a_damaged_one_is_named(home: Home) -> None:
    make_log(home.home, 2)
    (home.work / "messages").write_text("Nov 22 09:00:01 host cron[1]: no anchor at all\n")
    found = verify(home, "--against-anchor", "messages")
    assert (found["exit_code"], found["error"]["code"]) == (2, "could-not-verify")
    assert home.run("audit", "anchor", "--to", "file:kept").returncode == 0
    with (home.work / "kept").open("a") as kept:
        kept.write("and a word too many\n")
    found = verify(home, "--against-anchor", "kept")
    assert found["exit_code"] == 1
    assert found["error"]["message"].startswith("'kept': text after the last checkpoint")


def test_another_log_in_the_place_of_the_anchored_one(home: Home) -> None:
    make_log(home.home, 2)
    assert home.run("audit", "anchor", "--to", "file:kept").returncode == 0
    log_path(home.home).unlink()
    make_log(home.home, 2)
    found = verify(home, "--against-anchor", "kept")
    assert found["exit_code"] == 2
    assert "another log, or a new one in its place" in found["error"]["message"]


def test_what_is_not_good_is_not_anchored(home: Home) -> None:
    make_log(home.home, 2)
    edit(home, 1)
    result = home.run("audit", "anchor", "--to", "file:kept", "--json")
    assert (result.returncode, result.json["exit_code"]) == (1, 1)
    assert not (home.work / "kept").exists()


@pytest.mark.parametrize("place", ["kept", "ftp:kept", "file:", "git:", "syslog:", ""])
def test_places_there_are_not(place: str, home: Home) -> None:
    make_log(home.home, 1)
    result = home.run("audit", "anchor", "--to", place)
    assert result.returncode == 2
    assert "file:PATH, git:REPOSITORY or syslog" in result.message


def test_a_place_that_takes_nothing(home: Home) -> None:
    make_log(home.home, 1)
    os.mkfifo(home.work / "fifo")
    for place in ("file:none/kept", "file:/dev/null", "file:fifo", "git:none"):
        result = home.run("audit", "anchor", "--to", place)
        assert result.returncode == 2, place
        assert "Traceback" not in result.message


def test_a_place_that_took_it_is_told_though_another_did_not(home: Home) -> None:
    make_log(home.home, 1)
    first, bad, last = "file:first", "file:none/kept", "file:last"
    to = [word for place in (first, bad, last) for word in ("--to", place)]
    result = home.run("audit", "anchor", *to)
    assert result.returncode == 2
    anchored, *where = result.stdout.decode().splitlines()
    assert anchored.startswith("anchored entries 0 to 1 of ")
    assert where == ["  added to first", "  added to last"]
    assert "folder 'none' does not exist" in result.message
    document = home.run("audit", "anchor", *to, "--json").json
    assert document["exit_code"] == 2
    assert document["error"]["message"] in result.message
    assert [(each["where"], each["error"]) for each in document["places"]] == [
        ("added to first", None),
        (None, document["error"]),
        ("added to last", None),
    ]
    kept = (home.work / "first").read_bytes()
    assert kept == (home.work / "last").read_bytes()
    assert [note.decode() for note in notes_in(kept)] == [document["checkpoint"]] * 2


def test_a_place_there_is_not_is_told_before_any_takes_it(home: Home) -> None:
    make_log(home.home, 1)
    assert home.run("audit", "anchor", "--to", "file:first", "--to", "ftp:kept").returncode == 2
    assert not (home.work / "first").exists()


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_syslog_gets_one_line_that_can_be_read_back(kind: int, tmp_path: Path) -> None:
    key, notes = make_log(tmp_path, 1)
    place = tmp_path / "log"
    got: list[bytes] = []
    with socket.socket(socket.AF_UNIX, kind) as listener:
        listener.bind(str(place))

        def hear() -> None:
            if kind == socket.SOCK_STREAM:
                with listener.accept()[0] as connection:
                    got.append(connection.recv(65536))
            else:
                got.append(listener.recv(65536))

        if kind == socket.SOCK_STREAM:
            listener.listen()
        thread = threading.Thread(target=hear)
        thread.start()
        send_to_syslog(notes[-1], str(place))
        thread.join(10)
    (line,) = got
    assert line.startswith(b"<13>beddel-cli: beddel-cli-checkpoint ")
    assert b"\n" not in line
    file = tmp_path / "messages"
    file.write_bytes(b"Jan  2 03:04:05 host other: x\nJan  2 03:04:05 host " + line[4:] + b"\n")
    assert list(notes_in(file.read_bytes())) == [notes[-1]]
    origin = verify_checkpoint(notes[-1], [public_of(key)])[0].origin
    (found,) = read_anchors(str(file), origin, [public_of(key)]).checkpoints
    assert found.size == 2


def test_a_syslog_that_nobody_hears_fails(tmp_path: Path) -> None:
    """syslog(3) would have said nothing."""
    with pytest.raises(LedgerError, match="no syslog"):
        send_to_syslog(b"x", str(tmp_path / "none"))


def test_an_anchor_file_grows_at_its_end(tmp_path: Path) -> None:
    _, notes = make_log(tmp_path, 2)
    path = tmp_path / "kept"
    for note in notes:
        append_to_file(str(path), note)
    assert list(notes_in(path.read_bytes())) == notes
    assert [parse_note(note).text.split(b"\n")[1] for note in notes] == [b"1", b"2", b"3", b"4"]


def test_half_an_anchor_is_no_anchor(tmp_path: Path) -> None:
    key, notes = make_log(tmp_path, 1)
    path = tmp_path / "kept"
    encoded = base64.b64encode(notes[0])
    origin = verify_checkpoint(notes[0], [public_of(key)])[0].origin
    for data in (
        notes[0] + b"\n" + notes[1][:40],
        notes[0][:40],
        notes[0].replace(b"\n1\n", b"\n2\n"),
        b"host beddel-cli-checkpoint " + encoded[:-7] + b"\n",
        b"host beddel-cli-checkpoint\n" + b"host beddel-cli-checkpoint \n",
    ):
        path.write_bytes(data)
        with pytest.raises((VerificationError, UnverifiableError)):
            read_anchors(str(path), origin, [public_of(key)])
    path.write_bytes(notes[0])
    assert len(read_anchors(str(path), origin, [public_of(key)]).checkpoints) == 1


def test_what_cannot_be_written_whole_leaves_nothing(tmp_path: Path) -> None:
    """Half a checkpoint at the end would make all of the file unreadable from then on."""
    _, notes = make_log(tmp_path, 1)
    path = tmp_path / "kept"
    append_to_file(str(path), notes[0])
    before = path.read_bytes()
    code = (
        "import resource, signal, sys\n"
        "from beddel_cli.log.audit_anchor import append_to_file\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "append_to_file(sys.argv[1], sys.stdin.buffer.read())\n"
    )
    command = [sys.executable, "-c", code, str(path), str(len(before) + 30)]
    done = subprocess.run(command, input=notes[1], capture_output=True, check=False)
    assert b"LedgerError" in done.stderr
    assert path.read_bytes() == before
    append_to_file(str(path), notes[1])
    assert list(notes_in(path.read_bytes())) == notes


@pytest.mark.parametrize("there", ["half a checkpoint", "a proof", "syslog", "text"])
def test_nothing_is_added_to_what_is_no_file_of_checkpoints(there: str, home: Home) -> None:
    _, notes = make_log(home.home, 1)
    home.run("audit", "show", "1", "--proof", home.work / "proof")
    path = home.work / "kept"
    line = b"host beddel-cli-checkpoint " + base64.b64encode(notes[0]) + b"\n"
    data = {
        "half a checkpoint": notes[0] + b"\n" + notes[1][:60],
        "a proof": (home.work / "proof").read_bytes(),
        "syslog": line,
        "text": b"milk\nbread\n",
    }[there]
    path.write_bytes(data)
    result = home.run("audit", "anchor", "--to", f"file:{path}")
    assert result.returncode == 2
    assert b"something else than whole checkpoints" in result.stderr
    assert path.read_bytes() == data


def test_what_anybody_wrote_into_syslog_convicts_nobody(home: Home) -> None:
    """Any user of the machine can write there; so what is no anchor is told and counts nothing."""
    _, notes = make_log(home.home, 2)
    forged = notes[3].replace(b"\n4\n", b"\n9\n")
    lines = [base64.b64encode(note) for note in (forged, notes[1])]
    path = home.work / "syslog"
    path.write_bytes(
        b"".join(b"host beddel-cli-checkpoint %b\n" % line for line in (b"hello", b"", *lines))
    )
    result = home.run("audit", "verify", "--json", "--against-anchor", path)
    assert (result.returncode, result.json["anchored"]) == (0, {"first": 0, "last": 1})
    assert b"passed over 3 lines" in result.stderr
    # In a file of one's own the same is an error.
    path.write_bytes(forged)
    assert verify(home, "--against-anchor", path)["exit_code"] == 1


@pytest.mark.parametrize("place", ["kept", "folder"])
def test_a_fifo_is_no_place_for_anchors(place: str, home: Home) -> None:
    make_log(home.home, 1)
    (home.work / "folder").mkdir()
    os.mkfifo(home.work / "kept")
    os.mkfifo(home.work / "folder" / "x.tlog-proof")
    found = verify(home, "--against-anchor", home.work / place)
    assert found["exit_code"] == 2
    assert "not a regular file" in found["error"]["message"]


def test_the_log_of_another_tenant_is_not_good(home: Home) -> None:
    make_log(home.home, 1)
    make_log(home.home, 2, "acme")
    shutil.copyfile(log_path(home.home, "acme"), log_path(home.home))
    found = verify(home)
    assert found["exit_code"] == 1
    assert "another was put in its place" in found["error"]["message"]
    assert verify(home, "--tenant", "acme")["exit_code"] == 0


def test_list(home: Home) -> None:
    make_log(home.home, 40)
    result = home.run("audit", "list", "--last", "3")
    assert [line.split()[0] for line in result.stdout.splitlines()] == [b"77", b"78", b"79"]
    assert len(home.run("audit", "list").stdout.splitlines()) == 50
    assert len(home.run("audit", "list", "--all").stdout.splitlines()) == 80
    document = home.run("audit", "list", "--json", "--last", "1").json
    assert document["schema"] == "beddel-cli/audit-list/v1"
    assert document["entries"][0]["entry"]["event"] == "run.finished"
    make_log(home.home, 1, "acme")
    assert home.run("audit", "list", "--tenants").stdout == b"acme\ndefault\n"
    assert home.run("audit", "list", "--tenants", "--json").json["tenants"] == ["acme", "default"]


def test_what_an_entry_holds_reaches_no_terminal(home: Home) -> None:
    key, _ = make_log(home.home, 0)
    bad = '{"at":"\\u001b[2J","entry":"beddel-log/v1","event":"\\u202e"}'
    with open_ledger(str(home.home), "default") as ledger:
        ledger.append(bad.encode(), key)
        ledger.append(b"\x1b]0;title\x07", key)
    for arguments in (("list",), ("tail",), ("show", "0"), ("show", "1"), ("verify",)):
        result = home.run("audit", *arguments)
        shown = result.stdout + result.stderr
        assert not {0x1B, 0x07} & set(shown)
        assert "\u202e".encode() not in shown


def test_show_and_its_proof(home: Home) -> None:
    make_log(home.home, 5)
    key = load_public_key((home.home / "keys" / "log.pub.pem").read_bytes())
    document = home.run("audit", "show", "3", "--json", "--proof", "p").json
    (entry,) = document["entries"]
    assert (entry["index"], entry["entry"]["event"]) == (3, "run.finished")
    for proof in (entry["proof"].encode(), (home.work / "p").read_bytes()):
        proven = verify_proof(proof, [key])
        assert (proven.index, proven.checkpoint.size) == (3, 10)
    name, key_hash, _ = document["verifier_key"].split("+", 2)
    assert (name, len(key_hash)) == (document["origin"], 8)
    both = home.run("audit", "show", "00000002", "--json").json
    assert [each["index"] for each in both["entries"]] == [4, 5]
    for which in ("10", "-1", "nobody", "99999999999999999999"):
        assert home.run("audit", "show", "--", which).returncode == 2


def test_a_lost_proof_is_made_again(home: Home) -> None:
    assert home.run("run", home.job("return 1")).returncode == 0
    (receipt,) = home.receipts()
    proof = Path(f"{receipt}.tlog-proof")
    was = proof.read_bytes()
    proof.unlink()
    assert home.run("audit", "show", home.predicate()["runId"], "--proof", proof).returncode == 0
    assert proof.read_bytes() == was


def test_tail_follows(home: Home) -> None:
    key, _ = make_log(home.home, 2)
    tail = home.start("audit", "tail", "--follow", "--last", "1", "--json")
    assert tail.stdout is not None
    assert json.loads(tail.stdout.readline())["index"] == 3
    with open_ledger(str(home.home), "default") as ledger:
        for number in range(3):
            ledger.append(run_entries(9 + number, 0)[0], key)
            assert json.loads(tail.stdout.readline())["index"] == 4 + number
    tail.terminate()
    tail.communicate(timeout=20)
    assert home.run("audit", "tail", "--last", "2").stdout.count(b"\n") == 2
    assert home.run("audit", "tail", "--last", "0").stdout == b""


def test_git_keeps_it_where_it_was_told_to(home: Home) -> None:
    """A hook's environment names the repository it runs in, and git would rather believe that."""
    if shutil.which("git") is None:
        give_up("git is not installed")
    make_log(home.home, 2)
    for name in ("named", "around"):
        subprocess.run(["git", "init", "-q", home.work / name], check=True)
    hook = home.environment(
        GIT_DIR=str(home.work / "around" / ".git"),
        GIT_WORK_TREE=str(home.work / "around"),
        GIT_INDEX_FILE=str(home.work / "around" / ".git" / "index"),
        GIT_OBJECT_DIRECTORY=str(home.work / "around" / ".git" / "objects"),
        GIT_CONFIG_COUNT="x",
        GIT_QUARANTINE_PATH=str(home.work / "around"),
    )
    place = f"git:{home.work / 'named'}"
    done = home.run("audit", "anchor", "--to", place, env=hook)
    assert done.returncode == 0, done.message
    assert str(home.work / "named") in done.stdout.decode()
    refs = {
        name: subprocess.run(
            ["git", "-C", home.work / name, "for-each-ref", "--format=%(refname)"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for name in ("named", "around")
    }
    assert refs == {"named": f"{GIT_BRANCH}\n", "around": ""}
    found = home.run("audit", "verify", "--json", "--against-anchor", place, env=hook).json
    assert (found["exit_code"], found["anchored"]) == (0, {"first": 0, "last": 3})


def test_what_git_takes_from_a_repository_is_all_cleared() -> None:
    if shutil.which("git") is None:
        give_up("git is not installed")
    done = subprocess.run(
        ["git", "rev-parse", "--local-env-vars"], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) <= GIT_LOCAL_VARIABLES


@pytest.mark.parametrize("more", [0, 1])
def test_anchors_that_contradict_each_other(more: int, home: Home) -> None:
    """Of a log that was copied and went on twice: the one that does not fit is named, with where
    it is, the entries it is about, and the one that fits."""
    key, _ = make_log(home.home, 3)
    other = home.work / "other"
    shutil.copytree(home.home, other)
    assert home.run("audit", "anchor", "--to", "file:common").returncode == 0
    for place, number, entries in ((home.home, 10, 2 + more), (other, 20, 2)):
        with open_ledger(str(place), "default") as ledger:
            for entry in [*run_entries(number, 6), run_entries(30, 9)[0]][:entries]:
                ledger.append(entry, key)
    assert home.run("audit", "anchor", "--to", "file:ours").returncode == 0
    theirs = home.environment(BEDDEL_HOME=str(other))
    assert home.run("audit", "anchor", "--to", "file:theirs", env=theirs).returncode == 0
    against = [word for name in ("ours", "theirs") for word in ("--against-anchor", name)]
    for first, arguments in ((0, against), (6, [*against, "--against-anchor", "common"])):
        found = verify(home, *arguments)
        assert found["exit_code"] == 1
        (finding,) = found["findings"]
        assert finding["index"] == first
        assert f"one of entries {first} to 7 is not what it was" in finding["what"]
        convicting, fitting = finding["what"].split(";")
        assert "the anchor over 8 entries in 'theirs'" in convicting
        assert f"the anchor over {8 + more} entries in 'ours'" in fitting
        assert found["anchored"] == {"first": 0, "last": 7 + more}
    shown = home.run("audit", "verify", *against).stdout.decode()
    assert f"anchored entries 0 to {7 + more}, by 1 of 2 checkpoints" in shown


ORDINARY = (sys.executable, "-P", str(Path(drop_capabilities.__file__)), *COMMAND)


@pytest.fixture
def evidence(home: Home) -> Path:
    """Give a folder with the copy of a log and its key."""
    key, _ = make_log(home.home, 3)
    folder = home.work / "evidence"
    folder.mkdir()
    with open_ledger(str(home.home), "default") as ledger:
        shutil.copy(log_path(home.home), folder / "alone")
        ledger.append(run_entries(9, 6)[0], key)
        shutil.copy(log_path(home.home), folder / "copy")
        shutil.copy(f"{log_path(home.home)}-wal", folder / "copy-wal")
    shutil.copy(home.home / "keys" / "log.pub.pem", folder / "key")
    return folder


@pytest.mark.parametrize("mode", [0o500, 0o700])
def test_nothing_is_written_beside_a_copy(mode: int, evidence: Path, home: Home) -> None:
    """Not where it could be, and it is judged where it could not."""
    require("linux")
    evidence.chmod(mode)
    arguments = ("--json", "--log", evidence / "alone", "--key", evidence / "key")
    before = {path.name: path.read_bytes() for path in evidence.iterdir()}
    found = home.run("audit", "verify", *arguments, command=ORDINARY).json
    assert (found["exit_code"], found["size"], found["error"]) == (0, 6, None)
    for look in (("list",), ("show", "3")):
        result = home.run("audit", *look, "--log", evidence / "alone", command=ORDINARY)
        assert result.returncode == 0, result.message
    assert {path.name: path.read_bytes() for path in evidence.iterdir()} == before


def test_the_entries_beside_a_copy_are_read_or_the_copy_is_not(evidence: Path, home: Home) -> None:
    require("linux")
    arguments = ("audit", "verify", "--json", "--log", evidence / "copy", "--key", evidence / "key")
    evidence.chmod(0o500)
    found = home.run(*arguments, command=ORDINARY).json
    assert (found["exit_code"], found["valid"]) == (2, None)
    assert "newest entries" in found["error"]["message"]
    assert "copy-wal" in found["error"]["hint"]
    evidence.chmod(0o700)
    found = home.run(*arguments, command=ORDINARY).json
    assert (found["exit_code"], found["size"]) == (0, 7)


def test_a_copy_that_is_written_to_while_it_is_read_tells_nothing(
    evidence: Path,
) -> None:
    copy = evidence / "alone"
    ledger = open_log_file(str(copy))
    assert ledger.size() == 6
    with Forger(copy) as forger:
        forger.execute("DELETE FROM entry WHERE idx = 5")
    with pytest.raises(LedgerError, match="written to while it was read"):
        ledger.close()


def test_a_huge_origin_is_not_read(home: Home) -> None:
    make_log(home.home, 1)
    with Forger(log_path(home.home)) as forger:
        forger.execute("UPDATE log SET origin = CAST(zeroblob(30000000) AS TEXT)")
    found = verify(home)
    assert (found["exit_code"], found["valid"]) == (1, False)
    assert "larger than any" in found["error"]["message"]


@pytest.mark.parametrize("fits", [True, False])
def test_a_proof_that_would_not_verify_is_not_written(fits: bool, home: Home) -> None:
    make_log(home.home, 3)
    shutil.copy(log_path(home.home), home.work / "copy")
    if fits:
        edit(home, 2)
    for path in (log_path(home.home), home.work / "copy"):
        with Forger(path) as forger:
            if not fits:
                forger.execute("UPDATE entry SET data = x'20' WHERE idx = 2")
    result = home.run("audit", "show", "2", "--proof", "p", "--json")
    assert result.returncode == 2
    assert "was altered, so entry 2 has no proof" in result.json["error"]["message"]
    assert not (home.work / "p").exists()
    # It is still shown, which verifies nothing; and the copy that is as it was has its proof.
    assert home.run("audit", "show", "2").returncode == 0
    of_copy = home.run("audit", "show", "2", "--proof", "p", "--log", "copy")
    assert (of_copy.returncode, (home.work / "p").exists()) == ((0, True) if fits else (2, False))
