"""The command line: Typer commands over the same table and the same functions as the short way."""

from __future__ import annotations

import inspect
import io
import os
import sys
from copy import copy
from functools import cache
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from beddel_cli import __version__, profile
from beddel_cli.commands import replay_command
from beddel_cli.commands.audit_command import audit_app
from beddel_cli.commands.countersign_command import countersign, timestamp
from beddel_cli.commands.keys_command import keys_app
from beddel_cli.commands.run_command import (
    check_platform,
    exec_command,
    in_github_actions,
    make_asked,
    run_command,
)
from beddel_cli.commands.verify_command import verify
from beddel_cli.errors import BeddelError, UsageError
from beddel_cli.options import (
    DEFAULT_PROFILE,
    FLAG,
    MANY,
    OPTIONS,
    PLAN_OPTIONS,
    RUNTIME,
    Option,
    given_twice,
)
from beddel_cli.render import error_text, json_of_error
from beddel_cli.render_explain import (
    EXIT_COULD_NOT_TELL,
    exit_code,
    explanation_json,
    explanation_json_of_error,
    explanation_text,
)
from beddel_cli.schema_document import KINDS, standalone, whole
from beddel_cli.terminal import json_text, visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


EXIT_USAGE_OF_RUN, EXIT_USAGE = 125, 2

app = typer.Typer(
    name="beddel-cli",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Run code you do not trust in a hard-limited isolate, and get a signed receipt that "
    "others can verify.",
)
profiles_app = typer.Typer(help="Show what each profile grants and requires.")
app.add_typer(profiles_app, name="profiles")
app.add_typer(keys_app, name="keys")
app.add_typer(audit_app, name="audit")

_started_ns = 0


def run_app(arguments: Sequence[str], *, started_ns: int) -> int:
    """Run the command line; gives the exit code and never raises for a user's mistake."""
    global _started_ns
    _started_ns = started_ns
    for name in ("stdout", "stderr"):
        # None where the caller closed it; what we print then has nowhere to go.
        if getattr(sys, name) is None:
            setattr(sys, name, io.StringIO())
        elif isinstance(getattr(sys, name), io.TextIOWrapper):
            getattr(sys, name).reconfigure(errors="backslashreplace")
    runs = list(arguments[:1]) in (["run"], ["exec"])
    try:
        code = _dispatch(arguments, runs)
        sys.stdout.flush()
    except (OSError, SystemExit) as stop:
        # Typer answers a closed pipe with an exit; a full disk comes as it is.
        error = stop.__context__ if isinstance(stop, SystemExit) else stop
        if not isinstance(error, OSError) or error.filename is not None:
            raise
        _give_up_stdout()
        sys.stderr.write(f"beddel-cli: cannot write to standard output: {error.strerror}\n")
        return EXIT_USAGE_OF_RUN if runs else EXIT_USAGE
    return code


@cache
def _command(name: str) -> Any:
    """Build the one command that is asked for, or for any other word the whole command line.

    The whole takes 50 ms, and whoever runs several commands wants to build each once.
    """
    part = copy(app)
    part.registered_commands = [each for each in app.registered_commands if each.name == name]
    part.registered_groups = [each for each in app.registered_groups if each.name == name]
    found = part.registered_commands or part.registered_groups
    return typer.main.get_command(part if found else app)


