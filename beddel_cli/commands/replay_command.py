"""`replay`: verify a receipt, run its job again from the same bytes, and say how the two compare.

The receipt is read as what it is, somebody's signed claim. It is verified before anything of it is
used; what may be run, and with what, is for this command line and the operator's own profile to
say; whatever of it is printed is made harmless first.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Annotated, Any

import typer

from beddel_cli import replay
from beddel_cli.commands.run_command import check_platform, make_asked
from beddel_cli.commands.verify_command import (
    Keys,
    LeastSerial,
    Roots,
    SaltFile,
    TrustFile,
    read_salt,
    verify_one,
)
from beddel_cli.errors import BeddelError, UnverifiableError, UsageError, VerificationError
from beddel_cli.options import OPTIONS, defaults
from beddel_cli.record import changed
from beddel_cli.render import error_text, object_of_error
from beddel_cli.render_verify import key_id, key_words
from beddel_cli.repetition import Repetition
from beddel_cli.salted_digest import check_salt, digest_text
from beddel_cli.terminal import json_text, visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from beddel_cli.execution import Asked
    from beddel_cli.options import Option, Values
    from beddel_cli.render_verify import Judged
    from beddel_cli.run import Finished
    from beddel_cli.trust.verify import VerifiedReceipt

JSON_SCHEMA = "beddel-cli/replay/v1"
EXIT_NOT_VALID, EXIT_COULD_NOT_TELL = 1, 2
NOT_VALID = "not-valid"
_HEADS = {
    replay.REPRODUCED: "reproduced",
    replay.DIFFERS: "DIFFERS",
    replay.COULD_NOT_TELL: "COULD NOT TELL",
    NOT_VALID: "NOT VALID",
}
# Those options of `run` that replay has, too: what a receipt does not hold, and how to sign.
_OPTIONS = frozenset(
    (
        *("profile", "input", "set", "allow_path", "timeout", "workspace", "mount", "env"),
        *("results", "receipt", "signing_key", "require_key", "tenant", "json", "quiet"),
    )
)
# The profile is the operator's: by default his own of the name that the receipt has.
_OWN_PROFILE = "Your profile for it (by default your built-in one of the receipt's name)."
_MORE_TIME = "More time than the first run had, as far as the profile grants it."


def register(
    app: typer.Typer, with_options: Callable[[Callable[..., int], Sequence[Option]], Any]
) -> None:
    """Add `replay` to the command line; `with_options` gives a command rows of the option table."""
    app.command(
        "replay", epilog="Example: beddel-cli replay receipt.json --key pub.pem --job job.yaml"
    )(with_options(_replay, [_adapted(item) for item in OPTIONS if item.field in _OPTIONS]))


def _adapted(option: Option) -> Option:
    if option.field == "profile":
        return changed(option, default=None, help=_OWN_PROFILE)
    return changed(option, help=_MORE_TIME) if option.field == "timeout" else option


def _replay(
    of: Annotated[str, typer.Argument(metavar="RECEIPT|-", help="DSSE file or bundle.")],
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND...]", help="The command, if `exec` ran one."),
    ] = None,
    job: Annotated[
        str | None,
        typer.Option("--job", metavar="FILE", help="The job file (or code file) that was run."),
    ] = None,
    key: Keys = None,
    trust: TrustFile = None,
    root: Roots = None,
    least_serial: LeastSerial = None,
    salt_file: SaltFile = None,
    **values: Any,
) -> int:
    """Verify a receipt, run its job again, and compare what came of it.

    Nothing runs unless job, code and input are the bytes that the receipt has digests of. Limits
    are the receipt's, permissions your profile's, and no file is one that only the receipt names.
    Exits 0 when it is reproduced, 1 when it differs or the receipt is not valid, 2 when nothing
    could be told.
    """
    full: Values = {**defaults(), **values}
    try:
        judged = verify_one(of, key, trust, root, least_serial)
        verified = judged.receipt
        first = _first(verified)
        of_digest = hashlib.sha256(verified.payload).hexdigest()
        repetition = Repetition(of_digest, first, check_salt(read_salt(salt_file), first["salt"]))
        repetition.check_repeatable()
        asked = _asked(repetition, full, job, tuple(command or ()))
        finished = _run_again(asked)
    except BeddelError as error:
        return _print_error(error, full)
    second = json.loads(finished.statement)["predicate"]
    comparison = replay.compare(first, second)
    _print(comparison, judged, finished, full)
    return replay.EXIT_CODES[comparison.verdict]


def _first(verified: VerifiedReceipt) -> Mapping[str, Any]:
    """Give what the first run's receipt says, once all of it is of the form we know.

    Raises:
        UnverifiableError: it is not.
    """
    from beddel_cli.schema_document import Definitions
    from beddel_cli.shape import dotted, find_problems

    definitions = Definitions()
    problems = find_problems(verified.statement, definitions("receipt"), definitions, {})
    if problems:
        raise UnverifiableError(
            "the signature is good, but the receipt is not of a form that can be repeated: "
            f"{dotted(problems[0].path)}: {problems[0].message}"
        )
    return verified.predicate


def _asked(
    repetition: Repetition, values: Values, job: str | None, command: tuple[str, ...]
) -> Asked:
    """Give what to run: the receipt's limits, and everything else from this command line."""
    check_platform()
    first = repetition.predicate
    if first["files"] and not values["results"]:
        raise UnverifiableError(
            "the first run's files were collected, so this one's have to be",
            hint="--results DIR with a new folder for them",
        )
    values = {**values, "profile": _profile(first, values), "tier": None}
    snippet = _check_job(repetition, job, command)
    asked = make_asked(job or command[0], values, snippet, command)
    return changed(
        asked,
        limits=repetition.wishes(asked.limits).limits,
        tier=repetition.tier,
        keep_output=True,
        repeats=repetition,
    )


