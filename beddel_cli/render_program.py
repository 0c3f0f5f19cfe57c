"""What people and programs read of a program's run: its figures, its streams, what it left."""

from __future__ import annotations

from beddel_cli.figures import NOT_MEASURED, counted, mebibytes, milliseconds, size_text
from beddel_cli.limits import BY_KEY, format_limit
from beddel_cli.terminal import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from beddel_cli.plan import Plan
    from beddel_cli.process.collect import Collection
    from beddel_cli.process.program import ProgramAnswer, Stream
    from beddel_cli.run import Finished


def program_rows(run: Finished) -> list[tuple[str, str]]:
    """Give the summary's lines about a program; every text in them is safe to show."""
    answer, plan = run.outcome.program, run.plan
    if answer is None or plan is None:
        return [(label, NOT_MEASURED) for label in ("time", "memory", "disk")]
    rows = [
        ("time", _time(run, answer)),
        ("memory", _memory(plan, answer)),
        ("processes", _processes(plan, answer)),
        ("disk", _disk(plan, answer)),
        ("output", f"{_stream('stdout', answer.stdout)}; {_stream('stderr', answer.stderr)}"),
    ]
    if run.collected is not None:
        rows.append(("files", _files(run, run.collected)))
    # Where memory ran out the kernel kills at once; elsewhere SIGTERM came first.
    if answer.killed and answer.limit != "memory":
        rows.append(("ended", "SIGTERM was not enough: it took SIGKILL"))
    return rows


def meant_instead(run: Finished) -> str | None:
    """Say how a command is written that was no program; None where nobody knows."""
    from beddel_cli.home import shell_word
    from beddel_cli.job import CODE_ENDINGS, COMMAND_LINE, JOB_ENDINGS, as_list, as_words

    command = run.job.command
    if run.outcome.reason not in ("not-found", "not-executable") or len(command) != 1:
        return None
    word, by_hand = command[0], run.job.file == COMMAND_LINE
    if by_hand and word.endswith(CODE_ENDINGS):
        said = f"in an isolate: beddel-cli exec --runtime javascript {shell_word(word)}"
    elif by_hand and word.endswith(JOB_ENDINGS):
        said = f"as a job: beddel-cli run {shell_word(word)}"
    elif len(word.split()) < 2:
        return None
    elif by_hand:
        said = "each word by itself: beddel-cli exec -- " + " ".join(
            map(shell_word, as_words(word))
        )
    else:
        said = f"each word by itself: command: {as_list(word)}"
    return visible(said)


def program_access(run: Finished, *, copied: bool) -> str:
    """Say what a program could reach: network, host files, variables.

    Args:
        copied: whether it had a copy of the workspace, at a place of its own.
    """
    plan = run.plan
    if plan is None:
        return "none: nothing ran"
    parts = [f"network {plan.network}"]
    if plan.workspace is None:
        parts.append("an empty workspace")
    else:
        mode = "overlay" if plan.workspace.writable else "ro"
        where = f"at {visible(plan.workspace.target)} ({mode})"
        if copied:
            where = "as a copy, in which it starts" + ("" if plan.workspace.writable else " (ro)")
        parts.append(f"{visible(plan.workspace.source)} {where}")
    for mount in plan.mounts:
        mode = "rw" if mount.writable else "ro"
        parts.append(f"{visible(mount.source)} at {visible(mount.target)} ({mode})")
    if plan.environment_names:
        parts.append("env " + " ".join(map(visible, plan.environment_names)))
    return ", ".join(parts)


def program_details(run: Finished) -> list[tuple[str, str]]:
    """Give every figure of a program with its source, for `-v`."""
    answer = run.outcome.program
    if answer is None:
        return []
    tree = answer.usage
    samples = f", {counted(tree.samples, 'sample')}"
    exact = "" if tree.cpu_exact else ", a lower bound"
    peak, shared = tree.memory_peak_bytes, tree.anonymous_peak_bytes
    largest, most = tree.largest_process_bytes, tree.processes_peak
    return [
        ("figure", f"{name} {text}" + ("" if text == NOT_MEASURED else f" ({source})"))
        for name, text, source in (
            ("walls set-up", milliseconds(run.outcome.usage.setup_ns), "init"),
            ("program", milliseconds(answer.wall_ns), "supervisor"),
            ("CPU", milliseconds(tree.cpu_ns), tree.cpu_source + exact),
            ("peak memory", mebibytes(peak), tree.memory_peak_source),
            ("anonymous peak", mebibytes(shared), tree.anonymous_peak_source + samples),
            ("largest process", mebibytes(largest), tree.largest_process_source),
            ("processes at once", _number(most), tree.processes_peak_source),
        )
    ]


def _number(value: int | None) -> str:
    return NOT_MEASURED if value is None else f"{value:,}"


