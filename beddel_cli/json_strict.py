"""JSON without surprises: no duplicate keys, no NaN, no number that JavaScript would change."""

from __future__ import annotations

from itertools import accumulate

from beddel_cli.errors import JobError, Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_SAFE_INTEGER = (1 << 53) - 1
MAX_DEPTH = 256
# Keys count as values, and an empty list or mapping counts as two.
MAX_VALUES = 1_000_000
MAX_NUMBER_DIGITS = 400
MAX_SHOWN_CHARACTERS = 80

_WHITE = " \t\n\r"
_PIECE_BYTES = 1 << 16
_QUOTE, _BACKSLASH = b'"\\'
_BRACKETS_AS_SIGNS = bytes.maketrans(b"[{]}", b"\x02\x02\x00\x00")
_NOT_MARKS = bytes(set(range(256)) - set(b"[{,:"))
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
# What JSON consists of, constants of Python's included; white space, commas and lists aside.
_LEXEME = (
    r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}:]|-?Infinity|NaN'
    r"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?"
)


class UnportableError(JobError):
    """JSON by its grammar, but not a value that every reader would get the same."""


class _Rejected(ValueError):
    """A construct that strict JSON does not have."""


class _NotJson(ValueError):
    """Not JSON by its grammar; `at` is the offset of the fault."""

    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.at = at


def parse_json(data: bytes, file: str) -> Any:
    """Read one JSON value in UTF-8.

    Depth and number of values are judged on the bytes, before anything is built.

    Raises:
        UnportableError: duplicate keys, or numbers, nesting or more values than readers agree on.
        JobError: not JSON. Both with line and column.
    """
    excess = find_excess(data)
    if excess is not None:
        at, why = excess
        raise UnportableError(why, place=_place(file, data[:at].decode("utf-8", "replace")))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        place = _place(file, data[: error.start].decode("utf-8"))
        raise JobError("not valid UTF-8", place=place) from None
    if text.startswith("\ufeff"):
        raise JobError("not valid JSON: it begins with a byte order mark", place=_place(file, ""))
    try:
        value, end = first_value(text, _skip_white(text, 0), strictly=True)
    except _NotJson as error:
        place = _place(file, text[: error.at])
        raise JobError(f"not valid JSON: {error}", place=place) from None
    except _Rejected:
        at, why = _find_rejected(text)
        raise UnportableError(why, place=_place(file, text[:at])) from None
    end = _skip_white(text, end)
    if end != len(text):
        raise JobError("not valid JSON: extra data", place=_place(file, text[:end]))
    return value


def first_value(text: str, at: int = 0, *, strictly: bool = False) -> tuple[Any, int]:
    """Read the value that begins at an offset; gives it and the offset after it.

    Strictly is for what others wrote: see `parse_json`. Either way it does as
    `json.JSONDecoder.raw_decode` does, without the package, which imports `re`: 10 ms together
    before anything is read.

    Raises:
        ValueError: no value begins there, or it has a fault.
    """
    try:
        found = _scan(text, at, _scanner(_Reading(strictly=strictly)))
    except StopIteration as stop:
        raise _NotJson("expecting value", stop.value) from None
    except _Rejected:
        raise
    except ValueError as error:
        from json import JSONDecodeError

        if not isinstance(error, JSONDecodeError):
            raise
        raise _NotJson(error.msg[:1].lower() + error.msg[1:], error.pos) from None
    return found


def _scan(text: str, at: int, scanner: Callable[[str, int], tuple[Any, int]]) -> tuple[Any, int]:
    try:
        return scanner(text, at)
    except SystemError:
        # To say what is wrong, CPython 3.11's looks for a class in `json`, and that is not loaded.
        import json  # noqa: F401

        return scanner(text, at)


def _scanner(reading: _Reading) -> Callable[[str, int], tuple[Any, int]]:
    try:
        from _json import make_scanner
    except ImportError:  # another Python than CPython
        from json import JSONDecoder

        return JSONDecoder(
            object_pairs_hook=reading.object_pairs_hook,
            parse_float=reading.parse_float,
            parse_int=reading.parse_int,
            parse_constant=reading.parse_constant,
        ).raw_decode
    return make_scanner(reading)  # type: ignore[arg-type]


def _skip_white(text: str, at: int) -> int:
    """Give where the first character that is no white space stands, or the end."""
    if text[at : at + 1] not in _WHITE:
        return at
    return len(text) - len(text[at:].lstrip(_WHITE))


