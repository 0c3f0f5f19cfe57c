"""`explain`, `profiles check` and `profiles diff` as their users meet them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from beddel_cli.options import OPTIONS, PLAN_OPTIONS
from beddel_cli.profile import BUILT_IN, folder
from beddel_cli.render_verify import profile_words
from tests.support.cli import Home

LOOSE = """\
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
BEYOND = ["limits.memory", "required.seccomp"]


def explained(home: Home, *arguments: str | Path, code: int = 0) -> dict[str, Any]:
    result = home.run("explain", *arguments, "--json")
    assert result.returncode == code, result.message
    return result.json


@pytest.mark.parametrize("profile", BUILT_IN)
@pytest.mark.parametrize(
    "arguments",
    [[], ["--memory", "1MiB", "--fuel", "1000000"], ["--set", "input.a=2", "--timeout", "1s"]],
    ids=["plain", "limits", "input"],
)
def test_the_digests_are_those_of_the_receipt(
    home: Home, profile: str, arguments: list[str]
) -> None:
    job = home.job("return input", input={"a": 1}, limits={"max_output": "1KiB"})
    digests = explained(home, job, "--profile", profile, *arguments)["digests"]
    ran = home.run("run", job, "-q", "--profile", profile, *arguments)
    assert ran.returncode == 0, ran.message
    predicate = home.predicate()
    assert digests["plan"] == predicate["planDigest"]["sha256"]
    assert digests["job"] == predicate["job"]["digest"]["sha256"]
    found = {x["name"]: x["digest"]["sha256"] for x in predicate["resolvedDependencies"]}
    assert {name: digests[name] for name in found} == found
    assert set(found) == {"code", "input", "profile", "guest"}


def test_the_origins_are_those_of_the_receipt(home: Home) -> None:
    job = home.job("return 1", limits={"memory": "1MiB", "fuel": 10**9})
    values = explained(home, job, "--fuel", "1000000")["values"]
    assert home.run("run", job, "-q", "--fuel", "1000000").returncode == 0
    assert [item["origin"] for item in values[:5]] == [
        home.predicate()["limitOrigins"][key]
        for key in ("memoryBytes", "wallNs", "fuel", "outputBytes", "consoleBytes")
    ]
    assert {item["field"]: item["number"] for item in values[:5]}["fuel"] == 1_000_000


def test_a_refusal_is_exit_1_with_every_reason(home: Home) -> None:
    job = home.job("return 1", limits={"memory": "3MiB", "timeout": "1min"})
    document = explained(home, job, "--fuel", str(10**15), code=1)
    assert [item["needs"] for item in document["refusals"]] == [
        "memory 3MiB",
        "timeout 1min",
        f"fuel {10**15}",
    ]
    assert document["would_run"] is False
    assert document["digests"]["plan"] is None
    assert document["refusals"][0]["place"]["file"] == str(job)
    shown = home.run("explain", job)
    assert shown.returncode == 1
    assert shown.stdout.startswith(b"would be refused  job  under ultra-secure\n")
    # The control: what is refused here is refused there, for the first of these reasons.
    ran = home.run("run", job, "-q")
    assert ran.returncode == 126
    assert document["refusals"][0]["message"] in ran.message


def test_what_cannot_be_told_is_exit_2_and_a_document_too(home: Home) -> None:
    bad = home.work / "bad.yaml"
    bad.write_text("beddel: 1\nid: one\nruntime: javascript\ncode: x\nextra: 1\nmore: 2\n")
    for arguments, message in (
        (["gone.yaml"], "no job at 'gone.yaml'"),
        (["bad.yaml"], "unknown key 'extra'"),
        ([str(home.job("return 1")), "--profile", "nope"], "no profile 'nope'"),
        ([str(home.job("return 1")), "--memory", "2MB"], "memory has no known unit: '2MB'"),
        (["-", "--input", "-"], "cannot both come from standard input"),
    ):
        plain = home.run("explain", *arguments)
        assert (plain.returncode, plain.stdout) == (2, b"")
        assert message in plain.message
        document = explained(home, *arguments, code=2)
        assert message in document["error"]["message"]
        assert (document["would_run"], document["values"]) == (None, None)
    error = explained(home, "bad.yaml", code=2)["error"]
    assert (error["line"], [more["line"] for more in error["more"]]) == (5, [6])


