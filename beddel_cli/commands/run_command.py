"""`run` and `exec` from their options to their exit code: ask, run, print.

Both ways in (the short one of `__main__` and Typer's) end here.
"""

from __future__ import annotations

import os
import stat
import sys
from time import gmtime, strftime

from beddel_cli.errors import BeddelError, SigningKeyError, UsageError
from beddel_cli.limits import FIELDS, Limits, parse_limit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from beddel_cli.execution import Asked
    from beddel_cli.options import Values
    from beddel_cli.run import Finished

EXIT_FAULT, EXIT_INTERRUPTED, EXIT_TERMINATED = 125, 130, 143
_TENANT_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


def run_command(
    job: str, values: Values, *, started_ns: int, snippet_runtime: str | None = None
) -> int:
    """Run a job and print what came of it; gives the exit code of the closed table."""
    return _run((job, snippet_runtime, ()), values, started_ns)


def exec_command(command: tuple[str, ...], values: Values, *, started_ns: int) -> int:
    """Run a program, or with `--runtime javascript` a code file; gives the exit code."""
    if values["runtime"] == "process":
        return _run((command[0], None, command), values, started_ns)
    if len(command) != 1:
        problem = UsageError(
            f"--runtime {values['runtime']} runs one code file, and here are {len(command)} words",
            hint="give its input with --input or --set",
        )
        return _print_error(problem, values)
    return _run((command[0], str(values["runtime"]), ()), values, started_ns)


def _run(what: tuple[str, str | None, tuple[str, ...]], values: Values, started_ns: int) -> int:
    from beddel_cli.execution import Terminated
    from beddel_cli.run import run_job

    job, snippet_runtime, command = what
    try:
        asked = make_asked(job, values, snippet_runtime, command)
        check_platform()
        finished = run_job(asked, started_ns=started_ns)
    except BeddelError as error:
        return _print_error(error, values)
    except KeyboardInterrupt:
        return _print_error(_Stopped("interrupted before the job started", 130), values)
    except Terminated:
        return _print_error(_Stopped("ended by a signal before the job started", 143), values)
    return _print_run(finished, values)


def restart_or_explain() -> None:
    """Start over without the secrets of the environment; exit with a message if that fails."""
    from beddel_cli.options import defaults
    from beddel_cli.trust.key_environment import restart_without_secrets

    try:
        restart_without_secrets(os.environ)
    except BeddelError as error:
        sys.exit(_print_error(error, defaults()))


class _Stopped(BeddelError):
    """A signal came before there was anything to sign."""

    code = "interrupted"

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def check_platform() -> None:
    """Raise UsageError where no guest can run."""
    if sys.platform != "linux":
        raise UsageError(
            f"guests run on Linux only, and this is {sys.platform}",
            hint="`beddel-cli verify` works here",
        )


def make_asked(
    job: str, values: Values, snippet_runtime: str | None, command: tuple[str, ...] = ()
) -> Asked:
    """Read the options; raises UsageError for a value that is none."""
    from beddel_cli.execution import Asked

    raw, as_json = bool(values["raw"]), bool(values["json"])
    return Asked(
        job=job,
        command=command,
        profile=_text(values, "profile") or "",
        limits=_limits(values),
        snippet_runtime=snippet_runtime,
        input=_text(values, "input"),
        settings=_texts(values, "set"),
        receipt=_text(values, "receipt"),
        bundle=_text(values, "bundle"),
        predicate=_text(values, "predicate"),
        heap_snapshot=_text(values, "heap_snapshot"),
        signing_key=_text(values, "signing_key"),
        prompt=passphrase_prompt(),
        require_key=bool(values["require_key"]),
        capture=bool(values["capture"]),
        salt=_text(values, "salt"),
        tenant=tenant_name(_text(values, "tenant"), os.environ),
        allow_paths=_texts(values, "allow_path"),
        tier=_tier(_text(values, "tier")),
        workspace=_text(values, "workspace"),
        mounts=_texts(values, "mount"),
        environment=_texts(values, "env"),
        results=_text(values, "results"),
        write_back=bool(values["write_back"]),
        terminal=bool(values["tty"]),
        keep_output=as_json,
        escape_stdout=not raw and not values["tty"] and os.isatty(1),
        escape_stderr=not raw and not values["tty"] and os.isatty(2),
        step_log=not raw and in_github_actions(),
    )


def _tier(name: str | None) -> str | None:
    if name is None:
        return None
    from beddel_cli.plan import TIERS

    if name not in TIERS:
        raise UsageError(f"unknown tier {name!r}", expected=", ".join(TIERS))
    return name


def _texts(values: Values, name: str) -> tuple[str, ...]:
    value = values[name]
    return tuple(value) if isinstance(value, list) else ()


def _text(values: Values, name: str) -> str | None:
    value = values[name]
    return value if isinstance(value, str) else None


