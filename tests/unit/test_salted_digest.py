"""Salted digests and captured output: what they hide, what they keep, who can check them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from beddel_cli.capture import PART_BYTES, capture_path, make_capture
from beddel_cli.commands.verify_command import read_salt
from beddel_cli.errors import BeddelError, UnverifiableError
from beddel_cli.outcome import ConsoleLine, Outcome
from beddel_cli.process.program import Stream
from beddel_cli.record import changed
from beddel_cli.salted_digest import SALT_BYTES, SALTING, check_salt, digest_set, digest_text
from beddel_cli.trust.verify import check_expectations, verify_envelope
from tests.support import values
from tests.support.capabilities import require
from tests.support.cli import Home
from tests.support.resigned import statement_of

SALT = b"s" * 32
GUESSES = [b"yes", b"no", b'"yes"', b'"no"', b"null"]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_salted_digest_is_what_it_is_called() -> None:
    data = b"42"
    expected = hmac.new(SALT, hashlib.sha256(data).digest(), hashlib.sha256).hexdigest()
    assert digest_set(sha256(data), SALT) == {"saltedSha256": expected}
    assert digest_set(sha256(data), None) == {"sha256": sha256(data)}
    assert digest_set(sha256(data), b"t" * 32) != digest_set(sha256(data), SALT)
    # Further algorithms are passed over, and the plain one counts where both are there.
    assert digest_text({"sha512": "x", "saltedSha256": "ab"}) == "saltedSha256:ab"
    assert digest_text({"saltedSha256": "ab", "sha256": "cd"}) == "sha256:cd"


def test_only_the_right_salt_is_taken() -> None:
    said = {"method": "m", "digest": {"sha256": sha256(SALT)}}
    assert check_salt(SALT, said) == SALT
    assert check_salt(None, None) is None
    for salt, member, words in (
        (None, said, "only their salt"),
        (b"t" * 32, said, "not the salt"),
        (b"", said, "not the salt"),
        (SALT, None, "not salted"),
        (SALT, "nonsense", "not the salt"),
    ):
        with pytest.raises(UnverifiableError, match=words):
            check_salt(salt, member)


def test_no_mutant_of_a_salt_is_taken(tmp_path: Path) -> None:
    salt, file = bytes(range(7, 7 + SALT_BYTES)), tmp_path / "salt"
    said = {"method": SALTING, "digest": {"sha256": sha256(salt)}}
    file.write_bytes(salt)
    assert check_salt(read_salt(str(file)), said) == salt, "the control"
    number = int.from_bytes(salt, "big")
    flipped = [(number ^ 1 << bit).to_bytes(SALT_BYTES, "big") for bit in range(8 * SALT_BYTES)]
    cut = [salt[:size] for size in range(SALT_BYTES)] + [salt[1:], salt[::-1], salt[1:] + salt[:1]]
    longer = [salt + b"\n", salt + b"\0", b"\0" + salt, 2 * salt, 3000 * salt]
    spelled = [salt.hex().encode(), base64.b64encode(salt), b"\xef\xbb\xbf" + salt]
    for spoiled in (*flipped, *cut, *longer, *spelled):
        file.write_bytes(spoiled)
        with pytest.raises(BeddelError):
            check_salt(read_salt(str(file)), said)


def salted_run(home: Home, job: Path, *options: str | Path) -> tuple[Path, bytes]:
    """Run a job with a salt; gives receipt and salt."""
    receipt, salt = home.work / "receipt.json", home.work / "salt"
    done = home.run("run", job, "-q", "--receipt", receipt, "--salt", salt, *options)
    assert done.returncode == 0, done.message
    assert stat.S_IMODE(salt.stat().st_mode) == 0o600
    return receipt, salt.read_bytes()


def digests(value: Any, name: str) -> set[str]:
    """Give every digest of that name, wherever it stands."""
    if isinstance(value, list):
        return set().union(*(digests(item, name) for item in value))
    if not isinstance(value, dict):
        return set()
    own = {value[name]} if isinstance(value.get(name), str) else set()
    return own.union(*(digests(item, name) for item in value.values()))


def test_with_a_salt_no_guess_at_the_jobs_data_can_be_tried(home: Home) -> None:
    job = home.job("console.log(input)\nreturn input", input="yes")
    assert home.run("run", job, "-q").returncode == 0
    plain = statement_of(home.receipts()[-1])
    receipt, salt = salted_run(home, job, "--capture")
    said = statement_of(receipt)
    public = {
        said["predicate"]["profile"]["digest"]["sha256"],
        said["predicate"]["planDigest"]["sha256"],
        said["predicate"]["runtime"]["guest"]["digest"]["sha256"],
        said["predicate"]["runtime"]["settingsDigest"]["sha256"],
        said["predicate"]["runtime"]["nativeCode"]["builtDigest"]["sha256"],
        said["predicate"]["salt"]["digest"]["sha256"],
    }
    assert digests(said, "sha256") == public
    text = json.dumps(said)
    assert any(sha256(guess) in json.dumps(plain) for guess in GUESSES), "the control"
    for digest in (*digests(plain, "sha256") - public, *map(sha256, GUESSES)):
        assert digest not in text
    # The seed of a frozen run is a part of the code's digest.
    assert plain["predicate"]["determinism"]["seed"] not in text
    assert said["predicate"]["determinism"]["seed"] is None
    assert salt.hex() not in text
    assert base64.b64encode(salt).decode() not in text
    salted = digest_set(sha256(b'"yes"'), salt)
    assert said["predicate"]["output"]["digest"] == salted, "its holder can tell"
    assert {"name": "output", "digest": salted} in said["subject"]


# Where a text can stand -> what README calls it where it tells what a salt does not hide, or None.
TEXTS: dict[str, str | None] = {
    **{"id": "id", "version": "version", "tenant": "tenant", "variable": "variables"},
    **{"mount": "mounts", "left": "files"},
    **dict.fromkeys(("name", "description", "argument", "value", "input", "source", "stdout")),
}
MARKED_JOB = """\
beddel: 1
id: a-id-text
name: a-name-text
description: a-description-text
version: a-version-text
runtime: process
command: [sh, -c, 'echo a-stdout-text; echo x > a-left-text', a-argument-text]
env: {a_variable_text: a-value-text}
input: a-input-text
workspace: {source: a-source-text, target: /workspace}
mounts: [{source: a-source-text/in, target: /a-mount-text, mode: ro}]
"""


def test_which_texts_a_salt_does_not_hide_is_in_the_readme(home: Home) -> None:
    require("user-namespaces")
    (home.work / "a-source-text").mkdir()
    (home.work / "a-source-text" / "in").write_text("in")
    job = home.work / "job.yaml"
    job.write_text(MARKED_JOB)
    options = ("--profile", "high-security", "--results", "out", "--tenant", "a-tenant-text")
    receipt, _ = salted_run(home, job, *options)
    said = json.dumps(statement_of(receipt)).replace("_", "-")
    assert {name for name in TEXTS if f"a-{name}-text" in said} == {
        name for name, word in TEXTS.items() if word
    }
    readme = " ".join((Path(__file__).parents[2] / "README.md").read_text().split())
    plain = readme.partition("Not hidden is")[2].partition("## Run programs")[0]
    assert [word for word in TEXTS.values() if word and word not in plain] == []


def test_the_holder_of_the_salt_can_verify_and_replay(home: Home) -> None:
    job = home.job("return input", input="yes")
    receipt, salt = salted_run(home, job)
    from beddel_cli.trust.keys import load_public_key

    def in_the_log(data: bytes) -> bool:
        files = (home.home / "logs").rglob("*")
        return any(data in path.read_bytes() for path in files if path.is_file())

    run_id = statement_of(receipt)["predicate"]["runId"]
    assert in_the_log(run_id.encode()), "the control: this is where runs are logged"
    assert not in_the_log(sha256(job.read_bytes()).encode())
    told = digest_set(sha256(job.read_bytes()), salt)["saltedSha256"]
    assert in_the_log(told.encode())

    verified = verify_envelope(receipt.read_bytes(), [load_public_key(home.public_key)])
    found = check_expectations(
        verified, job_bytes=job.read_bytes(), output_bytes=b'"yes"\n', salt=salt
    )
    assert (len(found.matches), found.mismatches) == (2, ())
    wrong = check_expectations(verified, output_bytes=b'"no"', salt=salt)
    assert [item.what for item in wrong.mismatches] == ["output"]
    for given in (None, b"t" * 32):
        with pytest.raises(UnverifiableError, match="salt"):
            check_expectations(verified, output_bytes=b'"yes"', salt=given)
    words = ("verify", receipt, "--job", job)
    good = home.run(*words, "--salt-file", "salt")
    assert (good.returncode, b"match    job is saltedSha256:" in good.stdout) == (0, True)
    (home.work / "other.yaml").write_bytes(job.read_bytes() + b"\n")
    other = home.run("verify", receipt, "--job", "other.yaml", "--salt-file", "salt")
    assert (other.returncode, home.run(*words).returncode) == (1, 2)
    words = ("replay", receipt, "--job", job)
    assert home.run(*words, "--salt-file", "salt").returncode == 0
    again = statement_of(home.receipts()[-1])
    assert again["predicate"]["salt"] == statement_of(receipt)["predicate"]["salt"]
    assert sha256(b'"yes"') not in json.dumps(again), "nor does the new receipt give it away"
    without = home.run(*words)
    assert (without.returncode, b"--salt-file" in without.stderr) == (2, True)


def test_a_salt_is_never_written_over_and_there_before_the_job_starts(home: Home) -> None:
    job = home.job("return 1")
    _, salt = salted_run(home, job)
    count = len(home.receipts())
    again = home.run("run", job, "--salt", "salt")
    assert again.returncode == 125
    assert b"'salt' is there already" in again.stderr
    assert (home.work / "salt").read_bytes() == salt
    assert home.run("run", job, "--salt", job).returncode == 125
    assert home.run("run", job, "--salt", "gone/salt").returncode == 125
    assert len(home.receipts()) == count, "nothing ran"


def captured(outcome: Outcome) -> dict[str, Any]:
    """Give the parts of a capture."""
    data = make_capture("ab", outcome)
    assert data is not None
    document: dict[str, Any] = json.loads(data)
    assert document["schema"] == "beddel-cli/capture/v1"
    parts: dict[str, Any] = document["parts"]
    return parts


def test_a_capture_has_the_output_and_no_more_than_its_cap() -> None:
    lines = (ConsoleLine("log", "half \ud800"), ConsoleLine("warn", "b"))
    parts = captured(Outcome("success", "ok", 0, output=b'{"a":1}', console=lines))
    assert parts["output"] == {"bytes": 7, "complete": True, "text": '{"a":1}'}
    assert base64.b64decode(parts["console"]["base64"]) == b"log half \xed\xa0\x80\nwarn b\n"
    large = captured(Outcome("success", "ok", 0, output=b"1" * (PART_BYTES + 1)))["output"]
    assert (large["bytes"], large["complete"]) == (PART_BYTES + 1, False)
    assert len(large["text"]) == PART_BYTES
    streams = {
        "stdout": Stream(3 * PART_BYTES, 2 * PART_BYTES, "ab" * 32, b"x" * (PART_BYTES + 5)),
        "stderr": Stream(2, 2, "ab" * 32, b"\xff\x00"),
    }
    answer = changed(values.PROGRAM_ANSWER, **streams)
    parts = captured(Outcome("failure", "exit", 1, program=answer))
    assert (parts["stdout"]["bytes"], parts["stdout"]["complete"]) == (2 * PART_BYTES, False)
    assert len(parts["stdout"]["text"]) == PART_BYTES
    assert parts["stderr"] == {"bytes": 2, "complete": True, "base64": "/wA="}
    assert make_capture("ab", Outcome("refused", "limits", 126)) is None
    assert capture_path("a/b.dsse.json") == "a/b.dsse.json.capture"


def test_a_capture_lies_beside_its_receipt_which_has_its_digest(home: Home) -> None:
    job = home.job("console.log('said')\nreturn 'given'", input="a-secret-input")
    assert home.run("run", job, "-q").returncode == 0
    assert not list(home.home.rglob("*.capture")), "only where it is asked for"
    done = home.run("run", job, "--capture", "--json")
    path = Path(done.json["receipt"]["capture_path"])
    assert path == Path(capture_path(done.json["receipt"]["path"]))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    data = path.read_bytes()
    assert json.loads(data)["runId"] == done.json["run_id"]
    assert b"a-secret-input" not in data
    said = statement_of(Path(done.json["receipt"]["path"]))
    expected = {"sha256": sha256(data)}
    assert said["predicate"]["capture"] == {"digest": expected, "bytes": len(data)}
    assert {"name": "capture", "digest": expected} in said["subject"]
    assert b"given" not in json.dumps(said).encode(), "and not one word of it"
    refused = home.run("run", job, "--capture", "--memory", "3MiB", "--json").json
    assert refused["receipt"]["capture_path"] is None
    taken = home.work / "r.json.capture"
    taken.write_bytes(job.read_bytes())
    over = home.run("run", taken, "--capture", "--receipt", "r.json")
    assert (over.returncode, b"would write over the job" in over.stderr) == (125, True)


def test_of_a_program_streams_are_kept_and_passed_on_and_no_variable(home: Home) -> None:
    require("user-namespaces")
    words = ("exec", "-q", "--profile", "high-security", "--env", "TOKEN=a-secret")
    script = ("--capture", "--receipt", "r.json", "--", "sh", "-c", "echo o; printf '\\377' >&2")
    done = home.run(*words, *script)
    assert (done.stdout, done.stderr) == (b"o\n", b"\xff")
    data = (home.work / "r.json.capture").read_bytes()
    parts = json.loads(data)["parts"]
    assert (parts["stdout"]["text"], parts["stderr"]["base64"]) == ("o\n", "/w==")
    assert b"a-secret" not in data + (home.work / "r.json").read_bytes()
    assert b"TOKEN" not in data
