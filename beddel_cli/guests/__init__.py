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
    from beddel_cli.json_strict import first_value  # the worker never reads the facts

    try:
        with open(FACTS_FILE, encoding="utf-8") as file:
            facts: dict[str, Any] = first_value(file.read())[0]
    except FileNotFoundError as error:
        raise GuestError(
            "this installation of beddel-cli holds no JavaScript guest",
            hint="pip install . on Linux builds it; a checkout alone has none",
        ) from error
    return facts
