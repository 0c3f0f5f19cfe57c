"""The patterns of the schema without `re`: held against `re` itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beddel_cli.pattern import SHORT_CHARACTERS, fits
from beddel_cli.schema_document import whole


def _patterns(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("pattern"), str):
            yield node["pattern"]
        for value in node.values():
            yield from _patterns(value)
    elif isinstance(node, list):
        for value in node:
            yield from _patterns(value)


OURS = sorted(set(_patterns(json.loads(whole()))))
NEAR = st.text(st.sampled_from("ab9-_ .tzA\t\n\x00msKiBGTZ:/é"), max_size=SHORT_CHARACTERS + 8)
CHARACTERS = st.sampled_from(["a", "-", "[a-c]", "[^b]", r"[\t .]", r"\.", r"[a-c-]", r"\x41"])
COUNTS = st.sampled_from(["", "?", "*", "+", "{2}", "{0,3}", "{1,}", "{2,4}"])


@st.composite
def _made(draw: st.DrawFn, depth: int = 2) -> str:
    def part() -> str:
        inner = f"({draw(_made(depth - 1))})" if depth and draw(st.booleans()) else draw(CHARACTERS)
        return inner + draw(COUNTS)

    return "|".join(
        "".join(part() for _ in range(draw(st.integers(0, 3))))
        for _ in range(draw(st.integers(1, 2)))
    )


def test_the_schema_has_patterns() -> None:
    assert len(OURS) >= 8


@pytest.mark.parametrize("pattern", OURS)
def test_a_pattern_of_the_schema_takes_what_re_takes(pattern: str) -> None:
    @settings(max_examples=30)
    @given(st.one_of(NEAR, st.from_regex(pattern), st.from_regex(pattern, fullmatch=True)))
    def holds(text: str) -> None:
        assert fits(pattern, text) == (re.fullmatch(pattern[1:-1], text) is not None)

    holds()


@given(_made(), st.text(st.sampled_from("abcd-.\tA"), max_size=9))
def test_any_simple_pattern_takes_what_re_takes(inner: str, text: str) -> None:
    assert fits(f"^{inner}$", text) == (re.fullmatch(inner, text) is not None)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (r"^\d+$", "12", True),
        (r"^\d+$", "x", False),
        ("^(?:a|b)c$", "bc", True),
        ("^a.c$", "abc", True),
        ("^a+?b$", "aab", True),
        ("^[a-z]*$", "a" * (SHORT_CHARACTERS + 1), True),
        ("^[a-z]*$", "a" * SHORT_CHARACTERS + "A", False),
    ],
)
def test_what_is_richer_or_longer_is_left_to_re(pattern: str, text: str, expected: bool) -> None:
    assert fits(pattern, text) is expected


def test_no_pattern_of_the_schema_takes_re() -> None:
    program = (
        "import sys\n"
        "from beddel_cli.pattern import fits\n"
        "before = set(sys.modules)\n"
        f"for pattern in {OURS!r}: fits(pattern, 'a-9')\n"
        "print(sorted({'re', 'enum'} & (set(sys.modules) - before)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout == "[]\n"
