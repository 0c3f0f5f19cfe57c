"""What is asked: a job file's bytes, checked, as one value.

A job file is untrusted. It names what it would like; what it gets is for the plan to decide. Keys
that a runtime cannot use, or that this version does not enforce, are refused and never ignored.
"""

from __future__ import annotations

import os

from beddel_cli.errors import JobError, Place, RefusedError
from beddel_cli.json_strict import MAX_DEPTH, canonical_json, compact_json, find_inexact
from beddel_cli.limits import BY_KEY, ISOLATE, Limits, parse_limit, use_of
from beddel_cli.record import changed, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from beddel_cli import shape
    from beddel_cli.process.mount_rules import MountRequest
    from beddel_cli.yaml_safe import Document, Mark

FORMAT = 1
COMMAND_LINE = "<command line>"  # for the name of a job file, where there is none
CODE_ENDINGS, JOB_ENDINGS = (".js", ".mjs", ".cjs"), (".yaml", ".yml")
# Of these words are made at white space alone; others mean something to a shell.
_PLAIN_CHARACTERS = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-./=:,+@%"
)
_MOST_HINT = 100  # characters
_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")


@record
class CodePlace:
    """Where a job's code stands, to translate positions in it for people.

    `line` and `column` are where its first character stands in `file`, None when the text there
    is not the code line by line (folded or escaped YAML text).
    """

    file: str
    line: int | None
    column: int | None

    def locate(self, line: int | None, column: int | None) -> Place:
        """Give the place in the file of a 1-based position in the code."""
        if line is None or self.line is None or self.column is None:
            return Place(self.file, None if self.line is None else self.line, None)
        if column is None:
            return Place(self.file, self.line + line - 1, None)
        # Every line of a YAML block is indented by the same amount; a file's by none.
        return Place(self.file, self.line + line - 1, self.column + column - 1)


@record
class Job:
    """A checked job.

    Attributes:
        source: the job file's bytes, as read.
        file: its name for messages and receipts.
        code: the body of an async function of `input`, UTF-8.
        code_file: the file that the job names for its code, None when the code stands in it.
        input: any JSON value.
        limits: what the job asks for, None where it does not.
        limit_places: where each limit is written, by field name.
        deterministic: whether it asks for a frozen clock and a fixed seed.
        command: a program and its arguments; empty for code in an isolate.
        environment: a program's variables, by name and value.
        workspace, mounts: what of the host a program would like to see.
    """

    source: bytes
    file: str
    id: str
    name: str | None
    description: str | None
    version: str | None
    runtime: str
    code: bytes
    code_file: str | None
    code_place: CodePlace
    input: Any
    limits: Limits
    limit_places: tuple[tuple[str, Place], ...]
    deterministic: bool
    command: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    workspace: MountRequest | None = None
    mounts: tuple[MountRequest, ...] = ()


def read_job(path: str, allowed: Sequence[str] = ()) -> tuple[Job, RefusedError | None]:
    """Read a job file, or standard input for `-`, and the code file it may name.

    With a refusal, because its code file is not in its folder, nor in one of `allowed`, the job has
    no code.

    Raises:
        NotFoundError: no such job, or no such code file.
        JobError: not a valid job, with file, line and column.
        UsageError: one of `allowed` is not a folder.
    """
    from beddel_cli.files import open_reach, read_job_file, read_named, read_stdin

    from_stdin = path == "-"
    with open_reach(None if from_stdin else path, allowed) as reach:
        data = read_stdin("job") if from_stdin else read_job_file(reach, path)
        job = parse_job(data, "<stdin>" if from_stdin else path)
        name = job.code_file
        if name is None:
            return job, None
        place = _place(job, "file")
        if from_stdin and not os.path.isabs(name):
            raise JobError(
                "a job from standard input has no folder to find its code file in",
                place=place,
                hint="write the code into the job, run the job as a file, "
                "or name the whole path and give --allow-path DIR",
            )
        # As its reader would name it from where the command was given.
        shown = os.path.join(os.path.dirname(path), name)
        job = changed(job, code_place=CodePlace(shown, 1, 1))
        try:
            code = read_named(reach, name, "code file", place)
        except RefusedError as refusal:
            return job, refusal
    _check_code(code, shown)
    return changed(job, code=code), None


def _place(job: Job, key: str) -> Place:
    from beddel_cli.yaml_safe import parse_yaml

    return parse_yaml(job.source, job.file).place((key,))


