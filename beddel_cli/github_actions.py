"""What a run tells GitHub Actions: annotations, a step summary, and lines that are no commands.

Loaded only where GITHUB_ACTIONS is `true`. How the runner reads a step, and what follows from it:

* It takes a line for a command when the line starts with `::` (after white space), and also when
  `##[` stands anywhere in it. It reads standard output and standard error of a step through two
  pipes, each in its own order; nothing orders one against the other, and `stop-commands` holds for
  both from when the runner happens to read it.
* So tokens on standard error protect what stands between them on standard error, and nothing else.
  The summary, which quotes the job, is printed between two; our annotations follow the second.
* Standard output is the job's result alone, for whoever reads it next, so no token may stand in it.
  It needs none: it is one line of JSON, which cannot start with `::`, and `##[` can stand only
  inside its strings, where the bracket has a second spelling that is the same value. A regular
  file is no step log and gets the bytes that the receipt digests; so does `--raw`.
* A token is drawn after the job has ended, so it cannot have known it.
* A step summary is Markdown, in which almost any character can mean something. So all of it is one
  HTML table, without the blank line at which Markdown would start again, and every value stands in
  `<code>`, where GitHub makes no links or mentions, with its punctuation as entities.

Source: actions/runner, ActionCommandManager.cs, ActionCommand.cs and FileCommandManager.cs (what is
a command, and the size of a summary); CommonMark 0.31, HTML blocks; docs.github.com, "Workflow
commands for GitHub Actions".
"""

from __future__ import annotations

import os
import stat

from beddel_cli.errors import BeddelError, Place
from beddel_cli.render import annotation_place, reason_rows, summary_rows
from beddel_cli.terminal import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from beddel_cli.run import Finished

# What a generated key is worth where the machine is thrown away after the job.
ONLY_THIS_RUN = "integrity within this run only"
# The runner drops a step's summary that is larger, the part of other commands included.
MAX_SUMMARY_FILE_BYTES = 1024 * 1024
# GitHub shows ten annotations of a kind for a step.
_MOST_ANNOTATIONS = 10
_MOST_VALUE_CHARACTERS = 500
_PLAIN_PUNCTUATION = frozenset(" -._/,+=%")


def note_of_run(
    run: Finished, note: str, environ: Mapping[str, str], *, quiet: bool = False
) -> str:
    """Give all that standard error gets for a run: its note, made harmless, and annotations.

    The step summary is written on the way; where it cannot be, the note says so.
    """
    problem = append_summary(summary_of_run(run), environ)
    warnings = () if quiet else run.warnings
    lines = [
        *_annotations_of_run(run, environ),
        *(annotation("warning", "beddel-cli", text) for text in warnings[:_MOST_ANNOTATIONS]),
    ]
    if run.key.created:
        text = f"this run made the key that signed its receipt: {ONLY_THIS_RUN}"
        lines.append(annotation("notice", "beddel-cli", text))
    return between_tokens(note + problem) + "".join(lines)


def note_of_error(error: BeddelError, note: str, environ: Mapping[str, str]) -> str:
    """Give all that standard error gets when no run came about."""
    errors = [error, *error.more]
    problem = append_summary(summary_of_errors(errors), environ)
    lines = [
        annotation("error", "beddel-cli", _error_message(item), item.place, environ)
        for item in errors[:_MOST_ANNOTATIONS]
    ]
    return between_tokens(note + problem) + "".join(lines)


def for_step_log(output: bytes) -> bytes:
    """Give the same JSON in a spelling in which the runner finds no command."""
    return output.replace(b"##[", b"##\\u005b")


def between_tokens(text: str) -> str:
    """Give lines among which the runner takes nothing for a command."""
    if not text:
        return ""
    token = os.urandom(16).hex()
    end = "" if text.endswith("\n") else "\n"
    return f"::stop-commands::{token}\n{text}{end}::{token}::\n"


def annotation(
    kind: str,
    title: str,
    message: str,
    place: Place | None = None,
    environ: Mapping[str, str] | None = None,
) -> str:
    """Give one `error`, `warning` or `notice` command.

    The message may have lines; apart from their ends nothing of it acts.
    """
    properties = [*_place_properties(place, environ or {}), ("title", title)]
    written = ",".join(f"{name}={_property(text)}" for name, text in properties)
    lines = "\n".join(visible(line) for line in message.split("\n"))
    return f"::{kind} {written}::{_data(lines)}\n"


