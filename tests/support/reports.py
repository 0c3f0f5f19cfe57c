"""Documents of every command, as it prints them: each ending that is cheap to come to."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from time import time_ns
from typing import Any

import pytest

from beddel_cli.cli import run_app
from beddel_cli.log.ledger import open_ledger
from beddel_cli.log.log_entry import abandoned_entry
from beddel_cli.schema_document import REPORTS
from beddel_cli.trust.dsse import Signature, make_envelope, parse_envelope
from beddel_cli.trust.keys import load_log_key
from beddel_cli.trust.timestamps import make_query
from beddel_cli.trust.trust_list import Revocation
from tests.support import block_syscalls
from tests.support.capabilities import give_up, require
from tests.support.cli import COMMAND, Home
from tests.support.logs import AT, Forger, log_path, make_log, run_entries
from tests.support.resigned import resigned
from tests.support.statements import as_payload, bundled, make_statement, sign
from tests.support.timestamp_authority import Authority
from tests.support.trusted import DAY, HOUR, entry, log_with, new_key, payload_at, trust_file

BLOCKING = (sys.executable, "-P", str(Path(block_syscalls.__file__)))
# No room for what an engine reserves.
NARROW = ("sh", "-c", 'ulimit -v 2000000; exec "$@"', "sh")
PROFILE = """\
beddel: 1
name: mine
level: medium
isolate:
  limits: {memory: 64MiB, timeout: 10s, fuel: 100, max_output: 1KiB, max_console: 1KiB}
  dynamic_code: none
  clock: frozen
  network: none
  required: [store-limits, no-new-privs, capabilities, rlimits]
