"""Check that a parsed document has the keys and types asked for, and say where it has not."""

from __future__ import annotations

from beddel_cli.errors import JobError
from beddel_cli.yaml_safe import Document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from beddel_cli.yaml_safe import Path

_NAMES = {
    str: "text",
    int: "a whole number",
    bool: "true or false",
    dict: "a mapping",
    list: "a list",
    float: "a number",
    type(None): "nothing",
}


def at(document: Document, path: Path) -> Any:
    """Give the value at `path`, or None where there is none."""
    value: Any = document.value
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value


def mapping(
    document: Document, path: Path, allowed: Iterable[str], required: Iterable[str] = ()
) -> dict[str, Any]:
    """Give the mapping at `path`, whose keys are all known and among which all required ones are.

    Raises:
        JobError: not a mapping, an unknown key (with the nearest known one), or a missing key.
    """
    value = at(document, path)
    if not isinstance(value, dict):
        raise wrong_type(document, path, value, dict)
    known = tuple(allowed)
    for key in value:
        if key not in known:
            where = f" in {dotted(path)}" if path else ""
            raise JobError(
                f"unknown key {key!r}{where}",
                place=document.key_place((*path, key)),
                expected=", ".join(known),
                hint=suggestion(key, known),
            )
    for key in required:
        if key not in value:
            raise JobError(
                f"missing key {key!r}" + (f" in {dotted(path)}" if path else ""),
                place=document.place(path),
                hint="add `beddel: 1`" if key == "beddel" else f"add `{key}: …`",
            )
    return value


def text(document: Document, path: Path) -> str:
    """Give the text at `path`.

    Raises:
        JobError: it is something else.
    """
    return str(typed(document, path, str))


def typed(document: Document, path: Path, kind: type) -> Any:
    """Give the value at `path`, which is of exactly this type (true is not a whole number).

    Raises:
        JobError: it is something else.
    """
    value = at(document, path)
    if type(value) is not kind:
        raise wrong_type(document, path, value, kind)
    return value


def one_of(document: Document, path: Path, choices: Iterable[str]) -> str:
    """Give the text at `path`, which is one of a few words.

    Raises:
        JobError: it is not, with the nearest one that is.
    """
    value = text(document, path)
    words = tuple(choices)
    if value not in words:
        raise JobError(
            f"{dotted(path)} is {value!r}",
            place=document.place(path),
            expected=" or ".join(words),
            hint=suggestion(value, words),
        )
    return value


def wrong_type(document: Document, path: Path, value: object, kind: type) -> JobError:
    """Give the error for a value of the wrong type."""
    what = dotted(path) if path else "the document"
    return JobError(
        f"{what} is {_NAMES.get(type(value), type(value).__name__)}",
        place=document.place(path),
        expected=_NAMES[kind],
        got=_short(value),
    )


def suggestion(word: str, known: Iterable[str]) -> str | None:
    """Give `did you mean …?` for a near miss, else None."""
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else None


def dotted(path: Path) -> str:
    """Write a path as `limits.memory` or `items[3].price`."""
    out = ""
    for key in path:
        out += f"[{key}]" if isinstance(key, int) else f".{key}" if out else str(key)
    return out


def _short(value: object) -> str:
    written = repr(value)
    return written if len(written) <= 60 else written[:57] + "..."