def parse_job(data: bytes, file: str) -> Job:
    """Read a job from its bytes. With `file:` in it, the code is left empty for `read_job`.

    Raises:
        JobError: with file, line and column of all that is wrong.
    """
    from beddel_cli import shape
    from beddel_cli.checked_yaml import parse_checked

    document = parse_checked(data, file, "job", _beyond_the_schema)
    code, code_file, code_place = _code(document)
    limits, places = _limits(document)
    return Job(
        source=data,
        file=file,
        id=shape.at(document, ("id",)),
        name=shape.at(document, ("name",)),
        description=shape.at(document, ("description",)),
        version=shape.at(document, ("version",)),
        runtime=shape.at(document, ("runtime",)),
        code=code,
        code_file=code_file,
        code_place=code_place,
        input=shape.at(document, ("input",)),
        limits=limits,
        limit_places=places,
        deterministic=shape.at(document, ("deterministic",)) is True,
        command=tuple(shape.at(document, ("command",)) or ()),
        environment=tuple((shape.at(document, ("env",)) or {}).items()),
        workspace=_workspace(document),
        mounts=_mounts(document),
    )


def command_job(command: tuple[str, ...]) -> Job:
    """Make a job of a command line, as `exec -- CMD` runs it.

    Its source is the job file that would ask for the same, without what flags add to it.

    Raises:
        JobError: an argument that is not UTF-8, which no job file could hold.
    """
    for argument in command:
        try:
            argument.encode("utf-8")
        except UnicodeEncodeError:
            raise JobError(f"not valid UTF-8 in the command: {argument!r}") from None
    name = _as_id(os.path.basename(command[0])) or "program"
    document = {"beddel": FORMAT, "id": name, "runtime": "process", "command": list(command)}
    return Job(
        source=canonical_json(document),
        file=COMMAND_LINE,
        id=name,
        name=None,
        description=None,
        version=None,
        runtime="process",
        code=b"",
        code_file=None,
        code_place=CodePlace(COMMAND_LINE, None, None),
        input=None,
        limits=Limits(),
        limit_places=(),
        deterministic=False,
        command=command,
    )


def snippet_job(code: bytes, file: str, runtime: str) -> Job:
    """Make a job of a bare code file, as `exec --runtime javascript` runs it.

    Raises:
        JobError: the code is not UTF-8 text.
    """
    _check_code(code, file)
    return Job(
        source=code,
        file=file,
        id=_as_id(os.path.splitext(os.path.basename(file))[0]) or "snippet",
        name=None,
        description=None,
        version=None,
        runtime=runtime,
        code=code,
        code_file=None,
        code_place=CodePlace(file, 1, 1),
        input=None,
        limits=Limits(),
        limit_places=(),
        deterministic=False,
    )


def _as_id(text: str) -> str:
    allowed = "".join(char if char in _ID_CHARACTERS else " " for char in text.lower())
    return "-".join(allowed.split())[:63].strip("-")


def with_input(job: Job, value: Any, file: str) -> Job:
    """Give the job with another input.

    Raises:
        JobError: it holds a number that would not arrive as written.
    """
    from beddel_cli import shape

    problem = find_inexact(value)
    if problem:
        path, why = problem
        raise JobError(f"{shape.dotted(('input', *path))}: {why}", place=Place(file))
    return changed(job, input=value)


def with_setting(job: Job, setting: str) -> Job:
    """Apply one `--set input.path=JSON` to a job's input.

    Raises:
        JobError: not of that form, not JSON, or a path that leads through a value without keys.
    """
    from beddel_cli.json_strict import parse_json

    path_text, equals, value_text = setting.partition("=")
    keys = path_text.split(".")
    if not equals or keys[0] != "input" or not all(keys):
        raise JobError(
            f"--set {setting!r} is not a setting",
            expected="input.KEY=JSON, such as input.count=3 or 'input.name=\"Ann\"'",
        )
    if any("[" in key for key in keys):
        raise JobError(
            f"--set {setting!r}: items of a list are named by a dot",
            hint=f"write {path_text.replace('[', '.').replace(']', '')}={value_text}",
        )
    if len(keys) > MAX_DEPTH:
        raise JobError(f"--set leads deeper than {MAX_DEPTH} keys")
    try:
        value = parse_json(value_text.encode("utf-8", "surrogateescape"), "--set")
    except JobError as error:
        error.hint = f"text is written in quotes: --set '{path_text}=\"{value_text}\"'"
        raise
    return with_input(job, _replaced(job.input, keys[1:], value, path_text), "--set")