def _dispatch(arguments: Sequence[str], runs: bool) -> int:
    try:
        if list(arguments[:1]) in (["run"], ["exec"], ["explain"]):
            twice = given_twice(arguments)
            if twice is not None:
                raise UsageError(f"{twice} is given twice", expected="one value")
        asked = _command(arguments[0] if arguments else "")
        result = asked.main(list(arguments), prog_name="beddel-cli", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except TyperException as problem:
        message = problem.format_message()
        if message.startswith("Usage: "):
            sys.stderr.write(f"{message}\n")
            return EXIT_USAGE
        error: BeddelError = _usage_error(problem, message)
    except typer.Exit as stop:
        return stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except BeddelError as raised:
        error = raised
    if runs and "--json" in arguments:
        sys.stdout.write(json_of_error(error).decode("ascii"))
    note = error_text(error)
    if runs and in_github_actions():
        from beddel_cli.github_actions import note_of_error

        note = note_of_error(error, note, os.environ)
    sys.stderr.write(note)
    return error.exit_code if runs else EXIT_USAGE


def _usage_error(problem: TyperException, message: str) -> UsageError:
    """Say in our words what is wrong with a command line, and where its help is."""
    context = getattr(problem, "ctx", None)
    hint = f"{context.command_path if context is not None else 'beddel-cli'} --help"
    kind = getattr(getattr(problem, "param", None), "type", None)
    expected = None
    if getattr(kind, "name", "").startswith("int"):
        message, least = message.rpartition(" is not ")[0], getattr(kind, "min", None)
        expected = "a whole number" if least is None else f"a whole number, at least {least}"
    return UsageError(message[:1].lower() + message[1:].rstrip("."), expected=expected, hint=hint)


def _give_up_stdout() -> None:
    """Let the interpreter flush into nothing what could not be written."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _version(wanted: bool) -> None:
    if wanted:
        from beddel_cli.guests import javascript_facts
        from beddel_cli.isolate.engine_settings import library_folder, library_version

        facts = javascript_facts()
        print(f"beddel-cli {__version__}")
        print(f"wasmtime {library_version(library_folder())}")
        print(f"quickjs-ng {facts['quickjs_ng']}, guest sha256:{facts['wasm_sha256']}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print versions."),
    ] = False,
) -> None:
    pass


def _parameter(option: Option) -> inspect.Parameter:
    """Make a Typer parameter of one row of the option table."""
    kind: Any = {FLAG: bool, MANY: list[str]}.get(option.kind, str | None)
    default: Any = {FLAG: False, MANY: []}.get(option.kind, option.default)
    more: dict[str, Any] = {} if option.kind == FLAG else {"metavar": option.metavar}
    if option.choices:
        more["callback"] = _chooser(option)
    if option.field == "profile":
        more["autocompletion"] = _complete_profile
    # Profile, runtime and the like: what holds where nothing is said.
    shown = option.kind not in (FLAG, MANY) and option.default is not None
    info = typer.Option(*option.spellings, help=option.help, show_default=shown, **more)
    return inspect.Parameter(
        option.field,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, info],
    )


def _complete_profile(incomplete: str) -> list[str]:
    return [name for name in profile.BUILT_IN if name.startswith(incomplete)]


def _chooser(option: Option) -> Callable[[str], str]:
    def check(value: str) -> str:
        if value not in option.choices:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(option.choices)}")
        return value

    return check


def _with_run_options(
    function: Callable[..., int], options: Sequence[Option] = OPTIONS
) -> Callable[..., int]:
    """Give a command every option of the table besides its own parameters."""
    own = [
        parameter
        for parameter in inspect.signature(function, eval_str=True).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    parameters = [*own, *(_parameter(option) for option in options)]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {item.name: item.annotation for item in parameters}
    return function


def _with_exec_options(function: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of `run`, and which runtime."""
    return _with_run_options(function, (RUNTIME, *OPTIONS))


@app.command("run", epilog="Example: beddel-cli run samples/order-totals.yaml --memory 1MiB")
@_with_run_options
def _run(
    job: Annotated[str, typer.Argument(metavar="JOB|-", help="A job file, or - for stdin.")],
    **values: Any,
) -> int:
    """Run a YAML job under a profile and sign a receipt.

    The job's JSON output goes to standard output, everything else to standard error. Limits given
    here tighten; asking for more than the profile grants is refused.
    """
    return run_command(job, values, started_ns=_started_ns)


@app.command(
    "exec",
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
    epilog="Example: beddel-cli exec --workspace . -- python3 script.py",
)
@_with_exec_options
def _exec(
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND...", help="A program and its arguments.")
    ],
    **values: Any,
) -> int:
    """Run a program behind walls, or a code file in an isolate, without YAML.

    With --runtime javascript, COMMAND is one file (or -) with the body of an async function of
    `input`. A program sees the system's folders and what --workspace and --mount show, and nothing
    else of this machine. Its output goes to standard output and error as it comes.
    """
    return exec_command(tuple(command), values, started_ns=_started_ns)


