"""What is accepted has the value that an independent YAML 1.2 reader gives, and any bytes end well.

The other reader is ruamel.yaml in pure Python. Where it is known to differ from YAML 1.2's core
schema, `same` lets it, by rule.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import ruamel.yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml.error import YAMLError

from beddel_cli.errors import JobError
from beddel_cli.json_strict import parse_json
from beddel_cli.yaml_safe import Document, parse_yaml

SAMPLES = sorted((Path(__file__).parents[2] / "samples").glob("*.yaml"))
SAMPLE_TEXTS = st.sampled_from([path.read_bytes() for path in SAMPLES])
# Words of YAML 1.1, and numbers and dates that the other reader spells in its own way.
# Plain texts that are something else to the other reader, which keeps some of YAML 1.1.
UNLIKE = re.compile(
    r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt \t].*)?"  # dates
    r"|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])*(\.[0-9_]*)?([eE][-+]?[0-9]+)?"  # underscores, base sixty
    r"|[-+]?0[bB][01_]+|[-+]?0[xX][0-9a-fA-F_]+|[-+]?0[oO]?[0-7_]+|="
)
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")

WORDS = st.sampled_from(
    (
        *("a", "b", "c d", "no", "on", "true", "False", "null", "~", "x:y", "a#b", "-1", "0", "7"),
        *(
            "3.5",
            "1e3",
            "0o17",
            "0xfF",
            "é",
            "😀",
            "yes",
            "?x",
            "-x",
            "a: b",
            "'",
            '"',
            "",
            "1.",
            ".5",
        ),
    )
)


@st.composite
def scalars(draw: st.DrawFn) -> str:
    """A scalar in one of the flow styles; now and then one that is none."""
    word = draw(WORDS)
    style = draw(st.sampled_from(("plain", "plain", "single", "double")))
    if style == "single":
        return "'" + word.replace("'", "''") + "'"
    if style == "double":
        return json.dumps(word, ensure_ascii=draw(st.booleans()))
    return word


FLOW = st.recursive(
    scalars(),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(scalars(), inner), max_size=3).map(
            lambda pairs: "{" + ", ".join(f"{key}: {item}" for key, item in pairs) + "}"
        )
    ),
    max_leaves=6,
)


def indented(text: str, by: int = 2) -> str:
    return "\n".join(" " * by + line if line else line for line in text.split("\n"))


def block_text(lines: list[str], header: str) -> str:
    return f"{header}\n" + indented("\n".join(lines))


TEXT_LINES = st.lists(st.sampled_from(("x", "  y", "", "# z", "- a", "a: b", " ")), max_size=4)
BLOCK_TEXT = st.builds(block_text, TEXT_LINES, st.sampled_from(("|", "|-", "|+", ">", ">-", "|2")))


def block_list(items: list[str]) -> str:
    return "\n".join("-\n" + indented(item) for item in items) if items else "[]"


def block_map(pairs: list[tuple[str, str]]) -> str:
    return "\n".join(f"{key}:\n" + indented(item) for key, item in pairs) if pairs else "{}"


BLOCK = st.recursive(
    FLOW | BLOCK_TEXT,
    lambda inner: (
        st.lists(inner, max_size=3).map(block_list)
        | st.lists(st.tuples(scalars(), inner), max_size=3).map(block_map)
    ),
    max_leaves=8,
)
DOCUMENTS = st.builds(
    lambda head, body, tail, end: (head + body + tail).replace("\n", end),
    st.sampled_from(("", "---\n", "# c\n", "%YAML 1.2\n---\n")),
    BLOCK,
    st.sampled_from(("", "\n", "\n# c\n", "\n\n")),
    st.sampled_from(("\n", "\n", "\r\n", "\r")),
)


def read(data: bytes) -> Document | JobError:
    try:
        return parse_yaml(data, "f.yaml")
    except JobError as error:
        refused = error
    assert refused.place is not None
    assert refused.place.file == "f.yaml"
    return refused


def theirs(text: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ruamel.yaml.YAML(typ="safe", pure=True).load(text)


def same(ours: Any, other: Any) -> bool:
    """Tell whether two values are one, keys by their text and numbers by type and value."""
    if isinstance(ours, dict) and isinstance(other, dict):
        return len(ours) == len(other) and all(
            same(left, right) for left, right in zip(ours.values(), other.values(), strict=True)
        )
    if isinstance(ours, list) and isinstance(other, list):
        return len(ours) == len(other) and all(map(same, ours, other))
    if isinstance(ours, str) and not isinstance(other, str):
        return UNLIKE.fullmatch(ours) is not None
    if isinstance(ours, float) and isinstance(other, str):
        # It leaves out fractions without a digit on one side, or exponents without a sign.
        return FLOAT.fullmatch(other) is not None and math.isclose(ours, float(other))
    return type(ours) is type(other) and bool(ours == other)


def check_against_the_other(data: bytes) -> bool:
    """Compare when both readers accept; give whether they did."""
    ours = read(data)
    if isinstance(ours, JobError):
        return False
    text = data.decode()
    # A line's end to YAML 1.1; and a last line of spaces, where ours is what the YAML suite says.
    if "\x85" in text or text.endswith((" ", "\t")):
        return False
    try:
        other = theirs(text)
    except (YAMLError, ValueError, TypeError, AttributeError, IndexError, AssertionError):
        return False
    assert same(ours.value, other), (text, ours.value, other)
    return True


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(DOCUMENTS)
def test_documents_by_the_grammar_have_the_value_of_another_reader(text: str) -> None:
    """Every document of a small grammar that both readers accept has one value."""
    check_against_the_other(text.encode())


def mutated(data: bytes, cuts: list[tuple[int, int, bytes]]) -> bytes:
    for at, length, new in cuts:
        start = at % (len(data) + 1)
        data = data[:start] + new + data[start + length :]
    return data


TOKENS = st.sampled_from(
    (
        *(b" ", b"  ", b"\n", b"\t", b"- ", b": ", b"[", b"]", b"{", b"}", b",", b"#", b" #", b"'"),
        *(
            b'"',
            b"|",
            b">",
            b"&a ",
            b"*a",
            b"!",
            b"? ",
            b"%",
            b"@",
            b"\r",
            b"\x00",
            b"\xff",
            b"---\n",
        ),
    )
)
CUTS = st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 4), TOKENS), min_size=1, max_size=4)
MUTATED = st.builds(mutated, SAMPLE_TEXTS, CUTS)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(MUTATED)
def test_changed_samples_are_an_error_or_have_the_value_of_another_reader(data: bytes) -> None:
    """A sample with a few bytes changed is our error, or a value that another reader gives too."""
    check_against_the_other(data)


def test_the_comparison_compares() -> None:
    """A control: samples and plain documents reach the other reader."""
    assert all(check_against_the_other(path.read_bytes()) for path in SAMPLES)
    assert check_against_the_other(b"a: [1, no, 0o17, 1e3, {b: ~}]\n")
    assert not same({"a": 1}, {"a": True})
    assert not same([1], [1.0])
    assert not same("x", 1)


def read_json(data: bytes) -> None:
    try:
        value = parse_json(data, "f.json")
    except JobError as error:
        place = error.place
    else:
        assert value == json.loads(data)
        return
    assert place is not None
    assert place.line is not None


JSON_TOKENS = st.sampled_from(
    (
        *(b"[", b"]", b"{", b"}", b",", b":", b'"', b'"a"', b'"a":', b"\\", b'\\"', b"\\u12", b"1"),
        *(
            b"-",
            b"0",
            b"1e9",
            b".5",
            b"NaN",
            b"-Infinity",
            b"true",
            b"null",
            b" ",
            b"\n",
            b"\xef\xbb\xbf",
        ),
        *(b"\x00", b"\xff", "é".encode(), b"1e999", b'"\\ud800"', b"9" * 401),
    )
)


@settings(max_examples=400)
@given(st.lists(JSON_TOKENS, max_size=12).map(b"".join))
def test_any_pieces_of_json_are_a_value_or_our_error_with_a_place(data: bytes) -> None:
    """Any mixture of JSON's tokens gives Python's value, or an error with line and column."""
    read_json(data)


@pytest.mark.slow
@settings(max_examples=50_000, suppress_health_check=list(HealthCheck), deadline=None)
@given(DOCUMENTS | MUTATED)
def test_many_documents_and_changed_samples(document: str | bytes) -> None:
    """The same two properties for long."""
    check_against_the_other(document if isinstance(document, bytes) else document.encode())


@pytest.mark.slow
@settings(max_examples=100_000, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.binary(max_size=300) | st.lists(JSON_TOKENS, max_size=30).map(b"".join))
def test_many_bytes(data: bytes) -> None:
    """Any bytes are a value or our error, as YAML and as JSON."""
    read(data)
    read_json(data)
