"""Many writers, killed writers, disks that fail or fill: what was acknowledged is in the log, and
the log is good.

Each fault is followed by a verification from outside and by one more append, since a log that is
whole but takes nothing would be no use.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from beddel_cli.log.audit import Judgement, judge_log
from beddel_cli.log.checkpoint import verify_proof
from beddel_cli.log.ledger import open_ledger, open_log_file
from beddel_cli.log.log_entry import parse_entry
from beddel_cli.trust.keys import load_log_key, load_public_key
from tests.support import drop_capabilities, log_writer
from tests.support.capabilities import give_up, require
from tests.support.cli import COMMAND, Home, Result
from tests.support.logs import log_path, public_of, run_entries

WRITER = (sys.executable, "-P", str(Path(log_writer.__file__)))
ORDINARY = (sys.executable, "-P", str(Path(drop_capabilities.__file__)), *COMMAND)
KILL_ROUNDS = 20


def verify(home: Path) -> Judgement:
    """Judge a home's log; it must be good."""
    with open_ledger(str(home), "default", create=False) as ledger:
        found = judge_log(ledger.origin, ledger.rows, [public_of(load_log_key(str(home)))])
    assert found.findings == ()
    assert found.key_id is not None
    return found


def events(home: Path) -> list[str]:
    with open_log_file(str(log_path(home))) as ledger:
        return [parse_entry(row.data).event for row in ledger.rows()]


def add_one(home: Path) -> None:
    with open_ledger(str(home), "default") as ledger:
        ledger.append(run_entries(0, 0)[0], load_log_key(str(home)))