def _limits(values: Values) -> Limits:
    found: dict[str, int] = {}
    for field in FIELDS:
        text = _text(values, field.key)
        if text is not None:
            try:
                found[field.field] = parse_limit(field, text)
            except BeddelError as error:
                flag = "--" + field.key.replace("_", "-")
                raise UsageError(
                    f"{flag}: {error.message}", expected=error.expected, hint=error.hint
                ) from error
    return Limits(**found)


def tenant_name(asked: str | None, environ: Mapping[str, str]) -> str:
    """Give whose run it is: as asked, else BEDDEL_TENANT, else `default`.

    Raises:
        UsageError: it is not a name that a tenant may have.
    """
    name = asked if asked is not None else environ.get("BEDDEL_TENANT") or "default"
    if not name or len(name) > 63 or not set(name) <= _TENANT_CHARACTERS or name.startswith("-"):
        raise UsageError(
            f"not a valid tenant: {name!r}",
            expected="1 to 63 of a-z, 0-9 and -, not starting with -",
        )
    return name


def passphrase_prompt() -> Callable[[str], str] | None:
    """Give a way to ask for a passphrase, or None where nobody would see the question."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty()):
        return None

    def ask(question: str) -> str:
        from getpass import getpass

        try:
            return getpass(question)
        except EOFError:
            raise SigningKeyError("no passphrase was given") from None

    return ask


def in_github_actions() -> bool:
    """Tell whether a GitHub Actions runner reads what this command prints."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def _print_run(finished: Finished, values: Values) -> int:
    from _signal import SIG_DFL, SIGHUP, SIGINT, SIGTERM, signal  # type: ignore[import-not-found]

    # The receipt is on disk. Whoever does not read what we print must not make us unstoppable.
    for number in (SIGINT, SIGTERM, SIGHUP):
        signal(number, SIG_DFL)

    note = _note(finished, values)
    if values["json"]:
        from beddel_cli import render

        result = render.json_document(finished)
    else:
        result = _output(finished, raw=bool(values["raw"]))
    if in_github_actions():
        note = _note_for_github(finished, note, values)
    _write(2, note.encode("utf-8", "backslashreplace"))
    if not _write(1, result):
        _write(2, b"beddel-cli: standard output is closed or full; the receipt is written\n")
        return EXIT_FAULT
    return finished.outcome.exit_code


def _note(finished: Finished, values: Values) -> str:
    """Give what standard error gets."""
    quiet = bool(values["quiet"])
    if quiet and values["log_format"] == "text" and finished.outcome.status == "success":
        return ""  # so says `trouble`, and a quiet good run need not load it
    from beddel_cli import render

    if values["log_format"] == "json":
        return render.log_line(finished, _now())
    from beddel_cli.terminal import wants_colour

    when = _text(values, "color") or "auto"
    colour = bool(sys.stderr) and wants_colour(sys.stderr, when, os.environ)
    if quiet:
        return render.trouble(finished, colour=colour)
    return render.summary(finished, colour=colour, verbose=bool(values["verbose"]))


def _note_for_github(ended: Finished | BeddelError, note: str, values: Values) -> str:
    """Give what standard error gets in a step, and write the step's summary."""
    from beddel_cli import github_actions

    if isinstance(ended, BeddelError):
        shown = github_actions.note_of_error(ended, note, os.environ)
    else:
        quiet = bool(values["quiet"])
        shown = github_actions.note_of_run(ended, note, os.environ, quiet=quiet)
    # Whoever asked for JSON lines reads them with a program; they hold no command.
    return note if values["log_format"] == "json" else shown


def _output(finished: Finished, *, raw: bool) -> bytes:
    output = finished.outcome.output
    if output is None:
        return b""
    if not raw and in_github_actions() and not stat.S_ISREG(os.fstat(1).st_mode):
        from beddel_cli.github_actions import for_step_log

        output = for_step_log(output)
    if not raw and os.isatty(1):
        from beddel_cli.terminal import json_for_terminal

        output = json_for_terminal(output)
    return output + b"\n"


def _print_error(error: BeddelError, values: Values) -> int:
    from beddel_cli import render

    if values["log_format"] == "json":
        note = render.log_line_of_error(error, _now())
    else:
        note = render.error_text(error)
    if in_github_actions():
        note = _note_for_github(error, note, values)
    if values["json"]:
        _write(1, render.json_of_error(error))
    _write(2, note.encode("utf-8", "backslashreplace"))
    return error.exit_code


def _write(descriptor: int, data: bytes) -> bool:
    """Write everything; False when the other end is gone or the descriptor is closed."""
    rest = memoryview(data)
    try:
        while rest:
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:
                import select

                poller = select.poll()
                poller.register(descriptor, select.POLLOUT)
                poller.poll()
    except OSError:
        return False
    return True


def _now() -> str:
    return strftime("%Y-%m-%dT%H:%M:%SZ", gmtime())
