"""Whether a short text fits one of the schema's patterns, without `re`: importing that takes 9 ms.

The patterns are ours and simple: classes such as `[a-z0-9-]`, groups of alternatives, counts. Each
part gives all the places where it can end, so there is no backtracking and nothing to get wrong
about greed. A richer pattern and a long text go to `re`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    # From a text and a place in it to every place where this part can end.
    Part = Callable[[str, int], set[int]]

SHORT_CHARACTERS = 128
_ESCAPED = {"t": "\t", "n": "\n", "r": "\r"}
_COUNTS = {"*": (0, SHORT_CHARACTERS), "+": (1, SHORT_CHARACTERS), "?": (0, 1)}


class _TooRichError(Exception):
    """The pattern has something that only `re` knows."""


def fits(pattern: str, text: str) -> bool:
    """Tell whether the whole of a text is what a pattern between `^` and `$` describes."""
    inner = pattern[1:-1]
    if len(text) <= SHORT_CHARACTERS:
        try:
            part, end = _alternatives(inner, 0)
            if end == len(inner):
                return len(text) in part(text, 0)
        except _TooRichError:
            pass
    import re

    return re.fullmatch(inner, text) is not None


def _alternatives(pattern: str, at: int) -> tuple[Part, int]:
    """Read `a|b|c` up to a closing bracket or the end."""
    choices: list[list[Part]] = [[]]
    while at < len(pattern) and pattern[at] != ")":
        if pattern[at] == "|":
            choices.append([])
            at += 1
            continue
        part, at = _counted(pattern, at)
        choices[-1].append(part)

    def ends(text: str, place: int) -> set[int]:
        found = set()
        for choice in choices:
            places = {place}
            for part in choice:
                places = {end for each in places for end in part(text, each)}
            found |= places
        return found

    return ends, at


def _counted(pattern: str, at: int) -> tuple[Part, int]:
    """Read one part and how often it may stand."""
    part, at = _single(pattern, at)
    following = pattern[at : at + 1]
    if following in _COUNTS:
        least, most = _COUNTS[following]
        at += 1
    elif following == "{":
        close = pattern.index("}", at)
        low, comma, high = pattern[at + 1 : close].partition(",")
        least, most = int(low), int(high or SHORT_CHARACTERS) if comma else int(low)
        at = close + 1
    else:
        return part, at
    if pattern[at : at + 1] in ("?", "+", "*"):
        raise _TooRichError

    def ends(text: str, place: int) -> set[int]:
        places, found = {place}, {place} if least == 0 else set()
        for count in range(1, most + 1):
            places = {end for each in places for end in part(text, each)}
            if count >= least:
                places -= found  # from there on it has gone before
                found |= places
            if not places:
                break
        return found

    return ends, at


def _single(pattern: str, at: int) -> tuple[Part, int]:
    first = pattern[at]
    if first == "(":
        if pattern[at + 1] == "?":
            raise _TooRichError
        part, end = _alternatives(pattern, at + 1)
        return part, end + 1
    if first == "[":
        return _class(pattern, at + 1)
    if first in ".^$*+?{":
        raise _TooRichError
    character, end = _character(pattern, at)
    return _one_of({character}, but=False), end


def _class(pattern: str, at: int) -> tuple[Part, int]:
    negated = pattern[at] == "^"
    at += negated
    members: set[str] = set()
    while pattern[at] != "]":
        first, at = _character(pattern, at)
        last = first
        if pattern[at] == "-" and pattern[at + 1] != "]":
            last, at = _character(pattern, at + 1)
        members.update(map(chr, range(ord(first), ord(last) + 1)))
    return _one_of(members, but=negated), at + 1


def _character(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at] != "\\":
        return pattern[at], at + 1
    escaped = pattern[at + 1]
    if escaped == "x":
        return chr(int(pattern[at + 2 : at + 4], 16)), at + 4
    if escaped.isalnum() and escaped not in _ESCAPED:
        raise _TooRichError
    return _ESCAPED.get(escaped, escaped), at + 2


def _one_of(members: set[str], *, but: bool) -> Part:
    return lambda text, at: {at + 1} if at < len(text) and (text[at] in members) != but else set()
