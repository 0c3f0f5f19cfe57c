"""Receipts and sources made to have something run that should not, or believed that is not so."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beddel_cli.errors import JobError
from beddel_cli.job import parse_job
from tests.support.capabilities import require
from tests.support.cli import Home, has_traceback
from tests.support.resigned import resigned, statement_of

HOSTILE = "\x1b[2J\u202e\nreproduced  \x07"
ZERO = {"sha256": "0" * 64}
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("replay-attacks")
    (folder / "work").mkdir()
    return Home(folder / "home", folder / "cache", folder / "work")


@pytest.fixture(scope="module")
def receipt(shared: Home) -> Path:
    """The receipt of a good run of `job.yaml` with `code.js`."""
    (shared.work / "code.js").write_text("return 'good'")
    (shared.work / "job.yaml").write_text("beddel: 1\nid: a\nruntime: javascript\nfile: code.js\n")
    path = shared.work / "receipt.json"
    assert shared.run("run", "job.yaml", "-q", "--receipt", path).returncode == 0
    return path


def replay(home: Home, receipt: Path, *options: str | Path, code: int) -> dict[str, Any]:
    """Replay the good job; gives the document of a command that ended so."""
    done = home.run("replay", receipt, "--job", "job.yaml", "--json", *options)
    assert not has_traceback(done), done.message
    assert done.returncode == code, (done.stdout, done.message)
    return done.json


def test_not_one_altered_byte_is_replayed(shared: Home, receipt: Path) -> None:
    control = replay(shared, receipt, code=0)
    assert control["verdict"] == "reproduced", "the control"
    before = len(shared.receipts())
    data = bytearray(receipt.read_bytes())
    data[data.index(b'"payload":"') + 400] ^= 1
    altered = shared.work / "flipped.json"
    altered.write_bytes(data)
    document = replay(shared, altered, code=1)
    assert (document["verdict"], document["run_id"]) == ("not-valid", None)
    stranger = Home(shared.work / "stranger", shared.cache, shared.work)
    assert stranger.run("run", "job.yaml", "-q").returncode == 0
    foreign = replay(shared, stranger.receipts()[-1], code=2)
    assert (foreign["verdict"], foreign["run_id"]) == ("could-not-tell", None)
    assert len(shared.receipts()) == before, "nothing ran"


FALSE_CLAIMS: dict[str, tuple[Change, str]] = {
    "output": (lambda said: said["output"].update(digest=ZERO), "output"),
    "frozen clock": (lambda said: said["determinism"].update(clockStartUs=1), "clock and seed"),
}


@pytest.mark.parametrize("reason", ["wall", "limits"])
def test_no_time_limit_makes_a_false_ending_true(reason: str, shared: Home, receipt: Path) -> None:
    """With too little time any run takes too long, with too much any is refused."""

    def late(said: dict[str, Any]) -> None:
        said["outcome"].update(status="limit", reason="wall", exitCode=124, limit="timeout")
        said["outcome"].update(endedBy="supervisor")

    def refused(said: dict[str, Any]) -> None:
        needs = {"needs": "timeout 20s", "found": "ultra-secure grants 5s", "fix": "less"}
        said["outcome"].update(status="refused", reason="limits", exitCode=126, refusal=needs)
        said.update(plan=None, planDigest=None, determinism=None)

    forged = resigned(shared, receipt, late if reason == "wall" else refused)
    assert shared.run("verify", forged).returncode == 0, "the control: nothing contradicts it"
    assert replay(shared, forged, code=1)["verdict"] in ("differs", "not-valid")
    before = len(shared.receipts())
    for timeout in ("1ms", "20s", "4s"):
        document = replay(shared, forged, "--timeout", timeout, code=2)
        assert document["error"]["message"].startswith("--timeout: the first run was")
    assert len(shared.receipts()) == before, "nothing ran"


@pytest.mark.parametrize("name", FALSE_CLAIMS)
def test_a_false_claim_by_who_can_sign_is_found(name: str, shared: Home, receipt: Path) -> None:
    change, what = FALSE_CLAIMS[name]
    forged = resigned(shared, receipt, change)
    assert shared.run("verify", forged).returncode == 0, "the control: its signature is good"
    document = replay(shared, forged, code=1)
    assert document["verdict"] == "differs"
    assert [row["what"] for row in document["compared"] if not row["same"]] == [what]


# What would have a repetition judged by less than the first run's plan allows.
EXCUSES: dict[str, Change] = {
    "no clock": lambda said: said.update(determinism=None),
    "a real clock": lambda said: said["determinism"].update(clock="real"),
    "a recorded clock": lambda said: said["determinism"].update(clock="recorded"),
    "no plan": lambda said: said.update(plan=None),
    "another maker": lambda said: said["key"].update(id="ab" * 32),
}


@pytest.mark.parametrize("name", EXCUSES)
def test_a_receipt_that_contradicts_itself_is_not_repeated(
    name: str, shared: Home, receipt: Path
) -> None:
    before = len(shared.receipts())

    def lie(said: dict[str, Any]) -> None:
        said["usage"]["fuel"].update(units=1)  # and with it this would go unnoticed
        EXCUSES[name](said)

    forged = resigned(shared, receipt, lie)
    document = replay(shared, forged, code=1)
    assert document["verdict"] == "not-valid"
    assert "contradicts itself" in document["error"]["message"]
    assert len(shared.receipts()) == before, "nothing ran"
    assert shared.run("verify", forged).returncode == 1


def test_a_false_guest_makes_nothing_reproduced_that_is_not(shared: Home, receipt: Path) -> None:
    def guest(said: dict[str, Any]) -> None:
        said["runtime"]["guest"]["digest"] = ZERO
        said["runtime"]["engine"]["version"] = "1.0"

    document = replay(shared, resigned(shared, receipt, guest), code=0)
    assert [row["what"] for row in document["guest_differences"]] == ["guest", "engine"]
    judged = {row["what"] for row in document["compared"] if row["judged"]}
    assert judged == {"ending", "output", "console"}
    assert any("another guest or engine" in note for note in document["notes"])

    def both(said: dict[str, Any]) -> None:
        guest(said)
        said["output"]["digest"] = ZERO

    document = replay(shared, resigned(shared, receipt, both), code=2)
    assert document["verdict"] == "could-not-tell"
    assert any("proves nothing" in note for note in document["notes"])


def _limits(**values: int) -> Change:
    return lambda said: said["plan"]["limits"].update(values)


# What a receipt asks for beyond the operator's profile -> how it is stopped.
GREEDY: dict[str, tuple[Change, str]] = {
    "memory": (_limits(memoryBytes=1 << 40), "refused"),
    "code from text": (lambda said: said["plan"].update(dynamicCode="function"), "code from text"),
    "another runtime": (lambda said: said["runtime"].update(name="process"), "form"),
    "a profile by path": (lambda said: said["profile"].update(name="../../etc/x"), "form"),
    "a profile nobody has": (lambda said: said["profile"].update(name="mine"), "not built in"),
    "huge numbers": (
        lambda said: (
            said["plan"].update(clock="real"),
            said["determinism"].update(clock="real", clockStartUs=1 << 70),
        ),
        "clock or a seed",
    ),
}


@pytest.mark.parametrize("name", GREEDY)
def test_a_receipt_gets_no_more_than_the_operators_profile(
    name: str, shared: Home, receipt: Path
) -> None:
    change, words = GREEDY[name]
    before = len(shared.receipts())
    forged = resigned(shared, receipt, change)
    document = replay(shared, forged, code=2)
    said = document["error"]["message"] if document["error"] else " ".join(document["notes"])
    assert words in said
    for path in shared.receipts()[before:]:
        again = statement_of(path)["predicate"]
        assert again["outcome"]["status"] == "refused", "nothing ran"


def test_a_path_in_a_receipt_is_never_opened(shared: Home, receipt: Path) -> None:
    trap = shared.work / "trap"
    os.mkfifo(trap)  # whoever opens it for reading takes the writer's place in the test

    def lead_away(said: dict[str, Any]) -> None:
        for item in said["resolvedDependencies"]:
            item["annotations"] = {"file": str(trap), "from": "command line"}
            item["uri"] = f"file://{trap}"
        said["job"]["file"] = str(trap)

    forged = resigned(shared, receipt, lead_away)
    opened = threading.Event()

    def wait_for_a_reader() -> None:
        os.close(os.open(trap, os.O_WRONLY))
        opened.set()

    waiting = threading.Thread(target=wait_for_a_reader, daemon=True)
    waiting.start()
    assert replay(shared, forged, code=0)["verdict"] == "reproduced"
    assert not opened.is_set()
    with open(trap, "rb"):
        waiting.join(timeout=10)
    assert opened.is_set(), "the control"
    trap.unlink()


def test_hostile_texts_of_a_receipt_are_shown_and_not_sent(shared: Home, receipt: Path) -> None:
    def texts(said: dict[str, Any]) -> None:
        said["beddel"]["version"] = HOSTILE
        said["runtime"]["engine"]["name"] = HOSTILE
        said["usage"]["fuel"]["source"] = HOSTILE

    forged = resigned(shared, receipt, texts)
    done = shared.run("replay", forged, "--job", "job.yaml")
    assert done.returncode == 0
    shown = done.stdout + done.stderr
    for character in ("\x1b", "\u202e", "\x07"):
        assert character.encode() not in shown
    assert shown.count(b"\nreproduced") == 0
    assert b"\\x1b[2J\\u202e\\nreproduced" in shown, "the control"
    named = resigned(
        shared,
        receipt,
        lambda said: said["resolvedDependencies"].append({"name": HOSTILE, "digest": ZERO}),
    )
    done = shared.run("replay", named, "--job", "job.yaml")
    assert done.returncode == 2
    assert b"\x1b" not in done.stderr
    named = resigned(shared, receipt, lambda said: said["beddel"].update(version="##[error]x"))
    for words, way in (((), b"##\\x5berror]x"), (("--json",), b"##\\u005berror]x")):
        done = shared.run("replay", named, "--job", "job.yaml", *words)
        assert way in done.stdout
        assert b"##[" not in done.stdout


def test_sources_exchanged_all_the_time_never_run_unchecked(shared: Home, receipt: Path) -> None:
    """Whatever of a job, its code, or both is in place when: the good one runs, or nothing."""
    (shared.work / "swap").mkdir()
    good = {"job.yaml": (shared.work / "job.yaml").read_bytes(), "code.js": b"return 'good'"}
    bad = {"job.yaml": good["job.yaml"] + b"# bad\n", "code.js": b"return 'bad'"}
    stop = threading.Event()

    def exchange() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            for bit, name in enumerate(good):
                data = (bad if number >> bit & 1 else good)[name]
                new = shared.work / "swap" / "new"
                new.write_bytes(data)
                new.rename(shared.work / "swap" / name)

    before = len(shared.receipts())
    swapping = threading.Thread(target=exchange)
    swapping.start()
    try:
        codes = [
            shared.run("replay", receipt, "--job", "swap/job.yaml", "-q").returncode
            for _ in range(4)
        ]
    finally:
        stop.set()
        swapping.join()
    assert set(codes) <= {0, 2}
    made = [statement_of(path)["predicate"] for path in shared.receipts()[before:]]
    assert len(made) == codes.count(0)
    first = statement_of(receipt)["predicate"]
    for again in made:
        assert again["resolvedDependencies"] == first["resolvedDependencies"]
        assert (again["job"], again["output"]) == (first["job"], first["output"])


@pytest.mark.parametrize("key", ["clock", "seed", "clock_us", "start", "replay", "determinism"])
def test_no_job_can_set_its_clock_or_seed(key: str) -> None:
    """Only a receipt that the operator gave to `replay` does, and the new receipt says so."""
    text = f"beddel: 1\nid: a\nruntime: javascript\ncode: return 1\n{key}: 1\n"
    with pytest.raises(JobError, match="unknown key"):
        parse_job(text.encode(), "a")


def test_a_program_is_not_started_by_a_receipt(home: Home) -> None:
    """What a receipt of a program names is never run: the operator gives the command."""
    require("user-namespaces")
    options = ("--profile", "high-security", "--receipt", home.work / "r.json")
    assert home.run("exec", "-q", *options, "--", "true").returncode == 0

    def more(said: dict[str, Any]) -> None:
        said["plan"]["files"]["mounts"] = [{"target": "/in", "mode": "rw"}]
        said["environmentNames"] = said["plan"]["environmentNames"] = ["HOME"]

    forged = resigned(home, home.work / "r.json", more)
    alone = home.run("replay", home.work / "r.json")
    assert (alone.returncode, b"-- true and its 0 arguments" in alone.stderr) == (2, True)
    before = len(home.receipts())
    for words in (("--env", "HOME=/"), ("--mount", f"{home.work}:/in:rw"), ()):
        done = home.run("replay", forged, *words, "--", "true")
        assert done.returncode == 2, done.message
    assert len(home.receipts()) == before, "nothing ran"
    assert home.run("replay", home.work / "r.json", "--", "true").returncode == 0, "the control"
