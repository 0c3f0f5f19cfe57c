"""What an ending means. Pure: the plan and what came back from the worker in, an Outcome out.

The table of statuses, reasons and exit codes lives here and nowhere else. Nothing a worker says is
believed beyond what the supervisor's own clock, pipes and limits allow.
"""

from __future__ import annotations

from beddel_cli.errors import JobError, Place, RefusedError
from beddel_cli.isolate.frames import NO_TRAP_CODE, NOT_STARTED, TRAPPED
from beddel_cli.json_strict import MAX_DEPTH, UnportableError, deeper_than, parse_json
from beddel_cli.limits import BY_KEY, format_limit
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from beddel_cli.isolate.frames import Ready, Report
    from beddel_cli.isolate.supervisor import Answer
    from beddel_cli.job import Job
    from beddel_cli.plan import Plan
    from beddel_cli.process.program import ProgramAnswer

SUCCESS, FAILURE, LIMIT = "success", "failure", "limit"
REFUSED, FAULT, INTERRUPTED = "refused", "fault", "interrupted"
STATUSES = (SUCCESS, FAILURE, LIMIT, REFUSED, FAULT, INTERRUPTED)

# reason -> (status, exit code, the limit's key where one ended the run). `exit` and `signal` are
# endings of programs, which carry the program's own code and 128 + N instead.
REASONS: dict[str, tuple[str, int, str | None]] = {
    "ok": (SUCCESS, 0, None),
    "thrown": (FAILURE, 1, None),
    "syntax": (FAILURE, 1, None),
    "stack": (FAILURE, 1, None),
    "trap": (FAILURE, 1, None),
    "not-json": (FAILURE, 1, None),
    "unsettled": (FAILURE, 1, None),
    "unhandled": (FAILURE, 1, None),
    "exit": (FAILURE, 1, None),
    "signal": (FAILURE, 128, None),
    "not-executable": (FAILURE, 126, None),
    "not-found": (FAILURE, 127, None),
    "wall": (LIMIT, 124, "timeout"),
    "fuel": (LIMIT, 124, "fuel"),
    "output": (LIMIT, 124, "max_output"),
    "cpu": (LIMIT, 124, "cpu_time"),
    "processes": (LIMIT, 124, "processes"),
    "disk": (LIMIT, 124, "disk"),
    "inodes": (LIMIT, 124, "inodes"),
    "memory": (LIMIT, 137, "memory"),
    "limits": (REFUSED, 126, None),
    "protection": (REFUSED, 126, None),
    "files": (REFUSED, 126, None),
    "worker-fault": (FAULT, 125, None),
    "sandbox-fault": (FAULT, 125, None),
    "interrupted": (INTERRUPTED, 130, None),
    "terminated": (INTERRUPTED, 143, None),
}

# The guest's status words (guests/javascript/README.md) by number.
_GUEST_REASONS = (
    *("ok", "thrown", "memory", "stack", "unsettled", "not-json", "syntax"),
    *("input-not-json", "unhandled"),
)
_LEVELS = ("log", "info", "warn", "error", "debug")
_SOURCE_NAME = "job.js:"
_PAGE_BYTES = 65536
# Some kernels count CPU time of a process by the tick.
_CLOCK_TICK_NS = 10_000_000
_SIGSYS = 31
_TRAP_STACK_OVERFLOW, _TRAP_INTERRUPT, _TRAP_OUT_OF_FUEL = 0, 10, 11
_MESSAGES = {
    "unsettled": "the job waits for a promise that nothing will ever settle",
    "memory": "the isolate's memory is used up",
    "stack": "the isolate's stack is used up",
    "trap": "the isolate was aborted by the engine",
}


@record
class ConsoleLine:
    """One call of `console.*`: its level and text; the text may hold anything at all."""

    level: str
    text: str


@record
class JobFailure:
    """What the job itself did wrong, in its own words.

    `place` is in the file its author wrote; `stack` is the guest's own, positions in the code.
    """

    name: str
    message: str
    stack: str
    place: Place | None


