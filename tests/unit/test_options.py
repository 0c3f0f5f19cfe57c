"""The short reader of options against Typer's, which is the one that is right."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beddel_cli import cli
from beddel_cli.limits import FIELDS
from beddel_cli.options import FLAG, OPTIONS, defaults, given_twice, parse_plain

Reading = tuple[str, dict[str, Any]] | None

SPELLINGS = [spelling for option in OPTIONS for spelling in option.spellings]
FLAGS = [spelling for option in OPTIONS if option.kind == FLAG for spelling in option.spellings]
WITH_VALUE = [spelling for spelling in SPELLINGS if spelling not in FLAGS]
CHOICES = [spelling for option in OPTIONS if option.choices for spelling in option.spellings]
WORDS = st.sampled_from(
    (
        *("job.yaml", "-", "", "x", "2MiB", "auto", "json", "never", "a=b", "=", "input.a=1", " "),
        *("-x", "-qv", "-q", "-v", "-p", "--no", "--help", "-h", "--version", "-1", "\udcff", "é"),
        *("--profile", "--prof", "--json=1", "--quiet=", "--memory=", "--set=input.a=1", "--set="),
        "--",
    )
)
GOOD_VALUES = st.sampled_from(["x", "2MiB", "-", "a=b", "json", "text", "auto", "never", "é"])
ARGUMENTS = st.lists(
    st.one_of(
        st.sampled_from(SPELLINGS).map(lambda name: [name]),
        st.sampled_from(FLAGS).map(lambda name: [name]),
        st.tuples(st.sampled_from(WITH_VALUE), GOOD_VALUES).map(list),
        st.tuples(st.sampled_from(WITH_VALUE), GOOD_VALUES).map(lambda pair: ["=".join(pair)]),
        st.just(["job.yaml"]),
        WORDS.map(lambda word: [word]),
        st.text(max_size=5).map(lambda word: [word]),
    ),
    max_size=7,
).map(lambda parts: [word for part in parts for word in part])


@pytest.fixture(scope="module")
def typer_reads() -> Iterator[Callable[[list[str]], Reading]]:
    """Give what Typer makes of arguments: the job and values it would run, None for an error."""
    seen: list[tuple[str, dict[str, Any]]] = []

    def record(job: str, values: Mapping[str, Any], **_: Any) -> int:
        seen.append((job, dict(values)))
        return 0

    def read(arguments: list[str]) -> Reading:
        seen.clear()
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            cli.run_app(["run", *arguments], started_ns=0)
        return seen[0] if seen else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "run_command", record)
        yield read


@settings(max_examples=250, deadline=None)
@given(arguments=ARGUMENTS)
def test_both_readers_agree_on_all_that_the_short_one_takes(
    typer_reads: Callable[[list[str]], Reading], arguments: list[str]
) -> None:
    """The short reader gives exactly what Typer gives, and gives up where Typer rejects."""
    plain = parse_plain(arguments)
    if plain is not None:
        assert plain == typer_reads(arguments)


@settings(max_examples=60, deadline=None)
@given(
    values=st.fixed_dictionaries(
        {}, optional={name: GOOD_VALUES for name in WITH_VALUE if name not in CHOICES}
    ),
    flags=st.lists(st.sampled_from(FLAGS), unique=True),
    joined=st.booleans(),
    first=st.booleans(),
)
def test_the_short_reader_takes_every_plain_command_line(
    typer_reads: Callable[[list[str]], Reading],
    values: dict[str, str],
    flags: list[str],
    joined: bool,
    first: bool,
) -> None:
    """One job, each option at most once, values in either form: read without Typer, and alike."""
    words = list(flags)
    for name, value in values.items():
        words += [f"{name}={value}"] if joined else [name, value]
    arguments = ["job.yaml", *words] if first else [*words, "job.yaml"]
    plain = parse_plain(arguments)
    assert plain is not None
    assert plain == typer_reads(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [""],
        ["a", "b"],
        ["a", "--"],
        ["--", "a"],
        ["a", "--nope"],
        ["a", "--memory"],
        ["a", "--memory="],
        ["a", "--memory", ""],
        ["a", "--memory", "-1"],
        ["a", "--memory", "1MiB", "--memory", "1MiB"],
        ["a", "--json=true"],
        ["a", "-qv"],
        ["a", "-q=1"],
        ["a", "--color", "red"],
        ["a", "--log-format=yaml"],
        ["a", "--help"],
        ["a", "--set"],
    ],
)
def test_the_short_reader_gives_up_on_what_is_not_plain(arguments: list[str]) -> None:
    assert parse_plain(arguments) is None


def test_what_is_not_given_is_at_its_default_and_many_are_kept_in_order() -> None:
    plain = parse_plain(["--set", "input.a=1", "job.yaml", "--set=input.b=2", "-q"])
    assert plain is not None
    job, values = plain
    assert job == "job.yaml"
    assert values == {**defaults(), "set": ["input.a=1", "input.b=2"], "quiet": True}
    assert defaults()["set"] == [], "defaults are made anew"


def test_every_limit_has_its_flag() -> None:
    flags = {"--" + field.key.replace("_", "-") for field in FIELDS}
    assert flags <= set(SPELLINGS)
    assert len(SPELLINGS) == len(set(SPELLINGS))


@pytest.mark.parametrize(
    ("words", "twice"),
    [
        ("run job.yaml --timeout 1s --timeout=2s", "--timeout"),
        ("explain --memory=1MiB job.yaml --memory 2MiB", "--memory"),
        ("exec --workspace a --workspace b -- x", "--workspace"),
        ("exec --workspace a -- --workspace b --workspace c", None),
        ("exec --workspace a x --workspace b --workspace c", None),
        ("run job.yaml --mount a:/a --mount b:/b -q -q", None),
        ("run job.yaml --input --input", None),
        ("run job.yaml --unknown --timeout 1s --timeout 1s", None),
    ],
)
def test_an_option_with_one_value_is_given_once(words: str, twice: str | None) -> None:
    assert given_twice(words.split()) == twice
