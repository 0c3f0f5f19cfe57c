"""Turn profiles and their comparison into what people and programs read. Pure."""

from __future__ import annotations

from beddel_cli.limits import ISOLATE, PROGRAM, fields_of, format_limit
from beddel_cli.profile_comparison import (
    GRANTED,
    NOT_GRANTED,
    NOT_REQUIRED,
    PROCESS,
    REQUIRED,
    beyond_all,
    differences,
    profile_warnings,
    settings,
    short_name,
)
from beddel_cli.render import document_of_error, object_of_error
from beddel_cli.terminal import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from beddel_cli.errors import BeddelError
    from beddel_cli.limits import Limits
    from beddel_cli.profile import Profile
    from beddel_cli.profile_comparison import Difference

SHOW_SCHEMA = "beddel-cli/profiles-show/v1"
DIFF_SCHEMA = "beddel-cli/profiles-diff/v1"
CHECK_SCHEMA = "beddel-cli/profiles-check/v1"
_SIDES = {"left": "a", "right": "b"}


def shown_json(profile: Profile) -> dict[str, Any]:
    """Give the document of `profiles show --json`; `process` is null where programs get nothing."""
    return {"schema": SHOW_SCHEMA, **_shown(profile), "error": None}


def shown_json_of_error(error: BeddelError) -> dict[str, Any]:
    """Give the same document where there is no such profile, or it cannot be read."""
    keys = (
        *("name", "level", "built_in", "digest", "limits", "dynamic_code", "clock", "network"),
        *("required", PROCESS),
    )
    return document_of_error(SHOW_SCHEMA, keys, error)


def _shown(profile: Profile) -> dict[str, Any]:
    programs = profile.grants(PROGRAM)
    return {
        "name": profile.name,
        "level": profile.level,
        "built_in": profile.built_in,
        "digest": {"sha256": profile.digest},
        "limits": _limits(profile.limits, ISOLATE),
        "dynamic_code": profile.dynamic_code,
        "clock": profile.clock,
        "network": profile.network,
        "required": sorted(profile.required),
        "process": None
        if programs is None
        else {
            "limits": _limits(programs.limits, PROGRAM),
            "network": programs.network,
            "required": sorted(programs.required),
        },
    }


def _limits(limits: Limits, use: str) -> dict[str, str]:
    return {
        field.key: format_limit(field, getattr(limits, field.field)) for field in fields_of(use)
    }


def shown_text(profile: Profile) -> str:
    """Give what `profiles show` prints: a line for each value of its document."""
    document = _shown(profile)
    programs = document.pop(PROCESS)
    document["digest"] = f"sha256:{profile.digest}"
    rows = list(document.items())
    if programs is None:
        rows.append((PROCESS, f"{NOT_GRANTED}: it has no `{PROCESS}` part"))
    else:
        rows += [(f"{PROCESS} {key}", value) for key, value in programs.items()]
    return "".join(f"{key:<16}  {visible(_row_text(value))}\n" for key, value in rows)


def _row_text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {text}" for key, text in value.items())
    if isinstance(value, list):
        return ", ".join(value)
    # As a profile file would have it.
    return str(value).lower() if isinstance(value, bool) else str(value)


def checked_text(file: str, profile: Profile, built_in: Sequence[Profile]) -> str:
    """Say that a profile file is valid, what it grants, and how it stands to the built-in ones."""
    lines = [
        f"ok  {visible(file)}, profile {visible(profile.name)}",
        *_granted_lines(profile),
    ]
    for other in built_in:
        found = differences(profile, other)
        for word, side in (("looser", "left"), ("tighter", "right")):
            texts = [_compared(item) for item in found if item.looser == side]
            if texts:
                lines.append(f"  {word:<7}   than {other.name}: {', '.join(texts)}")
        if not any(item.looser for item in found):
            lines.append(f"  same      as {other.name}")
    warnings = profile_warnings(profile, beyond_all(profile, built_in))[1:]
    lines += [f"  warning   {visible(text)}" for text in warnings]
    return "\n".join(lines) + "\n"


def _granted_lines(profile: Profile) -> list[str]:
    """Give what a profile grants to isolates and to programs, and what it requires for each."""
    part = f"{PROCESS}."
    values = [item for item in settings(profile) if item.looseness is not None]
    values = [item for item in values if ".required." not in f".{item.name}"]
    isolate = [item for item in values if not item.name.startswith(PROCESS)]
    process = [item for item in values if item.name.startswith(part)]
    programs = profile.grants(PROGRAM)
    lines = [
        "  grants    " + ", ".join(f"{_last(item.name)} {item.text}" for item in isolate),
        "  requires  " + ", ".join(sorted(profile.required)),
    ]
    if programs is None:
        return [*lines, f"  programs  {NOT_GRANTED}"]
    return [
        *lines,
        "  programs  " + ", ".join(f"{_last(item.name)} {item.text}" for item in process),
        "  requires  " + ", ".join(sorted(programs.required)),
    ]


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _compared(item: Difference) -> str:
    if item.left in (REQUIRED, NOT_REQUIRED, GRANTED, NOT_GRANTED):
        return f"{short_name(item.name)} {item.left}"
    return f"{short_name(item.name)} {item.left} (there {item.right})"


def checked_json(file: str, profile: Profile, built_in: Sequence[Profile]) -> dict[str, Any]:
    """Give one valid file's entry in the document of `profiles check --json`."""
    compared = {}
    for other in built_in:
        found = differences(profile, other)
        compared[other.name] = {
            word: [item.name for item in found if item.looser == side]
            for word, side in (("looser", "left"), ("tighter", "right"))
        }
    return {
        "file": file,
        "valid": True,
        "name": profile.name,
        "digest": {"sha256": profile.digest},
        "values": {item.name: item.text for item in settings(profile)},
        "compared": compared,
        "looser_than_built_in": [item.name for item in beyond_all(profile, built_in)],
        "error": None,
    }


def not_valid_json(file: str, error: BeddelError, *, valid: bool | None) -> dict[str, Any]:
    """Give the entry of a file that is not valid, or (`valid` None) could not be read."""
    keys = ("name", "digest", "values", "compared", "looser_than_built_in")
    return {"file": file, "valid": valid, **dict.fromkeys(keys), "error": object_of_error(error)}


def diff_text(a: str, b: str, found: Sequence[Difference]) -> str:
    """Give a line for each value that differs: its name, both sides, and which is looser."""
    names = {"left": a, "right": b}
    # Our word first: CI systems take a line for a command by how it begins.
    rows = [("value", a, b, "")]
    for item in found:
        looser = "neither: a label" if item.looser is None else f"{names[item.looser]} is looser"
        rows.append((item.name, item.left, item.right, looser))
    shown = [tuple(map(visible, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = (
        "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    )
    return "\n".join(lines) + "\n" if found else ""


def diff_json(a: str, b: str, found: Sequence[Difference]) -> dict[str, Any]:
    """Give the one document of `profiles diff --json`."""
    return {
        "schema": DIFF_SCHEMA,
        "a": a,
        "b": b,
        "same": not found,
        "differences": [
            {
                "value": item.name,
                "a": item.left,
                "b": item.right,
                "looser": None if item.looser is None else _SIDES[item.looser],
            }
            for item in found
        ],
        "error": None,
    }


def diff_json_of_error(a: str, b: str, error: BeddelError) -> dict[str, Any]:
    """Give the same document where one of the two could not be read."""
    return document_of_error(DIFF_SCHEMA, ("a", "b", "same", "differences"), error, a=a, b=b)