def _with_plan_options(function: Callable[..., int]) -> Callable[..., int]:
    """Give a command those options of `run` that decide what a job gets."""
    return _with_run_options(function, [item for item in OPTIONS if item.field in PLAN_OPTIONS])


@app.command("explain", epilog="Example: beddel-cli explain samples/order-totals.yaml")
@_with_plan_options
def _explain(
    job: Annotated[str, typer.Argument(metavar="JOB|-", help="A job file, or - for stdin.")],
    **values: Any,
) -> int:
    """Say what a run would give a job, from where, and why it would be refused.

    Starts nothing: the machine is asked what it offers, and `run` tries it. Exits 0 when the job
    would run, 1 when it would be refused, 2 when nothing could be told.
    """
    from beddel_cli.options import defaults

    try:
        check_platform()
        from beddel_cli.explain_job import explain_job

        explanation = explain_job(make_asked(job, {**defaults(), **values}, None))
    except BeddelError as error:
        if values["json"]:
            sys.stdout.write(json_text(explanation_json_of_error(error)))
        sys.stderr.write(error_text(error))
        return EXIT_COULD_NOT_TELL
    if values["json"]:
        sys.stdout.write(json_text(explanation_json(explanation)))
    else:
        sys.stdout.write(explanation_text(explanation))
    return exit_code(explanation)


@app.command("init", epilog="Example: beddel-cli init demo")
def _init(
    folder: Annotated[
        str, typer.Argument(metavar="[DIR]", help="Where to; made if it is not there.")
    ] = ".",
    force: Annotated[
        bool, typer.Option("--force", help="Replace files that are there already.")
    ] = False,
) -> None:
    """Lay out a commented first job, the samples, and the job's schema for editors.

    Files that are there already are left alone: then nothing is written, and the exit code is 2.
    """
    from beddel_cli.home import shell_word
    from beddel_cli.starter import starter_files, write_starter

    written = write_starter(folder, starter_files(standalone("job")), force=force)
    for path in written:
        print(visible(path))
    job = shell_word(written[0] if not written[0].startswith("-") else f"./{written[0]}")
    sys.stderr.write(f"next  beddel-cli run {visible(job)}\n")


@app.command("doctor", epilog="Example: beddel-cli doctor --runtime process")
def _doctor(
    profile_name: Annotated[
        str, typer.Option("--profile", metavar="NAME", help="Ask about this profile.")
    ] = DEFAULT_PROFILE,
    runtime: Annotated[
        str | None, typer.Option("--runtime", metavar="NAME", help="javascript or process.")
    ] = None,
    job: Annotated[
        str | None, typer.Option("--job", metavar="FILE", help="Ask about this job.")
    ] = None,
    allow_path: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-path", metavar="DIR", help="Let the job name files in DIR as well; repeatable."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> int:
    """Try every protection of this machine, and say what is missing and what helps.

    Exits 0 when what was asked about can run here (by default javascript under ultra-secure), 1
    when it cannot, 2 when nothing could be told.
    """
    from beddel_cli import doctor

    try:
        if runtime is not None and runtime not in doctor.RUNTIMES:
            raise UsageError(f"unknown runtime {runtime!r}", expected=" or ".join(doctor.RUNTIMES))
        if allow_path and job is None:
            raise UsageError("--allow-path goes with a job", hint="--job FILE")
        check_platform()
        report = doctor.examine(profile_name, runtime, job, allow_path or ())
    except BeddelError as error:
        if as_json:
            sys.stdout.write(json_text(doctor.report_json_of_error(error)))
        raise
    if as_json:
        sys.stdout.write(json_text(doctor.report_json(report)))
    else:
        sys.stdout.write(doctor.report_text(report))
    return 0 if doctor.answer(report) else 1


app.command("verify", epilog="Example: beddel-cli verify receipt.json --key signing.pub.pem")(
    verify
)
app.command("countersign", epilog="Example: beddel-cli countersign receipt.json --key ci.pub.pem")(
    countersign
)
app.command("timestamp", epilog="Example: beddel-cli timestamp receipt.json --query receipt.tsq")(
    timestamp
)


@profiles_app.callback(
    invoke_without_command=True, epilog="Example: beddel-cli profiles show high-security"
)
def _profiles(context: typer.Context) -> None:
    if context.invoked_subcommand is not None:
        return
    for name in profile.BUILT_IN:
        found = profile.load_profile(name)
        mark = " (default)" if name == DEFAULT_PROFILE else ""
        print(f"{name + mark:<26} {found.description}")


_ProfileName = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FILE", help="A built-in name or a file.", autocompletion=_complete_profile
    ),
]