def test_a_job_from_standard_input_is_explained(home: Home) -> None:
    text = home.job("return 1", limits={"memory": "1MiB"}).read_bytes()
    result = home.run("explain", "-", "--json", input=text)
    assert result.returncode == 0
    assert result.json["values"][0]["place"]["file"] == "<stdin>"


def test_the_options_that_decide_are_options_of_run() -> None:
    assert {option.field for option in OPTIONS} > PLAN_OPTIONS


def profile_file(home: Home, text: str = LOOSE, name: str = "mine.yaml") -> Path:
    path = home.work / name
    path.write_text(text)
    return path


def test_a_looser_profile_is_said_by_summary_receipt_verify_and_explain(home: Home) -> None:
    profile_file(home)
    job = home.job("return 1", limits={"fuel": 50, "memory": "1MiB"})
    warning = (
        "profile 'mine' is looser than any built-in one: "
        "memory 64MiB (at most 8MiB), seccomp not required"
    )
    ran = home.run("run", job, "--profile", "./mine.yaml", "--json")
    assert warning in ran.json["warnings"]
    assert f"warning  {warning}\n" in ran.message
    assert home.predicate()["profile"]["looserThanBuiltIn"] == BEYOND
    verified = home.run("verify", home.receipts()[-1])
    assert (
        "  profile  mine (not a built-in one, looser than any of those in "
        "limits.memory, required.seccomp)\n"
    ) in verified.stdout.decode()
    document = explained(home, job, "--profile", "./mine.yaml")
    assert document["profile"]["looser_than_built_in"] == BEYOND
    assert warning in document["warnings"]


def test_a_profile_within_the_built_in_ones_is_only_said_to_be_ones_own(home: Home) -> None:
    text = Path(folder(), "tenant-isolated.yaml").read_text()
    profile_file(home, text.replace("name: tenant-isolated", "name: mine"))
    ran = home.run("run", home.job("return 1"), "--profile", "./mine.yaml", "--json")
    assert ran.json["warnings"] == ["profile 'mine' is a file of yours, not a built-in one"]
    assert home.predicate()["profile"]["looserThanBuiltIn"] == []
    shown = home.run("verify", home.receipts()[-1]).stdout.decode()
    assert "  profile  mine (not a built-in one)\n" in shown


@pytest.mark.parametrize("profile", BUILT_IN)
def test_a_built_in_profile_is_said_to_be_looser_in_nothing(home: Home, profile: str) -> None:
    home.run("run", home.job("return 1"), "--profile", profile, "-q")
    said = home.predicate()["profile"]
    assert (said["builtIn"], said["looserThanBuiltIn"]) == (True, [])
    shown = home.run("verify", home.receipts()[-1]).stdout.decode()
    assert f"  profile  {profile}\n" in shown


