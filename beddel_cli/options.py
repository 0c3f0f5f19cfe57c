"""The options of `run` and `exec`, in one table that serves two readers.

`cli` turns the table into Typer commands: help, completion, every error message. `parse_plain`
reads the plain, correct form without Typer, whose import costs as much as the rest of a run; it
gives up (None) on anything it is not sure of, and the command line then starts over with Typer.
A test holds the two against each other.
"""

from __future__ import annotations

from beddel_cli.limits import FIELDS
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Values = dict[str, str | bool | list[str] | None]

DEFAULT_PROFILE = "ultra-secure"
VALUE, FLAG, MANY = "value", "flag", "many"


@record
class Option:
    """One option: its field, spellings, kind, metavar, default and help."""

    field: str
    spellings: tuple[str, ...]
    kind: str
    metavar: str
    default: str | None
    help: str
    choices: tuple[str, ...] = ()


def _value(field: str, metavar: str, text: str, default: str | None = None, *short: str) -> Option:
    spelling = "--" + field.replace("_", "-")
    return Option(field, (spelling, *short), VALUE, metavar, default, text)


OPTIONS = (
    _value(
        "profile", "NAME|FILE", "What the job may have: a built-in name or a file.", DEFAULT_PROFILE
    ),
    _value("input", "FILE|-", "Input as JSON (YAML if the name ends in .yaml); - is stdin."),
    Option("set", ("--set",), MANY, "input.KEY=JSON", None, "Set one value of the input."),
    Option(
        "allow_path", ("--allow-path",), MANY, "DIR", None, "Let the job name files in DIR as well."
    ),
    *(_value(field.key, field.kind.upper(), f"Tighten: {field.help}.") for field in FIELDS),
    _value("tier", "NAME", "Tighten a program to a tier: free, pro or enterprise."),
    _value("workspace", "DIR[:GUEST[:ro]]", "Folder a program works on; its changes stay inside."),
    Option("mount", ("--mount",), MANY, "HOST:GUEST[:ro|rw]", None, "Show a program this as well."),
    Option("env", ("--env",), MANY, "K=V|NAME", None, "Set or pass on one variable to a program."),
    _value("results", "DIR", "Put the files a program left in its workspace into this new folder."),
    Option(
        "write_back", ("--write-back",), FLAG, "", None, "Put them into the workspace's own folder."
    ),
    Option("tty", ("--tty",), FLAG, "", None, "Give a program a terminal of its own."),
    _value("receipt", "FILE", "Write the receipt (DSSE) here instead of into BEDDEL_HOME."),
    _value("bundle", "FILE", "Also write it as a Sigstore bundle v0.3."),
    _value("predicate", "FILE", "Also write the bare predicate, for another tool to attest."),
    _value("heap_snapshot", "FILE", "Write the isolate's linear memory as it was at the end."),
    Option(
        "capture", ("--capture",), FLAG, "", None, "Keep the output in a file beside the receipt."
    ),
    _value("salt", "FILE", "Salt the digests of the job's own data, with a salt put in this file."),
    _value("signing_key", "FILE", "Sign with this PKCS#8 PEM key."),
    Option("require_key", ("--require-key",), FLAG, "", None, "Never make a key; fail instead."),
    _value("tenant", "NAME", "Who the run is for (or BEDDEL_TENANT)."),
    Option("json", ("--json",), FLAG, "", None, "Print one JSON document instead."),
    Option("raw", ("--raw",), FLAG, "", None, "Send the output to a terminal unescaped."),
    Option(
        "quiet", ("--quiet", "-q"), FLAG, "", None, "Print only the result, and what went wrong."
    ),
    Option("verbose", ("--verbose", "-v"), FLAG, "", None, "Print where each figure is from."),
    Option(
        "color",
        ("--color",),
        VALUE,
        "WHEN",
        "auto",
        "Colour on standard error: auto, always or never.",
        ("auto", "always", "never"),
    ),
    Option(
        "log_format",
        ("--log-format",),
        VALUE,
        "FORMAT",
        "text",
        "The summary on standard error: text or json.",
        ("text", "json"),
    ),
)
# Those that decide what a job gets: the options of `explain`.
PLAN_OPTIONS = frozenset(
    (
        *("profile", "input", "set", "allow_path", "tier", "workspace", "mount", "env", "json"),
        *(field.key for field in FIELDS),
    )
)
RUNTIME = Option(
    "runtime",
    ("--runtime",),
    VALUE,
    "NAME",
    "process",
    "What runs it: process (a program) or javascript (a code file).",
    ("process", "javascript"),
)
_BY_SPELLING = {spelling: option for option in OPTIONS for spelling in option.spellings}
_BY_EXEC_SPELLING = {**_BY_SPELLING, "--runtime": RUNTIME}


