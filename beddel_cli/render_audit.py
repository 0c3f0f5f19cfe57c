"""The log as text and as JSON. Nothing an entry holds reaches a terminal unescaped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from beddel_cli.errors import VerificationError
from beddel_cli.figures import counted
from beddel_cli.log.checkpoint import make_proof, verifier_key
from beddel_cli.log.log_entry import ABANDONED, FINISHED, STARTED, parse_entry
from beddel_cli.log.merkle import leaf_hash
from beddel_cli.render import document_of_error, object_of_error
from beddel_cli.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from beddel_cli.errors import BeddelError
    from beddel_cli.log.audit import Judgement
    from beddel_cli.log.ledger import Row

    # A place, where a checkpoint went there, and why it did not: one of the two.
    Written = tuple[str, str | None, BeddelError | None]

LIST_SCHEMA = "beddel-cli/audit-list/v1"
TENANTS_SCHEMA = "beddel-cli/audit-tenants/v1"
SHOW_SCHEMA = "beddel-cli/audit-show/v1"
VERIFY_SCHEMA = "beddel-cli/audit-verify/v1"
ANCHOR_SCHEMA = "beddel-cli/audit-anchor/v1"
# What of each document is null where it tells of an error.
LIST_KEYS = ("origin", "path", "entries")
SHOW_KEYS = ("origin", "verifier_key", "entries")
VERIFY_KEYS = (
    *("exit_code", "valid", "tenant", "path", "origin", "size", "root", "key_id"),
    *("key_trusted_because", "findings", "findings_count", "runs", "open_runs", "clock_back"),
    *("anchors", "anchored", "unanchored"),
)
ANCHOR_KEYS = ("exit_code", "origin", "size", "root", "places", "checkpoint")


def entry_json(row: Row) -> dict[str, Any]:
    """Give one stored entry; `entry` is null where its bytes are not one."""
    try:
        members: dict[str, Any] | None = parse_entry(row.data).members
    except VerificationError:
        members = None
    return {"index": row.index, "leaf_hash": leaf_hash(row.data).hex(), "entry": members}


def entry_line(row: Row) -> str:
    """Give one stored entry on one line."""
    try:
        entry = parse_entry(row.data)
    except VerificationError as error:
        return f"{row.index:>6}  {visible(error.message)}"
    said = entry.members
    words = [visible(entry.at), visible(entry.event), visible(str(entry.run_id or ""))]
    if entry.event == STARTED:
        words += [_part(said, "job", "id"), _part(said, "profile", "name")]
    elif entry.event == FINISHED:
        words += [visible(str(said.get("status"))), visible(str(said.get("reason")))]
        words += [f"exit {visible(str(said.get('exitCode')))}", f"of {entry.started}"]
    elif entry.event == ABANDONED:
        words += [visible(str(said.get("reason"))), f"of {entry.started}"]
    return f"{row.index:>6}  {'  '.join(words)}"


def _part(said: dict[str, Any], name: str, key: str) -> str:
    part = said.get(name)
    return visible(str(part.get(key))) if isinstance(part, dict) else "?"


def list_json(origin: str, path: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Give listed entries, and whose log they are of."""
    document = {"schema": LIST_SCHEMA, "origin": origin, "path": path}
    return {**document, "entries": entries, "error": None}


def shown_json(row: Row, path: tuple[bytes, ...], note: bytes) -> dict[str, Any]:
    """Give one entry with its proof, which is made anew from the stored tree."""
    proof = make_proof(row.index, path, note, row.data)
    return {**entry_json(row), "proof": proof.decode("utf-8")}


