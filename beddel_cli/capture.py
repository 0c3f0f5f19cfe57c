"""What `--capture` keeps of a run: its output, as one JSON document. Pure: values in, bytes out.

It goes into a file beside the receipt and not into it. A receipt is made to be handed on and to
stay in a log that nothing can be taken out of; raw output may hold what has to be deleted one day.
The receipt has the file's digest. No value of a variable and no input is in it, other than what the
job itself wrote.
"""

from __future__ import annotations

from beddel_cli.json_strict import canonical_json
from beddel_cli.receipt import console_text, streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from beddel_cli.outcome import Outcome

SCHEMA = "beddel-cli/capture/v1"
# Of each part. More would make of a capped output an uncapped store.
PART_BYTES = 1 << 20
# Not one of JSON: a folder's files with that ending are receipts.
CAPTURE_SUFFIX = ".capture"


def capture_path(receipt: str) -> str:
    """Give where the capture of a run goes whose receipt goes there."""
    return receipt + CAPTURE_SUFFIX


def make_capture(run_id: str, outcome: Outcome) -> bytes | None:
    """Give the document; None where the job wrote nothing because it never ran.

    Each part has as many of its first bytes as were kept, at most 1 MiB: as text, or in base64
    where they are not UTF-8; `complete` says whether that is all of it.
    """
    parts = _parts(outcome)
    if not parts:
        return None
    return canonical_json(
        {
            "schema": SCHEMA,
            "runId": run_id,
            "parts": {name: _part(data, whole) for name, (data, whole) in parts.items()},
        }
    )


def _parts(outcome: Outcome) -> dict[str, tuple[bytes, int]]:
    """Give what was kept of each part, and how many bytes the whole of it had."""
    if outcome.program is not None:
        return {
            name: (stream.head, stream.passed_bytes) for name, stream in streams(outcome.program)
        }
    parts = {}
    if outcome.output is not None:
        parts["output"] = (outcome.output, len(outcome.output))
    text = console_text(outcome)
    if text:
        parts["console"] = (text, len(text))
    return parts


def _part(data: bytes, whole: int) -> dict[str, Any]:
    kept = data[:PART_BYTES]
    part: dict[str, Any] = {"bytes": whole, "complete": len(kept) == whole}
    try:
        return {**part, "text": kept.decode("utf-8")}
    except UnicodeDecodeError:
        from base64 import b64encode

        return {**part, "base64": b64encode(kept).decode("ascii")}
