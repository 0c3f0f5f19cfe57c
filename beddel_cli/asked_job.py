"""The job that a command line asks for: read, given its input and settings, fit for its runtime.

Also what a command line may not ask: options of another runtime, outputs over inputs.
"""

from __future__ import annotations

import os

from beddel_cli.errors import BeddelError, JobError, RefusedError, UsageError
from beddel_cli.limits import FIELDS, PROGRAM, use_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from beddel_cli.execution import Asked
    from beddel_cli.job import Job

_JSON_BEGINS = ("{", "[", '"')


def check_outputs(asked: Asked, job: Job) -> None:
    """Refuse to write over what this run reads, or two files to one place.

    Raises:
        UsageError: an output is an input, a key, standard input's sign, or another output.
    """
    from beddel_cli.home import locate
    from beddel_cli.profile import is_path

    inputs = (
        ("the job", None if asked.command else asked.job),
        ("the input", asked.input),
        ("the profile", asked.profile if is_path(asked.profile) else None),
        ("the signing key", asked.signing_key),
        ("the job's code", job.code_place.file if job.code_file else None),
    )
    home = os.path.realpath(locate(os.environ).home)
    results = None if asked.results is None else os.path.realpath(asked.results)
    taken = {os.path.realpath(path): what for what, path in inputs if path and path != "-"}
    for flag, path in (
        ("--receipt", asked.receipt),
        ("--receipt (its proof)", asked.proof),
        ("--bundle", asked.bundle),
        ("--predicate", asked.predicate),
        ("--heap-snapshot", asked.heap_snapshot),
        ("--salt", asked.salt),
        ("--capture", _capture_path(asked)),
    ):
        if path is None:
            continue
        if path in ("", "-"):
            raise UsageError(f"{flag} needs the name of a file", got=repr(path))
        real = os.path.realpath(path)
        if results is not None and (real + "/").startswith(results.rstrip("/") + "/"):
            raise UsageError(
                f"{flag} {path!r} lies in --results {asked.results!r}, which the program fills",
                expected="a file beside it",
            )
        for folder in ("keys", "logs"):
            if os.path.dirname(real) == os.path.join(home, folder):
                raise UsageError(f"{flag} {path!r} would write among the {folder}")
        if real in taken:
            raise UsageError(f"{flag} {path!r} would write over {taken[real]}")
        taken[real] = f"what {flag} writes"


def _capture_path(asked: Asked) -> str | None:
    """Give where the capture goes, if it is not beside a receipt in our own home."""
    if not asked.capture or asked.receipt is None:
        return None
    from beddel_cli.capture import capture_path

    return capture_path(asked.receipt)


def load_asked_job(asked: Asked) -> tuple[Job, RefusedError | None]:
    """Read the job, with the input and settings that the command line gives it.

    With a refusal, because the job names a file that it may not have, the job has no code.

    Raises:
        BeddelError: one of the files is missing or not valid.
    """
    from beddel_cli.job import (
        CODE_ENDINGS,
        command_job,
        read_job,
        snippet_job,
        with_input,
        with_setting,
    )

    if asked.job == "-" and asked.input == "-":
        raise UsageError(
            "the job and its input cannot both come from standard input",
            hint="give one of them as a file",
        )
    refusal = None
    if asked.command:
        job = command_job(asked.command)
    elif asked.snippet_runtime is None:
        try:
            job, refusal = read_job(asked.job, asked.allow_paths)
        except JobError as error:
            if asked.job.endswith(CODE_ENDINGS):
                error.hint = _as_code(asked.job)
            raise
    else:
        from beddel_cli.files import open_reach, read_file, read_stdin

        # Bare code names no files; a folder that is none is a mistake all the same.
        with open_reach(None, asked.allow_paths):
            pass
        if asked.job == "-":
            job = snippet_job(read_stdin("code"), "<stdin>", asked.snippet_runtime)
        else:
            job = snippet_job(read_file(asked.job, "code file"), asked.job, asked.snippet_runtime)
    if asked.input is not None:
        job = with_input(job, _read_input(asked.input), asked.input)
    for setting in asked.settings:
        job = with_setting(job, setting)
    _check_options(asked, use_of(job.runtime))
    if use_of(job.runtime) == PROGRAM:
        from beddel_cli.program_request import with_command_line

        job = with_command_line(job, asked, os.environ)
    return job, refusal


def _as_code(path: str) -> str:
    from beddel_cli.home import shell_word

    return f"code without a job: beddel-cli exec --runtime javascript {shell_word(path)}"


def _check_options(asked: Asked, use: str) -> None:
    """Refuse options that the runtime has no use for, rather than ignore them.

    Raises:
        UsageError: one was given.
    """
    for field in FIELDS:
        if getattr(asked.limits, field.field) is not None and use not in field.uses:
            raise _no_use("--" + field.key.replace("_", "-"), use)
    if use == PROGRAM:
        if asked.heap_snapshot is not None:
            raise _no_use("--heap-snapshot", use)
        return
    for flag, value in (
        ("--tier", asked.tier),
        ("--workspace", asked.workspace),
        ("--mount", asked.mounts),
        ("--env", asked.environment),
        ("--results", asked.results),
        ("--write-back", asked.write_back),
        ("--tty", asked.terminal),
    ):
        if value:
            raise _no_use(flag, use)


def _no_use(flag: str, use: str) -> UsageError:
    other, this = ("isolates", "a program") if use == PROGRAM else ("programs", "an isolate")
    return UsageError(f"{flag} is for {other}; {this} cannot use it")


def _read_input(path: str) -> object:
    from beddel_cli.files import read_file, read_stdin

    try:
        data = read_stdin("input") if path == "-" else read_file(path, "input")
    except BeddelError as error:
        if path.lstrip()[:1] in _JSON_BEGINS:
            error.hint = (
                "--input names a file: --input - reads JSON from standard input, "
                "and --set input.KEY=JSON sets one value"
            )
        raise
    if path.endswith((".yaml", ".yml")):
        from beddel_cli.yaml_safe import parse_yaml

        return parse_yaml(data, path).value
    from beddel_cli.json_strict import parse_json

    return parse_json(data, "<stdin>" if path == "-" else path)
