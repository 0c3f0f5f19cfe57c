"""`replay` as its user meets it: every verdict and exit code, for isolates and programs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from time import time_ns
from typing import Any

import pytest

from beddel_cli.trust.keys import load_signing_key
from beddel_cli.trust.trust_list import Revocation, TrustedKey
from tests.support.capabilities import require
from tests.support.cli import Home, Result, has_traceback
from tests.support.resigned import resigned, statement_of
from tests.support.trusted import HOUR, entry, new_key, trust_file


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("replay-command")
    (folder / "work").mkdir()
    return Home(folder / "home", folder / "cache", folder / "work")


@pytest.fixture(scope="module")
def receipt(shared: Home) -> Path:
    """The receipt of a good run of `job.yaml`, which nobody changes."""
    return run(shared, shared.job("return [input, Math.random()]", input=1))


def run(home: Home, job: Path, *options: str | Path, name: str = "receipt") -> Path:
    """Run a job, whatever its ending; gives its receipt."""
    path = home.work / f"{name}.json"
    home.run("run", job, "-q", "--receipt", path, *options)
    return path


def replayed(home: Home, receipt: Path, *options: str | Path, code: int) -> dict[str, Any]:
    """Replay with `--json`; gives the document of a command that ended so."""
    done = home.run("replay", receipt, "--json", *options)
    assert not has_traceback(done), done.message
    assert done.returncode == code, (done.stdout, done.message)
    assert done.json["exit_code"] == code
    assert done.json["schema"] == "beddel-cli/replay/v1"
    return done.json


def error(document: dict[str, Any]) -> dict[str, Any]:
    """Give the error of a replay that started nothing."""
    assert document["run_id"] is None
    found: dict[str, Any] = document["error"]
    return found


def differing(document: dict[str, Any]) -> set[str]:
    """Give what counts and differs."""
    return {row["what"] for row in document["compared"] if row["judged"] and not row["same"]}


ENDINGS: dict[str, tuple[str, dict[str, Any], tuple[str, ...], str]] = {
    "success": ("console.log(2)\nreturn [input, Date.now()]", {"input": [1]}, (), "ok"),
    "thrown": ("throw new Error(Math.random())", {}, (), "thrown"),
    "syntax": ("return (", {}, (), "syntax"),
    "fuel": ("for (;;);", {}, ("--fuel", "1000000"), "fuel"),
    "memory": ("const a = []; for (;;) a.push({})", {"limits": {"memory": "1MiB"}}, (), "memory"),
    "wall": ("for (;;);", {"limits": {"timeout": "100ms"}}, (), "wall"),
    "output": ("return 'x'.repeat(9999)", {}, ("--max-output", "1KiB"), "output"),
    "real clock": (
        "return [Date.now(), Math.random(), typeof Function('return 1')]",
        {},
        ("--profile", "tenant-isolated"),
        "ok",
    ),
    "refused job": ("return 1", {"limits": {"memory": "3MiB"}}, (), "limits"),
    "refused command line": ("return 1", {}, ("--memory", "3MiB"), "limits"),
}


# The others cost a run and a replay each, and go the same ways.
IN_SHORT = ("success", "wall", "real clock", "refused command line")


@pytest.mark.parametrize(
    "name",
    [name if name in IN_SHORT else pytest.param(name, marks=pytest.mark.slow) for name in ENDINGS],
)
def test_every_ending_of_an_isolate_is_reproduced(name: str, home: Home) -> None:
    code, more, options, reason = ENDINGS[name]
    job = home.job(code, **more)
    receipt = run(home, job, *options)
    first = statement_of(receipt)["predicate"]
    assert first["outcome"]["reason"] == reason
    document = replayed(home, receipt, "--job", job, code=0)
    assert document["verdict"] == "reproduced"
    again = statement_of(Path(document["receipt_path"]))["predicate"]
    assert document["run_id"] == again["runId"] != first["runId"]
    for member in ("plan", "planDigest", "profile", "resolvedDependencies", "output", "console"):
        assert again[member] == first[member], member


def test_the_new_receipt_names_the_one_it_repeats(shared: Home, receipt: Path) -> None:
    from hashlib import sha256

    document = replayed(shared, receipt, "--job", "job.yaml", code=0)
    again = statement_of(Path(document["receipt_path"]))["predicate"]
    assert statement_of(receipt)["predicate"]["replayOf"] is None
    assert shared.run("verify", document["receipt_path"]).returncode == 0
    assert again["replayOf"] == {"sha256": sha256(_payload(receipt)).hexdigest()}
    twice = replayed(shared, Path(document["receipt_path"]), "--job", "job.yaml", code=0)
    assert twice["first_run_id"] == document["run_id"]


def _payload(receipt: Path) -> bytes:
    import base64

    return base64.b64decode(json.loads(receipt.read_bytes())["payload"])


def test_the_replay_of_a_replay_has_the_clock_of_the_first(home: Home) -> None:
    job = home.job("return [Date.now(), Math.random()]")
    receipt = run(home, job, "--profile", "tenant-isolated")
    document = replayed(home, receipt, "--job", job, code=0)
    again = Path(document["receipt_path"])
    said, first = (statement_of(path)["predicate"]["determinism"] for path in (again, receipt))
    assert (first["clock"], said["clock"]) == ("real", "recorded")
    assert (said["clockStartUs"], said["seed"]) == (first["clockStartUs"], first["seed"])
    replayed(home, again, "--job", job, code=0)


def test_on_another_machine_with_only_the_public_key(shared: Home, receipt: Path) -> None:
    key, elsewhere = shared.work / "pub.pem", shared.work / "elsewhere"
    key.write_bytes(shared.public_key)
    (elsewhere / "work").mkdir(parents=True)
    other = Home(elsewhere / "home", elsewhere / "cache", elsewhere / "work")
    words = ("--job", shared.work / "job.yaml")
    assert replayed(other, receipt, "--key", key, *words, code=0)["verdict"] == "reproduced"
    found = error(replayed(other, receipt, *words, code=2))
    assert "key" in found["message"]


def test_a_profile_that_grants_more_gives_no_more(shared: Home, receipt: Path) -> None:
    words = ("--job", "job.yaml", "--profile", "tenant-isolated")
    document = replayed(shared, receipt, *words, code=0)
    again = statement_of(Path(document["receipt_path"]))["predicate"]
    first = statement_of(receipt)["predicate"]
    for member in ("limits", "dynamicCode", "clock"):
        assert again["plan"][member] == first["plan"][member]
    assert "the profile is another" in " ".join(document["notes"])


def test_a_profile_that_grants_less_starts_nothing(home: Home) -> None:
    job = home.job("return 1")
    receipt = run(home, job, "--profile", "high-security")
    document = replayed(home, receipt, "--job", job, "--profile", "ultra-secure", code=2)
    assert document["verdict"] == "could-not-tell"
    again = statement_of(Path(document["receipt_path"]))["predicate"]
    assert again["outcome"]["refusal"]["needs"] == "memory 4MiB"
    assert again["usage"]["fuel"] is None, "nothing ran"
    code = home.job("return 1", "code", limits={"memory": "1MiB", "timeout": "1s"})
    options = ("--profile", "tenant-isolated", "--max-output", "1KiB", "--max-console", "1KiB")
    loose = run(home, code, *options, "--fuel", "1000000", name="loose")
    found = error(replayed(home, loose, "--job", code, "--profile", "ultra-secure", code=2))
    assert "make code from text" in found["message"]


def test_a_receipt_is_believed_by_the_list_of_trusted_keys(home: Home) -> None:
    """A key that is revoked, or is trusted for something else, has nothing run."""
    job = home.job("return 1")
    receipt = run(home, job)
    root, now_ms = new_key(), time_ns() // 1_000_000_000 * 1000
    (home.work / "root.pem").write_bytes(root.public_pem)
    own = load_signing_key(str(home.home))
    words = ("--job", job, "--trust", "trust.json", "--root", "root.pem")

    def trusting(listed: TrustedKey, serial: int) -> None:
        times = {"issued_ms": now_ms - HOUR, "expires_ms": now_ms + HOUR, "serial": serial}
        (home.work / "trust.json").write_bytes(trust_file(root, listed, **times))

    trusting(entry(own), 1)
    assert replayed(home, receipt, *words, code=0)["verdict"] == "reproduced"
    before = len(home.receipts())
    trusting(entry(own, "countersign"), 2)
    assert replayed(home, receipt, *words, code=1)["verdict"] == "not-valid"
    trusting(entry(own, revoked=Revocation(now_ms - HOUR, "stolen")), 3)
    document = replayed(home, receipt, *words, code=1)
    assert "revoked" in error(document)["message"]
    assert len(home.receipts()) == before, "nothing ran"


def test_a_time_limit_can_be_another_as_far_as_the_profile_grants(home: Home) -> None:
    job = home.job("return 1", limits={"timeout": "1s"})
    receipt = run(home, job, "--timeout", "900ms")
    document = replayed(home, receipt, "--job", job, "--timeout", "950ms", code=0)
    again = statement_of(Path(document["receipt_path"]))["predicate"]
    assert again["plan"]["limits"]["wallNs"] == 950_000_000
    assert "the time limit is another: 950ms, first 900ms" in document["notes"]
    replayed(home, receipt, "--job", job, "--timeout", "6s", code=2)
    less = replayed(home, receipt, "--job", job, "--timeout", "100ms", code=2)
    assert error(less)["got"] == "100ms"


def test_a_plan_with_more_than_the_job_allows_is_not_this_jobs(home: Home) -> None:
    """Its own tighter limit would make true what the receipt says of a wider one."""
    job = home.job("for (;;);", limits={"fuel": 1000000})
    receipt = run(home, job)
    assert replayed(home, receipt, "--job", job, code=0)["verdict"] == "reproduced"
    wider = resigned(home, receipt, lambda said: said["plan"]["limits"].update(fuel=2000000))
    found = error(replayed(home, wider, "--job", job, code=2))
    assert (found["expected"], found["got"]) == ("fuel 2000000", "fuel 1000000")


def test_a_refusal_is_repeated_as_it_was_asked_for(home: Home) -> None:
    """By the very limits and profile: others make refusals, and make them vanish."""
    job = home.job("return 1")
    receipt = run(home, job, "--timeout", "20s")
    assert replayed(home, receipt, "--job", job, code=0)["verdict"] == "reproduced"
    for asked in ("1s", "30s"):
        found = error(replayed(home, receipt, "--job", job, "--timeout", asked, code=2))
        assert "refused for what was asked then" in found["message"]
    document = replayed(home, receipt, "--job", job, "--profile", "high-security", code=2)
    assert "a refusal follows from the profile" in " ".join(document["notes"])


def test_what_is_missing_is_named_with_its_option(shared: Home, receipt: Path) -> None:
    job = shared.job("return input", "asked")
    asked = run(shared, job, "--set", "input.a=1", name="asked")
    given = {
        item["name"]: item for item in statement_of(asked)["predicate"]["resolvedDependencies"]
    }
    assert given["input"]["annotations"] == {"from": "command line"}
    found = error(replayed(shared, asked, "--job", job, code=2))
    assert found["message"].startswith("the input is not the one of the first run")
    assert "--input FILE" in found["hint"]
    replayed(shared, asked, "--job", job, "--set", "input.a=1", code=0)
    (shared.work / "in.json").write_text('{"a": 1}')
    replayed(shared, asked, "--job", job, "--input", "in.json", code=0)
    assert "--job FILE" in error(replayed(shared, receipt, code=2))["hint"]
    profile = shared.work / "mine.yaml"
    strict = Path(__file__).parents[2] / "profiles" / "ultra-secure.yaml"
    profile.write_text(strict.read_text().replace("name: ultra-secure", "name: mine"))
    own = run(shared, job, "--profile", profile, name="own")
    assert "--profile FILE" in error(replayed(shared, own, "--job", job, code=2))["hint"]
    replayed(shared, own, "--job", job, "--profile", profile, code=0)


def test_a_snippet_and_a_code_file_of_its_own(home: Home) -> None:
    (home.work / "code.js").write_text("return 42")
    options = ("--receipt", "snippet.json", "code.js")
    assert home.run("exec", "--runtime", "javascript", "-q", *options).returncode == 0
    replayed(home, home.work / "snippet.json", "--job", "code.js", code=0)
    (home.work / "job.yaml").write_text("beddel: 1\nid: a\nruntime: javascript\nfile: code.js\n")
    receipt = run(home, home.work / "job.yaml")
    replayed(home, receipt, "--job", "job.yaml", code=0)
    (home.work / "code.js").write_text("return 43")
    found = error(replayed(home, receipt, "--job", "job.yaml", code=2))
    assert found["message"].startswith("the code is not the one of the first run")
    found = error(replayed(home, home.work / "snippet.json", "--job", "code.js", code=2))
    assert found["message"].startswith("the job is not the one of the first run")


def test_what_was_refused_here_and_not_there_starts_nothing(home: Home) -> None:
    outside = home.work.parent / "outside.js"
    outside.write_text("return 42")
    (home.work / "job.yaml").write_text(f"beddel: 1\nid: a\nruntime: javascript\nfile: {outside}\n")
    receipt = run(home, home.work / "job.yaml")
    assert statement_of(receipt)["predicate"]["outcome"]["reason"] == "files"
    replayed(home, receipt, "--job", "job.yaml", code=0)
    count = len(home.receipts())
    allowed = ("--job", "job.yaml", "--allow-path", str(outside.parent))
    found = error(replayed(home, receipt, *allowed, code=2))
    assert "was refused, and here nothing stands against it" in found["message"]
    assert len(home.receipts()) == count, "nothing ran, and nothing was signed"
    granted = run(home, home.work / "job.yaml", *allowed[2:], name="granted")
    replayed(home, granted, *allowed, code=0)
    document = replayed(home, granted, "--job", "job.yaml", code=2)
    again = statement_of(Path(document["receipt_path"]))["predicate"]
    assert again["outcome"]["reason"] == "files"


def test_text_says_what_it_rests_on_and_quiet_only_the_trouble(shared: Home, receipt: Path) -> None:
    good = shared.run("replay", receipt, "--job", "job.yaml")
    assert good.stdout.startswith(b"reproduced  job\n")
    for word in (b"same     output", b"same     fuel", b"same     memory digest", b"written"):
        assert word in good.stdout
    assert shared.run("replay", receipt, "--job", "job.yaml", "-q") == Result(0, b"", b"")
    forged = resigned(shared, receipt, lambda said: said["usage"]["fuel"].update(units=1))
    bad = shared.run("replay", forged, "--job", "job.yaml", "-q")
    assert bad.returncode == 1
    assert bad.stdout.startswith(b"DIFFERS  job\n  DIFFERS  fuel            expected 1 units\n")


def test_mistakes_are_could_not_tell(shared: Home, receipt: Path) -> None:
    for words in (
        (receipt, "--job", "gone.yaml"),
        (receipt, "--job", "job.yaml", "--", "true"),
        (receipt, "--job", "job.yaml", "--profile", "gone"),
        (receipt, "--job", "job.yaml", "--salt-file", "job.yaml"),
    ):
        done = shared.run("replay", *words)
        assert done.returncode == 2, (words, done.message)
        assert done.stderr.startswith(b"COULD NOT TELL\nbeddel-cli: "), done.message
        assert not has_traceback(done)


def program_run(home: Home, *words: str | Path) -> Path:
    """Run a program with `exec`; gives its receipt."""
    path = home.work / "program.json"
    done = home.run("exec", "-q", "--profile", "high-security", "--receipt", path, *words)
    assert path.is_file(), done.message
    return path


def test_what_a_program_wrote_is_compared_by_verify(home: Home) -> None:
    require("user-namespaces")
    receipt = program_run(home, "--", "sh", "-c", "echo hi; echo no >&2")
    (home.work / "hi").write_text("hi\n")
    (home.work / "no").write_text("no\n")
    good = home.run("verify", receipt, "--output", "hi")
    assert good.returncode == 0
    assert b"match    standard output is sha256:" in good.stdout
    assert b"  stdout   sha256:" in good.stdout
    bad = home.run("verify", receipt, "--output", "no")
    assert bad.returncode == 1
    assert b"MISMATCH standard output: expected" in bad.stderr


def test_a_refused_program_was_given_no_input_and_is_refused_again(home: Home) -> None:
    require("user-namespaces")
    asked = ("--memory", "300MiB")
    receipt = program_run(home, *asked, "--", "true")
    said = statement_of(receipt)["predicate"]
    assert said["outcome"]["status"] == "refused"
    assert "input" not in {each["name"] for each in said["resolvedDependencies"]}
    document = replayed(home, receipt, "--", "true", code=0)
    assert document["verdict"] == "reproduced"


def test_a_program_and_everything_it_was_given(home: Home) -> None:
    require("user-namespaces")
    (home.work / "data").mkdir()
    (home.work / "data" / "in").write_text("in")
    script = ("sh", "-c", "cat /in; echo $A >&2; echo made > made; exit 3")
    given = ("--workspace", "data", "--mount", "data/in:/in", "--env", "A=b")
    receipt = program_run(home, *given, "--results", "out", "--", *script)
    document = replayed(home, receipt, *given, "--results", "again", "--", *script, code=0)
    assert {row["what"] for row in document["compared"]} == {"ending", "stdout", "stderr", "files"}
    assert (home.work / "again" / "made").read_text() == "made\n"
    for left_out, words in (
        (given[:2], ("--workspace and --mount")),
        (given[2:4], ("--workspace and --mount")),
        (given[4:], ("--env NAME=VALUE")),
    ):
        rest = [word for word in given if word not in left_out]
        done = replayed(home, receipt, *rest, "--results", "left", "--", *script, code=2)
        assert words in error(done)["hint"]
    assert "--results" in error(replayed(home, receipt, *given, "--", *script, code=2))["hint"]
    other = ("sh", "-c", "echo other")
    found = error(replayed(home, receipt, *given, "--results", "x", "--", *other, code=2))
    assert found["message"].startswith("the job is not the one of the first run")
    changed = replayed(
        home, receipt, *given[:4], "--env", "A=c", "--results", "y", "--", *script, code=1
    )
    assert differing(changed) == {"stderr"}
    (home.work / "data" / "in").write_text("other")
    found = error(replayed(home, receipt, *given, "--results", "z", "--", *script, code=2))
    assert found["message"].startswith("the mount:/in is not the one of the first run")
    assert not (home.work / "z" / "made").exists()


def test_a_program_of_a_job_file_with_input(home: Home) -> None:
    require("user-namespaces")
    job = home.work / "p.yaml"
    job.write_text("beddel: 1\nid: p\nruntime: process\ncommand: [cat]\ninput: {a: 1}\n")
    receipt = run(home, job, "--profile", "high-security")
    document = replayed(home, receipt, "--job", job, code=0)
    assert any("a program" in note for note in document["notes"])
    found = error(replayed(home, receipt, "--job", job, "--set", "input.a=2", code=2))
    assert found["message"].startswith("the input is not the one of the first run")
    slow = home.work / "slow.yaml"
    slow.write_text("beddel: 1\nid: s\nruntime: process\ncommand: [sh, -c, 'echo $$; sleep 9']\n")
    late = run(home, slow, "--profile", "high-security", "--timeout", "200ms", name="late")
    document = replayed(home, late, "--job", slow, code=0)
    assert [row["what"] for row in document["compared"] if row["judged"]] == ["ending"]


def test_standard_input_that_nobody_recorded_is_told_where_it_may_make_the_difference(
    home: Home,
) -> None:
    require("user-namespaces")
    words = ("--profile", "high-security", "--receipt", "fed.json", "--", "cat")
    assert home.run("exec", "-q", *words, input=b"hi").returncode == 0
    again = home.run("replay", "fed.json", "--", "cat", input=b"hi")
    assert again.returncode == 0, again.message
    other = home.run("replay", "fed.json", "--", "cat", input=b"")
    assert other.returncode == 1
    assert (
        b"note     standard input, if it had any, is not in the receipt: it has to" in other.stdout
    )


def test_a_program_whose_output_is_another_each_time_differs(home: Home) -> None:
    require("user-namespaces")
    words = ("--", "sh", "-c", "head -c 16 /dev/urandom | od -x")
    receipt = program_run(home, *words)
    assert differing(replayed(home, receipt, *words, code=1)) == {"stdout"}


def test_an_interrupted_run_cannot_be_repeated(shared: Home, receipt: Path) -> None:
    def interrupted(said: dict[str, Any]) -> None:
        said["outcome"].update(status="interrupted", reason="interrupted", exitCode=130)

    path = resigned(shared, receipt, interrupted, "interrupted")
    found = error(replayed(shared, path, "--job", "job.yaml", code=2))
    assert "ended from outside" in found["message"]


def test_a_closed_reader_is_said_and_the_receipt_is_written(shared: Home, receipt: Path) -> None:
    require("full-device")
    before = len(shared.receipts())
    with open("/dev/full", "wb") as full:
        done = shared.run("replay", receipt, "--job", "job.yaml", stdout=full)
    assert done.returncode == 2
    assert b"cannot write to standard output" in done.stderr
    assert len(shared.receipts()) == before + 1
    assert os.path.isfile(shared.receipts()[-1])
