"""Text on its way to people: nothing a guest, a job or a receipt controls is sent as it is.

Control and bidirectional characters would let it move the cursor, hide or reorder what we print,
or speak to the CI system; they are shown as escapes instead.
"""

from __future__ import annotations

from unicodedata import category

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

# Control, format (bidi, zero width), surrogate, unassigned, private use, line and paragraph ends.
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"))
_COLOURS = {"success": "32", "failure": "31", "limit": "33", "refused": "35", "fault": "31;1"}


def visible(text: str, limit: int = 2000) -> str:
    """Give one line with every character that could act instead of show written as an escape.

    Longer text is cut after `limit` characters, and says so.
    """
    cut = text[:limit]
    if not cut.isascii() or not cut.isprintable():
        cut = "".join(_escape(char) if category(char) in _HIDDEN else char for char in cut)
    # GitHub's runner takes `##[` for a command wherever it stands in a line.
    cut = cut.replace("##[", "##\\x5b")
    more = len(text) - limit
    return cut if more <= 0 else f"{cut}… ({more} more characters)"


def visible_lines(text: str) -> str:
    """Give text of many lines with every character that could act written as an escape.

    Line ends and tabs stay what they are.
    """
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(
        _escape(char) if char not in "\n\t" and category(char) in _HIDDEN else char for char in text
    )


def _escape(char: str) -> str:
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char)
    if named:
        return named
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def json_text(document: object, indent: int | None = 2) -> str:
    """Write a JSON document of ours: ASCII, a line end behind it, nothing a CI runner obeys."""
    import json  # only where it is asked for: it costs a run 10 ms

    return _without_commands(json.dumps(document, indent=indent)) + "\n"


def _without_commands(text: str) -> str:
    # GitHub's runner takes `##[` for a command anywhere in a line; in JSON only strings hold it.
    return text.replace("##[", "##\\u005b")


def json_for_terminal(document: bytes) -> bytes:
    """Give the same JSON value with hidden characters as \\u escapes, so a terminal shows them.

    In JSON such characters stand only inside strings, where an escape means the same.
    """
    text = _without_commands(document.decode("utf-8", "surrogatepass"))
    out = []
    for char in text:
        if category(char) not in _HIDDEN:
            out.append(char)
            continue
        units = char.encode("utf-16-be", "surrogatepass")
        out.extend(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
    return "".join(out).encode("utf-8")


def wants_colour(stream: TextIO, when: str, environ: Mapping[str, str]) -> bool:
    """Decide on colour: `always`, `never`, or `auto` for terminals that did not opt out.

    Source: https://no-color.org (any non-empty value).
    """
    if when != "auto":
        return when == "always"
    return not environ.get("NO_COLOR") and environ.get("TERM") != "dumb" and stream.isatty()


def coloured(word: str, status: str) -> str:
    """Give a status word in its colour."""
    return f"\x1b[{_COLOURS.get(status, '0')}m{word}\x1b[0m"
