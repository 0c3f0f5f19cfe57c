"""What a run leaves in its tenant's log, whatever its ending, and what its receipt has of it."""

from __future__ import annotations

import json
import os
import signal
import stat
from datetime import UTC, datetime
from pathlib import Path
from subprocess import Popen
from time import sleep
from typing import Any

import pytest

from beddel_cli.json_strict import canonical_json
from beddel_cli.log.audit import Judgement, judge_log
from beddel_cli.log.checkpoint import verify_proof
from beddel_cli.log.ledger import open_ledger
from beddel_cli.log.log_entry import parse_entry, verify_logged
from beddel_cli.trust.dsse import parse_envelope
from beddel_cli.trust.keys import load_log_key, local_log_keys
from tests.support import processes
from tests.support.capabilities import require
from tests.support.cli import Home
from tests.support.logs import Forger, log_path

LOOP = "for (;;) ;"


def entries(home: Home, tenant: str = "default") -> list[dict[str, Any]]:
    with open_ledger(str(home.home), tenant, create=False) as ledger:
        return [parse_entry(row.data).members for row in ledger.rows()]


def judge(home: Home, tenant: str = "default") -> Judgement:
    with open_ledger(str(home.home), tenant, create=False) as ledger:
        return judge_log(ledger.origin, ledger.rows, local_log_keys(str(home.home)))


def assert_proved(home: Home, receipt: Path) -> dict[str, Any]:
    """Check a receipt against its proof; give the entry."""
    proof = Path(f"{receipt}.tlog-proof")
    assert stat.S_IMODE(proof.stat().st_mode) == 0o600
    proven = verify_proof(proof.read_bytes(), local_log_keys(str(home.home)))
    payload = parse_envelope(receipt.read_bytes()).payload
    return verify_logged(proven, payload).members


def test_a_good_run(home: Home) -> None:
    job = home.job("return 42")
    result = home.run("run", job, "--json")
    assert result.returncode == 0, result.message
    started, finished = entries(home)
    assert (started["event"], finished["event"]) == ("run.started", "run.finished")
    assert started["runId"] == finished["runId"] == result.json["run_id"]
    assert started["job"]["id"] == "job"
    assert (started["profile"]["name"], started["runtime"]) == ("ultra-secure", "javascript")
    assert (finished["status"], finished["exitCode"], finished["started"]) == ("success", 0, 0)
    assert result.json["receipt"]["log_index"] == 0
    with open_ledger(str(home.home), "default") as ledger:
        assert home.predicate()["log"] == {"origin": ledger.origin, "index": 0}
    assert assert_proved(home, home.receipts()[0]) == finished
    assert judge(home).open_runs == ()


ENDINGS = [
    ("return 42", (), 0, "success", "ok"),
    ("throw new Error('no')", (), 1, "failure", None),
    (LOOP, ("--timeout", "50ms"), 124, "limit", "wall"),
    ("return 1", ("--memory", "512MiB"), 126, "refused", "limits"),
]


@pytest.mark.parametrize(("code", "flags", "exit_code", "status", "reason"), ENDINGS)
def test_every_ending_is_an_end(
    code: str, flags: tuple[str, ...], exit_code: int, status: str, reason: str | None, home: Home
) -> None:
    result = home.run("run", home.job(code), *flags, "--receipt", "r.json")
    assert result.returncode == exit_code, result.message
    started, finished = entries(home)
    assert started["event"] == "run.started"
    assert (finished["event"], finished["status"]) == ("run.finished", status)
    assert finished["exitCode"] == exit_code
    assert reason is None or finished["reason"] == reason
    assert assert_proved(home, home.work / "r.json") == finished


def test_a_run_that_is_interrupted(home: Home) -> None:
    run = home.start("run", home.job(LOOP))
    processes.wait_for(lambda: processes.busy_worker(run.pid), what="a busy worker")
    # While the job runs, the log already tells of it.
    assert [entry["event"] for entry in entries(home)] == ["run.started"]
    assert [open_run.index for open_run in judge(home).open_runs] == [0]
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=20)
    assert entries(home)[1]["status"] == "interrupted"
    assert judge(home).open_runs == ()


