"""Text on its way to people."""

from __future__ import annotations

import io

import pytest

from beddel_cli.terminal import coloured, json_for_terminal, visible, wants_colour


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 漢 😀 \u00a0", "plain é 漢 😀 \u00a0"),
        ("a\nb\rc\td", "a\\nb\\rc\\td"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\x7f\x9b", "\\x7f\\x9b"),
        ("a\u202eb\u2066c", "a\\u202eb\\u2066c"),
        ("a\u200bb\ufeff", "a\\u200bb\\ufeff"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\ud800\udcff", "\\ud800\\udcff"),
        ("\U000e0041\U0010ffff", "\\U000e0041\\U0010ffff"),
        ("\ue000", "\\ue000"),
        ("", ""),
    ],
)
def test_what_could_act_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_long_text_is_cut_and_says_so() -> None:
    assert visible("x" * 2000) == "x" * 2000
    assert visible("x" * 2001) == "x" * 2000 + "… (1 more characters)"
    assert visible("abc", 1) == "a… (2 more characters)"


def test_json_shows_hidden_characters_as_escapes() -> None:
    document = '{"a":"\u202e\u200b\x7f\U000e0041é"}'.encode()
    assert json_for_terminal(document) == ('{"a":"\\u202e\\u200b\\u007f\\udb40\\udc41é"}'.encode())


class Terminal(io.StringIO):
    """A stream that somebody looks at."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.mark.parametrize(
    ("tty", "when", "environ", "wanted"),
    [
        (True, "auto", {}, True),
        (False, "auto", {}, False),
        (True, "auto", {"NO_COLOR": "1"}, False),
        (True, "auto", {"NO_COLOR": ""}, True),
        (True, "auto", {"TERM": "dumb"}, False),
        (False, "always", {"NO_COLOR": "1"}, True),
        (True, "never", {}, False),
    ],
)
def test_colour_is_for_terminals_that_want_it(
    tty: bool, when: str, environ: dict[str, str], wanted: bool
) -> None:
    assert wants_colour(Terminal() if tty else io.StringIO(), when, environ) is wanted


def test_a_coloured_word_ends_its_colour() -> None:
    assert coloured("success", "success") == "\x1b[32msuccess\x1b[0m"
    assert coloured("odd", "odd") == "\x1b[0modd\x1b[0m"