def _time(run: Finished, answer: ProgramAnswer) -> str:
    inside = f"program {milliseconds(answer.wall_ns)}, {milliseconds(answer.usage.cpu_ns)} CPU"
    return f"{milliseconds(run.wall_ns)} wall, {milliseconds(run.cpu_ns)} CPU ({inside})"


def _memory(plan: Plan, answer: ProgramAnswer) -> str:
    tree = answer.usage
    limit = mebibytes(plan.limits.memory_bytes)
    peak, looked = tree.memory_peak_bytes, tree.anonymous_peak_bytes
    # More than the cgroup counted: what sockets held, which it does not count.
    beyond = peak is not None and looked is not None and looked > peak
    if peak is not None and not beyond:
        return f"{mebibytes(peak)} of {limit} peak (cgroup, page cache included)"
    if looked is None:
        return NOT_MEASURED
    samples = counted(tree.samples, "sample")
    sockets = "sockets included, " if beyond else ""
    return f"{mebibytes(looked)} of {limit} ({sockets}a lower bound: {samples})"


def _processes(plan: Plan, answer: ProgramAnswer) -> str:
    peak = answer.usage.processes_peak
    known = NOT_MEASURED if peak is None else f"{peak:,} of {plan.limits.processes:,} at most"
    return known + _reached(answer, "processes")


def _disk(plan: Plan, answer: ProgramAnswer) -> str:
    tree = answer.usage
    if tree.disk_bytes is None or tree.inodes is None:
        return NOT_MEASURED
    most = format_limit(BY_KEY["disk"], plan.limits.disk_bytes or 0)
    return (
        f"{size_text(tree.disk_bytes)} of {most}, {tree.inodes:,} of "
        f"{plan.limits.inodes:,} inodes{_reached(answer, 'disk', 'inodes')}"
    )


def _reached(answer: ProgramAnswer, *keys: str) -> str:
    met = [key for key in keys if key in answer.reached]
    return f"; limit of {' and '.join(met)} was reached" if met else ""


def _stream(name: str, stream: Stream) -> str:
    if not stream.total_bytes:
        return f"{name} none"
    cut = stream.total_bytes - stream.passed_bytes
    more = f", {size_text(cut)} more not passed on" if cut else ""
    return f"{name} {size_text(stream.passed_bytes)} sha256:{stream.sha256[:16]}…{more}"


def _files(run: Finished, collected: Collection) -> str:
    where = run.results_path or "the workspace"
    total = size_text(collected.total_bytes)
    left = "" if collected.complete else ", NOT ALL"
    return f"{counted(len(collected.files), 'file')}{left}, {total} into {visible(where)}"


def stream_json(stream: Stream | None) -> dict[str, Any] | None:
    """Give one stream for the JSON document: as text, or in base64 where it is not UTF-8."""
    if stream is None:
        return None
    text: str | None
    encoded = None
    try:
        text = stream.head.decode("utf-8")
    except UnicodeDecodeError:
        from base64 import b64encode

        text, encoded = None, b64encode(stream.head).decode("ascii")
    return {
        "bytes": stream.passed_bytes,
        "sha256": stream.sha256,
        "text": text,
        "base64": encoded,
        "truncated": stream.total_bytes > stream.passed_bytes,
    }


def files_json(collected: Collection | None) -> list[dict[str, Any]]:
    """Give what was taken of what a program left."""
    if collected is None:
        return []
    return [
        {
            "path": file.path.decode("utf-8", "backslashreplace"),
            "bytes": file.size,
            "sha256": file.sha256,
        }
        for file in collected.files
    ]


def time_json(run: Finished) -> dict[str, int | None]:
    """Give a program's times, in nanoseconds."""
    usage, answer = run.outcome.usage, run.outcome.program
    return {
        "total_ns": run.wall_ns,
        "cpu_ns": run.cpu_ns,
        "wall_ns": usage.wall_ns,
        "walls_setup_ns": usage.setup_ns,
        "program_cpu_ns": None if answer is None else answer.usage.cpu_ns,
    }


_MEMORY = (
    ("peak_bytes", "memory_peak_bytes"),
    ("peak_source", "memory_peak_source"),
    ("anonymous_peak_bytes", "anonymous_peak_bytes"),
    ("anonymous_peak_source", "anonymous_peak_source"),
    ("samples", "samples"),
    ("largest_process_bytes", "largest_process_bytes"),
    ("largest_process_source", "largest_process_source"),
    ("processes_peak", "processes_peak"),
    ("processes_peak_source", "processes_peak_source"),
    ("disk_bytes", "disk_bytes"),
    ("inodes", "inodes"),
)


def memory_json(answer: ProgramAnswer | None) -> dict[str, int | str | None]:
    """Give a program's memory and what else its whole tree used, with the sources."""
    return {key: None if answer is None else getattr(answer.usage, field) for key, field in _MEMORY}
