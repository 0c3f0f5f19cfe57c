"""Lists of trusted keys, and a log of a few entries, signed for real."""

from __future__ import annotations

from typing import Any

from beddel_cli.log.checkpoint import (
    NoteSignature,
    checkpoint_text,
    ed25519_key_hash,
    make_note,
    make_proof,
    raw_public_key,
)
from beddel_cli.log.log_entry import finished_entry
from beddel_cli.log.merkle import inclusion_path, leaf_hash, node_hash, subtree_root
from beddel_cli.trust.instants import parse_instant, show_instant
from beddel_cli.trust.keys import (
    PublicKey,
    SigningKey,
    generate_key,
    load_public_key,
    load_signing_key,
)
from beddel_cli.trust.trust_list import Trust, TrustedKey, sign_trust
from tests.support.statements import as_payload, make_statement

NOW = parse_instant("2026-11-22T12:00:00Z")
HOUR, DAY = 3_600_000, 86_400_000
ORIGIN = "beddel.test/log"
RUN_ID = "01a201b3d7aef1214245692864ec0fb1"


def new_key(kind: str = "p256") -> SigningKey:
    """Make a key that is in no file."""
    pem = generate_key(kind).decode()  # type: ignore[arg-type]
    return load_signing_key("/nowhere", environment_pem=pem)


def public(key: SigningKey) -> PublicKey:
    """Give its public half."""
    return load_public_key(key.public_pem)


def entry(key: SigningKey, *roles: str, owner: str = "ann", **more: Any) -> TrustedKey:
    """Give a key's entry in a list."""
    return TrustedKey(public(key), owner, roles or ("receipt",), **more)


def make_trust(*entries: TrustedKey, **changes: Any) -> Trust:
    """Give a list that is current at `NOW`."""
    members: dict[str, Any] = {
        "serial": 1,
        "issued_ms": NOW - DAY,
        "expires_ms": NOW + 30 * DAY,
        "countersigners": 0,
        "keys": entries,
    }
    return Trust(**(members | changes))


def trust_file(root: SigningKey, *entries: TrustedKey, **changes: Any) -> bytes:
    """Give a list as it is handed out."""
    return sign_trust(make_trust(*entries, **changes), [root])


def payload_at(when_ms: int, key: SigningKey, started: int = 2, **changes: Any) -> bytes:
    """Give the payload of a receipt that says it was made then, by this key, and is in our log."""
    said = {
        "runId": RUN_ID,
        "startedAt": show_instant(when_ms, milliseconds=True),
        "finishedAt": show_instant(when_ms, milliseconds=True),
        "key": {"id": key.key_id, "origin": "home"},
        "log": {"origin": ORIGIN, "index": started},
    }
    return as_payload(make_statement(**(said | changes)))


def finished(payload: bytes, when_ms: int, key: SigningKey, started: int = 2) -> bytes:
    """Give the entry that ends the run of such a receipt."""
    return finished_entry(
        at=show_instant(when_ms, milliseconds=True),
        run_id=RUN_ID,
        tenant="default",
        started=started,
        payload=payload,
        status="success",
        reason="ok",
        exit_code=0,
        key_id=key.key_id,
    )


class SmallLog:
    """A log in memory."""

    def __init__(self, key: SigningKey, entries: list[bytes]) -> None:
        self.key = key
        self.leaves = [leaf_hash(each) for each in entries]
        self.entries = entries

    def read(self, level: int, index: int) -> bytes:
        """Give a complete node."""
        if level == 0:
            return self.leaves[index]
        below = (self.read(level - 1, 2 * index + at) for at in (0, 1))
        return node_hash(*below)

    def checkpoint(self, origin: str = ORIGIN) -> bytes:
        """Give the signed checkpoint over all entries."""
        size = len(self.leaves)
        text = checkpoint_text(origin, size, subtree_root(0, size, self.read))
        key_hash = ed25519_key_hash(origin, raw_public_key(public(self.key)))
        return make_note(text, [NoteSignature(origin, key_hash, self.key.sign(text))])

    def proof(self, index: int) -> bytes:
        """Give the `.tlog-proof` of an entry."""
        path = inclusion_path(index, len(self.leaves), self.read)
        return make_proof(index, path, self.checkpoint(), self.entries[index])


def log_with(payload: bytes, when_ms: int, key: SigningKey, log_key: SigningKey) -> SmallLog:
    """Give a log whose entry 3 ends the run of a receipt."""
    before = [b"one", b"two", b"three"]
    return SmallLog(log_key, [*before, finished(payload, when_ms, key), b"later"])
