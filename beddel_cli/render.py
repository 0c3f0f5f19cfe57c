"""Turn a finished run into what people and programs read: summary, JSON document, log line."""

from __future__ import annotations

from beddel_cli.figures import NOT_MEASURED, counted, milliseconds, seconds, size_text
from beddel_cli.limits import BY_KEY, PROGRAM, as_json, fields_of, format_limit, use_of
from beddel_cli.outcome import FAILURE, LIMIT, REFUSED, SUCCESS
from beddel_cli.plan import LANDLOCK, insisted_on, rung_of
from beddel_cli.receipt import sha256
from beddel_cli.render_program import (
    files_json,
    meant_instead,
    memory_json,
    program_access,
    program_details,
    program_rows,
    stream_json,
    time_json,
)
from beddel_cli.terminal import coloured, json_text, visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from beddel_cli.errors import BeddelError, Place
    from beddel_cli.host import Finding
    from beddel_cli.outcome import Outcome, Usage
    from beddel_cli.run import Finished

JSON_SCHEMA = "beddel-cli/run/v1"
_WALL_NAMES = {
    "store-limits": "store",
    "no-new-privs": "nnp",
    "capabilities": "caps",
}
_LAST_CONSOLE_LINES = 5


def summary(run: Finished, *, colour: bool, verbose: bool) -> str:
    """Give the summary: one head line, then labelled lines."""
    outcome = run.outcome
    status = coloured(outcome.status, outcome.status) if colour else outcome.status
    lines = [f"{status}  {visible(run.job.id)}  exit {outcome.exit_code}"]
    rows = summary_rows(run, verbose=verbose)
    width = max(len(label) for label, _ in rows)
    lines += [f"  {label:<{width}}  {text}" for label, text in rows]
    return "\n".join(lines) + "\n"


def summary_rows(run: Finished, *, verbose: bool = False) -> list[tuple[str, str]]:
    """Give the labelled lines of the summary; every text in them is safe to show."""
    outcome = run.outcome
    return [
        *reason_rows(run),
        *_console_rows(outcome, everything=verbose),
        ("profile", _profile(run)),
        *(program_rows(run) if _is_program(run) else _isolate_rows(run)),
        ("walls", _walls(run)),
        (
            "access",
            program_access(run, copied=rung_of(run.host) == LANDLOCK)
            if _is_program(run)
            else _access(run),
        ),
        *(_details(run) if verbose else ()),
        *(("warning", visible(text)) for text in run.warnings),
        ("receipt", visible(run.receipt_path)),
        ("log", f"{visible(run.tenant)}, entry {run.log_index}; proof beside the receipt"),
        *((("bundle", visible(run.bundle_path)),) if run.bundle_path else ()),
        *((("predicate", visible(run.predicate_path)),) if run.predicate_path else ()),
        *((("captured", visible(run.captured_path)),) if run.captured_path else ()),
        *((("heap", visible(run.snapshot_path)),) if run.snapshot_path else ()),
        ("key", _key(run)),
        ("verify", _verify_command(run)),
    ]


def _is_program(run: Finished) -> bool:
    return use_of(run.job.runtime) == PROGRAM


def _isolate_rows(run: Finished) -> list[tuple[str, str]]:
    return [
        ("time", _time(run)),
        ("memory", _memory(run)),
        ("worker", _worker(run.outcome.usage)),
        ("fuel", _fuel(run)),
        ("output", _output(run.outcome)),
    ]


def trouble(run: Finished, *, colour: bool) -> str:
    """Give what is left of the summary under `-q`: nothing on success, else why it was none."""
    outcome = run.outcome
    if outcome.status == SUCCESS:
        return ""
    status = coloured(outcome.status, outcome.status) if colour else outcome.status
    lines = [f"{status}  {visible(run.job.id)}  exit {outcome.exit_code}"]
    lines += [f"  {label:<7}  {text}" for label, text in reason_rows(run)]
    return "\n".join(lines) + "\n"


