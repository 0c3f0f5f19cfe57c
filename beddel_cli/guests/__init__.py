"""The guests that ship: where their files are, and what their build says of them."""

from __future__ import annotations

import os

from beddel_cli.errors import GuestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "javascript")
WASM_FILE = os.path.join(_FOLDER, "javascript.wasm")
CODE_FILE = os.path.join(_FOLDER, "javascript.cwasm")
FACTS_FILE = os.path.join(_FOLDER, "javascript.json")


def javascript_facts() -> dict[str, Any]:
    """Give what the build wrote down: versions and digests of the JavaScript guest.

    Raises:
        GuestError: the installation holds no guest.
    """
    # The worker imports this module and never reads the facts; json would cost it 10 ms.
    import json

    try:
        with open(FACTS_FILE, encoding="utf-8") as file:
            facts: dict[str, Any] = json.load(file)
    except FileNotFoundError as error:
        raise GuestError(
            "this installation of beddel-cli holds no JavaScript guest",
            hint="pip install . on Linux builds it; a checkout alone has none",
        ) from error
    return facts
