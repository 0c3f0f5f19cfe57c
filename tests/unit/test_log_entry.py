"""What stands in the log, and how a receipt is tied to it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from beddel_cli.errors import VerificationError
from beddel_cli.log.checkpoint import Checkpoint, ProvenEntry
from beddel_cli.log.log_entry import (
    MAX_ENTRY_BYTES,
    finished_entry,
    parse_entry,
    started_entry,
    verify_logged,
)

AT = "2026-01-02T03:04:05.678Z"
PAYLOAD = json.dumps(
    {"predicate": {"runId": "ab12", "log": {"origin": "log.example", "index": 4}}}
).encode()


def started() -> bytes:
    return started_entry(
        at=AT,
        run_id="ab12",
        tenant="acme",
        job=("order-totals", b"beddel: 1\n"),
        profile=("ultra-secure", "cd" * 32),
        runtime="javascript",
        key_id="ef" * 32,
    )


def finished(payload: bytes = PAYLOAD, run_id: str = "ab12", index: int = 4) -> bytes:
    return finished_entry(
        at=AT,
        run_id=run_id,
        tenant="acme",
        started=index,
        payload=payload,
        status="success",
        reason=None,
        exit_code=0,
        key_id="ef" * 32,
    )


def proven(entry: bytes, origin: str = "log.example", index: int = 5) -> ProvenEntry:
    return ProvenEntry(entry, index, Checkpoint(origin, index + 1, bytes(32)), "ab" * 32)


def test_started() -> None:
    entry = parse_entry(started())
    assert (entry.event, entry.at, entry.run_id) == ("run.started", AT, "ab12")
    assert entry.started is None
    assert entry.receipt_sha256 is None
    assert json.loads(started()) == {
        "entry": "beddel-log/v1",
        "event": "run.started",
        "at": AT,
        "runId": "ab12",
        "tenant": "acme",
        "job": {"id": "order-totals", "sha256": hashlib.sha256(b"beddel: 1\n").hexdigest()},
        "profile": {"name": "ultra-secure", "sha256": "cd" * 32},
        "runtime": "javascript",
        "keyId": "ef" * 32,
    }


def test_finished() -> None:
    entry = parse_entry(finished())
    assert (entry.event, entry.run_id, entry.started) == ("run.finished", "ab12", 4)
    assert entry.receipt_sha256 == hashlib.sha256(PAYLOAD).hexdigest()
    assert entry.members["receipt"]["bytes"] == len(PAYLOAD)


def test_an_event_of_a_later_version_is_read() -> None:
    entry = parse_entry(b'{"at":"x","entry":"beddel-log/v1","event":"key.rotated"}')
    assert (entry.event, entry.run_id) == ("key.rotated", None)


def without(data: bytes, *keys: str, **more: Any) -> bytes:
    members = {key: value for key, value in json.loads(data).items() if key not in keys}
    return json.dumps(members | more).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"event":"x","event":"x"}',
        b"\xff",
        b" " * (MAX_ENTRY_BYTES + 1),
        without(started(), "runId"),
        without(started(), "event"),
        without(started(), "at"),
        without(started(), "entry"),
        without(started(), entry="beddel-log/v2"),
        without(finished(), "runId"),
        without(finished(), "started"),
        without(finished(), started=True),
        without(finished(), started=-1),
        without(finished(), started="4"),
        without(finished(), "receipt"),
        without(finished(), receipt="ab"),
        without(finished(), receipt={"bytes": 1}),
    ],
)
def test_not_an_entry(data: bytes) -> None:
    with pytest.raises(VerificationError, match="not an entry"):
        parse_entry(data)


def test_receipt_and_its_entry() -> None:
    assert verify_logged(proven(finished()), PAYLOAD).run_id == "ab12"


@pytest.mark.parametrize(
    ("about", "payload", "why"),
    [
        (proven(started()), PAYLOAD, "not about the end"),
        (proven(finished(b"another")), PAYLOAD, "another receipt"),
        (proven(finished()), PAYLOAD + b" ", "another receipt"),
        (proven(finished(), origin="log.other"), PAYLOAD, "another place"),
        (proven(finished(index=3)), PAYLOAD, "another place"),
        (proven(finished(run_id="cd34")), PAYLOAD, "different runs"),
        (proven(finished(), index=4), PAYLOAD, "different runs"),
        (proven(finished(b"[]")), b"[]", "says nothing"),
        (
            proven(finished(b'{"predicate":{"log":null,"runId":"ab12"}}')),
            b'{"predicate":{"log":null,"runId":"ab12"}}',
            "another place",
        ),
    ],
)
def test_receipt_and_another_entry(about: ProvenEntry, payload: bytes, why: str) -> None:
    with pytest.raises(VerificationError, match=why) as caught:
        verify_logged(about, payload)
    assert "{" not in f"{caught.value.expected}{caught.value.got}", (
        "words, and no value of Python's"
    )
