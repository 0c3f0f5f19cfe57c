"""What an ending means: the table of reasons, and how each answer of a worker is judged."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from beddel_cli.errors import RefusedError
from beddel_cli.isolate.frames import NOT_STARTED, TRAPPED, Report
from beddel_cli.isolate.supervisor import Answer
from beddel_cli.limits import BY_KEY
from beddel_cli.outcome import (
    FAILURE,
    LIMIT,
    REASONS,
    STATUSES,
    ConsoleLine,
    Outcome,
    error_position,
    interrupted,
    judge,
    refused,
)
from beddel_cli.record import changed
from tests.support.values import JOB, MIB, READY, REPORT, answer, plan, refusal

# The engine's numbers for why it stopped (wasmtime's wasm_trap_code).
STACK_OVERFLOW, UNREACHABLE, INTERRUPT, OUT_OF_FUEL = 0, 9, 10, 11
LEVELS = ("log", "info", "warn", "error", "debug")


def report(**changes: Any) -> Report:
    if "output" in changes:
        changes.setdefault("output_total_bytes", len(changes["output"]))
    elif "status" in changes or "ending" in changes:
        changes = {"output": b"", "output_total_bytes": 0} | changes
    return changed(REPORT, **changes)


def judged(given: Answer) -> Outcome:
    return judge(JOB, plan(), READY, given)


def entry(level: int, text: bytes) -> bytes:
    return (len(text) << 3 | level).to_bytes(4, "little") + text


TRAPPED_AT_TIME = report(ending=TRAPPED, trap_code=INTERRUPT)
# What came back of the worker -> reason, and the whole message.
ENDINGS: list[tuple[str, Answer, str, str | None]] = [
    ("a result", answer(), "ok", None),
    (
        "a thrown error",
        answer(report(status=1, error_name=b"TypeError", error_message=b"no")),
        "thrown",
        "TypeError: no",
    ),
    ("a thrown text", answer(report(status=1, error_message=b"no")), "thrown", "no"),
    ("a nameless error", answer(report(status=1)), "thrown", "it threw"),
    (
        "no memory, said by the guest",
        answer(report(status=2)),
        "memory",
        "memory limit of 2MiB",
    ),
    ("no stack", answer(report(status=3)), "stack", "the isolate's stack is used up"),
    (
        "a promise without end",
        answer(report(status=4)),
        "unsettled",
        "the job waits for a promise that nothing will ever settle",
    ),
    (
        "a rejection nobody handled",
        answer(report(status=8, error_name=b"E", error_message=b"lost")),
        "unhandled",
        "nobody handled the error: E: lost",
    ),
    (
        "a result that is no JSON",
        answer(report(status=5, error_message=b"circular")),
        "not-json",
        "the job's result cannot be written as JSON: circular",
    ),
    (
        "code that does not parse",
        answer(report(status=6, error_name=b"SyntaxError", error_message=b"x")),
        "syntax",
        "SyntaxError: x",
    ),
    (
        "the engine's clock",
        answer(TRAPPED_AT_TIME, wall_ns=5_000_000_001),
        "wall",
        "timeout limit of 5s",
    ),
    (
        "the fuel",
        answer(report(ending=TRAPPED, trap_code=OUT_OF_FUEL, fuel_used=1_000_000)),
        "fuel",
        "fuel limit of 1000000",
    ),
    (
        "the engine's stack",
        answer(report(ending=TRAPPED, trap_code=STACK_OVERFLOW)),
        "stack",
        "the isolate's stack is used up",
    ),
    (
        "a trap",
        answer(report(ending=TRAPPED, trap_code=UNREACHABLE)),
        "trap",
        "the isolate was aborted by the engine",
    ),
    (
        "a trap for want of memory",
        answer(report(ending=TRAPPED, trap_code=UNREACHABLE, status=2)),
        "memory",
        "memory limit of 2MiB",
    ),
    (
        "too much output",
        answer(report(output=b"", output_total_bytes=4097)),
        "output",
        "max output limit of 4KiB: the result has 4097 B",
    ),
    (
        "a result deeper than readers go",
        answer(report(output=b"[" * 300 + b"]" * 300)),
        "not-json",
        "the job's result cannot be written as JSON: nested deeper than 256",
    ),
    (
        "a result too deep to read",
        answer(report(output=b"[" * 2000 + b"]" * 2000)),
        "not-json",
        "the job's result cannot be written as JSON: nested deeper than 256",
    ),
    (
        "a number no reader holds",
        answer(report(output=b"1e400")),
        "not-json",
        "the job's result cannot be written as JSON: a number outside the range of JSON: 1e400",
    ),
    ("the supervisor's clock", answer(None, timed_out=True), "wall", "timeout limit of 5s"),
    (
        "a system call that is not allowed",
        answer(None, fault="the worker died without a report", signal=signal.SIGSYS),
        "worker-fault",
        "the worker was killed by seccomp: it tried a system call it has no use for",
    ),
    (
        "a crash",
        answer(None, fault="the worker died without a report", signal=signal.SIGSEGV),
        "worker-fault",
        "the worker died without a report; it was ended by SIGSEGV",
    ),
    (
        "a signal without a name",
        answer(None, fault="it died", signal=63),
        "worker-fault",
        "it died; it was ended by signal 63",
    ),
    ("a broken frame", answer(None, fault="bad frame"), "worker-fault", "bad frame"),
    ("silence", answer(None), "worker-fault", "the worker ended without a word"),
]


@pytest.mark.parametrize(
    ("given", "reason", "message"),
    [row[1:] for row in ENDINGS],
    ids=[row[0] for row in ENDINGS],
)
def test_each_ending_has_its_reason_status_and_message(
    given: Answer, reason: str, message: str | None
) -> None:
    outcome = judged(given)
    status, code, limit = REASONS[reason]
    assert (outcome.reason, outcome.message) == (reason, message)
    assert (outcome.status, outcome.exit_code, outcome.limit) == (status, code, limit)
    assert (outcome.output is not None) == (reason == "ok")
    assert (outcome.failure is not None) == (status == FAILURE)


LIES: list[tuple[str, Answer, str]] = [
    ("it did not fit", answer(report(ending=NOT_STARTED)), "did not fit"),
    ("input is not JSON", answer(report(status=7)), "the input was not JSON"),
    ("time is up too soon", answer(TRAPPED_AT_TIME, wall_ns=4_999_999_999), "time was up before"),
    ("output is no JSON", answer(report(output=b"{x")), "its output is not valid JSON"),
    ("output is empty", answer(report(output=b"")), "its output is not valid JSON"),
    ("output is two values", answer(report(output=b"1 2")), "its output is not valid JSON"),
    ("output is no text", answer(report(output=b"\xff")), "its output is not valid UTF-8"),
    ("ran longer than it could", answer(report(wall_ns=3_000_001)), "took longer than it did"),
    (
        "instantiation outlasts the run",
        answer(report(instantiate_ns=2_000_001)),
        "took longer than it did",
    ),
    ("more CPU than the kernel saw", answer(report(cpu_ns=10**9)), "more CPU time than"),
    (
        "less memory than an empty isolate",
        answer(report(memory_bytes=65536)),
        "a memory of 65536 B",
    ),
    ("memory in part of a page", answer(report(memory_bytes=MIB + 1)), "a memory of 1048577 B"),
    (
        "out of fuel with some left",
        answer(report(ending=TRAPPED, trap_code=OUT_OF_FUEL)),
        "that some was left",
    ),
    ("console breaks off", answer(report(console=b"\x01\x00")), "its console breaks off"),
    ("console entry too long", answer(report(console=b"\x88\0\0\0x")), "no proper entries"),
    ("console level unknown", answer(report(console=entry(5, b"x"))), "no proper entries"),
]


@pytest.mark.parametrize(
    ("given", "words"), [row[1:] for row in LIES], ids=[row[0] for row in LIES]
)
def test_a_worker_that_says_what_cannot_be_is_a_fault_and_none_of_it_is_kept(
    given: Answer, words: str
) -> None:
    outcome = judged(given)
    assert outcome.reason == "worker-fault"
    assert outcome.message is not None
    assert outcome.message.startswith("the worker is not to be believed: ")
    assert words in outcome.message
    assert (outcome.output, outcome.console, outcome.failure) == (None, (), None)
    assert (outcome.usage.fuel, outcome.usage.memory_bytes) == (None, None)
    assert outcome.usage.worker_cpu_ns == 2_000_000


def test_figures_come_from_who_measured_them() -> None:
    usage = judged(answer()).usage
    assert (usage.wall_ns, usage.worker_cpu_ns, usage.worker_samples) == (3_000_000, 2_000_000, 2)
    assert (usage.guest_wall_ns, usage.guest_cpu_ns) == (2_000_000, 1_000_000)
    assert (usage.fuel, usage.memory_bytes, usage.setup_ns) == (500, MIB, 1_000)
    assert usage.memory_digest == "00" * 32


def test_without_a_report_nothing_of_the_guest_is_measured() -> None:
    usage = judged(answer(None)).usage
    measured = (usage.guest_wall_ns, usage.fuel, usage.memory_bytes, usage.memory_digest)
    assert measured == (None, None, None, None)
    assert usage.wall_ns == 3_000_000


def test_who_noticed_a_limit_is_said() -> None:
    for _, given, reason, _ in ENDINGS:
        wanted = None
        if REASONS[reason][0] == LIMIT:
            wanted = "engine" if given.report else "supervisor"
        assert judged(given).ended_by == wanted


@pytest.mark.parametrize("level", range(5))
def test_console_lines_keep_level_and_text(level: int) -> None:
    data = entry(level, b"a\nb") + entry(0, b"") + entry(1, b"\xed\xa0\x80\xff"[:3])
    outcome = judged(answer(report(output=b"1", console=data, console_dropped_bytes=9)))
    assert outcome.console == (
        ConsoleLine(LEVELS[level], "a\nb"),
        ConsoleLine("log", ""),
        ConsoleLine("info", "\ud800"),
    )
    assert outcome.console_dropped_bytes == 9


def test_console_bytes_that_are_no_text_are_marked() -> None:
    outcome = judged(answer(report(output=b"1", console=entry(0, b"a\xffb"))))
    assert outcome.console == (ConsoleLine("log", "a\ufffdb"),)


def test_an_error_is_placed_in_the_file_its_author_wrote() -> None:
    thrown = report(status=1, error_name=b"E", error_stack=b"    at f (job.js:2:3)\n")
    two_lines = changed(JOB, code=b"first()\n  second()")
    failure = judge(two_lines, plan(), READY, answer(thrown)).failure
    assert failure is not None
    # The code starts at one.yaml:4:7.
    assert str(failure.place) == "one.yaml:5:9"
    # The guest counts bytes; people count characters.
    wide = changed(JOB, code="let a = 'é😀'; f()".encode())
    position = changed(thrown, error_stack=b"    at g (job.js:1:19)\n")
    placed = judge(wide, plan(), READY, answer(position)).failure
    assert placed is not None
    assert str(placed.place) == "one.yaml:4:21"
    for stack in (b"native", b"    at f (job.js:9999:1)\n"):
        nowhere = judged(answer(changed(thrown, error_stack=stack))).failure
        assert nowhere is not None
        assert nowhere.place is None


@pytest.mark.parametrize(
    ("stack", "position"),
    [
        ("", (None, None)),
        ("    at native\n", (None, None)),
        ("    at f (job.js:12:34)\n    at g (job.js:5:6)", (12, 34)),
        ("    at native\n    at job.js:7", (7, None)),
        ("    at job.js:7:x", (7, None)),
        ("    at job.js:x:7", (None, None)),
        ("    at job.js:", (None, None)),
        ("    at job.js:7a:8", (7, None)),
        ("    at job.js:1234567890:8", (None, None)),
        ("    at job.js:٣:٤", (None, None)),
        ("job.js:1:2:3", (1, 2)),
    ],
)
def test_the_position_is_of_the_topmost_frame_in_the_job(
    stack: str, position: tuple[int | None, int | None]
) -> None:
    assert error_position(stack) == position


# DESIGN's closed table of exit codes.
EXIT_CODES = {
    0: {"ok"},
    # A program's own code takes the place of that of `exit`, 128 + N that of `signal`.
    1: {"thrown", "syntax", "stack", "trap", "not-json", "unsettled", "unhandled", "exit"},
    124: {"wall", "fuel", "output", "cpu", "processes", "disk", "inodes"},
    125: {"worker-fault", "sandbox-fault"},
    126: {"limits", "protection", "files", "not-executable"},
    127: {"not-found"},
    128: {"signal"},
    130: {"interrupted"},
    137: {"memory"},
    143: {"terminated"},
}


def test_the_reasons_have_the_documented_exit_codes() -> None:
    by_code: dict[int, set[str]] = {}
    for reason, (_, code, _) in REASONS.items():
        by_code.setdefault(code, set()).add(reason)
    assert by_code == EXIT_CODES


def test_every_reason_has_a_known_status_and_limits_name_their_key() -> None:
    assert {status for status, _, _ in REASONS.values()} == set(STATUSES)
    for status, _, key in REASONS.values():
        assert (key is not None) == (status == LIMIT)
        assert key is None or key in BY_KEY


@pytest.mark.parametrize("reason", ["limits", "protection", "files"])
def test_a_refusal_is_an_outcome_in_which_nothing_was_measured(reason: str) -> None:
    error: RefusedError = refusal(reason=reason)
    outcome = refused(error)
    assert (outcome.status, outcome.reason, outcome.exit_code) == ("refused", reason, 126)
    assert outcome.message == error.message
    assert outcome.usage.wall_ns is None


def test_signals_are_outcomes_too() -> None:
    assert interrupted("interrupted").exit_code == 130
    assert interrupted("terminated").exit_code == 143
    assert interrupted("terminated").message == "ended by a signal"


def test_a_result_comes_back_byte_for_byte() -> None:
    output = b'{"b":1,"a":"\\ud800\\u0000"}'
    outcome = judged(answer(report(output=output)))
    assert outcome.output == output
    assert json.loads(outcome.output)["a"] == "\ud800\0"