def _place(file: str, before: str) -> Place:
    return Place(file, before.count("\n") + 1, len(before) - before.rfind("\n"))


def find_excess(data: bytes) -> tuple[int, str] | None:
    """Find where JSON nests too deeply or holds too many values, in time linear in its bytes.

    Gives the offset and what is exceeded, or None. Where the text is no JSON, what stands before
    its first fault is judged rightly, and no parser goes further.
    """
    marks = data.translate(None, _NOT_MARKS)
    if len(marks) < MAX_VALUES and marks.count(b"[") + marks.count(b"{") <= MAX_DEPTH:
        return None
    del marks
    depth = values = at = 0
    inside = False
    while at < len(data):
        end = _end_of_piece(data, at)
        outside, inside_after = _outside_strings(data[at:end], inside)
        opened = outside.count(b"[") + outside.count(b"{")
        # Each value but the first stands after one of these; a closing bracket ends none anew.
        values_after = values + opened + outside.count(b",") + outside.count(b":")
        if values_after >= MAX_VALUES or (
            depth + opened > MAX_DEPTH and _is_deeper(outside, depth)
        ):
            fault = _find_excess_in(data, at, end, (inside, depth, values))
            if fault is not None:
                return fault
        depth += opened - outside.count(b"]") - outside.count(b"}")
        values, inside, at = values_after, inside_after, end
    return None


def _end_of_piece(data: bytes, at: int) -> int:
    """Give where a piece of a text ends such that no escape is cut."""
    end = min(at + _PIECE_BYTES, len(data))
    if data[end - 1] != _BACKSLASH:
        return end
    while end < len(data) and data[end] == _BACKSLASH:
        end += 1
    return min(end + 1, len(data))


def _outside_strings(piece: bytes, inside: bool) -> tuple[bytes, bool]:
    """Give what of a piece is not in a string, and whether the piece ends in one."""
    if b"\\" in piece:
        piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
    parts = piece.split(b'"')
    return b"".join(parts[inside::2]), inside == (len(parts) % 2 == 1)


def _is_deeper(outside: bytes, depth: int) -> bool:
    """Tell whether brackets that begin at a depth lead beyond the limit."""
    brackets = outside.translate(_BRACKETS_AS_SIGNS, _NOT_BRACKETS)
    # Most are closed where they open; what is left after a few rounds is short.
    left, rounds = brackets, 4
    for _ in range(rounds):
        left = left.replace(b"\x02\x00", b"")
    if depth + rounds + left.count(2) <= MAX_DEPTH:
        return False
    return depth + max(accumulate(brackets, lambda sum_, sign: sum_ + sign - 1, initial=0)) > (
        MAX_DEPTH
    )


def _find_excess_in(
    data: bytes, at: int, end: int, before: tuple[bool, int, int]
) -> tuple[int, str] | None:
    inside, depth, values = before
    escaped = False
    for offset in range(at, end):
        byte = data[offset]
        if inside:
            if escaped:
                escaped = False
            elif byte == _BACKSLASH:
                escaped = True
            elif byte == _QUOTE:
                inside = False
        elif byte == _QUOTE:
            inside = True
        elif byte in b"[{,:":
            values += 1
            if values >= MAX_VALUES:
                return offset, f"more than {MAX_VALUES} values"
            if byte in b"[{":
                depth += 1
                if depth > MAX_DEPTH:
                    return offset, f"nested deeper than {MAX_DEPTH}"
        elif byte in b"]}":
            depth -= 1
    return None


def _find_rejected(text: str) -> tuple[int, str]:
    """Give where the first construct that our rules refuse stands, and why it is refused.

    Only for a text that was refused and is JSON by its grammar up to there; each lexeme is seen.
    """
    import json
    import re

    names: list[set[str]] = []
    name, at = "", 0
    for found in re.finditer(_LEXEME, text):
        lexeme = found[0]
        if lexeme[0] == '"':
            name, at = lexeme, found.start()
        elif lexeme == "{":
            names.append(set())
        elif lexeme == "}":
            names.pop()
        elif lexeme == ":":
            key = json.loads(name) if "\\" in name else name[1:-1]
            if key in names[-1]:
                return at, f"duplicate key {_shown(key)}"
            names[-1].add(key)
        else:
            try:
                _number(lexeme)
            except _Rejected as error:
                return found.start(), str(error)
    raise AssertionError("bug: a text that was refused holds nothing to refuse")


