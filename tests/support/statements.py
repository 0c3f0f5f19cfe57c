"""Small receipts for tests, signed for real."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from beddel_cli.trust.dsse import PAYLOAD_TYPE, Signature, make_bundle, make_envelope, pae
from beddel_cli.trust.keys import SigningKey
from beddel_cli.trust.verify import PREDICATE_TYPE, STATEMENT_TYPE

JOB = b"beddel: 1\nid: one\nruntime: javascript\ncode: return 42\n"
OUTPUT = b"42"


def make_statement(**changes: Any) -> dict[str, Any]:
    """Give the statement of a small successful run, with some predicate members replaced."""
    predicate = {
        "outcome": {"status": "success", "reason": "ok"},
        "profile": {"name": "ultra-secure"},
        "job": {"digest": sha256(JOB)},
        "output": {"digest": sha256(OUTPUT), "bytes": len(OUTPUT)},
        "note": "größer",
        **changes,
    }
    subjects = [{"name": "job", "digest": predicate["job"]["digest"]}]
    if predicate["output"] is not None:
        subjects.append({"name": "output", "digest": predicate["output"]["digest"]})
    return {
        "_type": STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }


def sha256(data: bytes) -> dict[str, str]:
    """Give an in-toto digest set."""
    return {"sha256": hashlib.sha256(data).hexdigest()}


def as_payload(statement: Any) -> bytes:
    """Give the statement's bytes."""
    return json.dumps(statement, ensure_ascii=False).encode()


def sign(payload: bytes, key: SigningKey) -> Signature:
    """Sign as a receipt is signed."""
    return Signature(key.key_id, key.sign(pae(PAYLOAD_TYPE, payload)))


def signed(key: SigningKey, payload: bytes | None = None) -> bytes:
    """Give a DSSE file over the payload (default: `make_statement()`)."""
    payload = as_payload(make_statement()) if payload is None else payload
    return make_envelope(payload, [sign(payload, key)])


def bundled(key: SigningKey, payload: bytes | None = None) -> bytes:
    """Give a Sigstore bundle over the payload (default: `make_statement()`)."""
    payload = as_payload(make_statement()) if payload is None else payload
    return make_bundle(payload, sign(payload, key))
