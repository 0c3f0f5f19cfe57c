"""Runs and errors as people and programs read them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from beddel_cli import render
from beddel_cli.errors import (
    BeddelError,
    HomeError,
    JobError,
    NotFoundError,
    Place,
    SigningKeyError,
    UsageError,
)
from beddel_cli.job import COMMAND_LINE
from beddel_cli.limits import Limits
from beddel_cli.outcome import (
    ConsoleLine,
    JobFailure,
    Outcome,
    Usage,
    interrupted,
    refused,
)
from beddel_cli.record import changed
from beddel_cli.run import Finished
from tests.support.values import JOB, MIB, PROFILE, finished, host, place, plan, refusal

USAGE = Usage(
    wall_ns=3_000_000,
    guest_wall_ns=900_000,
    guest_cpu_ns=800_000,
    fuel=1_204_331,
    memory_bytes=650_000,
    memory_digest="00" * 32,
)
SUCCESS = finished(Outcome("success", "ok", 0, output=b'{"a":1}', usage=USAGE))
FAILURE = finished(
    Outcome(
        "failure",
        "thrown",
        1,
        message="TypeError: no",
        failure=JobFailure("TypeError", "no", "  at f (job.js:1:1)", place(4, 9)),
        console=tuple(ConsoleLine("warn", f"line {n}") for n in range(7)),
        usage=USAGE,
    )
)
TIMEOUT_JOB = changed(
    JOB, limits=Limits(wall_ns=2_000_000_000), limit_places=(("wall_ns", place(9, 12)),)
)
TIMEOUT = finished(
    Outcome(
        "limit",
        "wall",
        124,
        message="timeout limit of 2s",
        limit="timeout",
        ended_by="engine",
        usage=changed(USAGE, wall_ns=2_003_000_000),
    ),
    job=TIMEOUT_JOB,
    plan=plan(TIMEOUT_JOB),
)
MISSING = refusal(place=place(3, 4))
REFUSED = finished(refused(MISSING), refusal=MISSING, plan=None, host=host("landlock"))
FAULT = finished(Outcome("fault", "worker-fault", 125, message="it died", usage=Usage(wall_ns=1)))
STOPPED = finished(interrupted("interrupted"))
RUNS = {
    "success": SUCCESS,
    "failure": FAILURE,
    "limit": TIMEOUT,
    "refusal": REFUSED,
    "fault": FAULT,
    "interrupted": STOPPED,
}


def rows(run: Finished, *, verbose: bool = False) -> list[tuple[str, str]]:
    """Give the head and the labelled lines of a summary."""
    head, *lines = render.summary(run, colour=False, verbose=verbose).splitlines()
    split = (line.strip().partition("  ") for line in lines)
    return [("", head), *((label, text.strip()) for label, _, text in split)]


def test_a_good_run_is_summed_up_with_its_figures() -> None:
    said = dict(rows(SUCCESS))
    assert said[""] == "success  one  exit 0"
    assert said["profile"] == "tight, javascript"
    assert said["time"].startswith("20.0 ms wall, 15.0 ms CPU (guest 0.9 ms)")
    assert said["memory"] == "0.62 of 2.00 MiB linear (peak)"
    assert said["fuel"] == "1,204,331 of 1,000,000"
    assert said["output"].startswith("7 B sha256:015abd7f5cc57a2d")
    counted, _, names = said["walls"].partition(": ")
    assert counted == "6/6 confirmed"
    assert set(names.split()) == {"store", "seccomp", "landlock", "nnp", "caps", "rlimits"}
    assert said["access"] == "network none, files none, clock frozen"
    assert said["receipt"] == "/home/a/receipts/one.dsse.json"
    assert said["verify"] == (
        "beddel-cli verify /home/a/receipts/one.dsse.json --key /home/a/keys/signing.pub.pem"
    )
    assert "reason" not in said


def test_a_time_limit_says_where_it_is_set_who_ended_it_and_how_far_it_can_go() -> None:
    said = dict(rows(TIMEOUT))
    assert said["reason"] == (
        "timeout limit of 2s (set at one.yaml:9:12); ended by the engine after 2.003 s"
    )
    assert said["next"] == "allow more in the job, up to 5s; beyond that another profile"


def test_a_limit_that_is_already_the_profiles_points_to_another_profile() -> None:
    run = finished(Outcome("limit", "memory", 137, message="m", limit="memory", usage=USAGE))
    assert dict(rows(run))["next"] == "2MiB is all that tight grants; --profile names another"


def test_a_limit_of_the_command_line_points_to_its_flag() -> None:
    tight = plan(flags=Limits(memory_bytes=MIB))
    run = finished(Outcome("limit", "memory", 137, message="m", limit="memory"), plan=tight)
    assert dict(rows(run))["next"] == (
        "allow more with --memory, up to 2MiB; beyond that another profile"
    )


@pytest.mark.parametrize(
    ("command", "by_hand", "said"),
    [
        (("foo.js",), True, "in an isolate: beddel-cli exec --runtime javascript foo.js"),
        (("my job.yaml",), True, "as a job: beddel-cli run 'my job.yaml'"),
        (("ls -l",), True, "each word by itself: beddel-cli exec -- ls -l"),
        (("ls | wc",), True, "each word by itself: beddel-cli exec -- sh -c 'ls | wc'"),
        (("ls \x1b[1m",), True, "each word by itself: beddel-cli exec -- sh -c 'ls \\x1b[1m'"),
        (("ls -l",), False, 'each word by itself: command: ["ls", "-l"]'),
        (("foo.js",), False, None),
        (("lss",), True, None),
        (("ls -l", "x"), True, None),
    ],
)
def test_a_command_that_is_no_program_is_said_as_it_was_meant(
    command: tuple[str, ...], by_hand: bool, said: str | None
) -> None:
    file = COMMAND_LINE if by_hand else "job.yaml"
    job = changed(JOB, runtime="process", command=command, file=file)
    for reason, code in (("not-found", 127), ("not-executable", 126)):
        run = finished(Outcome("failure", reason, code, message="no"), job=job)
        assert dict(render.reason_rows(run)).get("next") == said
    run = finished(Outcome("failure", "exit", 1, message="no"), job=job)
    assert "next" not in dict(render.reason_rows(run))


def test_a_refusal_says_needs_found_fix_and_that_nothing_was_measured() -> None:
    said = dict(rows(REFUSED))
    assert said[""] == "refused  one  exit 126"
    assert said["reason"] == "no landlock (one.yaml:3:4)"
    assert (said["needs"], said["found"], said["fix"]) == (
        "landlock",
        "ENOSYS: not there",
        "boot with lsm=landlock",
    )
    assert said["time"] == said["memory"] == said["fuel"] == "not measured"
    assert said["walls"].startswith("5/6 confirmed: ")
    assert "landlock" not in said["walls"]
    assert said["access"] == "none: nothing ran"
    assert said["output"] == "none"


def test_a_failure_says_where_and_shows_the_last_lines_of_the_console() -> None:
    said = rows(FAILURE)
    assert ("reason", "TypeError: no") in said
    assert ("at", "one.yaml:4:9") in said
    console = [text for label, text in said if label == "console"]
    kept = [f"warn: line {n}" for n in range(2, 7)]
    assert console == ["… 2 earlier, all with -v or --json", *kept]


def test_verbose_says_where_each_figure_and_limit_is_from() -> None:
    quiet, loud = rows(TIMEOUT), rows(TIMEOUT, verbose=True)
    more = [row for row in loud if row not in quiet]
    assert ("limit", "timeout 2s (job)") in more
    assert ("limit", "memory 2MiB (profile)") in more
    assert any(label == "control" and text.startswith("landlock: ") for label, text in more)
    assert ("run", "0123456789abcdef") in more
    assert any("guest CPU" in text and text.endswith("(worker)") for _, text in more)
    assert [row for row in quiet if row not in loud] == []


def test_a_key_made_by_this_run_is_pointed_out() -> None:
    made = changed(SUCCESS, key=changed(SUCCESS.key, origin="generated", created=True))
    assert dict(rows(made))["key"].endswith("NEW, made by this run")
    given = changed(
        SUCCESS,
        key=changed(SUCCESS.key, origin="environment", path=None),
        public_key_path=None,
    )
    assert dict(rows(given))["key"].endswith("from BEDDEL_SIGNING_KEY")
    at_home = changed(SUCCESS, key=changed(SUCCESS.key, origin="home"))
    assert dict(rows(at_home))["key"].endswith("from /home/a/keys/signing.pem")
    assert dict(rows(given))["verify"].endswith("--key PUB.pem")


def test_a_file_of_ones_own_is_not_taken_for_a_built_in_profile() -> None:
    own = changed(SUCCESS, profile=changed(PROFILE, built_in=False))
    assert dict(rows(own))["profile"] == "tight (your own file), javascript"


def test_paths_in_the_verify_command_can_be_pasted() -> None:
    run = changed(SUCCESS, receipt_path="/a b/it's; rm -rf x.json", public_key_path=None)
    assert dict(rows(run))["verify"] == (
        "beddel-cli verify '/a b/it'\"'\"'s; rm -rf x.json' --key PUB.pem"
    )


def test_colour_changes_nothing_but_the_first_word() -> None:
    plain = render.summary(SUCCESS, colour=False, verbose=False)
    coloured = render.summary(SUCCESS, colour=True, verbose=False)
    assert coloured == plain.replace("success", "\x1b[32msuccess\x1b[0m", 1)


KEYS = {
    *("schema", "run_id", "job", "profile", "tenant", "runtime", "outcome", "output", "stdout"),
    *("stderr", "console", "time", "memory", "fuel", "limits", "controls", "rung"),
    *("files", "results_path", "receipt"),
    *("warnings", "error"),
}
OUTCOME_KEYS = {
    *("status", "reason", "exit_code", "signal", "limit", "program_exit_code", "reached"),
}
ERROR_KEYS = {"more", "code", "message", "file", "line", "column", "expected", "got", "hint"}
RECEIPT_KEYS = {
    *("path", "bundle_path", "predicate_path", "capture_path", "key_id", "key_origin"),
    *("log_index", "proof_path"),
}
ERRORS: list[BeddelError] = [
    UsageError("no such option"),
    JobError("bad", place=Place("a.yaml", 3, 4), expected="x", got="y", hint="z"),
    NotFoundError("no job"),
    HomeError("no home"),
    SigningKeyError("no key"),
]


@pytest.mark.parametrize("name", RUNS)
def test_the_json_document_of_every_ending_has_all_keys(name: str) -> None:
    run = RUNS[name]
    document: dict[str, Any] = json.loads(render.json_document(run))
    assert set(document) == KEYS
    assert set(document["outcome"]) == OUTCOME_KEYS
    assert set(document["receipt"]) == RECEIPT_KEYS
    assert document["schema"] == "beddel-cli/run/v1"
    assert document["outcome"]["status"] == run.outcome.status
    assert document["outcome"]["exit_code"] == run.outcome.exit_code
    if name == "success":
        assert document["error"] is None
        assert document["output"] == {"a": 1}
    else:
        assert set(document["error"]) == ERROR_KEYS
        assert document["error"]["code"] == run.outcome.reason
        assert document["output"] is None
    assert [item["name"] for item in document["controls"]] == [
        item.name for item in run.host.findings
    ]


def test_the_shapes_of_time_and_memory_do_not_depend_on_the_ending() -> None:
    documents = [json.loads(render.json_document(run)) for run in RUNS.values()]
    for part in ("time", "memory"):
        assert len({tuple(document[part]) for document in documents}) == 1
    assert json.loads(render.json_document(REFUSED))["memory"]["linear_peak_bytes"] is None
    assert json.loads(render.json_document(REFUSED))["limits"] is None


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_the_json_document_of_an_error_has_all_keys(error: BeddelError) -> None:
    document = json.loads(render.json_of_error(error))
    assert set(document) == KEYS
    assert set(document["outcome"]) == OUTCOME_KEYS
    assert set(document["error"]) == ERROR_KEYS
    assert document["outcome"] == {
        "status": "error",
        "reason": error.code,
        "exit_code": error.exit_code,
        "signal": None,
        "limit": None,
        "program_exit_code": None,
        "reached": [],
    }
    assert document["error"]["message"] == error.message
    assert document["warnings"] == []
    unknown = KEYS - {"schema", "outcome", "warnings", "error"}
    assert {key for key in unknown if document[key] is not None} == set()


def test_an_error_in_json_has_its_place_apart() -> None:
    error = json.loads(render.json_of_error(ERRORS[1]))["error"]
    assert error == {
        "code": "invalid-input",
        "message": "bad",
        "file": "a.yaml",
        "line": 3,
        "column": 4,
        "expected": "x",
        "got": "y",
        "hint": "z",
        "more": [],
    }


def test_surrogates_and_nul_survive_in_ascii() -> None:
    output = json.dumps({"\ud800": "\x00\x1b\u202e"}).encode()
    console = (ConsoleLine("log", "\udfff\x00"),)
    run = finished(Outcome("success", "ok", 0, output=output, console=console, usage=USAGE))
    data = render.json_document(run)
    assert data.isascii()
    assert b"\\ud800" in data
    document = json.loads(data)
    assert document["output"] == {"\ud800": "\x00\x1b\u202e"}
    assert document["console"] == [{"level": "log", "text": "\udfff\x00"}]


def test_a_control_that_was_not_required_is_called_applied() -> None:
    loose = changed(PROFILE, required=frozenset(("seccomp",)))
    run = changed(SUCCESS, profile=loose, host=host("landlock"))
    controls = {item["name"]: item for item in json.loads(render.json_document(run))["controls"]}
    assert controls["seccomp"]["requested"] == "required"
    assert controls["landlock"] == {
        "name": "landlock",
        "requested": "applied",
        "enforced": False,
        "enforced_by": None,
        "verified": None,
        "found": "EPERM: not permitted",
    }


def test_an_error_for_people_is_a_head_and_what_helps() -> None:
    assert render.error_text(ERRORS[1]) == (
        "beddel-cli: a.yaml:3:4: bad\n  expected  x\n  got       y\n  hint      z\n"
    )
    assert render.error_text(UsageError("no")) == "beddel-cli: no\n"


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("success", "info"),
        ("failure", "warning"),
        ("limit", "warning"),
        ("refusal", "error"),
        ("fault", "error"),
        ("interrupted", "error"),
    ],
)
def test_a_log_line_has_its_level_and_fields(name: str, level: str) -> None:
    line = json.loads(render.log_line(RUNS[name], "2000-01-01T00:00:00Z"))
    assert line["level"] == level
    assert (line["time"], line["job"]) == ("2000-01-01T00:00:00Z", "one")
    assert (line["runtime"], line["run_id"]) == ("javascript", "0123456789abcdef")
    assert line["duration_ms"] == 20.0
    assert line["error"] == RUNS[name].outcome.message


def test_the_log_line_of_an_error_has_the_same_fields() -> None:
    line = json.loads(render.log_line_of_error(ERRORS[1], "2000-01-01T00:00:00Z"))
    assert line == {
        "time": "2000-01-01T00:00:00Z",
        "level": "error",
        "job": None,
        "runtime": None,
        "run_id": None,
        "duration_ms": None,
        "error": "bad",
        "file": "a.yaml",
        "line": 3,
        "column": 4,
        "outcome": "invalid-input",
        "exit_code": 125,
        "receipt": None,
    }