def _place_properties(place: Place | None, environ: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    # `<stdin>` is no file that GitHub could show.
    if place is None or place.file.startswith("<"):
        return
    yield "file", visible(_within(environ.get("GITHUB_WORKSPACE", ""), place.file))
    if place.line is not None:
        yield "line", str(place.line)
        if place.column is not None:
            yield "col", str(place.column)


def _within(workspace: str, file: str) -> str:
    """Give the path as the repository knows it; as it is where it is not in the repository."""
    path = os.path.abspath(file)
    root = os.path.join(os.path.abspath(workspace), "") if workspace else ""
    return path[len(root) :] if root and path.startswith(root) else file


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _annotations_of_run(run: Finished, environ: Mapping[str, str]) -> list[str]:
    rows = reason_rows(run)
    if not rows:
        return []
    first, *others = (text for _, text in rows)
    labels = [label for label, _ in rows[1:]]
    lines = [
        f"{run.job.id}: {first}",
        *(f"{label}: {text}" for label, text in zip(labels, others, strict=True)),
    ]
    title = f"beddel-cli {run.outcome.status}"
    return [annotation("error", title, "\n".join(lines), annotation_place(run), environ)]


def _error_message(error: BeddelError) -> str:
    lines = [visible(error.message)]
    for label, text in (("expected", error.expected), ("got", error.got), ("hint", error.hint)):
        if text:
            lines.append(f"{label}: {visible(text)}")
    return "\n".join(lines)


def summary_of_run(run: Finished) -> str:
    """Give a run's step summary."""
    key = run.key
    origin = f"{key.origin}: {ONLY_THIS_RUN}" if key.created else key.origin
    rows = [
        ("job", run.job.id),
        ("exit", str(run.outcome.exit_code)),
        *(row for row in summary_rows(run) if row[0] != "key"),
        ("key", key.key_id),
        ("key from", origin),
    ]
    return _table(run.outcome.status, rows)


def summary_of_errors(errors: Sequence[BeddelError]) -> str:
    """Give the step summary where no run came about."""
    rows = [("exit", str(errors[0].exit_code))]
    for error in errors[:_MOST_ANNOTATIONS]:
        where = f"{error.place}: " if error.place else ""
        rows.append(("error", where + _error_message(error).replace("\n", "; ")))
    hidden = len(errors) - _MOST_ANNOTATIONS
    if hidden > 0:
        rows.append(("error", f"{hidden} more, all in the log"))
    return _table("error", rows)


def _table(status: str, rows: Iterable[tuple[str, str]]) -> str:
    lines = [
        f"<tr><th>{label}</th><td><code>{_cell(text)}</code></td></tr>" for label, text in rows
    ]
    # Blank lines around the table, none in it.
    return "\n".join(("", f"### beddel-cli: {status}", "", "<table>", *lines, "</table>", "", ""))


def _cell(text: str) -> str:
    """Give text in which nothing is Markdown, HTML, a link or a mention."""
    return "".join(
        char if char.isalnum() or char in _PLAIN_PUNCTUATION else f"&#{ord(char)};"
        for char in visible(text, _MOST_VALUE_CHARACTERS)
    )


def append_summary(text: str, environ: Mapping[str, str]) -> str:
    """Append to the step's summary; gives a line that says why not where that fails.

    The run is over and its receipt written: what GitHub shows of it must not change its ending.
    """
    path = environ.get("GITHUB_STEP_SUMMARY", "")
    if not path:
        return ""
    data = text.encode("utf-8", "backslashreplace")
    # Not through a link, and without waiting for the other end of a pipe.
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
        try:
            problem = _append(descriptor, data)
        finally:
            os.close(descriptor)
    except OSError as error:
        problem = error.strerror
    return f"beddel-cli: no step summary in {visible(repr(path))}: {problem}\n" if problem else ""


def _append(descriptor: int, data: bytes) -> str | None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return "GITHUB_STEP_SUMMARY names no regular file"
    if status.st_size + len(data) > MAX_SUMMARY_FILE_BYTES:
        return f"the file would have more than {MAX_SUMMARY_FILE_BYTES:,} bytes"
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    return None