def show_json(origin: str, public: bytes | None, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Give shown entries, and the log's key as tools for signed notes read it."""
    key = None if public is None else verifier_key(origin, public)
    document = {"schema": SHOW_SCHEMA, "origin": origin, "verifier_key": key}
    return {**document, "entries": entries, "error": None}


def judgement_json(
    found: Judgement, tenant: str | None, path: str, code: int, trusted: str
) -> dict[str, Any]:
    """Give what is known of a log."""
    return {
        "schema": VERIFY_SCHEMA,
        "exit_code": code,
        "valid": code == 0,
        "tenant": tenant,
        "path": path,
        "origin": found.origin,
        "size": found.size,
        "root": found.root.hex(),
        "key_id": found.key_id,
        "key_trusted_because": trusted,
        "findings": [{"index": item.index, "what": item.what} for item in found.findings],
        "findings_count": found.findings_count,
        "runs": found.runs,
        "open_runs": [
            {"index": run.index, "run_id": run.run_id, "at": run.at} for run in found.open_runs
        ],
        "clock_back": list(found.clock_back),
        "anchors": found.anchors,
        "anchored": _range(0, found.anchored),
        "unanchored": _range(found.anchored, found.size),
        "error": None,
    }


def _range(start: int, end: int) -> dict[str, int] | None:
    """Give a range by its first and last entry; None where it is empty."""
    return {"first": start, "last": end - 1} if start < end else None


def judgement_text(found: Judgement, path: str, code: int, trusted: str) -> str:
    """Give what is known of a log, for people."""
    good = "good" if code == 0 else "NOT GOOD"
    rows = [("log", visible(path)), ("origin", visible(found.origin))]
    rows.append(("entries", f"{found.size}; root {found.root.hex()[:16]}…"))
    signed = "by none of the given keys" if found.key_id is None else f"{found.key_id[:16]}…"
    rows.append(("signed", f"{signed} ({trusted})"))
    rows += [("BAD", f"entry {item.index}: {visible(item.what)}") for item in found.findings]
    more = found.findings_count - len(found.findings)
    if more > 0:
        rows.append(("BAD", f"… and {more} more"))
    rows.append(("runs", f"{found.runs} started, {len(found.open_runs)} of them without an end"))
    rows += [
        ("open", f"entry {run.index}: run {visible(run.run_id)}, started {visible(run.at)}")
        for run in found.open_runs[:20]
    ]
    if found.clock_back:
        listed = ", ".join(map(str, found.clock_back[:10]))
        rows.append(("clock", f"went back before entry {listed}"))
    rows += _anchor_rows(found)
    return "\n".join([good, *(f"  {label:<9}{text}" for label, text in rows), ""])


def _anchor_rows(found: Judgement) -> list[tuple[str, str]]:
    if found.anchors is None:
        return [("anchored", "not asked: whoever has the log's key could have written all of it")]
    anchored = _words(0, found.anchored)
    by = f"{found.agreeing} of " if found.agreeing != found.anchors else ""
    return [
        ("anchored", f"{anchored}, by {by}{counted(found.anchors, 'checkpoint')}"),
        ("not yet", _words(found.anchored, found.size)),
    ]


def _words(start: int, end: int) -> str:
    return f"entries {start} to {end - 1}" if start < end else "no entry"


def judgement_json_of_error(error: BeddelError, code: int) -> dict[str, Any]:
    """Give the document of a log that could not be judged, or whose file itself is bad."""
    valid = False if code == 1 else None
    return document_of_error(VERIFY_SCHEMA, VERIFY_KEYS, error, exit_code=code, valid=valid)


def anchor_json(
    found: Judgement, note: bytes, written: Sequence[Written], code: int
) -> dict[str, Any]:
    """Give where the checkpoint over a good log went; `error` is that of the first that failed."""
    places = [
        {"place": place, "where": where, "error": None if error is None else object_of_error(error)}
        for place, where, error in written
    ]
    return {
        "schema": ANCHOR_SCHEMA,
        "exit_code": code,
        "origin": found.origin,
        "size": found.size,
        "root": found.root.hex(),
        "places": places,
        "checkpoint": note.decode(),
        "error": next((each["error"] for each in places if each["error"] is not None), None),
    }


def anchor_text(found: Judgement, written: Sequence[Written]) -> str:
    """Give where the checkpoint over a good log went, for people; nothing if nowhere."""
    rows = [f"  {visible(where)}\n" for _, where, _ in written if where is not None]
    head = f"anchored entries 0 to {found.size - 1} of {visible(found.origin)}\n"
    return "".join([head, *rows]) if rows else ""


def anchor_json_of_error(error: BeddelError, code: int) -> dict[str, Any]:
    """Give the same document where a place did not take it, or the log is not good."""
    return document_of_error(ANCHOR_SCHEMA, ANCHOR_KEYS, error, exit_code=code)