def _profile(first: Mapping[str, Any], values: Values) -> str:
    """Give the operator's own profile: the one he names, or his built-in one of that name."""
    from beddel_cli.profile import BUILT_IN

    given = values["profile"]
    if isinstance(given, str):
        return given
    name: str = first["profile"]["name"]
    if name in BUILT_IN:
        return name
    raise UnverifiableError(
        f"the first run was under a profile that is not built in: {name!r}",
        hint="--profile FILE with a profile of yours",
    )


def _check_job(repetition: Repetition, job: str | None, command: tuple[str, ...]) -> str | None:
    """Compare the job with the receipt before it is even parsed; gives a snippet's runtime.

    What then runs is read once more and held against the receipt itself.
    """
    from beddel_cli.files import read_file
    from beddel_cli.job import command_job

    if (job is None) == (not command):
        raise _no_job(repetition.predicate, both=job is not None)
    if job is None:
        repetition.check("job", command_job(command).source)
        return None
    if job != "-":
        repetition.check("job", read_file(job, "job"))
    return _snippet_runtime(repetition.predicate)


def _snippet_runtime(first: Mapping[str, Any]) -> str | None:
    """Give the runtime of a bare code file, which is job and code in one; None for a job file."""
    digests = [item["digest"] for item in first["resolvedDependencies"] if item["name"] == "code"]
    runtime: str = first["runtime"]["name"]
    return runtime if digests == [first["job"]["digest"]] else None


def _no_job(first: Mapping[str, Any], *, both: bool) -> BeddelError:
    if both:
        return UsageError("--job and a command are two ways to say what to run again")
    digests = digest_text(first["job"]["digest"])
    hint = "--job FILE with the job file (or code file) that was run"
    program = first["runtime"].get("program")
    if program is not None:
        hint += f", or after exec: -- {program['name']} and its {program['arguments']} arguments"
    return UnverifiableError(
        "a receipt has a digest of its job and not the job itself", expected=digests, hint=hint
    )


def _run_again(asked: Asked) -> Finished:
    from beddel_cli.execution import Terminated
    from beddel_cli.run import run_job

    try:
        return run_job(asked, started_ns=_now_ns())
    except (KeyboardInterrupt, Terminated):
        raise UnverifiableError("ended before the job was started") from None


def _now_ns() -> int:
    from time import monotonic_ns

    return monotonic_ns()