@record
class Usage:
    """What a run used. None: not measured.

    Attributes:
        wall_ns: supervisor's clock, from sending the job to its ending.
        guest_wall_ns, guest_cpu_ns, instantiate_ns: the worker's word.
        setup_ns: the worker's word, from its fork to being confined.
        worker_cpu_ns: kernel, wait4.
        fuel: the worker's word.
        memory_bytes: the worker's word; linear memory never shrinks, so the last size is the peak.
        memory_digest: the worker's word; SHA-256 over SHA-256 of each 4 KiB page.
        worker_anonymous_bytes: kernel, largest of `worker_samples` readings of Pss_Anon.
    """

    wall_ns: int | None = None
    guest_wall_ns: int | None = None
    guest_cpu_ns: int | None = None
    instantiate_ns: int | None = None
    setup_ns: int | None = None
    worker_cpu_ns: int | None = None
    fuel: int | None = None
    memory_bytes: int | None = None
    memory_digest: str | None = None
    worker_anonymous_bytes: int | None = None
    worker_samples: int = 0


@record
class Outcome:
    """How a run ended.

    Attributes:
        status, reason, exit_code: from the table above.
        message: one sentence for people, None on success.
        limit: the key of the limit that ended the run.
        signal: the signal that ended the worker, when one did.
        ended_by: who noticed a limit: `engine` or `supervisor`.
        failure: the job's own error.
        output: the result's JSON bytes, only on success of an isolate.
        console: what the job wrote, as far as it was kept.
        console_dropped_bytes: how much was not.
        program: what came back of a program, None for an isolate.
    """

    status: str
    reason: str
    exit_code: int
    message: str | None = None
    limit: str | None = None
    signal: int | None = None
    ended_by: str | None = None
    failure: JobFailure | None = None
    output: bytes | None = None
    console: tuple[ConsoleLine, ...] = ()
    console_dropped_bytes: int = 0
    usage: Usage = Usage()
    program: ProgramAnswer | None = None


class _LieError(Exception):
    """The worker claims something that cannot be."""


def refused(error: RefusedError) -> Outcome:
    """Give the outcome of a refusal: nothing ran, nothing was measured."""
    status, code, _ = REASONS[error.reason]
    return Outcome(status, error.reason, code, message=error.message)


def interrupted(reason: str) -> Outcome:
    """Give the outcome of a run ended by Ctrl-C (`interrupted`) or a signal (`terminated`)."""
    status, code, _ = REASONS[reason]
    words = {"interrupted": "interrupted by Ctrl-C", "terminated": "ended by a signal"}
    return Outcome(status, reason, code, message=words[reason])


def judge(job: Job, plan: Plan, ready: Ready, answer: Answer) -> Outcome:
    """Decide how a run ended from what came back of it."""
    usage = _kernel_usage(answer, ready)
    if answer.report is None:
        return _without_report(plan, answer, usage)
    try:
        _check_figures(plan, ready, answer, answer.report)
        return _with_report(job, plan, answer, answer.report, usage)
    except _LieError as lie:
        return _make("worker-fault", usage, message=f"the worker is not to be believed: {lie}")


def _make(reason: str, usage: Usage, **more: object) -> Outcome:
    status, code, limit = REASONS[reason]
    return Outcome(status, reason, code, limit=limit, usage=usage, **more)  # type: ignore[arg-type]


def _kernel_usage(answer: Answer, ready: Ready) -> Usage:
    return Usage(
        wall_ns=answer.wall_ns,
        setup_ns=ready.setup_ns,
        worker_cpu_ns=answer.usage.cpu_ns,
        worker_anonymous_bytes=answer.usage.anonymous_peak_bytes,
        worker_samples=answer.usage.samples,
    )


def _full_usage(kernel: Usage, report: Report) -> Usage:
    return Usage(
        wall_ns=kernel.wall_ns,
        guest_wall_ns=report.wall_ns,
        guest_cpu_ns=report.cpu_ns,
        instantiate_ns=report.instantiate_ns,
        setup_ns=kernel.setup_ns,
        worker_cpu_ns=kernel.worker_cpu_ns,
        fuel=report.fuel_used,
        memory_bytes=report.memory_bytes,
        memory_digest=report.memory_digest.hex(),
        worker_anonymous_bytes=kernel.worker_anonymous_bytes,
        worker_samples=kernel.worker_samples,
    )