def _console_rows(outcome: Outcome, *, everything: bool) -> list[tuple[str, str]]:
    lines = outcome.console
    shown = lines if everything else lines[-_LAST_CONSOLE_LINES:]
    rows = [("console", visible(f"{line.level}: {line.text}", 200)) for line in shown]
    hidden = len(lines) - len(shown)
    return [("console", f"… {hidden} earlier, all with -v or --json"), *rows] if hidden else rows


def reason_rows(run: Finished) -> list[tuple[str, str]]:
    """Give the lines that say why a run did not succeed; none when it did."""
    outcome = run.outcome
    if outcome.status == SUCCESS:
        return []
    if outcome.status == REFUSED and run.refusal is not None:
        refusal = run.refusal
        where = f" ({visible(str(refusal.place))})" if refusal.place else ""
        return [
            ("reason", visible(refusal.message) + where),
            ("needs", visible(refusal.needs)),
            ("found", visible(refusal.found)),
            ("fix", visible(refusal.fix)),
        ]
    rows = [("reason", _reason(run))]
    failure = outcome.failure
    if failure is not None and failure.place is not None:
        rows.append(("at", visible(str(failure.place))))
    hint = _next(run)
    return [*rows, ("next", hint)] if hint else rows


def _reason(run: Finished) -> str:
    outcome = run.outcome
    text = visible(outcome.message or outcome.reason)
    if outcome.limit is not None:
        place = _limit_place(run, outcome.limit)
        if place:
            text += f" (set at {visible(str(place))})"
        if outcome.ended_by is not None:
            text += f"; ended by the {outcome.ended_by}"
        if outcome.reason == "wall":
            text += f" after {seconds(outcome.usage.wall_ns)}"
    return text


def _limit_place(run: Finished, key: str) -> Place | None:
    """Give where the job sets a limit; None where something tighter took its place."""
    place = dict(run.job.limit_places).get(BY_KEY[key].field)
    return place if _from_job(run, key) else None


def _from_job(run: Finished, key: str) -> bool:
    return run.plan is not None and dict(run.plan.origins)[BY_KEY[key].field] == "job"


def _next(run: Finished) -> str | None:
    """Say how far the limit that ended the run can be raised, or how else to ask for it."""
    if _is_program(run) and run.outcome.status == FAILURE:
        return meant_instead(run)
    key = run.outcome.limit
    if run.outcome.status != LIMIT or key is None or run.plan is None:
        return None
    field = BY_KEY[key]
    have = getattr(run.plan.limits, field.field)
    grants = run.profile.grants(use_of(run.job.runtime))
    most = have if grants is None else getattr(grants.limits, field.field)
    flag = "--" + key.replace("_", "-")
    written = format_limit(field, most)
    if have >= most:
        return f"{written} is all that {visible(run.profile.name)} grants; --profile names another"
    where = "in the job" if _from_job(run, key) else f"with {flag}"
    return f"allow more {where}, up to {written}; beyond that another profile"


def _profile(run: Finished) -> str:
    own = "" if run.profile.built_in else " (your own file)"
    return f"{visible(run.profile.name)}{own}, {run.job.runtime}"


def _time(run: Finished) -> str:
    usage = run.outcome.usage
    if usage.wall_ns is None:
        return NOT_MEASURED
    guest = "" if usage.guest_wall_ns is None else f" (guest {milliseconds(usage.guest_wall_ns)})"
    return f"{milliseconds(run.wall_ns)} wall, {milliseconds(run.cpu_ns)} CPU{guest}"


def _memory(run: Finished) -> str:
    used = run.outcome.usage.memory_bytes
    if used is None or run.plan is None:
        return NOT_MEASURED
    limit = run.plan.limits.memory_bytes or 0
    return f"{used / (1 << 20):.2f} of {limit / (1 << 20):.2f} MiB linear (peak)"


def _worker(usage: Usage) -> str:
    if usage.worker_anonymous_bytes is None:
        return NOT_MEASURED
    samples = counted(usage.worker_samples, "sample")
    return (
        f"{usage.worker_anonymous_bytes / (1 << 20):.1f} MiB anonymous peak (smaps PSS, {samples})"
    )


