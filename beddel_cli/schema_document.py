"""The JSON Schema of every format, from the two files that hold them all.

`schema.json` checks what `run` reads and describes what it signs and prints. What the other
commands print is in a file apart, which refers to definitions of the first and is read by no run.
`schema` prints both, for editors and validators.
"""

from __future__ import annotations

import os

from beddel_cli.json_strict import first_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "schema.json")
REPORTS_FILE = os.path.join(os.path.dirname(FILE), "reports.schema.json")
FORMATS = ("job", "profile", "receipt", "trust", "json-output")
REPORTS = (
    *("doctor", "explain", "verify", "verify-many", "replay"),
    *("audit-list", "audit-tenants", "audit-show", "audit-entry", "audit-verify", "audit-anchor"),
    *("profiles-show", "profiles-check", "profiles-diff", "keys-list", "log-entry", "log-line"),
)
KINDS = (*FORMATS, *REPORTS)
_REFERENCE = "#/$defs/"


def whole() -> bytes:
    """Give the schema of all formats as one document."""
    return _dump(_both())


class Definitions:
    """The definitions of `FORMATS` by name, each read when it is asked for.

    A run needs those of two formats; reading all of them would cost it half a millisecond.
    """

    def __init__(self) -> None:
        self._text = _read(FILE).decode("utf-8")
        self._known: dict[str, dict[str, Any]] = {}

    def __call__(self, name: str) -> dict[str, Any]:
        """Give one definition.

        Raises:
            ValueError: there is none of that name.
        """
        if name not in self._known:
            # The members of $defs, and nothing else in the file, are indented by four.
            start = f'\n    "{name}": '
            found, _ = first_value(self._text, self._text.index(start) + len(start))
            self._known[name] = found
        return self._known[name]


def standalone(kind: str) -> bytes:
    """Give the schema of one of `KINDS` alone, with the definitions it needs and no others.

    Raises:
        KeyError: there is no such format.
    """
    document = _both()
    known = document["$defs"]
    needed = _needed(known[kind], known)
    schema = {
        "$schema": document["$schema"],
        "$id": f"{document['$id']}/{kind}",
        **known[kind],
        "$defs": {name: known[name] for name in known if name in needed},
    }
    return _dump(schema)


def _both() -> dict[str, Any]:
    import json

    document: dict[str, Any] = json.loads(_read(FILE))
    more = json.loads(_read(REPORTS_FILE))["$defs"]
    kinds = [{"$ref": _REFERENCE + kind} for kind in KINDS]
    return {**document, "anyOf": kinds, "$defs": {**document["$defs"], **more}}


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _dump(schema: dict[str, Any]) -> bytes:
    import json

    return json.dumps(schema, indent=2, ensure_ascii=False).encode("utf-8") + b"\n"


def _needed(schema: Any, known: dict[str, Any]) -> set[str]:
    """Give the names of the definitions that a schema leads to, directly or through others."""
    found: set[str] = set()
    waiting = [schema]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, dict):
            waiting.extend(item.values())
            name = str(item.get("$ref", "")).removeprefix(_REFERENCE)
            if name and name not in found:
                found.add(name)
                waiting.append(known[name])
    return found