def test_a_run_whose_supervisor_is_killed_stays_open(home: Home) -> None:
    run = home.start("run", home.job(LOOP))
    processes.wait_for(lambda: processes.busy_worker(run.pid), what="a busy worker")
    run.kill()
    run.communicate(timeout=20)
    assert home.run("run", home.job("return 1")).returncode == 0
    found = judge(home)
    assert (found.findings, found.runs) == ((), 2)
    assert [open_run.index for open_run in found.open_runs] == [0]


def test_a_run_that_came_to_nothing_is_abandoned(home: Home) -> None:
    require("linux")
    result = home.run("exec", "--mount", "none:/none", "--", "/bin/true")
    assert result.returncode != 0
    started, abandoned = entries(home)
    assert started["event"] == "run.started"
    assert (abandoned["event"], abandoned["started"]) == ("run.abandoned", 0)
    assert abandoned["reason"] in ("not-found", "usage", "invalid-input")
    assert judge(home).open_runs == ()
    assert home.receipts() == []


def test_what_is_no_run_is_not_logged(home: Home) -> None:
    broken = home.work / "broken.yaml"
    broken.write_text("beddel: 2\n")
    assert home.run("run", broken).returncode == 125
    assert home.run("run", "none.yaml").returncode == 127
    assert home.run("run", home.job("return 1"), "--tenant", "../x").returncode == 125
    assert not (home.home / "logs").exists()


def test_each_tenant_has_a_log(home: Home) -> None:
    job = home.job("return 42")
    assert home.run("run", job, "--tenant", "acme").returncode == 0
    env = home.environment(BEDDEL_TENANT="globex")
    assert home.run("run", job, env=env).returncode == 0
    assert home.run("run", job).returncode == 0
    names = sorted(path.name for path in (home.home / "logs").iterdir())
    assert names == ["acme.sqlite3", "default.sqlite3", "globex.sqlite3"]
    origins = {home.predicate(receipt)["log"]["origin"] for receipt in home.receipts()}
    assert len(origins) == 3
    assert {entry["tenant"] for entry in entries(home, "globex")} == {"globex"}


@pytest.mark.parametrize("name", ["../default", "a/b", "/tmp/x", "", ".", "A", "x" * 64])
def test_a_tenant_is_never_a_path(name: str, home: Home) -> None:
    job = home.job("return 42")
    result = home.run("run", job, "--tenant", name, "--json")
    assert (result.returncode, result.json["error"]["code"]) == (125, "usage")
    assert home.run("audit", "list", "--tenant", name).returncode == 2
    assert not home.home.exists()


def test_the_log_holds_nothing_of_what_the_job_saw_or_said(home: Home) -> None:
    job = home.job("console.log('said-5e1'); return input + '-out'", input="given-7f2")
    assert home.run("run", job, "--json").json["output"] == "given-7f2-out"
    job = home.job("throw new Error('failed-9a3')")
    assert home.run("run", job).returncode == 1
    data = log_path(home.home).read_bytes()
    for text in (b"said-5e1", b"given-7f2", b"failed-9a3", b"console.log"):
        assert text not in data
    assert b"run.finished" in data, "the control: what is in the log can be read in its file"


def test_a_home_from_before_there_were_logs(home: Home) -> None:
    job = home.job("return 42")
    assert home.run("run", job).returncode == 0
    key = (home.home / "keys" / "signing.pem").read_bytes()
    log_path(home.home).unlink()
    (home.home / "logs").rmdir()
    for name in ("log.pem", "log.pub.pem"):
        (home.home / "keys" / name).unlink()
    assert home.run("run", job).returncode == 0
    assert (home.home / "keys" / "signing.pem").read_bytes() == key
    assert judge(home).size == 2


def test_a_key_of_ones_own_signs_receipts_and_not_the_log(home: Home) -> None:
    """--require-key is about receipts: the log's key is made, as the log is."""
    job = home.job("return 42")
    assert home.run("run", job, "--require-key").returncode == 125
    assert not (home.home / "logs").exists()
    elsewhere = Home(home.work / "other", home.work / "cache", home.work)
    assert elsewhere.run("run", job).returncode == 0
    key = elsewhere.home / "keys" / "signing.pem"
    result = home.run("run", job, "--require-key", "--signing-key", key, "--receipt", "r.json")
    assert result.returncode == 0, result.message
    assert sorted(os.listdir(home.home / "keys")) == ["log.pem", "log.pub.pem"]
    assert_proved(home, home.work / "r.json")


