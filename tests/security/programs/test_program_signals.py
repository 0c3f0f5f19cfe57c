"""A program ended from outside: by Ctrl-C, by signals to the command, by the death of the command.

Whatever it started, nothing of it remains: no process, no mount, no cgroup.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.callers import Caller
from tests.support.capabilities import require
from tests.support.cli import COMMAND

# No other process has these arguments.
SLEEPS = tuple(f"{number}.{os.getpid()}" for number in range(301, 308))
# Processes that ignore what can be ignored, a daemon, a stopped one, and children of each.
TREE = (
    "trap '' TERM INT HUP; (trap '' TERM INT HUP; sleep {}) & setsid sleep {} & "
    "(sleep {} & kill -STOP $!; sleep {}) & sh -c 'sleep {} & sleep {}' & "
    "sleep 0.2; echo up"
).format(*SLEEPS)
ENDLESS = f"{TREE}; while :; do sleep {SLEEPS[6]}; done"


def sleeping() -> list[int]:
    """Give the processes of ENDLESS, wherever they are."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] == b"sleep" and words[1].decode() in SLEEPS:
            found.append(int(pid))
    return found


def leaves(pid: int) -> set[str]:
    """Give the cgroups that a command made, which name its process id."""
    found = set()
    for folder, folders, _ in os.walk("/sys/fs/cgroup"):
        names = (name for name in folders if name.startswith("beddel-") and f"-{pid}-" in name)
        found |= {os.path.join(folder, name) for name in names}
    return found


def started(caller: Caller, *options: str, script: str = ENDLESS) -> subprocess.Popen[bytes]:
    run = caller.start(*options, "--", "sh", "-c", script, process_group=0)
    assert run.stdout is not None
    assert run.stdout.readline() == b"up\n", run.communicate()[1]
    return run


@pytest.mark.parametrize(
    ("number", "exit_code", "reason"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGHUP, 143, "terminated"),
    ],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
def test_a_signal_ends_all_of_it_with_a_receipt(
    caller: Caller, number: int, exit_code: int, reason: str
) -> None:
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    run = started(caller)
    assert bool(leaves(run.pid)) == (caller.profile == "ultra-secure")
    assert len(sleeping()) >= 5, "the control: they run"
    run.send_signal(number)
    _, stderr = run.communicate(timeout=30)
    assert run.returncode == exit_code, stderr
    said = caller.predicate()["outcome"]
    assert (said["status"], said["reason"], said["exitCode"]) == ("interrupted", reason, exit_code)
    assert sleeping() == []
    assert leaves(run.pid) == set()
    assert Path("/proc/self/mountinfo").read_text(encoding="utf-8") == mounts


def test_the_program_is_asked_before_it_is_killed(caller: Caller) -> None:
    script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done"
    run = started(caller, script=script)
    run.send_signal(signal.SIGTERM)
    stdout, stderr = run.communicate(timeout=30)
    assert (run.returncode, stdout) == (143, b"bye\n"), stderr
    assert caller.predicate()["outcome"]["programExitCode"] == 3


def test_a_second_signal_does_not_wait(caller: Caller) -> None:
    run = started(caller)
    run.send_signal(signal.SIGINT)
    run.send_signal(signal.SIGINT)
    _, stderr = run.communicate(timeout=30)
    assert run.returncode == 130, stderr
    assert caller.predicate()["outcome"]["reason"] == "interrupted"
    assert sleeping() == []


def test_what_is_ignored_stays_ignored(caller: Caller) -> None:
    """As under nohup: the program goes on, and its own ending counts."""
    run = caller.home.start(
        *("-c", 'trap "" HUP; exec "$@"', "sh", *COMMAND, "exec", "--profile", caller.profile),
        *("--", "sh", "-c", "echo up; sleep 1; exit 4"),
        command=("sh",),
        env=caller.environment(),
        **caller.identity(),
    )
    assert run.stdout is not None
    assert run.stdout.readline() == b"up\n"
    run.send_signal(signal.SIGHUP)
    _, stderr = run.communicate(timeout=30)
    assert run.returncode == 4, stderr


@pytest.mark.parametrize("limit", ["--timeout", "--cpu-time"])
def test_a_limit_ends_all_of_it(caller: Caller, limit: str) -> None:
    script = ENDLESS if limit == "--timeout" else f"{TREE}; while :; do :; done"
    result = caller.sh(script, limit, "900ms")
    assert result.returncode == 124, result.message
    assert sleeping() == []


def test_the_end_of_the_program_ends_all_of_it(caller: Caller) -> None:
    result = caller.sh(TREE)
    assert (result.returncode, result.stdout) == (0, b"up\n"), result.message
    assert sleeping() == []


def test_killing_the_command_kills_all_of_it(caller: Caller) -> None:
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    run = started(caller)
    assert sleeping()
    run.kill()
    run.communicate(timeout=30)
    processes.wait_for(lambda: True if not sleeping() else None, what="the deaths of all of it")
    assert Path("/proc/self/mountinfo").read_text(encoding="utf-8") == mounts
    assert caller.home.receipts() == []


def test_killing_the_command_at_any_moment_leaves_no_process(caller: Caller) -> None:
    script = f"sleep {SLEEPS[0]} & sleep {SLEEPS[1]}"
    for moment in range(12):
        run = caller.start("--", "sh", "-c", script)
        time.sleep(moment * 0.02)
        run.kill()
        run.communicate(timeout=30)
    processes.wait_for(lambda: True if not sleeping() else None, what="the deaths of all of it")


def test_the_cgroup_of_a_command_that_was_killed_is_swept_by_the_next(caller: Caller) -> None:
    require("cgroup")
    if caller.profile != "ultra-secure":
        return  # who has no cgroup leaves none
    run = started(caller)
    assert leaves(run.pid), "the control: it has one"
    run.kill()
    run.communicate(timeout=30)
    processes.wait_for(lambda: True if not sleeping() else None, what="the deaths of all of it")
    assert caller.exec("--", "true").returncode == 0
    assert leaves(run.pid) == set()


def test_a_signal_at_any_moment_costs_no_receipt_once_it_runs(caller: Caller) -> None:
    """Before there is anything to sign, 143 and no receipt; from then on always one."""
    outcomes = set()
    for moment in range(0, 20):
        for old in caller.home.receipts():
            old.unlink()
        run = caller.start("--", "sh", "-c", "sleep 0.05")
        time.sleep(moment * 0.025)
        run.send_signal(signal.SIGTERM)
        _, stderr = run.communicate(timeout=30)
        signed = bool(caller.home.receipts())
        if signed:
            said = caller.predicate()["outcome"]
            assert said["exitCode"] in (0, 143), said
            assert run.returncode in (said["exitCode"], -signal.SIGTERM), stderr
        else:
            assert run.returncode in (143, -signal.SIGTERM), stderr
        outcomes.add((run.returncode, signed))
    assert any(signed for _, signed in outcomes)
