"""JSON without surprises: no duplicate keys, no NaN, no number that JavaScript would change."""

from __future__ import annotations

import json

from beddel_cli.errors import JobError, Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_SAFE_INTEGER = (1 << 53) - 1
MAX_DEPTH = 256


class UnportableError(JobError):
    """JSON by its grammar, but not a value that every reader would get the same."""


class _Rejected(ValueError):
    """A construct that strict JSON does not have."""


def parse_json(data: bytes, file: str) -> Any:
    """Read one JSON value in UTF-8.

    Raises:
        UnportableError: duplicate keys, or numbers or nesting beyond what readers agree on.
        JobError: not JSON, with line and column where the parser knows them.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise JobError("not valid UTF-8", place=Place(file, line, column)) from None
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_integer,
        )
    except json.JSONDecodeError as error:
        place = Place(file, error.lineno, error.colno)
        raise JobError(
            f"not valid JSON: {error.msg[:1].lower()}{error.msg[1:]}", place=place
        ) from None
    except _Rejected as error:
        raise UnportableError(str(error), place=Place(file)) from None
    except RecursionError:
        raise UnportableError("nested too deeply", place=Place(file)) from None
    except ValueError:
        # int() refuses absurdly long numbers; nothing else is left to fail here.
        raise UnportableError("a number of too many digits", place=Place(file)) from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Rejected(f"duplicate key {key!r}")
            seen.add(key)
    return found


def _constant(name: str) -> Any:
    raise _Rejected(f"JSON has no such number: {name}")


def _integer(text: str) -> int | float:
    # JavaScript tells -0 from 0; Python's integers do not.
    return -0.0 if text == "-0" else int(text)


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _Rejected(f"a number outside the range of JSON: {text[:40]}")
    return value


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
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return _encode(text, value)


def compact_json(value: Any) -> bytes:
    """Give compact JSON in the value's own key order, as valid UTF-8."""
    return _encode(json.dumps(value, ensure_ascii=False, separators=(",", ":")), value)


def _encode(text: str, value: Any) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        # Lone surrogates: escape them, and leave everything else readable.
        return b"".join(
            b"\\u%04x" % ord(char) if 0xD800 <= ord(char) <= 0xDFFF else char.encode("utf-8")
            for char in text
        )