def test_check_tells_what_a_profile_grants_and_how_it_compares(home: Home) -> None:
    profile_file(home)
    result = home.run("profiles", "check", "mine.yaml")
    assert (result.returncode, result.message) == (0, "")
    lines = result.stdout.decode().splitlines()
    assert lines == [
        "ok  mine.yaml, profile mine",
        "  grants    memory 64MiB, timeout 10s, fuel 100, max_output 1KiB, max_console 1KiB, "
        "dynamic_code none, clock frozen, network none",
        "  requires  capabilities, no-new-privs, rlimits, store-limits",
        "  programs  not granted",
        "  looser    than ultra-secure: memory 64MiB (there 2MiB), timeout 10s (there 5s), "
        "seccomp not required, landlock not required",
        "  tighter   than ultra-secure: fuel 100 (there 100000000000), "
        "max_output 1KiB (there 256KiB), max_console 1KiB (there 16KiB), process not granted",
        "  looser    than high-security: memory 64MiB (there 4MiB), "
        "seccomp not required, landlock not required",
        "  tighter   than high-security: fuel 100 (there 200000000000), "
        "max_output 1KiB (there 1MiB), max_console 1KiB (there 64KiB), process not granted",
        "  looser    than tenant-isolated: memory 64MiB (there 8MiB), seccomp not required",
        "  tighter   than tenant-isolated: timeout 10s (there 15s), "
        "fuel 100 (there 300000000000), max_output 1KiB (there 4MiB), "
        "max_console 1KiB (there 256KiB), dynamic_code none (there function), "
        "clock frozen (there real), process not granted",
        "  warning   profile 'mine' is looser than any built-in one: "
        "memory 64MiB (at most 8MiB), seccomp not required",
    ]


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_file_with_the_name_of_a_built_in_profile_is_not_valid(home: Home, name: str) -> None:
    path = profile_file(home, Path(folder(), f"{name}.yaml").read_text())
    line = next(
        number for number, text in enumerate(path.read_text().splitlines(), 1) if name in text
    )
    result = home.run("profiles", "check", "mine.yaml")
    assert (result.returncode, result.stdout) == (1, b"")
    message = f"beddel-cli: mine.yaml:{line}:7: the name {name!r} belongs to a built-in profile\n"
    assert result.message.startswith(message)
    # The control: under another name it is valid, and the same as the one it was copied from.
    profile_file(home, path.read_text().replace(f"name: {name}", "name: mine"))
    good = home.run("profiles", "check", "mine.yaml")
    assert good.returncode == 0
    assert f"  same      as {name}\n" in good.stdout.decode()


def test_each_of_several_files_is_told_of_and_the_worst_is_the_exit_code(home: Home) -> None:
    profile_file(home)
    profile_file(home, LOOSE.replace("frozen", "stopped"), "bad.yaml")
    assert home.run("profiles", "check", "mine.yaml", "bad.yaml").returncode == 1
    result = home.run("profiles", "check", "bad.yaml", "gone.yaml", "mine.yaml")
    assert result.returncode == 2
    assert result.message.startswith("beddel-cli: bad.yaml:7:10: isolate.clock is 'stopped'\n")
    assert "beddel-cli: no profile at 'gone.yaml'\n" in result.message
    assert result.stdout.startswith(b"ok  mine.yaml")
    document = home.run("profiles", "check", "bad.yaml", "gone.yaml", "mine.yaml", "--json").json
    assert document["exit_code"] == 2
    bad, gone, mine = document["files"]
    assert (bad["valid"], gone["valid"], mine["valid"]) == (False, None, True)
    assert set(bad) == set(gone) == set(mine)
    assert (bad["error"]["line"], bad["error"]["column"]) == (7, 10)
    assert mine["looser_than_built_in"] == BEYOND
    assert mine["values"]["limits.memory"] == "64MiB"
    assert mine["compared"]["tenant-isolated"]["looser"] == BEYOND


def test_diff_is_a_line_for_each_value_and_says_which_side_is_looser(home: Home) -> None:
    result = home.run("profiles", "diff", "ultra-secure", "high-security")
    assert result.returncode == 1
    assert [line.split() for line in result.stdout.decode().splitlines()] == [
        ["value", "ultra-secure", "high-security"],
        ["level", "ultra", "high", "neither:", "a", "label"],
        ["limits.memory", "2MiB", "4MiB", "high-security", "is", "looser"],
        ["limits.timeout", "5s", "10s", "high-security", "is", "looser"],
        ["limits.fuel", "100000000000", "200000000000", "high-security", "is", "looser"],
        ["limits.max_output", "256KiB", "1MiB", "high-security", "is", "looser"],
        ["limits.max_console", "16KiB", "64KiB", "high-security", "is", "looser"],
        ["process.limits.memory", "64MiB", "256MiB", "high-security", "is", "looser"],
        ["process.limits.timeout", "30s", "2min", "high-security", "is", "looser"],
        ["process.limits.max_output", "256KiB", "1MiB", "high-security", "is", "looser"],
        ["process.limits.cpu_time", "10s", "1min", "high-security", "is", "looser"],
        ["process.limits.cpus", "0.25", "0.5", "high-security", "is", "looser"],
        ["process.limits.processes", "16", "64", "high-security", "is", "looser"],
        ["process.limits.disk", "16MiB", "64MiB", "high-security", "is", "looser"],
        ["process.limits.inodes", "1000", "4000", "high-security", "is", "looser"],
        ["process.limits.open_files", "64", "256", "high-security", "is", "looser"],
        [
            *("process.required.cgroup", "required", "not", "required"),
            *("high-security", "is", "looser"),
        ],
    ]