def _number(lexeme: str) -> int | float:
    if lexeme[-1] in "Ny":
        _constant(lexeme)
    return _integer(lexeme) if lexeme.lstrip("-").isdigit() else _float(lexeme)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Rejected("duplicate key")
    return found


def _shown(key: str) -> str:
    if len(key) <= MAX_SHOWN_CHARACTERS:
        return repr(key)
    return f"{key[:MAX_SHOWN_CHARACTERS]!r}…"


def _constant(name: str) -> Any:
    raise _Rejected(f"JSON has no such number: {name}")


def _integer(text: str) -> int | float:
    _check_digits(text)
    # JavaScript tells -0 from 0; Python's integers do not.
    return -0.0 if text == "-0" else int(text)


def _float(text: str) -> float:
    _check_digits(text)
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _Rejected(f"a number outside the range of JSON: {text[:40]}")
    return value


def _check_digits(text: str) -> None:
    if len(text) > MAX_NUMBER_DIGITS:
        raise _Rejected(f"a number of more than {MAX_NUMBER_DIGITS} digits")


class _Reading:
    """How to read JSON: what the scanner asks a `json.JSONDecoder` for."""

    strict = True
    object_hook = None
    parse_constant = staticmethod(_constant)

    def __init__(self, *, strictly: bool) -> None:
        self.object_pairs_hook = _object if strictly else None
        self.parse_float: Callable[[str], float] = _float if strictly else float
        self.parse_int: Callable[[str], float] = _integer if strictly else int


def find_inexact(value: Any) -> tuple[tuple[str | int, ...], str] | None:
    """Find the first number or nesting that would not arrive as written.

    Gives its path and why, or None when every value travels exactly.
    """
    # One iterator for each level: a path for every waiting value would weigh a thousand times the
    # value itself.
    path: list[str | int] = []
    levels: list[Any] = [iter((("", value),))]
    while levels:
        for key, item in levels[-1]:
            if len(levels) > MAX_DEPTH + 1:
                return (*path, key)[1:], f"nested deeper than {MAX_DEPTH}"
            if isinstance(item, (dict, list)):
                path.append(key)
                levels.append(iter(item.items() if isinstance(item, dict) else enumerate(item)))
                break
            if type(item) is int and abs(item) > MAX_SAFE_INTEGER:
                return (*path, key)[1:], "a whole number that JavaScript cannot hold exactly"
        else:
            levels.pop()
            if path:
                path.pop()
    return None


def deeper_than(value: Any, depth: int) -> bool:
    """Tell whether lists and mappings stand in each other more than `depth` times."""
    layer: list[Any] = [[value]]
    for _ in range(depth + 1):
        layer = [
            child
            for item in layer
            if isinstance(item, (dict, list))
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, (dict, list))
        ]
        if not layer:
            return False
    return True


def canonical_json(value: Any) -> bytes:
    """Give compact JSON with sorted keys: the bytes that digests of our own values are over.

    Lone surrogates are escaped, so the result is always valid UTF-8.
    """
    return _encode(_dumps(value, sort_keys=True), value)


def compact_json(value: Any) -> bytes:
    """Give compact JSON in the value's own key order, as valid UTF-8."""
    return _encode(_dumps(value, sort_keys=False), value)


def _dumps(value: Any, *, sort_keys: bool) -> str:
    """Do as json.dumps does, without the package: it imports `re` to read, 10 ms before a line."""
    try:
        from _json import encode_basestring, make_encoder
    except ImportError:  # another Python than CPython
        import json

        return json.dumps(value, ensure_ascii=False, sort_keys=sort_keys, separators=(",", ":"))
    # The arguments of `json.encoder.c_make_encoder`, in its order.
    encode = make_encoder({}, _not_json, encode_basestring, None, ":", ",", sort_keys, False, True)
    return "".join(encode(value, 0))


def _not_json(value: object) -> None:
    raise TypeError(f"{type(value).__name__} is nothing that JSON has")


def _encode(text: str, value: Any) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        # Lone surrogates: escape them, and leave everything else readable.
        return b"".join(
            b"\\u%04x" % ord(char) if 0xD800 <= ord(char) <= 0xDFFF else char.encode("utf-8")
            for char in text
        )
