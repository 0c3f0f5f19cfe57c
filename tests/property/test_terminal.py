"""Nothing that a guest, a job or a name controls acts on a terminal or forges a line of ours."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from beddel_cli import render
from beddel_cli.errors import JobError, Place
from beddel_cli.outcome import ConsoleLine, JobFailure, Outcome, interrupted, refused
from beddel_cli.record import changed
from beddel_cli.run import Finished
from beddel_cli.terminal import json_for_terminal, visible
from tests.support.values import JOB, PROFILE, finished, refusal

HIDDEN = {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}
ATTACKS = st.sampled_from(
    (
        *("\x1b[2J", "\x1b]0;title\x07", "\n", "\r", "\x85", "\u2028", "\u202e", "\u2066", "\x00"),
        *("::error::forged", "::add-mask::x", "\n::error::x", "[bold red]x[/]", "\\", "\x9b1m"),
        *("success  x  exit 0", "\n  receipt  /forged", "  receipt  /forged", "\ud800"),
        *("x" * 5000, "…", "%s", "{0}", "\x7f", "\b\b\b", "[link=file:///]", "\U000e0041"),
    )
)
ALL = st.characters() | st.characters(categories=("Cs", "Cc", "Cf"))
TEXT = st.lists(ATTACKS | st.text(ALL, max_size=8), min_size=1, max_size=4).map("".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
# Every label that a summary may have; a line that starts otherwise is not ours.
LABELS = {
    *("reason", "needs", "found", "fix", "at", "console", "next", "profile", "time", "memory"),
    *("worker", "fuel", "output", "walls", "access", "run", "tenant", "limit", "control", "figure"),
    *("stack", "warning", "receipt", "log", "captured", "bundle", "predicate", "heap", "key"),
    "verify",
}
ONCE = LABELS & {
    *("profile", "receipt", "log", "key", "verify", "output"),
    *("walls", "access", "fuel", "memory", "time"),
}


@given(st.text(ALL))
def test_visible_text_has_no_character_that_could_act(text: str) -> None:
    """Whatever the text, no control, format, surrogate, private or line end is left in it."""
    shown = visible(text)
    assert not {unicodedata.category(char) for char in shown} & HIDDEN
    if not {unicodedata.category(char) for char in text} & HIDDEN and len(text) <= 2000:
        assert shown == text


@given(JSON, st.booleans())
def test_json_for_a_terminal_is_the_same_value_and_has_nothing_hidden(
    value: Any, ascii_only: bool
) -> None:
    """The escaped document is the same JSON value, and every character in it is visible."""
    document = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    shown = json_for_terminal(document).decode("utf-8")
    assert json.loads(shown) == json.loads(document.decode("utf-8", "surrogatepass"))
    assert not {unicodedata.category(char) for char in shown} & HIDDEN


@st.composite
def hostile_runs(draw: st.DrawFn) -> Finished:
    """Give a finished run every text of which was chosen by an attacker."""
    place = Place(draw(TEXT), 1, 2)
    reason = draw(st.sampled_from(["thrown", "ok", "memory", "protection", "interrupted", "fault"]))
    refused_for = None
    console = tuple(ConsoleLine("log", draw(TEXT)) for _ in range(draw(st.integers(0, 7))))
    if reason == "ok":
        outcome = Outcome("success", "ok", 0, output=b'"x"', console=console)
    elif reason == "memory":
        outcome = Outcome(
            "limit", "memory", 137, message=draw(TEXT), limit="memory", console=console
        )
    elif reason == "protection":
        refused_for = refusal(needs=draw(TEXT), found=draw(TEXT), fix=draw(TEXT), place=place)
        outcome = refused(refused_for)
    elif reason == "interrupted":
        outcome = interrupted("interrupted")
    elif reason == "fault":
        outcome = Outcome("fault", "worker-fault", 125, message=draw(TEXT))
    else:
        failure = JobFailure(draw(TEXT), draw(TEXT), draw(TEXT), place)
        message = draw(TEXT)
        outcome = Outcome("failure", "thrown", 1, message=message, failure=failure, console=console)
    return finished(
        outcome,
        job=changed(JOB, id=draw(TEXT), file=draw(TEXT), limit_places=(("memory_bytes", place),)),
        profile=changed(PROFILE, name=draw(TEXT), built_in=draw(st.booleans())),
        tenant=draw(TEXT),
        refusal=refused_for,
        receipt_path=draw(TEXT),
        bundle_path=draw(st.none() | TEXT),
        predicate_path=draw(st.none() | TEXT),
        captured_path=draw(st.none() | TEXT),
        snapshot_path=draw(st.none() | TEXT),
        public_key_path=draw(st.none() | TEXT),
        warnings=tuple(draw(st.lists(TEXT, max_size=2))),
    )


@settings(max_examples=150)
@given(hostile_runs(), st.booleans())
def test_a_summary_cannot_be_forged(run: Finished, verbose: bool) -> None:
    """Each line is the head or one of our labels, each of ours is there once, and none acts."""
    text = render.summary(run, colour=False, verbose=verbose)
    assert text.endswith("\n")
    head, *lines = text[:-1].split("\n")
    assert head.startswith(f"{run.outcome.status}  ")
    assert head.endswith(f"  exit {run.outcome.exit_code}")
    labels = []
    for line in lines:
        assert line.startswith("  ")
        assert line[2] != " "
        label = line[2:].split("  ")[0].rstrip()
        assert label in LABELS
        labels.append(label)
    for label in ONCE:
        assert labels.count(label) == 1
    assert not {unicodedata.category(char) for char in text.replace("\n", "")} & HIDDEN
    assert len(text) < 200_000


@settings(max_examples=150)
@given(TEXT, TEXT, TEXT, TEXT, TEXT)
def test_an_error_cannot_be_forged(
    message: str, hint: str, file: str, expected: str, got: str
) -> None:
    """An error's lines are its head and our three labels, whatever its texts are."""
    error = JobError(message, hint=hint, place=Place(file, 1), expected=expected, got=got)
    head, *lines = render.error_text(error)[:-1].split("\n")
    assert head.startswith("beddel-cli: ")
    given_labels = {"  expected  ": expected, "  got       ": got, "  hint      ": hint}
    assert [line[:12] for line in lines] == [label for label, text in given_labels.items() if text]
    assert not {unicodedata.category(char) for char in head + "".join(lines)} & HIDDEN


@settings(max_examples=100)
@given(hostile_runs())
def test_a_log_line_is_one_line_of_ascii_json(run: Finished) -> None:
    """A run's log line is one JSON object on one line of ASCII, with every field."""
    line = render.log_line(run, "2000-01-01T00:00:00Z")
    assert line.count("\n") == 1
    assert line.isascii()
    assert line.endswith("\n")
    document = json.loads(line)
    assert document["job"] == run.job.id
    assert document["error"] == run.outcome.message
    fields = {"time", "level", "job", "runtime", "run_id", "duration_ms", "error"}
    assert fields <= set(document)


@settings(max_examples=100)
@given(hostile_runs())
def test_a_json_document_keeps_hostile_text_as_it_is_and_is_ascii(run: Finished) -> None:
    """The document of any run is ASCII and carries the very texts of the run."""
    data = render.json_document(run)
    assert data.isascii()
    assert b"\x1b" not in data
    document = json.loads(data)
    assert document["job"] == run.job.id
    assert [line["text"] for line in document["console"]] == [x.text for x in run.outcome.console]
    assert document["receipt"]["path"] == run.receipt_path
