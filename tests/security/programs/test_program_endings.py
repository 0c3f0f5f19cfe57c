"""Every ending of a program: its exit code, its reason, and a signed receipt that says the same."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from beddel_cli.outcome import REASONS
from tests.support import processes
from tests.support.callers import PYTHON, Caller
from tests.support.cli import has_traceback

SPIN = "while :; do :; done"
HOG = "b = []\nwhile True: b.append(b'x' * (1 << 20))"
FILES = "i=0; while [ $i -lt 100 ]; do : > f$i || exit 9; i=$((i+1)); done"
BIG = "head -c 4194304 /dev/zero > big || exit 8"


@dataclass(frozen=True, slots=True)
class Case:
    """A command, its options, and its ending."""

    command: tuple[str, ...]
    exit_code: int
    reason: str
    options: tuple[str, ...] = ()
    limit: str | None = None
    signal: int | None = None
    own_code: int | None = None


def sh(script: str, exit_code: int, reason: str, *options: str, **more: int | str) -> Case:
    return Case(("sh", "-c", script), exit_code, reason, options, **more)  # type: ignore[arg-type]


CASES = {
    "success": sh("exit 0", 0, "ok", own_code=0),
    # Codes of its own pass unchanged, those that the command uses for itself too.
    **{
        f"code {code}": sh(f"exit {code}", code, "exit", own_code=code)
        for code in (1, 3, 124, 125, 126, 127, 130, 137, 255)
    },
    "SIGSEGV": sh("kill -SEGV $$", 139, "signal", signal=11),
    "SIGABRT": sh("kill -ABRT $$", 134, "signal", signal=6),
    "SIGKILL": sh("kill -KILL $$", 137, "signal", signal=9),
    "SIGTERM": sh("kill -TERM $$", 143, "signal", signal=15),
    "SIGINT": sh("kill -INT $$", 130, "signal", signal=2),
    "a signal without a name": sh("kill -40 $$", 168, "signal", signal=40),
    "not found": Case(("no-such-program",), 127, "not-found"),
    "not found by its path": Case(("./no-such-program",), 127, "not-found"),
    "a file on the way": Case(("/usr/bin/env/x",), 127, "not-found"),
    "a folder": Case(("/usr",), 126, "not-executable"),
    "not executable": Case(("/etc/passwd",), 126, "not-executable"),
    "wall": sh("sleep 60", 124, "wall", "--timeout", "300ms", limit="timeout"),
    "cpu": sh(SPIN, 124, "cpu", "--cpu-time", "300ms", limit="cpu_time"),
    "output": sh("yes", 124, "output", "--max-output", "1000B", limit="max_output"),
    "output on standard error": sh(
        "yes >&2", 124, "output", "--max-output", "1000B", limit="max_output"
    ),
    "disk": sh(BIG, 124, "disk", "--disk", "1MiB", limit="disk", own_code=8),
    "inodes": sh(FILES, 124, "inodes", "--inodes", "30", limit="inodes", own_code=2),
    "memory": Case(
        (PYTHON, "-c", HOG), 137, "memory", ("--memory", "48MiB"), limit="memory", signal=9
    ),
    "refused": sh("exit 0", 126, "limits", "--memory", "1GiB"),
}
# `processes` is an ending only where nothing but a look at /proc counts them: test_program_limits.
ELSEWHERE = {"protection", "files", "sandbox-fault", "interrupted", "terminated", "processes"}
OF_ISOLATES = {
    *("thrown", "syntax", "stack", "trap", "not-json", "unsettled", "unhandled", "fuel"),
    "worker-fault",
}


def test_no_reason_is_forgotten() -> None:
    assert {case.reason for case in CASES.values()} | ELSEWHERE | OF_ISOLATES == set(REASONS)


@pytest.mark.parametrize("name", CASES)
def test_ending(caller: Caller, name: str) -> None:
    case = CASES[name]
    result = caller.exec("--json", *case.options, "--", *case.command)
    assert result.returncode == case.exit_code, result.message
    status = REASONS[case.reason][0]
    outcome = result.json["outcome"]
    assert (outcome["status"], outcome["reason"]) == (status, case.reason)
    assert (outcome["exit_code"], outcome["limit"]) == (case.exit_code, case.limit)
    assert (result.json["error"] is None) == (status == "success")
    assert not has_traceback(result)
    said = caller.predicate()
    found = said["outcome"]
    assert (found["status"], found["reason"]) == (status, case.reason)
    assert (found["exitCode"], found["limit"]) == (case.exit_code, case.limit)
    if case.own_code is not None:
        assert found["programExitCode"] == case.own_code
    if case.reason == "signal":
        assert found["signal"] == case.signal
    assert said["runtime"]["name"] == "process"
    if status == "refused":
        assert (said["plan"], said["streams"]) == (None, None)
        assert found["refusal"]["needs"] == "memory 1GiB"
        return
    assert said["plan"]["profile"] == caller.profile
    controls = {item["name"]: item for item in said["controls"]}
    assert all(controls[name]["enforced"] for name in said["plan"]["required"])


@pytest.mark.parametrize("name", ["success", "code 3", "not found", "wall", "disk"])
def test_the_first_line_for_people_is_the_ending(caller: Caller, name: str) -> None:
    case = CASES[name]
    result = caller.exec(*case.options, "--", *case.command)
    word = REASONS[case.reason][0]
    program = "no-such-program" if name == "not found" else "sh"
    assert f"{word}  {program}  exit {case.exit_code}" in result.message.splitlines()
    assert not has_traceback(result)


def test_a_share_of_a_cpu_is_a_budget_where_nothing_slows_it_down(caller: Caller) -> None:
    """A cgroup slows a program down to its share; without one the share of the time is a limit."""
    result = caller.sh(SPIN, "--json", "--cpus", "0.1", "--timeout", "3s")
    assert result.returncode == 124, result.message
    outcome = result.json["outcome"]
    found = (outcome["reason"], outcome["limit"])
    slowed = "cpu v" in caller.predicate()["runtime"]["sandbox"]["cgroup"]
    assert found == (("wall", "timeout") if slowed else ("cpu", "cpus"))


def test_a_script_needs_its_interpreter_and_its_mode(caller: Caller) -> None:
    folder = caller.folder(
        "tools", good=b"#!/bin/sh\nexit 5\n", lost=b"#!/no/such\n", plain=b"exit 6\n", text=b"x"
    )
    for name in ("good", "lost", "plain"):
        (folder / name).chmod(0o755)
    endings = {}
    for name in ("good", "lost", "plain", "text"):
        result = caller.exec("--json", "--workspace", folder, "--", f"./{name}")
        endings[name] = (result.returncode, result.json["outcome"]["reason"])
    assert endings == {
        "good": (5, "exit"),
        "lost": (127, "not-found"),
        "plain": (126, "not-executable"),
        "text": (126, "not-executable"),
    }


def test_a_failure_for_another_reason_is_the_programs_own(caller: Caller) -> None:
    """The control of `disk` and `inodes`: the same codes without a limit that was reached."""
    result = caller.sh("head -c 1000 /dev/zero > small; exit 8", "--json", "--disk", "1MiB")
    assert (result.returncode, result.json["outcome"]["reason"]) == (8, "exit")


def test_an_init_that_dies_is_our_fault(caller: Caller) -> None:
    """Nothing inside can kill process 1 of its namespace; somebody outside can."""
    run = caller.start("--json", "--", "sh", "-c", "echo up; sleep 60", stdin=None)
    init = processes.wait_for(
        lambda: next(iter(processes.confined(run.pid)), None), what="the program's init"
    )
    os.kill(init, 9)
    stdout, stderr = run.communicate(timeout=30)
    assert run.returncode == 125, stderr
    assert b'"sandbox-fault"' in stdout
    assert caller.predicate()["outcome"]["reason"] == "sandbox-fault"
