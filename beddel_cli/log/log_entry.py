"""What an entry of the log says, and how a receipt is tied to one. Pure.

Two entries stand for one run: `run.started`, written before anything of the job runs, and
`run.finished`, which holds the SHA-256 of the receipt's payload. The receipt in turn names its log
and the index of `run.started`, so neither can be exchanged without the other noticing. A run that
beddel gave up before it had anything to sign ends in `run.abandoned`; one that was killed, in none.

An entry is canonical JSON (sorted keys, no spaces). Like a receipt it holds digests and names,
never inputs, outputs or values of the environment.
"""

from __future__ import annotations

from hashlib import sha256

from beddel_cli.errors import JobError, VerificationError
from beddel_cli.record import record
from beddel_cli.salted_digest import digest_set

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from beddel_cli.log.checkpoint import ProvenEntry

FORMAT = "beddel-log/v1"
STARTED, FINISHED, ABANDONED = "run.started", "run.finished", "run.abandoned"
MAX_ENTRY_BYTES = 64 * 1024


@record
class Entry:
    """A parsed entry.

    Attributes:
        event: `run.started`, `run.finished`, `run.abandoned`, or one that is not known here.
        at: when it was written, by this machine's clock: RFC 3339, UTC.
        run_id: None where the event is not one of a run.
        started: of an end, the index of its `run.started`.
        receipt_sha256: of `run.finished`, the digest of the receipt's payload.
        members: everything it says.
    """

    event: str
    at: str
    run_id: str | None
    started: int | None
    receipt_sha256: str | None
    members: dict[str, Any]


def started_entry(
    *,
    at: str,
    run_id: str,
    tenant: str,
    job: tuple[str, bytes],
    profile: tuple[str, str],
    runtime: str,
    key_id: str,
    salt: bytes | None = None,
) -> bytes:
    """Give the entry that precedes a run.

    Args:
        job: its id and the bytes of its file.
        profile: its name and digest.
        key_id: of the key that will sign the receipt.
        salt: what the receipt's digests are salted with, None where they are not.
    """
    return _entry(
        STARTED,
        at,
        runId=run_id,
        tenant=tenant,
        job={"id": job[0], **digest_set(sha256(job[1]).hexdigest(), salt)},
        profile={"name": profile[0], "sha256": profile[1]},
        runtime=runtime,
        keyId=key_id,
    )


def finished_entry(
    *,
    at: str,
    run_id: str,
    tenant: str,
    started: int,
    payload: bytes,
    status: str,
    reason: str | None,
    exit_code: int,
    key_id: str,
) -> bytes:
    """Give the entry that ends a run.

    Args:
        started: index of its `run.started`.
        payload: the bytes its receipt signs.
    """
    return _entry(
        FINISHED,
        at,
        runId=run_id,
        tenant=tenant,
        started=started,
        receipt={"sha256": sha256(payload).hexdigest(), "bytes": len(payload)},
        status=status,
        reason=reason,
        exitCode=exit_code,
        keyId=key_id,
    )


def abandoned_entry(*, at: str, run_id: str, tenant: str, started: int, reason: str) -> bytes:
    """Give the entry of a run that came to no receipt.

    Args:
        started: index of its `run.started`.
        reason: the code word of what went wrong.
    """
    return _entry(ABANDONED, at, runId=run_id, tenant=tenant, started=started, reason=reason)


def parse_entry(data: bytes) -> Entry:
    """Read an entry.

    Raises:
        VerificationError: it is not one of a log of ours.
    """
    members = _members(data)
    event, run_id = members["event"], members.get("runId")
    started = receipt = None
    if event in (STARTED, FINISHED, ABANDONED) and not isinstance(run_id, str):
        raise _malformed(f"a {event} without a run id")
    if event in (FINISHED, ABANDONED):
        started = members.get("started")
        if type(started) is not int or started < 0:
            raise _malformed(f"a {event} that does not say which run.started it ends")
    if event == FINISHED:
        receipt = members.get("receipt")
        receipt = receipt.get("sha256") if isinstance(receipt, dict) else None
        if not isinstance(receipt, str):
            raise _malformed("a run.finished without the digest of a receipt")
    known_id = run_id if isinstance(run_id, str) else None
    return Entry(event, members["at"], known_id, started, receipt, members)


def verify_logged(proven: ProvenEntry, payload: bytes) -> Entry:
    """Give the `run.finished` that a proof shows to be in a log, if it ends this receipt's run.

    Args:
        payload: what the receipt signs, its signature already verified.

    Raises:
        VerificationError: the entry is about another receipt, or the receipt names another log.
    """
    from beddel_cli.json_strict import parse_json

    entry = parse_entry(proven.entry)
    if entry.event != FINISHED:
        raise VerificationError(
            "the proof is not about the end of a run", expected=FINISHED, got=repr(entry.event)
        )
    digest = sha256(payload).hexdigest()
    if entry.receipt_sha256 != digest:
        raise VerificationError(
            "the proof is about another receipt", expected=digest, got=str(entry.receipt_sha256)
        )
    statement = parse_json(payload, "payload")
    predicate = statement.get("predicate") if isinstance(statement, dict) else None
    if not isinstance(predicate, dict):
        raise VerificationError("the receipt says nothing of a run")
    got = {"origin": proven.checkpoint.origin, "index": entry.started}
    if predicate.get("log") != got:
        raise VerificationError(
            "the receipt names another place in a log than its proof",
            expected=_place_words(predicate.get("log")),
            got=_place_words(got),
        )
    if entry.run_id != predicate.get("runId") or not _is_before(entry.started, proven.index):
        raise VerificationError("the entry and the receipt are about different runs")
    return entry


def _place_words(place: object) -> str:
    if not isinstance(place, dict):
        return "no log"
    return f"entry {place.get('index')} of {place.get('origin')}"[:200]


def _is_before(started: int | None, finished: int) -> bool:
    return started is not None and started < finished


def _entry(event: str, at: str, **members: Any) -> bytes:
    from beddel_cli.json_strict import canonical_json

    return canonical_json({"entry": FORMAT, "event": event, "at": at, **members})


def _members(data: bytes) -> dict[str, Any]:
    from beddel_cli.json_strict import parse_json

    if len(data) > MAX_ENTRY_BYTES:
        raise _malformed(f"larger than {MAX_ENTRY_BYTES} bytes")
    try:
        members = parse_json(data, "entry")
    except JobError as error:
        raise _malformed(f"no strict JSON: {error.message}") from error
    if not isinstance(members, dict) or members.get("entry") != FORMAT:
        raise _malformed(f"its format is not {FORMAT!r}")
    if not isinstance(members.get("event"), str) or not isinstance(members.get("at"), str):
        raise _malformed("no event, or no time")
    return members


def _malformed(why: str) -> VerificationError:
    return VerificationError(f"this is not an entry of the log: {why}")