def _print(
    comparison: replay.Comparison,
    judged: Judged,
    finished: Finished,
    values: Values,
) -> None:
    from _signal import SIG_DFL, SIGHUP, SIGINT, SIGTERM, signal  # type: ignore[import-not-found]

    # The run has its receipt; whoever does not read what we print must not make us unstoppable.
    for number in (SIGINT, SIGTERM, SIGHUP):
        signal(number, SIG_DFL)
    if values["json"]:
        _print_json(comparison.verdict, comparison, judged, finished)
        return
    bad = comparison.verdict != replay.REPRODUCED
    if values["quiet"] and not bad:
        return
    lines = [f"{_HEADS[comparison.verdict]}  {visible(finished.job.id)}"]
    if not values["quiet"]:
        lines += _receipt_lines(judged, finished)
    lines += [f"  {mark:<9}{text}" for mark, text in _rows(comparison, quiet=bool(values["quiet"]))]
    lines += [f"  note     {visible(text)}" for text in comparison.notes]
    if finished.outcome.message and finished.refusal is None and bad:
        lines.append(f"  here     {visible(finished.outcome.message)}")
    if finished.refusal is not None:
        lines += [
            f"  {label:<9}{visible(text)}"
            for label, text in (
                ("reason", finished.refusal.message),
                ("fix", finished.refusal.fix),
            )
        ]
    lines.append(f"  written  {visible(finished.receipt_path)} (the receipt of this run)")
    sys.stdout.write("\n".join(lines) + "\n")


def _receipt_lines(judged: Judged, finished: Finished) -> list[str]:
    first = judged.receipt.predicate
    return [
        f"  of       run {visible(first['runId'])}, {visible(first['startedAt'])}",
        f"  key      {key_words(judged)}",
        *(f"  warning  {visible(text)}" for text in judged.warnings),
        f"  profile  {visible(finished.profile.name)}, {visible(first['runtime']['name'])}",
    ]


def _rows(comparison: replay.Comparison, *, quiet: bool) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    judged = [row for row in comparison.rows if row.judged]
    for row in (*comparison.guest_differences, *judged):
        what = visible(row.what)
        if row.same and not quiet:
            lines.append(("same", f"{what:<15} {visible(row.expected)}"))
        elif not row.same:
            mark = "DIFFERS" if row in judged else "other"
            lines.append((mark, f"{what:<15} expected {visible(row.expected)}"))
            lines.append(("", f"{'':<15} got      {visible(row.got)}"))
    return lines


def _print_error(error: BeddelError, values: Values) -> int:
    proved = isinstance(error, VerificationError)
    verdict = NOT_VALID if proved else replay.COULD_NOT_TELL
    if values["json"]:
        _print_json(verdict, error=error)
    else:
        sys.stderr.write(f"{_HEADS[verdict]}\n{error_text(error)}")
    return EXIT_NOT_VALID if proved else EXIT_COULD_NOT_TELL


def _print_json(
    verdict: str,
    comparison: replay.Comparison | None = None,
    judged: Judged | None = None,
    finished: Finished | None = None,
    error: BeddelError | None = None,
) -> None:
    document = {
        "schema": JSON_SCHEMA,
        "verdict": verdict,
        "exit_code": 1 if verdict == NOT_VALID else replay.EXIT_CODES[verdict],
        "key_id": None if judged is None else key_id(judged),
        "first_run_id": None if judged is None else judged.receipt.predicate["runId"],
        "run_id": None if finished is None else finished.run_id,
        "receipt_path": None if finished is None else finished.receipt_path,
        "compared": [] if comparison is None else [_row_json(row) for row in comparison.rows],
        "guest_differences": []
        if comparison is None
        else [_row_json(row) for row in comparison.guest_differences],
        "warnings": [] if judged is None else list(judged.warnings),
        "notes": [] if comparison is None else list(comparison.notes),
        "error": None if error is None else object_of_error(error),
    }
    sys.stdout.write(json_text(document))


def _row_json(row: replay.Row) -> dict[str, Any]:
    return {
        "what": row.what,
        "expected": row.expected,
        "got": row.got,
        "same": row.same,
        "judged": row.judged,
    }
