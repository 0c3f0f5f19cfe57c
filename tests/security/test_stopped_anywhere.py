"""A run that is stopped anywhere: killed, interrupted, out of memory, alone with nobody to hear it.

A process changes nothing outside of itself but by system calls. So each run here is stopped exactly
before one of them, and the slow tests go through those of a whole run, one run for each: while
Python starts, before the fork and after it, while the job, profile and key are read, the walls
looked at, the plan made, the program or guest started and running, its output passed on, a limit
reached, its results collected, the receipt signed and written, the summary printed.

Whatever the moment: no process outlives the command, nothing it made stays beyond the next run, and
the receipt tells what a tracer saw, or there is none and the exit code is not 0.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import callers
from tests.support.callers import Caller
from tests.support.capabilities import give_up, require
from tests.support.lifecycle import (
    CASES,
    DISK,
    KERNEL_MEMORY,
    MEMORY,
    NO_MORE_DISK,
    NO_MORE_KERNEL_MEMORY,
    NO_MORE_MEMORY,
    Sweep,
    attempt,
    half_files,
    judge,
    length,
    mounts,
    prepare,
    receipts,
)
from tests.support.stopped_at import (
    Action,
    ControlC,
    Failure,
    HangUp,
    Point,
    Signal,
    supported,
    trace,
)

KILL, TERM, DIES = Signal(signal.SIGKILL), Signal(signal.SIGTERM), Signal(signal.SIGKILL, False)
GUESTS = tuple(name for name, case in CASES.items() if not case.program)
ALL = tuple(CASES)
MAIN = ("guest", "program")
LIMITS = ("guest at its limit", "program at its limit")
# Numbers of x86-64.
_FSYNC, _RENAMEAT2 = 74, 316

# What is done, to which cases, in which process (0 is the command), at every how many-th call.
SWEEPS: dict[str, tuple[Action, tuple[str, ...], tuple[int, ...], int]] = {
    "SIGKILL": (KILL, MAIN, (0,), 3),
    "SIGKILL in other cases": (KILL, tuple(name for name in ALL if name not in MAIN), (0,), 20),
    "SIGTERM": (TERM, (*MAIN, *LIMITS, "first guest"), (0,), 25),
    "Ctrl-C": (ControlC(), (*MAIN, *LIMITS, "first guest"), (0,), 25),
    "no reader of stdout": (HangUp((1,)), (*MAIN, *LIMITS), (0,), 120),
    "no reader at all": (HangUp((1, 2)), (*MAIN, *LIMITS), (0,), 120),
    "memory fails once": (MEMORY, ALL, (0,), 5),
    "no memory from then on": (NO_MORE_MEMORY, ALL, (0,), 5),
    "the kernel's memory fails once": (KERNEL_MEMORY, ALL, (0,), 15),
    "no kernel memory from then on": (NO_MORE_KERNEL_MEMORY, ALL, (0,), 15),
    "the disk fails once": (DISK, ALL, (0,), 1),
    "no disk from then on": (NO_MORE_DISK, ALL, (0,), 1),
    "a child is killed": (DIES, MAIN, (1, 2, 3, 4), 12),
    "SIGKILL while a child": (KILL, MAIN, (1, 2, 3, 4), 12),
}
# The part of them that is always run: from where to where of a run, in hundredths, how many times.
SAMPLE: dict[str, tuple[Action, str, int, tuple[int, int], int]] = {
    "program killed": (KILL, "program", 0, (50, 100), 6),
    "guest killed": (KILL, "guest", 0, (50, 100), 4),
    "program terminated": (TERM, "program", 0, (60, 98), 2),
    "guest at a terminal": (ControlC(), "guest", 0, (45, 98), 2),
    "program without memory": (NO_MORE_MEMORY, "program", 0, (50, 100), 2),
    "nobody hears the program": (HangUp((1, 2)), "program", 0, (75, 90), 2),
    "the disk fails": (NO_MORE_DISK, "program", 0, (1, 100), 2),
    "the init is killed": (DIES, "program", 2, (1, 100), 2),
    "killed while the init works": (KILL, "program", 2, (1, 100), 2),
}


@pytest.fixture(scope="module", params=callers.NAMES)
def caller(request: pytest.FixtureRequest) -> Iterator[Caller]:
    """Everybody who runs these, with the files of every case."""
    reason = supported()
    if reason is not None:
        give_up(reason)
    require("process-namespace")
    with callers.caller(request.param) as found:
        prepare(found)
        yield found


def _counted(action: Action) -> frozenset[int] | None:
    return action.numbers if isinstance(action, Failure) else None


@pytest.mark.parametrize("name", SAMPLE)
def test_a_run_stopped_at_some_of_its_system_calls(caller: Caller, name: str) -> None:
    action, case, process, (first, last), times = SAMPLE[name]
    before = mounts()
    calls = length(caller, CASES[case], process, _counted(action))
    begin, step = calls * first // 100, calls * (last - first) // 100 // times
    sweep = Sweep(caller, CASES[case])
    sweep.go_through(Point(begin + step * n, action, process) for n in range(1, times + 1))
    sweep.end()
    assert sweep.problems == []
    assert sweep.points == times
    assert mounts() == before


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEEPS)
def test_a_run_stopped_at_every_system_call(caller: Caller, name: str) -> None:
    action, cases, processes, step = SWEEPS[name]
    before = mounts()
    problems = []
    for case in cases:
        for process in processes:
            if process > 2 and case in GUESTS:
                continue  # a worker and its thread are all there is
            calls = length(caller, CASES[case], process, _counted(action))
            sweep = Sweep(caller, CASES[case])
            sweep.go_through(Point(turn, action, process) for turn in range(1, calls + 1, step))
            sweep.end()
            endings = ", ".join(f"{key}: {n}" for key, n in sorted(sweep.endings.items()))
            print(
                f"{name}, {case}, process {process}: {sweep.points} of {calls} calls, "
                f"{len(sweep.problems)} problems, {sweep.left} left to the next run; {endings}"
            )
            problems += [f"{case}: {each}" for each in sweep.problems]
    assert problems == []
    assert mounts() == before


@pytest.mark.parametrize("case", ["program", "guest"])
def test_less_and_less_address_space(caller: Caller, case: str) -> None:
    """The kernel itself says no, by a limit that the command inherits.

    Not below 16 MiB, where Python itself may try for ever while it starts.
    """
    endings = set()
    for mebibytes in (16, 20, 22, 6000):
        limited = replace(CASES[case], before=("/usr/bin/prlimit", f"--as={mebibytes << 20}"))
        told = attempt(caller, limited, None)
        assert judge(caller, limited, MEMORY, told).problems == [], mebibytes
        endings.add(told.status)
    assert 0 in endings, "the control: with enough of it, it runs"
    assert len(endings) > 1, "the control: with too little, it does not"


def test_the_control_what_outlives_a_command_is_found(caller: Caller) -> None:
    script = "setsid sh -c 'sleep 100; :' & setsid sleep 101 & exit 3"
    told = trace(
        ["/bin/sh", "-c", script], None, env={}, cwd=Path("/"), user=caller.user, outlive_seconds=1
    )
    assert told.status == 3
    assert len(told.survivors) == 3, told.survivors
    assert any("sleep 101" in each for each in told.survivors)


def test_the_control_a_signed_lie_is_found(caller: Caller) -> None:
    case = CASES["program"]
    told = attempt(caller, case, None)
    assert judge(caller, case, None, told).problems == []
    number = told.programs[-1][0] if told.programs[-1][1][0] == b"sh" else None
    of_shell = next(number for number, words in told.programs if words[0] == b"sh")
    assert number in (None, of_shell)
    told.processes[of_shell] = 1
    assert any(
        "the program ended with 1" in each for each in judge(caller, case, None, told).problems
    )
    told.processes[of_shell] = 0
    (caller.work / "results" / "two").write_text("other")
    assert any("half of the results" in each for each in judge(caller, case, None, told).problems)
    for path in receipts(caller):
        path.unlink()
    assert "exit 0 without a receipt" in judge(caller, case, None, told).problems


def test_the_control_a_killed_collector_leaves_its_folder_to_the_next(caller: Caller) -> None:
    """Killed just before it gives the results their name; the next run removes what was left."""
    case = CASES["program"]
    kill = replace(KILL, numbers=frozenset((_RENAMEAT2,)))
    assert length(caller, case, 0, kill.numbers) == 1
    sweep = Sweep(caller, case)
    sweep.go_through([Point(1, kill)])
    assert (sweep.problems, sweep.endings) == ([], {"-9 none": 1})
    (left,) = half_files(caller)
    assert sorted(path.name for path in left.iterdir()) == ["d", "two"]
    sweep.end()
    assert sweep.problems == []
    assert half_files(caller) == []


@pytest.mark.parametrize("name", ["guest", "guest, no unnamed files"])
def test_a_receipt_that_was_not_finished_is_nothing_or_removed(caller: Caller, name: str) -> None:
    case = CASES[name]
    kill = replace(KILL, numbers=frozenset((_FSYNC,)))
    assert length(caller, case, 0, kill.numbers) == 2, "the file and its folder"
    sweep = Sweep(caller, case)
    sweep.go_through([Point(1, kill)])
    assert (sweep.problems, sweep.endings) == ([], {"-9 none": 1})
    assert len(half_files(caller)) == (0 if name == "guest" else 1)
    sweep.end()
    assert sweep.problems == []