def _fuel(run: Finished) -> str:
    used = run.outcome.usage.fuel
    if used is None or run.plan is None:
        return NOT_MEASURED
    return f"{used:,} of {run.plan.limits.fuel:,}"


def _output(outcome: Outcome) -> str:
    text = "none"
    if outcome.output is not None:
        digest = sha256(outcome.output)["sha256"]
        text = f"{size_text(len(outcome.output))} sha256:{digest[:16]}…"
    entries = len(outcome.console)
    if entries:
        text += f"; console {counted(entries, 'line')}"
    if outcome.console_dropped_bytes:
        text += f", {size_text(outcome.console_dropped_bytes)} dropped"
    return text


def _walls(run: Finished) -> str:
    findings = run.host.findings
    held = [item for item in findings if item.present]
    names = " ".join(_WALL_NAMES.get(item.name, item.name) for item in held)
    rung = "landlock rung, " if rung_of(run.host) == LANDLOCK else ""
    return f"{rung}{len(held)}/{len(findings)} confirmed: {names}"


def _access(run: Finished) -> str:
    if run.plan is None:
        return "none: nothing ran"
    clock = "frozen" if run.plan.clock == "frozen" else "starts at the real time"
    code = ", Function allowed" if run.plan.allow_function else ""
    return f"network {run.plan.network}, files none, clock {clock}{code}"


def _key(run: Finished) -> str:
    short = f"{run.key.key_id[:16]}…"
    if run.key.created:
        return f"{short} NEW, made by this run"
    where = "BEDDEL_SIGNING_KEY" if run.key.path is None else visible(run.key.path)
    return f"{short} from {where}"


def _verify_command(run: Finished) -> str:
    from beddel_cli.home import shell_word

    receipt = visible(shell_word(run.receipt_path))
    if run.public_key_path is None:
        return f"beddel-cli verify {receipt} --key PUB.pem"
    return f"beddel-cli verify {receipt} --key {visible(shell_word(run.public_key_path))}"


def _details(run: Finished) -> list[tuple[str, str]]:
    rows = [("run", run.run_id), ("tenant", visible(run.tenant))]
    if run.plan is not None:
        origins = dict(run.plan.origins)
        for field in fields_of(use_of(run.job.runtime)):
            value = format_limit(field, getattr(run.plan.limits, field.field))
            rows.append(("limit", f"{field.key} {value} ({origins[field.field]})"))
    rows += [("control", _control(item)) for item in run.host.findings]
    rows += program_details(run) if _is_program(run) else _isolate_details(run.outcome.usage)
    failure = run.outcome.failure
    if failure is not None and failure.stack:
        rows += [("stack", visible(line.strip(), 200)) for line in failure.stack.splitlines()[:12]]
    return rows


def _isolate_details(usage: Usage) -> list[tuple[str, str]]:
    return [
        ("figure", f"{name} {milliseconds(nanoseconds)} ({source})")
        for name, nanoseconds, source in (
            ("job sent to its ending", usage.wall_ns, "supervisor"),
            ("worker set-up", usage.setup_ns, "worker"),
            ("instantiate", usage.instantiate_ns, "worker"),
            ("guest CPU", usage.guest_cpu_ns, "worker"),
            ("worker CPU", usage.worker_cpu_ns, "kernel"),
        )
    ]


def _control(item: Finding) -> str:
    if item.present:
        return f"{item.name}: {item.enforced_by}; {item.verified}"
    return f"{item.name}: missing; {item.found}"