def test_no_line_begins_with_the_name_of_a_file(home: Home) -> None:
    # GitHub's runner takes a line that begins so, spaces aside, for a command.
    name = "::error::x.yaml"
    profile_file(home, LOOSE, name)
    (home.work / "::error::job.yaml").write_bytes(home.job("return 1").read_bytes())
    for arguments in (
        ["profiles", "check", name],
        ["profiles", "diff", name, "ultra-secure"],
        ["explain", "::error::job.yaml", "--profile", name],
    ):
        result = home.run(*arguments)
        assert b"::error::" in result.stdout, "the control: it is shown"
        lines = (result.stdout + result.stderr).splitlines()
        assert not [line for line in lines if line.strip().startswith(b"::")]


def test_diff_exits_as_diff_does(home: Home) -> None:
    profile_file(home)
    same = home.run("profiles", "diff", "ultra-secure", "ultra-secure")
    assert (same.returncode, same.stdout, same.stderr) == (0, b"", b"")
    assert home.run("profiles", "diff", "./mine.yaml", "mine.yaml").returncode == 0
    assert home.run("profiles", "diff", "./mine.yaml", "ultra-secure").returncode == 1
    gone = home.run("profiles", "diff", "./mine.yaml", "./gone.yaml")
    assert (gone.returncode, gone.stdout) == (2, b"")
    assert gone.message == "beddel-cli: no profile at './gone.yaml'\n"


def test_diff_is_a_document_too(home: Home) -> None:
    profile_file(home)
    document = home.run("profiles", "diff", "./mine.yaml", "tenant-isolated", "--json").json
    assert (document["a"], document["b"], document["same"]) == (
        *("./mine.yaml", "tenant-isolated"),
        False,
    )
    sides = {item["value"]: item["looser"] for item in document["differences"]}
    assert (sides["limits.memory"], sides["clock"], sides["required.seccomp"]) == ("a", "b", "a")
    same = home.run("profiles", "diff", "ultra-secure", "ultra-secure", "--json").json
    assert (same["same"], same["differences"]) == (True, [])
    error = home.run("profiles", "diff", "nope", "ultra-secure", "--json")
    assert error.returncode == 2
    assert set(error.json) == set(document)
    assert error.json["error"]["message"] == "no profile 'nope'"


@pytest.mark.parametrize(
    "words",
    [
        "beddel-cli run job.yaml --profile ",
        "beddel-cli explain job.yaml --profile ",
        "beddel-cli profiles show ",
        "beddel-cli profiles diff ultra-secure ",
    ],
)
def test_the_names_of_profiles_are_completed(home: Home, words: str) -> None:
    script = "import sys; from beddel_cli import cli; sys.exit(cli.run_app([], started_ns=0))"
    for start, expected in (("", list(BUILT_IN)), ("hi", ["high-security"]), ("x", [])):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={
                **home.environment(),
                "_BEDDEL_CLI_COMPLETE": "complete_bash",
                "COMP_WORDS": words + start,
                "COMP_CWORD": str(len(words.split())),
            },
            capture_output=True,
            check=False,
        )
        assert done.stdout.decode().split() == expected, done.stderr


def test_what_a_receipt_says_of_its_profile_is_shown_safely() -> None:
    assert profile_words({"name": "x"}) == "x", "early receipts say no more"
    assert profile_words({"name": "x\x1b", "builtIn": False}) == "x\\x1b (not a built-in one)"
    said = {"name": "x", "builtIn": False, "looserThanBuiltIn": ["a\x1b", 1]}
    assert profile_words(said).endswith("looser than any of those in a\\x1b, 1)")
    assert profile_words({**said, "looserThanBuiltIn": 7}) == "x (not a built-in one)"