def defaults() -> Values:
    """Give every option at its default."""
    values: Values = {}
    for option in OPTIONS:
        values[option.field] = (
            [] if option.kind == MANY else False if option.kind == FLAG else option.default
        )
    return values


def parse_plain(arguments: Sequence[str]) -> tuple[str, Values] | None:
    """Read `JOB [OPTIONS]` of `run` in its plain form; None for anything else, right or wrong.

    Plain: long options or `-q`/`-v`, values as the next word or after `=`, each option that takes
    one value at most once, exactly one job.
    """
    values = defaults()
    words, job, seen = list(arguments), None, set[str]()
    while words:
        if words[0].startswith("-") and words[0] != "-":
            if not _take_option(words, _BY_SPELLING, values, seen):
                return None
        elif job is not None or not words[0]:
            return None
        else:
            job = words.pop(0)
    return None if job is None else (job, values)


def parse_plain_exec(arguments: Sequence[str]) -> tuple[tuple[str, ...], Values] | None:
    """Read `[OPTIONS] [--] COMMAND…` of `exec` in its plain form; None for anything else.

    The first word that is not an option starts the command, and all after it belongs to it.
    """
    values = {**defaults(), RUNTIME.field: RUNTIME.default}
    words, seen = list(arguments), set[str]()
    while words and words[0].startswith("-") and words[0] not in ("-", "--"):
        if not _take_option(words, _BY_EXEC_SPELLING, values, seen):
            return None
    command = tuple(words[1:] if words[:1] == ["--"] else words)
    return (command, values) if command and command[0] else None


def given_twice(arguments: Sequence[str]) -> str | None:
    """Give the option with one value that `run`, `exec` or `explain` is given twice, if there is.

    Reads as far as it knows the words: the rest is Typer's to judge.
    """
    known = _BY_EXEC_SPELLING if arguments[:1] == ["exec"] else _BY_SPELLING
    words, seen = list(arguments[1:]), set[str]()
    while words and words[0] != "--":
        name, equals, _ = words.pop(0).partition("=")
        option = known.get(name)
        if option is None:
            if (name.startswith("-") and name != "-") or arguments[:1] == ["exec"]:
                return None
            continue
        if option.kind == FLAG:
            continue
        if option.kind == VALUE and option.field in seen:
            return name
        seen.add(option.field)
        if not equals:
            del words[:1]
    return None


def _take_option(
    words: list[str], known: dict[str, Option], values: Values, seen: set[str]
) -> bool:
    """Move one option and its value from the words to the values; False where it is not plain."""
    word = words.pop(0)
    name, equals, value = word.partition("=")
    option = known.get(name)
    if option is None or (equals and not name.startswith("--")):
        return False
    if option.kind == FLAG:
        values[option.field] = True
        return not equals
    if not equals:
        value = words.pop(0) if words else ""
        if value.startswith("-") and value != "-":
            return False
    if not value or (option.kind == VALUE and option.field in seen):
        return False
    if option.choices and value not in option.choices:
        return False
    seen.add(option.field)
    found = values[option.field]
    if isinstance(found, list):
        found.append(value)
    else:
        values[option.field] = value
    return True