@profiles_app.command("show", epilog="Example: beddel-cli profiles show ultra-secure --json")
def _profiles_show(
    name: _ProfileName,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Show what one profile grants and requires."""
    from beddel_cli import render_profiles as render

    try:
        found = profile.load_profile(name)
    except BeddelError as error:
        if as_json:
            sys.stdout.write(json_text(render.shown_json_of_error(error)))
        raise
    if as_json:
        sys.stdout.write(json_text(render.shown_json(found)))
    else:
        sys.stdout.write(render.shown_text(found))


@app.command("schema", epilog="Example: beddel-cli schema job > job.schema.json")
def _schema(
    kind: Annotated[
        str | None,
        typer.Argument(metavar="[KIND]", help=f"One of them alone: {', '.join(KINDS)}."),
    ] = None,
) -> None:
    """Print the JSON Schema of what is read, signed and printed, for editors and validators."""
    from beddel_cli.shape import suggestion

    if kind is not None and kind not in KINDS:
        raise UsageError(
            f"no schema {kind!r}", expected=", ".join(KINDS), hint=suggestion(kind, KINDS)
        )
    sys.stdout.write((whole() if kind is None else standalone(kind)).decode("ascii"))


@profiles_app.command("check", epilog="Example: beddel-cli profiles check ./mine.yaml")
def _profiles_check(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="Profile files.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> int:
    """Check profile files, and compare each with the built-in profiles.

    Exits 0 when every file is valid, 1 when one is not, 2 when one could not be read.
    """
    from beddel_cli import render_profiles as render
    from beddel_cli.files import read_file

    built_in = profile.load_built_in_profiles()
    code, entries = 0, []
    for file in files:
        failure = 2
        try:
            data = read_file(file, "profile")
            failure = 1
            found = profile.parse_profile(data, file, built_in=False)
        except BeddelError as error:
            code = max(code, failure)
            valid = False if failure == 1 else None
            entries.append(render.not_valid_json(file, error, valid=valid))
            if not as_json:
                sys.stderr.write(error_text(error))
            continue
        entries.append(render.checked_json(file, found, built_in))
        if not as_json:
            sys.stdout.write(render.checked_text(file, found, built_in))
    if as_json:
        sys.stdout.write(
            json_text({"schema": render.CHECK_SCHEMA, "exit_code": code, "files": entries})
        )
    return code


@profiles_app.command("diff", epilog="Example: beddel-cli profiles diff ultra-secure high-security")
def _profiles_diff(
    a: _ProfileName,
    b: _ProfileName,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> int:
    """Show each value in which two profiles differ, and which of them is looser in it.

    Exits 0 when they are the same, 1 when they differ, 2 when one could not be read.
    """
    from beddel_cli import render_profiles as render
    from beddel_cli.profile_comparison import differences

    try:
        found = differences(profile.load_profile(a), profile.load_profile(b))
    except BeddelError as error:
        if as_json:
            sys.stdout.write(json_text(render.diff_json_of_error(a, b, error)))
        sys.stderr.write(error_text(error))
        return EXIT_USAGE
    sys.stdout.write(
        json_text(render.diff_json(a, b, found)) if as_json else render.diff_text(a, b, found)
    )
    return 1 if found else 0


replay_command.register(app, _with_run_options)