def json_document(run: Finished) -> bytes:
    """Give the one JSON document of `--json`: always all keys, null when unknown."""
    import json  # only where it is asked for: it costs a run 10 ms

    outcome, plan, answer = run.outcome, run.plan, run.outcome.program
    granted = run.profile.grants(use_of(run.job.runtime))
    insisted = insisted_on(frozenset() if granted is None else granted.required, run.host)
    document = {
        "schema": JSON_SCHEMA,
        "run_id": run.run_id,
        "job": run.job.id,
        "profile": run.profile.name,
        "tenant": run.tenant,
        "runtime": run.job.runtime,
        "outcome": {
            "status": outcome.status,
            "reason": outcome.reason,
            "exit_code": outcome.exit_code,
            "signal": outcome.signal,
            "limit": outcome.limit,
            "program_exit_code": None if answer is None else answer.exit_code,
            "reached": [] if answer is None else list(answer.reached),
        },
        "output": None if outcome.output is None else json.loads(outcome.output),
        "stdout": stream_json(None if answer is None else answer.stdout),
        "stderr": stream_json(None if answer is None else answer.stderr),
        "console": [{"level": line.level, "text": line.text} for line in outcome.console],
        "time": time_json(run) if _is_program(run) else _json_time(run),
        "memory": memory_json(answer) if _is_program(run) else _json_memory(run),
        "fuel": outcome.usage.fuel,
        "limits": None if plan is None else as_json(plan.limits, use_of(run.job.runtime)),
        "controls": [
            {
                "name": item.name,
                "requested": "required" if item.name in insisted else "applied",
                "enforced": item.present,
                "enforced_by": item.enforced_by if item.present else None,
                "verified": item.verified if item.present else None,
                "found": item.found,
            }
            for item in run.host.findings
        ],
        "rung": rung_of(run.host) if _is_program(run) else None,
        "files": files_json(run.collected),
        "results_path": run.results_path,
        "receipt": {
            "path": run.receipt_path,
            "bundle_path": run.bundle_path,
            "predicate_path": run.predicate_path,
            "capture_path": run.captured_path,
            "key_id": run.key.key_id,
            "key_origin": run.key.origin,
            "log_index": run.log_index,
            "proof_path": run.proof_path,
        },
        "warnings": list(run.warnings),
        "error": _json_error(run),
    }
    return _dump(document)


def _json_time(run: Finished) -> dict[str, int | None]:
    usage = run.outcome.usage
    return {
        "total_ns": run.wall_ns,
        "cpu_ns": run.cpu_ns,
        "wall_ns": usage.wall_ns,
        "worker_setup_ns": usage.setup_ns,
        "worker_cpu_ns": usage.worker_cpu_ns,
        "instantiate_ns": usage.instantiate_ns,
        "guest_wall_ns": usage.guest_wall_ns,
        "guest_cpu_ns": usage.guest_cpu_ns,
    }


def _json_memory(run: Finished) -> dict[str, int | str | None]:
    usage = run.outcome.usage
    return {
        "linear_peak_bytes": usage.memory_bytes,
        "digest": usage.memory_digest,
        "worker_anonymous_peak_bytes": usage.worker_anonymous_bytes,
        "worker_samples": usage.worker_samples,
        "heap_snapshot_path": run.snapshot_path,
    }


def _json_error(run: Finished) -> dict[str, Any] | None:
    outcome, refusal = run.outcome, run.refusal
    if outcome.status == SUCCESS:
        return None
    return error_object(
        code=outcome.reason,
        message=outcome.message or outcome.reason,
        place=_place(run),
        expected=refusal.needs if refusal else None,
        got=refusal.found if refusal else None,
        hint=refusal.fix if refusal else _next(run),
    )


def annotation_place(run: Finished) -> Place | None:
    """Give the place in a file that explains the ending: of the error, or of the job's limit."""
    limit = run.outcome.limit
    if limit is not None and run.refusal is None:
        return _limit_place(run, limit)
    return _place(run)


def _place(run: Finished) -> Place | None:
    if run.outcome.failure is not None:
        return run.outcome.failure.place
    return run.refusal.place if run.refusal is not None else None


def error_object(
    *,
    code: str,
    message: str,
    place: Place | None,
    expected: str | None = None,
    got: str | None = None,
    hint: str | None = None,
    more: tuple[BeddelError, ...] = (),
) -> dict[str, Any]:
    """Give the `error` member of a JSON document."""
    return {
        "code": code,
        "message": message,
        "file": place.file if place else None,
        "line": place.line if place else None,
        "column": place.column if place else None,
        "expected": expected,
        "got": got,
        "hint": hint,
        "more": [_one_of_more(error) for error in more],
    }


