"""The JSON Schema of every format, from the one file that holds them all.

The same file checks what `run` reads, is printed by `schema`, and serves editors.
"""

from __future__ import annotations

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "schema.json")
KINDS = ("job", "profile", "receipt", "json-output")
_REFERENCE = "#/$defs/"


def whole() -> bytes:
    """Give the schema of all formats, as it is shipped."""
    with open(FILE, "rb") as file:
        return file.read()


def definitions() -> dict[str, Any]:
    """Give all definitions by name; the formats are among them."""
    found: dict[str, Any] = json.loads(whole())["$defs"]
    return found


def standalone(kind: str) -> bytes:
    """Give the schema of one of `KINDS` alone, with the definitions it needs and no others.

    Raises:
        KeyError: there is no such format.
    """
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