def _without_report(plan: Plan, answer: Answer, usage: Usage) -> Outcome:
    if answer.timed_out:
        return _make("wall", usage, message=_limit_message(plan, "timeout"), ended_by="supervisor")
    message = answer.fault or "the worker ended without a word"
    if answer.signal == _SIGSYS:
        message = "the worker was killed by seccomp: it tried a system call it has no use for"
    elif answer.signal is not None:
        message += f"; it was ended by {_signal_name(answer.signal)}"
    return _make("worker-fault", usage, message=message, signal=answer.signal)


def _with_report(job: Job, plan: Plan, answer: Answer, report: Report, kernel: Usage) -> Outcome:
    usage = _full_usage(kernel, report)
    console = _console(report.console)
    dropped = report.console_dropped_bytes
    reason = _reason(plan, answer, report)
    failure = _failure(job, report) if REASONS[reason][0] == FAILURE else None
    if reason == "ok":
        problem = _check_output(report.output)
        if problem is None:
            return _make(
                "ok", usage, output=report.output, console=console, console_dropped_bytes=dropped
            )
        reason, failure = "not-json", JobFailure("", problem, "", None)
    return _make(
        reason,
        usage,
        message=_message(plan, reason, report, failure),
        ended_by="engine" if REASONS[reason][0] == LIMIT else None,
        failure=failure,
        console=console,
        console_dropped_bytes=dropped,
    )


def _check_figures(plan: Plan, ready: Ready, answer: Answer, report: Report) -> None:
    """Hold the worker's figures against what the supervisor and the kernel measured."""
    if report.wall_ns > answer.wall_ns or report.instantiate_ns > report.wall_ns:
        raise _LieError("it says the run took longer than it did")
    if report.cpu_ns > answer.usage.cpu_ns + _CLOCK_TICK_NS:
        raise _LieError("it says the guest used more CPU time than the worker had")
    least = ready.guest_pages * _PAGE_BYTES
    if report.ending != NOT_STARTED and (
        report.memory_bytes < least or report.memory_bytes % _PAGE_BYTES
    ):
        raise _LieError(f"it says the isolate had a memory of {report.memory_bytes} B")
    if report.trap_code == _TRAP_OUT_OF_FUEL and report.fuel_used != plan.limits.fuel:
        raise _LieError("it says the fuel was used up, and that some was left")


def _reason(plan: Plan, answer: Answer, report: Report) -> str:
    if report.ending == NOT_STARTED:
        raise _LieError("it says the isolate did not fit, which was checked before")
    if report.ending == TRAPPED:
        return _trap_reason(plan, answer, report)
    reason = _GUEST_REASONS[report.status]
    if reason == "input-not-json":
        raise _LieError("it says the input was not JSON, which it was")
    if reason == "ok" and report.output_total_bytes > (plan.limits.output_bytes or 0):
        return "output"
    return reason


def _trap_reason(plan: Plan, answer: Answer, report: Report) -> str:
    code = report.trap_code
    if code == _TRAP_INTERRUPT:
        if answer.wall_ns < (plan.limits.wall_ns or 0):
            raise _LieError("it says the time was up before it was")
        return "wall"
    if code == _TRAP_OUT_OF_FUEL:
        return "fuel"
    if code == _TRAP_STACK_OVERFLOW:
        return "stack"
    return "memory" if report.status == _GUEST_REASONS.index("memory") else "trap"


def _check_output(output: bytes) -> str | None:
    """Give what a job did to make its result one that not every reader can take, if it did."""
    try:
        value = parse_json(output, "output")
    except UnportableError as error:
        return error.message
    except JobError as error:
        # JSON.rawJSON passes a lone surrogate on as it is; JSON.stringify escapes it.
        if _is_json_with_lone_surrogates(output):
            return "it holds half of a surrogate pair"
        raise _LieError(f"its output is {error.message}") from None
    return f"nested deeper than {MAX_DEPTH}" if deeper_than(value, MAX_DEPTH) else None


def _is_json_with_lone_surrogates(output: bytes) -> bool:
    try:
        text = output.decode("utf-8", "surrogatepass")
        escaped = text.encode("utf-8", "backslashreplace")
        parse_json(escaped, "output")
    except (UnicodeDecodeError, JobError):
        return False
    return escaped != output