def _one_of_more(error: BeddelError) -> dict[str, Any]:
    place = error.place
    return {
        "message": error.message,
        "file": place.file if place else None,
        "line": place.line if place else None,
        "column": place.column if place else None,
        "expected": error.expected,
        "got": error.got,
        "hint": error.hint,
    }


def object_of_error(error: BeddelError) -> dict[str, Any]:
    """Give the `error` of a document that tells of what went wrong."""
    return error_object(
        code=error.code,
        message=error.message,
        place=error.place,
        expected=error.expected,
        got=error.got,
        hint=error.hint,
        more=error.more,
    )


def document_of_error(
    schema: str, keys: Iterable[str], error: BeddelError, **known: object
) -> dict[str, Any]:
    """Give a document with all its keys, of which nothing is known but what went wrong."""
    return {"schema": schema, **dict.fromkeys(keys), **known, "error": object_of_error(error)}


def json_of_error(error: BeddelError) -> bytes:
    """Give the JSON document of a run that never came about: all keys of a run, null but two."""
    keys = (
        *("run_id", "job", "profile", "tenant", "runtime", "output", "stdout", "stderr"),
        *("console", "time", "memory", "fuel", "limits", "controls", "rung"),
        "files",
        *("results_path", "receipt"),
    )
    document: dict[str, Any] = {"schema": JSON_SCHEMA, **dict.fromkeys(keys)}
    document["outcome"] = {
        "status": "error",
        "reason": error.code,
        "exit_code": error.exit_code,
        "signal": None,
        "limit": None,
        "program_exit_code": None,
        "reached": [],
    }
    document["warnings"] = []
    document["error"] = object_of_error(error)
    return _dump(document)


def _dump(document: dict[str, Any]) -> bytes:
    # Escaped to ASCII: valid UTF-8 whatever the guest wrote, and nothing acts on a terminal.
    # Not indented: a deep result would grow a thousandfold.
    return json_text(document, indent=None).encode("ascii")


def log_line(run: Finished, when: str) -> str:
    """Give the one line of `--log-format json`."""
    outcome = run.outcome
    levels = {SUCCESS: "info", FAILURE: "warning", LIMIT: "warning"}
    return _log(
        when,
        levels.get(outcome.status, "error"),
        job=run.job.id,
        runtime=run.job.runtime,
        run_id=run.run_id,
        duration_ms=round(run.wall_ns / 1e6, 3),
        error=outcome.message,
        place=_place(run),
        outcome=outcome.reason,
        exit_code=outcome.exit_code,
        receipt=run.receipt_path,
    )


def log_line_of_error(error: BeddelError, when: str) -> str:
    """Give the log line of a run that never came about."""
    return _log(
        when,
        "error",
        error=error.message,
        place=error.place,
        outcome=error.code,
        exit_code=error.exit_code,
    )


def _log(when: str, level: str, *, place: Place | None, **fields: object) -> str:
    names = ("job", "runtime", "run_id", "duration_ms", "error", "file", "line", "column")
    full = {"time": when, "level": level, **dict.fromkeys((*names, "outcome", "exit_code"))}
    if place is not None:
        full |= {"file": place.file, "line": place.line, "column": place.column}
    return json_text({**full, "receipt": None, **fields}, indent=None)


def error_text(error: BeddelError) -> str:
    """Give an error for people: `file:line:column: message`, then what helps; each of `more` so."""
    return "".join(map(_one_error_text, (error, *error.more)))


def _one_error_text(error: BeddelError) -> str:
    place = f"{visible(str(error.place))}: " if error.place else ""
    lines = [f"beddel-cli: {place}{visible(error.message)}"]
    for label, text in (("expected", error.expected), ("got", error.got), ("hint", error.hint)):
        if text:
            lines.append(f"  {label:<8}  {visible(text)}")
    return "\n".join(lines) + "\n"
