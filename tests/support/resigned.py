"""Receipts altered by somebody who can sign: what a key's holder could claim."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beddel_cli.trust.keys import load_signing_key
from tests.support.cli import Home
from tests.support.statements import signed


def statement_of(receipt: Path) -> dict[str, Any]:
    """Give what a receipt says, without a look at its signature."""
    envelope = json.loads(receipt.read_bytes())
    said: dict[str, Any] = json.loads(base64.b64decode(envelope["payload"]))
    return said


def resigned(
    home: Home, receipt: Path, change: Callable[[dict[str, Any]], object], name: str = "altered"
) -> Path:
    """Give a receipt with another predicate, signed with the home's own key."""
    statement = statement_of(receipt)
    change(statement["predicate"])
    for subject in statement["subject"]:
        # A forger keeps the two in agreement, or no verifier would look further.
        said = statement["predicate"].get(subject["name"])
        if isinstance(said, dict) and "digest" in said:
            subject["digest"] = said["digest"]
    payload = json.dumps(statement, ensure_ascii=False).encode("utf-8", "surrogatepass")
    path = home.work / f"{name}.json"
    path.write_bytes(signed(load_signing_key(str(home.home)), payload))
    return path
