"""The JSON Schema of every format, from the one file that holds them all.

The same file checks what `run` reads, is printed by `schema`, and serves editors.
"""

from __future__ import annotations

import os

from beddel_cli.json_strict import first_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "schema.json")
KINDS = ("job", "profile", "receipt", "trust", "json-output")
_REFERENCE = "#/$defs/"


def whole() -> bytes:
    """Give the schema of all formats, as it is shipped."""
    with open(FILE, "rb") as file:
        return file.read()


class Definitions:
    """The definitions of the schema by name, each read when it is asked for.

    A run needs those of two formats; reading all of them would cost it half a millisecond.
    """

    def __init__(self) -> None:
        self._text = whole().decode("utf-8")
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
    import json

    document = json.loads(whole())
    known = document["$defs"]
    needed = _needed(known[kind], known)
    schema = {
        "$schema": document["$schema"],
        "$id": f"{document['$id']}/{kind}",
        **known[kind],
        "$defs": {name: known[name] for name in known if name in needed},
    }
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
