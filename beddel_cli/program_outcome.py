"""What the ending of a program means. Pure: the plan and what came back in, an Outcome out.

Statuses, reasons and exit codes are those of the table in `outcome`.
"""

from __future__ import annotations

import errno
import os

from beddel_cli.limits import BY_KEY, format_limit
from beddel_cli.outcome import REASONS, Outcome, Usage
from beddel_cli.record import changed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from beddel_cli.plan import Plan
    from beddel_cli.process.program import ProgramAnswer

# What execve(2) says of a program that is not there: the file itself or a folder on the way to it.
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR)
_REASON_OF_LIMIT = {
    "timeout": "wall",
    "cpu_time": "cpu",
    "cpus": "cpu",
    "processes": "processes",
    "memory": "memory",
    "max_output": "output",
    "disk": "disk",
    "inodes": "inodes",
}


def judge_program(plan: Plan, name: str, setup_ns: int, answer: ProgramAnswer) -> Outcome:
    """Decide how a program ended.

    Args:
        name: the program, as it was asked for.
        setup_ns: how long the walls took to build.
    """
    outcome = _ending(plan, name, answer)
    return changed(
        outcome,
        usage=Usage(wall_ns=answer.wall_ns, setup_ns=setup_ns),
        program=answer,
    )


def _ending(plan: Plan, name: str, answer: ProgramAnswer) -> Outcome:
    if answer.fault is not None:
        return _make("sandbox-fault", answer.fault)
    if answer.stopped is not None:
        words = {"interrupted": "interrupted by Ctrl-C", "terminated": "ended by a signal"}
        return _make(answer.stopped, words[answer.stopped])
    if answer.start_errno is not None:
        return _not_started(name, answer.start_errno)
    if answer.limit is not None:
        by = "kernel" if answer.by_kernel else "supervisor"
        ended = _make(_REASON_OF_LIMIT[answer.limit], _limit(plan, answer.limit), ended_by=by)
        return changed(ended, limit=answer.limit)
    if answer.exceeded is not None:
        text = f"{_limit(plan, answer.exceeded)} was exceeded, as showed once {name} had ended"
        return _make(_REASON_OF_LIMIT[answer.exceeded], text)
    if answer.signal is not None:
        return changed(
            _make("signal", f"{name} was ended by {_signal_name(answer.signal)}"),
            exit_code=128 + answer.signal,
            signal=answer.signal,
        )
    if answer.exit_code == 0:
        return _make("ok", None)
    return _failed(plan, name, answer)


def _failed(plan: Plan, name: str, answer: ProgramAnswer) -> Outcome:
    """Judge an exit code of the program's own that is not 0."""
    said = f"{name} ended with {answer.exit_code}"
    for key in ("disk", "inodes"):
        if key in answer.reached:
            # It lives on and fails by itself; the limit is what its user has to know.
            return _make(
                _REASON_OF_LIMIT[key], f"{_limit(plan, key)} was reached; {said}", ended_by=None
            )
    if "processes" in answer.reached:
        said += f"; {_limit(plan, 'processes')} was reached"
    return changed(_make("exit", said), exit_code=answer.exit_code)


def _not_started(name: str, number: int) -> Outcome:
    if number in _NOT_THERE:
        return _make("not-found", f"no program {name!r} inside the walls")
    return _make("not-executable", f"{name} cannot be started: {os.strerror(number)}")


def _make(reason: str, message: str | None, *, ended_by: str | None = None) -> Outcome:
    status, code, limit = REASONS[reason]
    return Outcome(
        status,
        reason,
        code,
        message=message,
        limit=limit,
        ended_by=ended_by,
    )


def _limit(plan: Plan, key: str) -> str:
    field = BY_KEY[key]
    value = format_limit(field, getattr(plan.limits, field.field))
    return f"{key.replace('_', ' ')} limit of {value}"


def _signal_name(number: int) -> str:
    from signal import Signals  # it costs 3 ms, and few runs end by a signal

    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"