def _replaced(old: Any, keys: list[str], value: Any, whole: str) -> Any:
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    if old is None:
        old = {}
    if isinstance(old, dict):
        return {**old, key: _replaced(old.get(key), rest, value, whole)}
    index = int(key) if key.isascii() and key.isdigit() and len(key) < 10 else None
    if isinstance(old, list) and index is not None and index < len(old):
        return [*old[:index], _replaced(old[index], rest, value, whole), *old[index + 1 :]]
    raise JobError(
        f"--set {whole}: there is no {key!r} to set",
        expected="a key of a mapping, or the number of an item that is there",
    )


def input_bytes(job: Job) -> bytes:
    """Give the JSON that the guest is handed, or a program on its standard input."""
    return compact_json(job.input)


def given_input(job: Job) -> bytes | None:
    """Give what `input_bytes` gives, or None for a program that is given nothing."""
    isolate = use_of(job.runtime) == ISOLATE
    return input_bytes(job) if isolate or job.input is not None else None


def _beyond_the_schema(document: Document) -> list[shape.Problem]:
    return [*_inexact_input(document), *_wrong_names(document), *_one_text(document)]


def as_words(text: str) -> list[str]:
    """Give the words of a command that was written as one text, through a shell if it takes one."""
    return text.split() if set(text) <= _PLAIN_CHARACTERS else ["sh", "-c", text]


def as_list(text: str) -> str:
    """Give the same as a job has it; in the quotes of JSON, since an item such as 5 is no text."""
    return "[" + ", ".join(compact_json(word).decode("utf-8") for word in as_words(text)) + "]"


def _one_text(document: Document) -> list[shape.Problem]:
    """Say of a command that is one text how it is written as a list."""
    from beddel_cli import shape

    command = shape.at(document, ("command",))
    if not isinstance(command, str):
        return []
    said, hint = as_list(command), "a list of the program and its arguments"
    if command.strip() and len(said) <= _MOST_HINT:
        hint = f"command: {said}"
    return [shape.Problem(("command",), "command is text", expected="a list", hint=hint)]


def _wrong_names(document: Document) -> list[shape.Problem]:
    """Find names of variables that no program could be given."""
    from beddel_cli import shape

    names = shape.at(document, ("env",))
    if not isinstance(names, dict):
        return []
    return [
        shape.Problem(("env", name), f"not a name of a variable: {name!r}", "key")
        for name in names
        if not name or "=" in name or "\0" in name
    ]


def _workspace(document: Document) -> MountRequest | None:
    from beddel_cli import shape

    given = shape.at(document, ("workspace",))
    if given is None:
        return None
    from beddel_cli.process.mount_rules import workspace_of_job

    place = document.place(("workspace", "source"))
    return workspace_of_job(given["source"], given.get("target"), given.get("mode"), place)


def _mounts(document: Document) -> tuple[MountRequest, ...]:
    from beddel_cli import shape

    listed = shape.at(document, ("mounts",))
    if not listed:
        return ()
    from beddel_cli.process.mount_rules import mount_of_job

    return tuple(
        mount_of_job(
            given["source"],
            given["target"],
            given.get("mode"),
            document.place(("mounts", index, "source")),
        )
        for index, given in enumerate(listed)
    )


def _inexact_input(document: Document) -> list[shape.Problem]:
    from beddel_cli import shape

    problem = find_inexact(shape.at(document, ("input",)))
    if problem is None:
        return []
    path, why = problem
    return [
        shape.Problem(
            ("input", *path),
            f"{shape.dotted(('input', *path))}: {why}",
            hint="write it in quotes and use BigInt(…) in the code",
        )
    ]


def _code(document: Document) -> tuple[bytes, str | None, CodePlace]:
    from beddel_cli import shape

    if shape.at(document, ("runtime",)) == "process":
        return b"", None, CodePlace(document.file, None, None)
    name = shape.at(document, ("file",))
    if name is not None:
        return b"", name, CodePlace(name, 1, 1)
    code = shape.at(document, ("code",)).encode("utf-8")
    return code, None, _code_place(document.file, document.marks[("code",)])


def _code_place(file: str, mark: Mark) -> CodePlace:
    return CodePlace(file, mark.first_line, mark.first_column if mark.linear else None)


def _check_code(code: bytes, file: str) -> None:
    try:
        code.decode("utf-8")
    except UnicodeDecodeError as error:
        line = code.count(b"\n", 0, error.start) + 1
        raise JobError("the code is not valid UTF-8", place=Place(file, line)) from None


def _limits(document: Document) -> tuple[Limits, tuple[tuple[str, Place], ...]]:
    from beddel_cli import shape

    given = shape.at(document, ("limits",)) or {}
    values = {BY_KEY[key].field: parse_limit(BY_KEY[key], value) for key, value in given.items()}
    places = [(BY_KEY[key].field, document.place(("limits", key))) for key in given]
    return Limits(**values), tuple(places)