def _message(plan: Plan, reason: str, report: Report, failure: JobFailure | None) -> str:
    limit = REASONS[reason][2]
    if reason == "output":
        return f"{_limit_message(plan, 'max_output')}: the result has {report.output_total_bytes} B"
    if limit is not None:
        return _limit_message(plan, limit)
    if reason == "not-json":
        why = failure.message if failure else ""
        return "the job's result cannot be written as JSON" + (f": {why}" if why else "")
    if reason in _MESSAGES:
        return _MESSAGES[reason]
    if failure is None:
        raise AssertionError("bug in beddel-cli: a failure without an error")
    said = ": ".join(part for part in (failure.name, failure.message) if part) or "it threw"
    # A promise that was rejected, or a microtask that threw.
    return f"nobody handled the error: {said}" if reason == "unhandled" else said


def _limit_message(plan: Plan, key: str) -> str:
    field = BY_KEY[key]
    return (
        f"{key.replace('_', ' ')} limit of {format_limit(field, getattr(plan.limits, field.field))}"
    )


def _failure(job: Job, report: Report) -> JobFailure:
    stack = _text(report.error_stack)
    line, column = error_position(stack, _text(report.error_name))
    trapped = report.trap_code != NO_TRAP_CODE
    return JobFailure(
        name=_text(report.error_name),
        message=_text(report.error_message),
        stack=_located_stack(job, stack),
        place=None if trapped or line is None else _place(job, job.code.split(b"\n"), line, column),
    )


def _located_stack(job: Job, stack: str) -> str:
    """Give the stack with places in its author's file instead of positions in the code."""
    frames = []
    lines = job.code.split(b"\n")  # once: a job can write a stack of thousands of frames
    for frame in stack.split("\n"):
        before, name, rest = frame.partition(_SOURCE_NAME)
        line, column = error_position(frame)
        place = None if line is None else _place(job, lines, line, column)
        if name and place is not None:
            frames.append(f"{before}{place}" + (")" if rest.endswith(")") else ""))
        else:
            frames.append(frame)
    return "\n".join(frames)


def _place(job: Job, lines: list[bytes], line: int, column: int | None) -> Place | None:
    """Give the place in its author's file of a position in the code, whose columns are bytes.

    None for a line the code does not have: a job can write its own stack.
    """
    if not 1 <= line <= len(lines):
        return None
    if column is not None:
        column = len(lines[line - 1][: column - 1].decode("utf-8", "ignore")) + 1
    return job.code_place.locate(line, column)


def error_position(stack: str, error_name: str = "") -> tuple[int | None, int | None]:
    """Find line and column of the topmost frame in the job's own code; None where there is none.

    Frames of the error's own constructor are passed over: people look for the `throw`. The stack
    is the guest's own text, so this is a help for people and never a fact.
    """
    frames = [line for line in stack.split("\n") if _SOURCE_NAME in line]
    constructor = f"at {error_name} ("
    while len(frames) > 1 and frames[0].strip().startswith(constructor):
        del frames[0]
    if not frames:
        return None, None
    rest = frames[0].partition(_SOURCE_NAME)[2]
    numbers = []
    for part in rest.split(":", 2)[:2]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits or len(digits) > 9:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return (*numbers, None, None)[0], (*numbers, None, None)[1]


def _console(data: bytes) -> tuple[ConsoleLine, ...]:
    lines = []
    start = 0
    while start < len(data):
        if start + 4 > len(data):
            raise _LieError("its console breaks off")
        header = int.from_bytes(data[start : start + 4], "little")
        end = start + 4 + (header >> 3)
        level = header & 7
        if end > len(data) or level >= len(_LEVELS):
            raise _LieError("its console has no proper entries")
        lines.append(ConsoleLine(_LEVELS[level], _text(data[start + 4 : end])))
        start = end
    return tuple(lines)


def _text(data: bytes) -> str:
    # The guest writes lone surrogates as three bytes; anything else that is not UTF-8 is marked.
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace")


def _signal_name(number: int) -> str:
    from signal import Signals  # it costs 3 ms, and few runs end by a signal

    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"