"""


class Reports:
    """What commands print in a home of their own, by kind."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.work = home.work
        self.by_kind: dict[str, list[Any]] = {kind: [] for kind in REPORTS}

    def say(self, kind: str, *words: object, code: int = 0) -> Any:
        """Run a command in this process, and keep its document."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            got = run_app([str(word) for word in words], started_ns=0)
        assert got == code, (words, out.getvalue(), err.getvalue())
        return self._keep(kind, out.getvalue())

    def ask(
        self,
        kind: str,
        *words: str | Path,
        code: int = 0,
        launcher: tuple[str, ...] = (),
        **more: Any,
    ) -> Any:
        """Run a command in a process of its own, and keep its document."""
        done = self.home.run(*words, command=(*launcher, *COMMAND), **more)
        assert done.returncode == code, (words, done.stdout, done.message)
        return self._keep(kind, done.stdout.decode())

    def _keep(self, kind: str, text: str) -> Any:
        document = json.loads(text)
        self.by_kind[kind].append(document)
        return document

    def file(self, name: str, content: str | bytes) -> Path:
        """Write a file into the folder that commands work in."""
        path = self.work / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


@contextmanager
def _living_in(home: Home) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if "BEDDEL" in name:
                patch.delenv(name)
        patch.setenv("BEDDEL_HOME", str(home.home))
        patch.setenv("BEDDEL_CACHE_DIR", str(home.cache))
        patch.chdir(home.work)
        yield


def collect_reports(folder: Path) -> dict[str, list[Any]]:
    """Give documents of each of `REPORTS`, made below a new folder.

    The machine has to have user namespaces and openssl.
    """
    require("user-namespaces")
    if shutil.which("openssl") is None:
        give_up("openssl is not installed")
    found: dict[str, list[Any]] = {kind: [] for kind in REPORTS}
    for tell in (_runs, _doctor, _explain, _verify, _trust, _logs, _profiles, _keys):
        (folder / tell.__name__ / "work").mkdir(parents=True)
        place = folder / tell.__name__
        reports = Reports(Home(place / "home", place / "cache", place / "work"))
        with _living_in(reports.home):
            tell(reports)
        for kind, documents in reports.by_kind.items():
            found[kind] += documents
    return found


def _runs(reports: Reports) -> None:
    """Runs and what is said of them: log lines, replays, real entries of a log."""
    home = reports.home

    def run(code: int, *words: str | Path) -> None:
        done = home.run("run", *words, "--log-format", "json")
        assert done.returncode == code, done.message
        reports.by_kind["log-line"].append(json.loads(done.stderr.splitlines()[-1]))

    job = home.job("return input", input=1)
    receipt = reports.work / "receipt.json"
    run(0, job, "--receipt", receipt)
    run(0, job, "--salt", "salt")
    run(1, home.job("null.x", "failing"))
    run(124, home.job("for (;;);", "limited", limits={"fuel": 1_000_000}))
    run(126, home.job("return 1", "greedy", limits={"memory": "1GiB"}))
    run(125, reports.file("bad.yaml", "beddel: 1\nid: Bad\nlimits: {timeot: 1s}\n"))
    run(127, "nowhere.yaml")

    reports.ask("replay", "replay", receipt, "--job", job, "--json")
    other = resigned(home, receipt, lambda said: said["runtime"]["engine"].update(version="0"))
    reports.ask("replay", "replay", other, "--job", job, "--json")
    other = resigned(home, receipt, lambda said: said["output"].update(digest={"sha256": "0" * 64}))
    reports.ask("replay", "replay", other, "--job", job, "--json", code=1)
    reports.say("replay", "replay", receipt, "--job", "bad.yaml", "--json", code=2)
    reports.file("damaged.json", receipt.read_bytes().replace(b"A", b"B", 1))
    reports.say("replay", "replay", "damaged.json", "--job", job, "--json", code=1)

    with open_ledger(str(home.home), "default") as ledger:
        start = abandoned_entry(
            at=AT.format(0), run_id="0a", tenant="default", started=0, reason="worker-fault"
        )
        ledger.append(start, load_log_key(str(home.home)))
    listed = reports.say("audit-list", "audit", "list", "--json")
    reports.by_kind["log-entry"] += [item["entry"] for item in listed["entries"]]
    reports.by_kind["audit-entry"] += listed["entries"]
    reports.ask("verify", "verify", "-", "--json", input=receipt.read_bytes())
    reports.say("verify", "verify", receipt, "--json", "--expect-outcome", "success")


def _doctor(reports: Reports) -> None:
    reports.file("mine.yaml", PROFILE)
    job = reports.home.job("return 1", limits={"memory": "3MiB"})
    document = reports.ask("doctor", "doctor", "--json", "--job", job, code=1)
    tried = document["runtimes"]["process"]
    assert tried["rung"] is not None, tried
    lacking = (*BLOCKING, "landlock-missing")
    reports.ask("doctor", "doctor", "--profile", "./mine.yaml", "--json", launcher=lacking, code=0)
    reports.ask("doctor", "doctor", "--json", launcher=NARROW, code=1)
    reports.say("doctor", "doctor", "--profile", "none", "--json", code=2)


def _explain(reports: Reports) -> None:
    reports.file("mine.yaml", PROFILE)
    job = reports.home.job("return 1", limits={"memory": "1MiB"}, deterministic=True)
    reports.say("explain", "explain", job, "--fuel", "1000000", "--json")
    reports.say("explain", "explain", job, "--profile", "./mine.yaml", "--json")
    program = json.dumps(
        {"beddel": 1, "id": "p", "runtime": "process", "command": ["true"], "env": {"A": "b"}}
    )
    path = reports.file("program.yaml", program)
    more = ("--mount", f"{reports.work}:/data", "--tier", "free", "--profile", "high-security")
    document = reports.ask(
        "explain",
        "explain",
        path,
        *more,
        "--json",
        launcher=(
            *BLOCKING,
            "landlock-missing",
        ),
        code=1,
    )
    assert document["digests"]["input"] is None
    outside = reports.work.parent / "code.js"
    outside.write_text("return 1")
    text = json.dumps({"beddel": 1, "id": "j", "runtime": "javascript", "file": "../code.js"})
    reports.say("explain", "explain", reports.file("outside.yaml", text), "--json", code=1)
    reports.say("explain", "explain", "nowhere.yaml", "--json", code=2)


def _verify(reports: Reports) -> None:
    key, payload = new_key(), as_payload(make_statement())
    reports.file("key.pem", key.public_pem)
    folder = reports.work / "receipts"
    folder.mkdir()
    unknown = Signature("of nobody", b"x")
    reports.file("receipts/good.json", make_envelope(payload, [sign(payload, key), unknown]))
    reports.file("receipts/bundle.json", bundled(key))
    reports.file("receipts/bad.json", "{}")
    reports.file("receipts/other.json", make_envelope(payload, [unknown]))
    reports.file("receipts/good.json.tsr", "no stamp")
    by_key = ("--key", "key.pem", "--json")
    for name, code in (("good", 0), ("bundle", 0), ("bad", 1), ("other", 2), ("none", 2)):
        reports.say("verify", "verify", f"receipts/{name}.json", *by_key, code=code)
    wrong = ("--expect-outcome", "failure", "--expect-profile", "ultra-secure")
    reports.say("verify", "verify", "receipts/good.json", *by_key, *wrong, code=1)
    reports.say("verify-many", "verify", "receipts", *by_key, *wrong, code=1)
    reports.say("verify-many", "verify", "receipts", *by_key, "-v", code=1)
    (reports.work / "empty").mkdir()
    reports.say("verify-many", "verify", "empty", *by_key, code=2)


def _trust(reports: Reports) -> None:
    """A receipt with everything that can stand behind one."""
    now = time_ns() // 1_000_000_000 * 1000
    root, key, log, bob = new_key(), new_key(), new_key("ed25519"), new_key()
    payload = payload_at(now - HOUR, key)
    signatures = [sign(payload, key), sign(payload, bob)]
    receipt = make_envelope(payload, signatures)
    listed = (entry(key), entry(log, "log"), entry(bob, "countersign", owner="bob"))
    current = {"issued_ms": now - DAY, "expires_ms": now + DAY, "countersigners": 1}
    folder = reports.work / "receipts"
    folder.mkdir()
    reports.file("receipts/r.json", receipt)
    reports.file("receipts/r.json.tlog-proof", log_with(payload, now - HOUR, key, log).proof(3))
    reports.file("root.pem", root.public_pem)
    reports.file("trust.json", trust_file(root, *listed, **current))
    by_list = ["--trust", "trust.json", "--root", "root.pem", "--json"]
    authority = Authority(reports.work / "authority")
    query, _ = make_query(parse_envelope(receipt).signatures[0].value)
    reports.file("receipts/r.json.tsr", authority.answer(query))
    by_list += ["--timestamp-roots", str(authority.root)]
    reports.say("verify", "verify", "receipts/r.json", *by_list)
    reports.say("verify-many", "verify", "receipts", *by_list)


def _logs(reports: Reports) -> None:
    home = reports.home
    reports.say("audit-tenants", "audit", "list", "--tenants", "--json")
    reports.file("no-folder", "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEDDEL_HOME", "no-folder")
        reports.say("audit-tenants", "audit", "list", "--tenants", "--json", code=2)
    reports.say("audit-list", "audit", "list", "--json", code=2)
    reports.say("audit-show", "audit", "show", "0", "--json", code=2)
    reports.say("audit-anchor", "audit", "anchor", "--to", "file:kept", "--json", code=2)
    reports.say("audit-verify", "audit", "verify", "--json", code=2)
    log_key, _ = make_log(home.home, 2)
    reports.say("audit-tenants", "audit", "list", "--tenants", "--json")
    reports.say("audit-anchor", "audit", "anchor", "--to", "file:kept", "--json")
    places = ("--to", "file:kept", "--to", "file:none/kept")
    reports.say("audit-anchor", "audit", "anchor", *places, "--json", code=2)
    with open_ledger(str(home.home), "default") as ledger:
        ledger.append(run_entries(9, 4, seconds=-1)[0].replace(b"2026-", b"2025-"), log_key)
        ledger.append(b"not an entry", log_key)
    reports.say("audit-verify", "audit", "verify", "--json", "--against-anchor", "kept", code=1)
    reports.say("audit-list", "audit", "list", "--json")
    reports.say("audit-show", "audit", "show", "0", "--json")
    reports.say("audit-show", "audit", "show", f"{0:08x}", "--json")
    reports.say("audit-entry", "audit", "tail", "--last", "1", "--json")
    make_log(home.home, 1, "acme")
    reports.say("audit-verify", "audit", "verify", "--tenant", "acme", "--json")
    reports.say("audit-verify", "audit", "verify", "--log", log_path(home.home, "acme"), "--json")
    with Forger(log_path(home.home)) as forger:
        forger.execute("DELETE FROM entry WHERE idx = 0")
    reports.say("audit-verify", "audit", "verify", "--json", code=1)


def _profiles(reports: Reports) -> None:
    reports.file("mine.yaml", PROFILE)
    reports.file("bad.yaml", "beddel: 1\nname: Bad\nlevle: high\nisolate: 3\n")
    for name, code in (("high-security", 0), ("./mine.yaml", 0), ("none", 2)):
        reports.say("profiles-show", "profiles", "show", name, "--json", code=code)
    reports.say("profiles-check", "profiles", "check", "mine.yaml", "--json")
    files = ("mine.yaml", "bad.yaml", "nowhere.yaml")
    reports.say("profiles-check", "profiles", "check", *files, "--json", code=2)
    for other, code in (("high-security", 1), ("ultra-secure", 0), ("none", 2)):
        reports.say("profiles-diff", "profiles", "diff", "ultra-secure", other, "--json", code=code)


def _keys(reports: Reports) -> None:
    reports.say("keys-list", "keys", "list", "--json", code=2)
    now = time_ns() // 1_000_000_000 * 1000
    root = new_key()
    reports.file("root.pem", root.public_pem)
    listed = (
        entry(new_key()),
        entry(new_key(), from_ms=now + DAY),
        entry(new_key("ed25519"), "log", until_ms=now - DAY),
        entry(new_key(), revoked=Revocation(now - DAY, "lost")),
    )
    for name, more in (("now", {}), ("old", {"issued_ms": now - 3 * DAY, "expires_ms": now - DAY})):
        times = {"issued_ms": now - DAY, "expires_ms": now + DAY, **more}
        reports.file(name, trust_file(root, *listed, **times))
        words = ("--trust", name, "--root", "root.pem", "--json")
        reports.say("keys-list", "keys", "list", *words)
