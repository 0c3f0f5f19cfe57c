"""How the ending of a program is judged."""

from __future__ import annotations

import errno
import signal
from typing import Any

import pytest

from beddel_cli.limits import Limits
from beddel_cli.outcome import REASONS
from beddel_cli.plan import Plan
from beddel_cli.process.program import ProgramAnswer
from beddel_cli.program_outcome import judge_program
from beddel_cli.record import changed
from beddel_cli.render_program import program_rows
from tests.support.values import PROGRAM_ANSWER, finished, plan

LIMITS = Limits(
    memory_bytes=64 << 20,
    wall_ns=30_000_000_000,
    output_bytes=256 << 10,
    cpu_ns=10_000_000_000,
    milli_cpus=250,
    processes=16,
    disk_bytes=16 << 20,
    inodes=1000,
    open_files=64,
)


def _plan() -> Plan:
    return changed(plan(), limits=LIMITS, runtime="process")


def _answer(**changes: Any) -> ProgramAnswer:
    return changed(PROGRAM_ANSWER, **changes)


# What came back -> status, reason, exit code, limit, message.
ENDINGS: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "exit 0": ({}, ("success", "ok", 0, None, None)),
    "its own code": (
        {"exit_code": 3},
        ("failure", "exit", 3, None, "tool ended with 3"),
    ),
    "a code that collides with ours": (
        {"exit_code": 126},
        ("failure", "exit", 126, None, "tool ended with 126"),
    ),
    "a signal": (
        {"exit_code": None, "signal": signal.SIGSEGV},
        ("failure", "signal", 139, None, "tool was ended by SIGSEGV"),
    ),
    "a real-time signal without a name": (
        {"exit_code": None, "signal": 40},
        ("failure", "signal", 168, None, "tool was ended by signal 40"),
    ),
    "not there": (
        {"exit_code": None, "start_errno": errno.ENOENT},
        ("failure", "not-found", 127, None, "no program 'tool' inside the walls"),
    ),
    "not executable": (
        {"exit_code": None, "start_errno": errno.EACCES},
        ("failure", "not-executable", 126, None, "tool cannot be started: Permission denied"),
    ),
    "wall": (
        {"exit_code": None, "signal": 9, "limit": "timeout"},
        ("limit", "wall", 124, "timeout", "timeout limit of 30s"),
    ),
    "CPU": (
        {"exit_code": None, "signal": 9, "limit": "cpu_time"},
        ("limit", "cpu", 124, "cpu_time", "cpu time limit of 10s"),
    ),
    "memory": (
        {"exit_code": None, "signal": 9, "limit": "memory"},
        ("limit", "memory", 137, "memory", "memory limit of 64MiB"),
    ),
    "output": (
        {"exit_code": None, "signal": 9, "limit": "max_output"},
        ("limit", "output", 124, "max_output", "max output limit of 256KiB"),
    ),
    "a full disk and a failure": (
        {"exit_code": 1, "reached": ("disk",)},
        ("limit", "disk", 124, "disk", "disk limit of 16MiB was reached; tool ended with 1"),
    ),
    "no inodes left and a failure": (
        {"exit_code": 1, "reached": ("inodes",)},
        ("limit", "inodes", 124, "inodes", "inodes limit of 1000 was reached; tool ended with 1"),
    ),
    "a full disk that the program could do without": (
        {"reached": ("disk",)},
        ("success", "ok", 0, None, None),
    ),
    "too many processes and a failure": (
        {"exit_code": 2, "reached": ("processes",)},
        ("failure", "exit", 2, None, "tool ended with 2; processes limit of 16 was reached"),
    ),
    "what it left is too much": (
        {"exit_code": 0, "reached": ("disk",), "exceeded": "disk"},
        (
            *("limit", "disk", 124, "disk"),
            "disk limit of 16MiB was exceeded, as showed once tool had ended",
        ),
    ),
    "Ctrl-C": (
        {"exit_code": None, "signal": 15, "stopped": "interrupted"},
        ("interrupted", "interrupted", 130, None, "interrupted by Ctrl-C"),
    ),
    "SIGTERM": (
        {"exit_code": 0, "stopped": "terminated"},
        ("interrupted", "terminated", 143, None, "ended by a signal"),
    ),
    "our fault": (
        {"exit_code": 0, "fault": "the init said nothing"},
        ("fault", "sandbox-fault", 125, None, "the init said nothing"),
    ),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_each_ending_has_its_reason_and_code(name: str) -> None:
    changes, wanted = ENDINGS[name]
    outcome = judge_program(_plan(), "tool", 5, _answer(**changes))
    found = (outcome.status, outcome.reason, outcome.exit_code, outcome.limit)
    assert found == wanted[:4]
    assert outcome.message == wanted[4]


def test_figures_of_the_whole_run_are_kept() -> None:
    outcome = judge_program(_plan(), "tool", 5, _answer())
    assert (outcome.usage.wall_ns, outcome.usage.setup_ns) == (PROGRAM_ANSWER.wall_ns, 5)
    assert outcome.program is PROGRAM_ANSWER or outcome.program == PROGRAM_ANSWER


def test_every_reason_of_a_limit_names_its_limit() -> None:
    for reason in ("wall", "cpu", "memory", "output", "disk", "inodes"):
        assert REASONS[reason][2] is not None


@pytest.mark.parametrize(("by_kernel", "who"), [(True, "kernel"), (False, "supervisor")])
def test_who_found_that_memory_had_run_out(by_kernel: bool, who: str) -> None:
    answer = _answer(limit="memory", by_kernel=by_kernel, exit_code=None, signal=9)
    assert judge_program(_plan(), "x", 5, answer).ended_by == who


@pytest.mark.parametrize(
    ("peak", "looked", "words"),
    [
        (5, 2, "5.00 MiB of 64.00 MiB peak (cgroup, page cache included)"),
        (5, None, "5.00 MiB of 64.00 MiB peak (cgroup, page cache included)"),
        # What sockets hold is in no cgroup.
        (5, 70, "70.00 MiB of 64.00 MiB (sockets included, a lower bound: 3 samples)"),
        (None, 70, "70.00 MiB of 64.00 MiB (a lower bound: 3 samples)"),
    ],
)
def test_the_memory_that_is_shown(peak: int | None, looked: int | None, words: str) -> None:
    usage = changed(
        PROGRAM_ANSWER.usage,
        memory_peak_bytes=None if peak is None else peak << 20,
        anonymous_peak_bytes=None if looked is None else looked << 20,
    )
    ended = judge_program(_plan(), "x", 5, _answer(usage=usage))
    rows = program_rows(finished(ended, plan=_plan()))
    assert dict(rows)["memory"] == words