def test_a_passphrase_opens_the_logs_key_too(home: Home) -> None:
    job = home.job("return 42")
    env = home.environment(BEDDEL_KEY_PASSPHRASE="correct horse")
    for _ in range(2):
        assert home.run("run", job, env=env).returncode == 0
    for name in ("signing.pem", "log.pem"):
        assert b"ENCRYPTED" in (home.home / "keys" / name).read_bytes()
    result = home.run("run", job, "--json")
    assert (result.returncode, result.json["error"]["code"]) == (125, "key")
    assert judge(home).size == 4


def test_a_log_key_of_another_kind_is_refused(home: Home) -> None:
    job = home.job("return 42")
    assert home.run("run", job).returncode == 0
    keys = home.home / "keys"
    (keys / "log.pem").write_bytes((keys / "signing.pem").read_bytes())
    result = home.run("run", job, "--json")
    assert (result.returncode, result.json["error"]["code"]) == (125, "key")
    assert "Ed25519" in result.message


def test_nothing_runs_on_an_altered_log(home: Home) -> None:
    job = home.job("return 42")
    assert home.run("run", job).returncode == 0
    with Forger(log_path(home.home)) as forger:
        changed = [entry.replace(b"success", b"failure") for entry in forger.entries()]
        forger.rewrite(changed)
    result = home.run("run", job, "--json")
    assert (result.returncode, result.json["error"]["code"]) == (125, "log")
    assert "altered" in result.message
    assert "beddel-cli audit verify" in result.message
    assert len(home.receipts()) == 1


@pytest.mark.parametrize("flag", ["--receipt", "--bundle", "--predicate", "--heap-snapshot"])
def test_no_output_goes_among_the_logs(flag: str, home: Home) -> None:
    job = home.job("return 42")
    assert home.run("run", job).returncode == 0
    before = log_path(home.home).read_bytes()
    for name in ("default.sqlite3", "new"):
        result = home.run("run", job, flag, home.home / "logs" / name)
        assert result.returncode == 125
        assert "among the logs" in result.message
    assert log_path(home.home).read_bytes() == before


def test_the_proofs_name_is_taken_into_account(home: Home) -> None:
    job = home.job("return 42")
    result = home.run("run", job, "--receipt", "r.json", "--bundle", "r.json.tlog-proof")
    assert result.returncode == 125
    assert "would write over what --receipt (its proof) writes" in result.message
    assert not (home.work / "r.json").exists()


def test_a_program_is_logged_as_any_run(home: Home) -> None:
    require("user-namespaces")
    flags = ("--profile", "tenant-isolated", "--json", "--receipt", "r.json")
    result = home.run("exec", *flags, "--", "/bin/sh", "-c", "exit 7")
    assert result.returncode == 7, result.message
    started, finished = entries(home)
    assert (started["runtime"], finished["exitCode"]) == ("process", 7)
    assert assert_proved(home, home.work / "r.json") == finished
    assert json.loads(result.stdout)["receipt"]["proof_path"] == "r.json.tlog-proof"


def test_the_order_of_entries_and_their_times_agree(home: Home) -> None:
    """A run that waits for its turn is dated by its turn: the clock has not gone back."""
    job = home.job("return 42")
    assert home.run("run", job).returncode == 0
    key = load_log_key(str(home.home))

    def meanwhile() -> bytes:
        runs.append(home.start("run", job))
        sleep(1.5)
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return canonical_json({"at": at, "entry": "beddel-log/v1", "event": "other"})

    runs: list[Popen[bytes]] = []
    with open_ledger(str(home.home), "default") as ledger:
        ledger.append(meanwhile, key)
    runs[0].communicate(timeout=60)
    assert runs[0].returncode == 0
    assert [entry["event"] for entry in entries(home)[2:]] == [
        "other",
        "run.started",
        "run.finished",
    ]
    assert judge(home).clock_back == ()