def test_four_writers_at_once(tmp_path: Path) -> None:
    each = 60
    writers = [
        subprocess.Popen(
            [*WRITER, tmp_path, name, str(each)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for name in ("a", "b", "c", "d")
    ]
    acknowledged: list[int] = []
    for writer in writers:
        out, said = writer.communicate(timeout=60)
        assert writer.returncode == 0, said.decode()
        indices = [int(line) for line in out.split()]
        assert indices == sorted(indices)
        acknowledged += indices
    assert sorted(acknowledged) == list(range(4 * each))
    assert verify(tmp_path).size == 4 * each
    found = events(tmp_path)
    for name in ("a", "b", "c", "d"):
        assert [event for event in found if event.startswith(name)] == [
            f"{name}.{number}" for number in range(each)
        ]


def test_four_first_runs_at_once(home: Home) -> None:
    """Home, keys and log are made by whoever is first; each receipt has its proof."""
    job = home.job("return 42")
    runs = [home.start("run", job, "--json") for _ in range(4)]
    documents = []
    for run in runs:
        out, said = run.communicate(timeout=60)
        assert run.returncode == 0, said.decode()
        documents.append(json.loads(out))
    found = verify(home.home)
    assert (found.size, found.runs, found.open_runs) == (8, 4, ())
    key = load_public_key((home.home / "keys" / "log.pub.pem").read_bytes())
    for document in documents:
        proof = Path(document["receipt"]["proof_path"]).read_bytes()
        entry = parse_entry(verify_proof(proof, [key]).entry)
        assert entry.started == document["receipt"]["log_index"]
        assert entry.run_id == document["run_id"]
    assert [path.name for path in (home.home / "logs").iterdir()] == ["default.sqlite3"]


def test_killed_writers(tmp_path: Path) -> None:
    """Twenty times, three writers are killed somewhere in their work."""
    add_one(tmp_path)
    randomness = random.Random(20)
    acknowledged: dict[int, str] = {}
    for turn in range(KILL_ROUNDS):
        outs = {f"{letter}{turn}": tmp_path / f"{letter}{turn}" for letter in "abc"}
        writers = [log_writer.fork(tmp_path, name, out) for name, out in outs.items()]
        while not all(out.exists() and out.stat().st_size for out in outs.values()):
            time.sleep(0.001)
        time.sleep(randomness.uniform(0, 0.03))
        for writer in writers:
            os.kill(writer, signal.SIGKILL)
        for writer in writers:
            assert os.waitpid(writer, 0)[1] == signal.SIGKILL
        for name, out in outs.items():
            lines = out.read_bytes().split(b"\n")[:-1]
            acknowledged |= {int(line): f"{name}.{number}" for number, line in enumerate(lines)}
    found = _events_of_live(tmp_path)
    assert len(acknowledged) >= 3 * KILL_ROUNDS
    assert {index: found[index] for index in acknowledged} == acknowledged
    assert verify(tmp_path).size == len(found)
    add_one(tmp_path)
    assert verify(tmp_path).size == len(found) + 1


def _events_of_live(home: Path) -> list[str]:
    with open_ledger(str(home), "default") as ledger:
        return [parse_entry(row.data).event for row in ledger.rows()]


# System call, error, and which of its calls fails: of a writer of three entries, first with the log
# there, then making it.
FAULTS = [
    *(("fdatasync", "EIO", when) for when in ("1", "2", "3", "4", "5", "1+", "4+")),
    *(("pwrite64", "EIO", when) for when in ("1", "9", "10", "11", "13", "1+", "12+")),
    *(("pwrite64", "ENOSPC", when) for when in ("9", "11", "12+")),
    ("ftruncate", "EIO", "1+"),
    ("unlink", "EIO", "1+"),
]
FAULTS_OF_MAKING = [
    *(("fdatasync", "EIO", when) for when in ("1", "4", "1+")),
    *(("pwrite64", "ENOSPC", when) for when in ("1", "4", "1+")),
    *(("fsync", "EIO", when) for when in ("1", "2", "5")),
    *((call, "EIO", when) for call in ("linkat", "renameat") for when in ("1", "2")),
]


def strace(fault: tuple[str, str, str]) -> tuple[str, ...]:
    """Give the command that has one of a process's calls fail."""
    found = shutil.which("strace")
    if found is None:
        give_up("strace is not installed")
    call, error, when = fault
    inject = f"inject={call}:error={error}:when={when}"
    return (found, "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject)


def write_under(fault: tuple[str, str, str], home: Path) -> dict[int, str]:
    """Have a writer meet a fault; give what it was told to be in the log."""
    command = [*strace(fault), *WRITER, str(home), "w", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 3), done.stderr
    assert "Traceback" not in done.stderr
    if done.returncode == 3:
        assert done.stderr.strip()
    return {int(line): f"w.{number}" for number, line in enumerate(done.stdout.split())}


@pytest.mark.parametrize("fault", FAULTS, ids="-".join)
def test_a_call_that_fails(fault: tuple[str, str, str], tmp_path: Path) -> None:
    for _ in range(3):
        add_one(tmp_path)
    acknowledged = write_under(fault, tmp_path)
    found = _events_of_live(tmp_path)
    assert {index: found[index] for index in acknowledged} == acknowledged
    # An append that was said to have failed may still be there, but none more than was tried.
    assert found[3:] == [f"w.{number}" for number in range(len(found) - 3)]
    assert len(found) - 3 <= len(acknowledged) + 1
    add_one(tmp_path)
    assert verify(tmp_path).size == len(found) + 1


@pytest.mark.parametrize("fault", FAULTS_OF_MAKING, ids="-".join)
def test_a_call_that_fails_while_all_is_made(fault: tuple[str, str, str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    acknowledged = write_under(fault, home)
    add_one(home)
    found = _events_of_live(home)
    assert {index: found[index] for index in acknowledged} == acknowledged
    assert verify(home).size == len(found)
    assert [path.name for path in (home / "logs").iterdir()] == ["default.sqlite3"]


def test_the_faults_are_real(tmp_path: Path) -> None:
    """The control: the same writer gets through without, and not with, a fault of each kind."""
    add_one(tmp_path)
    assert len(write_under(("fdatasync", "EIO", "999"), tmp_path)) == 3
    assert write_under(("fdatasync", "EIO", "1+"), tmp_path) == {}
    assert write_under(("pwrite64", "EIO", "1+"), tmp_path) == {}


def run_under(fault: tuple[str, str, str], home: Home, *arguments: Any) -> Result:
    return home.run(*arguments, "--json", command=(*strace(fault), *COMMAND))


def test_a_run_whose_start_cannot_be_logged_does_not_start(home: Home) -> None:
    job = home.job("return 42")
    assert home.run("run", job).returncode == 0
    # The second syncs a folder, and SQLite goes on without that.
    for when in ("1", "3"):
        result = run_under(("fdatasync", "EIO", when), home, "run", job)
        assert (result.returncode, result.json["error"]["code"]) == (125, "log"), result.message
        assert result.json["output"] is None
    assert len(home.receipts()) == 1
    assert verify(home.home).size == 2


def test_a_program_whose_start_cannot_be_logged_does_not_start(home: Home) -> None:
    require("user-namespaces")
    (home.work / "seen").mkdir()
    trace = ("--profile", "tenant-isolated", "--mount", f"{home.work}/seen:/seen:rw")
    program = ("exec", *trace, "--", "/usr/bin/touch", "/seen/it")
    result = home.run(*program)
    assert result.returncode == 0, result.message
    # The control: it leaves a trace when it runs.
    (home.work / "seen" / "it").unlink()
    arguments = (*program[:1], "--json", *program[1:])
    command = (*strace(("fdatasync", "EIO", "1")), *COMMAND)
    result = home.run(*arguments, command=command)
    assert (result.returncode, result.json["error"]["code"]) == (125, "log"), result.message
    assert list((home.work / "seen").iterdir()) == []


def test_a_run_whose_end_cannot_be_logged_says_so(home: Home) -> None:
    """It has run, so it has a receipt; but no proof, and the log shows a start without an end."""
    job = home.job("return 42")
    assert home.run("run", job).returncode == 0
    result = run_under(("fdatasync", "EIO", "4"), home, "run", job)
    assert (result.returncode, result.json["error"]["code"]) == (125, "log")
    assert "its end could not be logged" in result.message
    (receipt,) = home.receipts()[1:]
    assert str(receipt) in result.message
    assert home.predicate(receipt)["outcome"]["status"] == "success"
    assert home.predicate(receipt)["log"]["index"] == 2
    assert not Path(f"{receipt}.tlog-proof").exists()
    found = verify(home.home)
    assert [run.index for run in found.open_runs] == [2]


def test_the_proof_of_the_run_before_does_not_stay_beside_a_receipt_without_one(home: Home) -> None:
    """It is about another receipt, so this one, which is good, would be found not valid."""
    job, receipt = home.job("return 42"), home.work / "receipt.json"
    proof = Path(f"{receipt}.tlog-proof")
    assert home.run("run", job, "--receipt", receipt).returncode == 0
    assert proof.exists()
    result = run_under(("fdatasync", "EIO", "4"), home, "run", job, "--receipt", receipt)
    assert (result.returncode, result.json["error"]["code"]) == (125, "log")
    assert not proof.exists()
    assert home.run("verify", receipt).returncode == 0


def test_a_full_disk(tmp_path: Path) -> None:
    """On a file system of 256 KiB: appends until it is full, then with room again."""
    if shutil.which("unshare") is None:
        give_up("needs unshare(1)")
    namespaces = ["-m", "--propagation", "private"] if os.geteuid() == 0 else ["-Urm"]
    script = (
        'set -e; home=$1; shift; mount -t tmpfs -o size=256k,mode=700 tmpfs "$home/logs"\n'
        'head -c 65536 /dev/zero >"$home/logs/ballast"\n'
        'code=0; "$@" "$home" w 100000 >"$home/acknowledged" 2>"$home/said" || code=$?\n'
        'echo "$code" >"$home/code"; df --output=avail "$home/logs" | tail -1 >"$home/left"\n'
        'cp -r "$home/logs" "$home/full"; rm "$home/logs/ballast"\n'
        '"$@" "$home" x 1 >>"$home/acknowledged"; cp -r "$home/logs" "$home/after"\n'
    )
    (tmp_path / "logs").mkdir(mode=0o700)
    load_log_key(str(tmp_path))
    done = subprocess.run(
        ["unshare", *namespaces, "sh", "-c", script, "-", tmp_path, *WRITER],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if "unshare failed" in done.stderr:
        give_up(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "code").read_text() == "3\n", "the control: the disk did fill"
    assert "disk is full" in (tmp_path / "said").read_text()
    acknowledged = [int(line) for line in (tmp_path / "acknowledged").read_text().split()]
    assert acknowledged == list(range(len(acknowledged)))
    assert len(acknowledged) > 20
    for name, size in (("full", len(acknowledged) - 1), ("after", len(acknowledged))):
        shutil.rmtree(tmp_path / "logs")
        shutil.copytree(tmp_path / name, tmp_path / "logs")
        assert verify(tmp_path).size == size


@pytest.mark.parametrize("options", ["size=256k", "nr_inodes=4"])
def test_a_disk_that_is_full_before_the_log_is_opened(options: str, tmp_path: Path) -> None:
    """SQLite then says "disk I/O error" or "unable to open", of a file beside the log."""
    if shutil.which("unshare") is None:
        give_up("needs unshare(1)")
    namespaces = ["-m", "--propagation", "private"] if os.geteuid() == 0 else ["-Urm"]
    script = (
        'home=$1; options=$2; shift 2; mount -t tmpfs -o "$options,mode=700" tmpfs "$home/logs"\n'
        '"$@" "$home" w 1 || exit 1; echo "the control"; cd "$home/logs"\n'
        'if [ "$options" = size=256k ]; then cat /dev/zero >ballast 2>/dev/null\n'
        "else touch 1 2 3 4 2>/dev/null; fi\n"
        '"$@" "$home" w 1 2>&1; echo "$?"; rm -f ballast 1 2 3 4; "$@" "$home" w 1\n'
    )
    (tmp_path / "logs").mkdir(mode=0o700)
    load_log_key(str(tmp_path))
    done = subprocess.run(
        ["unshare", *namespaces, "sh", "-c", script, "-", tmp_path, options, *WRITER],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if "unshare failed" in done.stderr:
        give_up(done.stderr.strip())
    first, control, said, code, last = done.stdout.splitlines()
    assert (first, control, code, last) == ("0", "the control", "3", "1"), done.stderr
    assert "disk is full" in said


@pytest.mark.parametrize("what", ["logs", "default.sqlite3", "home"])
def test_what_may_not_be_written_is_no_home(what: str, home: Home) -> None:
    require("linux")
    job = home.job("return 42")
    assert home.run("run", job, command=ORDINARY).returncode == 0
    place = {
        "home": home.home,
        "logs": home.home / "logs",
        "default.sqlite3": log_path(home.home),
    }[what]
    mode = place.stat().st_mode
    place.chmod(0o500 if place.is_dir() else 0o400)
    result = home.run("run", job, "--json", "--receipt", "r.json", command=ORDINARY)
    if what == "home":
        # All that a run needs is there already, and each folder in it may be written.
        assert result.returncode == 0, result.message
    else:
        assert (result.returncode, result.json["error"]["code"]) == (125, "log"), result.message
        assert "may not be written" in result.message or "cannot open" in result.message
        assert not (home.work / "r.json").exists()
    place.chmod(mode)
    assert home.run("run", job, command=ORDINARY).returncode == 0
    verify(home.home)


def test_a_home_in_a_read_only_place_is_refused(home: Home) -> None:
    home.home.parent.mkdir(parents=True, exist_ok=True)
    place = home.work / "readonly"
    place.mkdir()
    place.chmod(0o500)
    env = home.environment(BEDDEL_HOME=str(place / "home"))
    result = home.run("run", home.job("return 42"), "--json", command=ORDINARY, env=env)
    assert (result.returncode, result.json["error"]["code"]) == (125, "home")
    place.chmod(0o700)
