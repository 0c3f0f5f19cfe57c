"""Which keys are believed, for what, and from when to when. Pure.

The list of trusted keys is a document in a plain DSSE envelope of a type of its own, signed by a
root key that its reader got through another channel. It carries a serial number, which only grows,
and an end; so a reader who remembers the last number, or only looks at the clock, notices an old
copy. A key is known by its bytes: its id is computed from them, and each may stand there once.

A key is judged at a moment. A moment that somebody trusted has witnessed (a timestamp authority, a
log) shows that the signature existed by then. Without one there is only the clock of the reader:
then a key has to be good now, and a receipt's own date counts against it, never for it. So a
receipt of a revoked key that says it is older than the revocation is not believed by its word.
"""

from __future__ import annotations

from beddel_cli.errors import BeddelError, JobError, TrustError, VerificationError
from beddel_cli.json_strict import MAX_SAFE_INTEGER, canonical_json, parse_json
from beddel_cli.record import changed, record
from beddel_cli.trust.dsse import (
    TRUST_PAYLOAD_TYPE,
    Signature,
    make_envelope,
    pae,
    parse_envelope,
)
from beddel_cli.trust.instants import parse_instant, show_instant
from beddel_cli.trust.keys import load_public_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, Literal

    from beddel_cli.trust.keys import PublicKey, SigningKey

    Verdict = Literal["good", "bad", "unknown"]
    Source = Literal["timestamp", "log", "now"]

SCHEMA = "beddel-cli/trust/v1"
ROLES = ("receipt", "log", "countersign")
MAX_TRUST_BYTES = 1 << 20
MAX_KEYS = 1000
MAX_THRESHOLD = 15
# How far apart the clocks of two machines may well be.
CLOCKS_DIFFER_MS = 5 * 60_000
_MOST_TEXT = 500
_SCHEMA_FAMILY = "beddel-cli/trust/"


@record
class Revocation:
    """From when a key is not to be believed, and why."""

    at_ms: int
    reason: str


@record
class TrustedKey:
    """One key and what it may be used for.

    Attributes:
        owner: whose it is, in words of the root; free text.
        roles: of `ROLES`.
        from_ms, until_ms: the first instant it is good at, and the first it is not; None: no end.
    """

    public: PublicKey
    owner: str
    roles: tuple[str, ...]
    from_ms: int | None = None
    until_ms: int | None = None
    revoked: Revocation | None = None


@record
class Trust:
    """A list of trusted keys whose signature was checked.

    Attributes:
        serial: grows by one with each issue.
        countersigners: how many owners have to countersign a receipt, beside the key that made it.
        signed_by: ids of the given root keys that signed it; not part of the document.
    """

    serial: int
    issued_ms: int
    expires_ms: int
    countersigners: int
    keys: tuple[TrustedKey, ...]
    signed_by: tuple[str, ...] = ()

    def find(self, key_id: str) -> TrustedKey | None:
        """Give the entry of a key."""
        return next((entry for entry in self.keys if entry.public.key_id == key_id), None)


@record
class Moment:
    """When a signature is judged.

    Attributes:
        at_ms: the witnessed time by which it existed; for `now`, the reader's clock.
        source: who says so. `now` is nobody's word but the reader's.
        claimed_ms: when the signed text itself says it was made, None if it does not.
    """

    at_ms: int
    source: Source
    claimed_ms: int | None = None

    @property
    def witnessed(self) -> bool:
        """Whether somebody other than the signer saw the signature then."""
        return self.source != "now"


@record
class Judgement:
    """What becomes of a signature: good, bad, or nobody can tell, and why."""

    verdict: Verdict
    why: str


def judge(entry: TrustedKey, role: str, moment: Moment) -> Judgement:
    """Judge a key for a role at a moment. Fails closed: what is not good is never good."""
    key = f"key {entry.public.key_id}"
    if role not in entry.roles:
        return Judgement("bad", f"{key} is trusted for {', '.join(entry.roles)}, not for {role}")
    why = _outside(entry, moment.at_ms)
    if moment.witnessed and not why:
        return _GOOD
    # A stamp may be had long after the signature, a log's entry is made with it.
    late = moment.source == "timestamp" and moment.at_ms >= (entry.from_ms or moment.at_ms)
    if moment.witnessed and not late:
        return Judgement("bad", f"{key} {why} at the time of the signature")
    if moment.claimed_ms is not None:
        by_its_word = _outside(entry, moment.claimed_ms)
        if by_its_word:
            return Judgement("bad", f"{key} {by_its_word} at the time that it says itself")
    if not why and not entry.revoked:
        return _GOOD
    why = why or _revoked_words(entry)
    return Judgement(
        "unknown", f"{key} {why}, and no trusted time shows that the signature is older"
    )


_GOOD = Judgement("good", "")


def _outside(entry: TrustedKey, at_ms: int) -> str:
    """Say why a key is no good at an instant; empty if it is good."""
    if entry.revoked is not None and at_ms >= entry.revoked.at_ms:
        return _revoked_words(entry)
    if entry.from_ms is not None and at_ms < entry.from_ms:
        return f"was not yet valid (from {show_instant(entry.from_ms)})"
    if entry.until_ms is not None and at_ms >= entry.until_ms:
        return f"was no longer valid (until {show_instant(entry.until_ms)})"
    return ""


def _revoked_words(entry: TrustedKey) -> str:
    revoked = entry.revoked
    if revoked is None:
        return ""
    return f"was revoked ({show_instant(revoked.at_ms)}: {revoked.reason})"


def parse_trust(data: bytes, roots: Iterable[PublicKey]) -> Trust:
    """Read a list of trusted keys that one of the given root keys signed.

    Raises:
        TrustError: it is none, it is not by a root that was given, or a signature that names one
            of them is not by it.
    """
    by_id = {root.key_id: root for root in roots}
    if not by_id:
        raise TrustError("there is no root key to check the trusted keys with", hint="--root FILE")
    if len(data) > MAX_TRUST_BYTES:
        raise TrustError(
            "the list of trusted keys is too large", expected=f"at most {MAX_TRUST_BYTES} bytes"
        )
    try:
        payload, signed_by = _signed_payload(data, by_id)
        document = parse_json(payload, "the trusted keys")
    except (VerificationError, JobError) as error:
        raise _unusable(error) from error
    trust = changed(_trust(document), signed_by=signed_by)
    for entry in trust.keys:
        if entry.public.key_id in by_id:
            # Whoever holds one key that signs day by day must not be able to name others.
            raise TrustError(
                f"root key {entry.public.key_id} is also among the keys it vouches for"
            )
    return trust


def _signed_payload(data: bytes, roots: Mapping[str, PublicKey]) -> tuple[bytes, tuple[str, ...]]:
    envelope = parse_envelope(data, TRUST_PAYLOAD_TYPE)
    if envelope.bundle:
        raise VerificationError("trusted keys come in a plain envelope, not in a bundle")
    message = pae(TRUST_PAYLOAD_TYPE, envelope.payload)
    known = [each for each in envelope.signatures if each.key_id in roots]
    for each in known:
        roots[each.key_id].verify(each.value, message)
    if not known:
        names = ", ".join(each.key_id for each in envelope.signatures)
        raise TrustError(
            "the trusted keys are signed by another root key than the one given",
            expected=", ".join(sorted(roots)),
            got=names,
        )
    return envelope.payload, tuple(each.key_id for each in known)


def _unusable(error: BeddelError) -> TrustError:
    if isinstance(error, TrustError):
        return error
    return TrustError(
        f"the list of trusted keys is not usable: {error.message}",
        expected=error.expected,
        got=error.got,
    )


def require_current(trust: Trust, now_ms: int) -> None:
    """Check that a list has not ended, and is not one of the future.

    Raises:
        TrustError: it has, or is: then one of two clocks is wrong, perhaps turned back.
    """
    if now_ms < trust.issued_ms - CLOCKS_DIFFER_MS:
        raise TrustError(
            f"the list of trusted keys was issued at {show_instant(trust.issued_ms)}, which is "
            "still to come: this machine's clock is wrong, or that of the root's holder",
            got=f"now {show_instant(now_ms)}",
        )
    if now_ms >= trust.expires_ms:
        raise TrustError(
            f"the list of trusted keys ended at {show_instant(trust.expires_ms)}",
            hint="get the current one from the holder of the root key, who makes it with "
            "`beddel-cli keys trust --renew`",
        )


SEEN_BEFORE = (
    "older than one seen before: an old copy was put back, or the newer one is missing here"
)
ASKED_FOR = "older than --least-serial asks for"


def require_serial(trust: Trust, least: int | None, why: str) -> None:
    """Check that a list is not older than one that is known of.

    Args:
        why: what it is otherwise, such as `SEEN_BEFORE`.

    Raises:
        TrustError: it is.
    """
    if least is not None and trust.serial < least:
        raise TrustError(
            f"this list of trusted keys is {why}",
            expected=f"serial {least} or later",
            got=f"serial {trust.serial}",
        )


def trust_payload(trust: Trust) -> bytes:
    """Give the bytes that are signed."""
    return canonical_json(trust_document(trust))


def trust_document(trust: Trust) -> dict[str, Any]:
    """Give the document as JSON has it."""
    return {
        "schema": SCHEMA,
        "serial": trust.serial,
        "issued": show_instant(trust.issued_ms),
        "expires": show_instant(trust.expires_ms),
        "countersigners": trust.countersigners,
        "keys": [_entry_document(entry) for entry in trust.keys],
    }


def _entry_document(entry: TrustedKey) -> dict[str, Any]:
    revoked = entry.revoked
    return {
        "publicKey": entry.public.pem.decode("ascii"),
        "owner": entry.owner,
        "roles": list(entry.roles),
        "from": None if entry.from_ms is None else show_instant(entry.from_ms),
        "until": None if entry.until_ms is None else show_instant(entry.until_ms),
        "revoked": None
        if revoked is None
        else {"at": show_instant(revoked.at_ms), "reason": revoked.reason},
    }


def sign_trust(trust: Trust, roots: Sequence[SigningKey]) -> bytes:
    """Give the file, signed by each of the root keys, and read it as its readers will.

    Raises:
        TrustError: a root key is among the keys, or the list would not be read.
    """
    payload = trust_payload(trust)
    message = pae(TRUST_PAYLOAD_TYPE, payload)
    signatures = [Signature(root.key_id, root.sign(message)) for root in roots]
    data = make_envelope(payload, signatures, TRUST_PAYLOAD_TYPE)
    read = parse_trust(data, [load_public_key(root.public_pem) for root in roots])
    if changed(read, signed_by=trust.signed_by) != trust:
        raise TrustError("the list of trusted keys would be read as another one")
    return data


def reissued(trust: Trust, *, now_ms: int, lifetime_ms: int, **changes: Any) -> Trust:
    """Give the next issue: a serial more, a new end, and some parts replaced."""
    whole = now_ms // 1000 * 1000
    expires_ms = (now_ms + lifetime_ms) // 1000 * 1000
    more = {"serial": trust.serial + 1, "issued_ms": whole, "expires_ms": expires_ms}
    return changed(trust, **more, **changes)


def with_entry(trust: Trust, entry: TrustedKey) -> tuple[TrustedKey, ...]:
    """Give the keys with one put in the place of the entry of the same key, or at the end."""
    key_id = entry.public.key_id
    if trust.find(key_id) is None:
        return (*trust.keys, entry)
    return tuple(entry if each.public.key_id == key_id else each for each in trust.keys)


def find_by_prefix(trust: Trust, start: str) -> TrustedKey:
    """Give the one key whose id starts so.

    Raises:
        TrustError: none does, or several, or it is too short to mean one.
    """
    found = [entry for entry in trust.keys if entry.public.key_id.startswith(start)]
    if len(start) < 8 or not found:
        raise TrustError(f"no trusted key {start!r}", expected="8 or more digits of a key id")
    if len(found) > 1:
        raise TrustError(f"{len(found)} trusted keys start with {start!r}", expected="more digits")
    return found[0]


def _trust(document: object) -> Trust:
    if isinstance(document, dict) and document.get("schema") != SCHEMA:
        got = document.get("schema")
        newer = isinstance(got, str) and got.startswith(_SCHEMA_FAMILY)
        what = "of a version not known here" if newer else "something else"
        raise TrustError(f"the list of trusted keys is {what}", expected=SCHEMA, got=repr(got))
    _members(document, "the list", _TRUST_MEMBERS)
    keys = tuple(_entry(item) for item in _take(document, "keys", list))
    if not 0 < len(keys) <= MAX_KEYS:
        raise TrustError(
            "a list of trusted keys that names no key, or too many",
            expected=f"1 to {MAX_KEYS}",
            got=str(len(keys)),
        )
    ids = {entry.public.key_id for entry in keys}
    if len(ids) != len(keys):
        raise TrustError("a key stands twice in the list of trusted keys")
    trust = Trust(
        serial=_count(document, "serial", 1, MAX_SAFE_INTEGER),
        issued_ms=_instant(document, "issued"),
        expires_ms=_instant(document, "expires"),
        countersigners=_count(document, "countersigners", 0, MAX_THRESHOLD),
        keys=keys,
    )
    if trust.expires_ms <= trust.issued_ms:
        raise TrustError("the list of trusted keys ends before it begins")
    return trust


_TRUST_MEMBERS = ("schema", "serial", "issued", "expires", "countersigners", "keys")
_ENTRY_MEMBERS = ("publicKey", "owner", "roles", "from", "until", "revoked")


def _entry(item: object) -> TrustedKey:
    _members(item, "a key", _ENTRY_MEMBERS)
    pem = _take(item, "publicKey", str)
    try:
        public = load_public_key(pem.encode("ascii"))
    except (UnicodeEncodeError, BeddelError) as error:
        why = error.message if isinstance(error, BeddelError) else "not ASCII"
        raise TrustError(f"a trusted key cannot be read: {why}") from error
    # One key, one spelling, so that nobody counts it twice or looks for it in vain.
    if public.pem.decode("ascii") != pem:
        raise TrustError(f"trusted key {public.key_id} is not in its canonical spelling")
    entry = TrustedKey(
        public=public,
        owner=_text(item, "owner"),
        roles=_roles(_take(item, "roles", list)),
        from_ms=_instant_or_none(item, "from"),
        until_ms=_instant_or_none(item, "until"),
        revoked=_revocation(item),
    )
    if entry.from_ms is not None and entry.until_ms is not None and entry.until_ms < entry.from_ms:
        raise TrustError(f"trusted key {public.key_id} ends before it begins")
    if "log" in entry.roles and public.kind != "ed25519":
        raise TrustError(f"trusted key {public.key_id} cannot sign a log: it is not Ed25519")
    return entry


def _roles(items: list[object]) -> tuple[str, ...]:
    roles = tuple(str(item) for item in items if isinstance(item, str) and item in ROLES)
    if not roles or len(roles) != len(items) or len(set(roles)) != len(roles):
        raise TrustError(
            "the roles of a trusted key are not known here",
            expected=f"some of {', '.join(ROLES)}, each once",
            got=repr(items)[:200],
        )
    if "log" in roles and len(roles) > 1:
        # A note and an envelope are spelt apart, but no key should depend on it.
        raise TrustError("the key of a log signs nothing else", got=", ".join(roles))
    return roles


def _revocation(item: object) -> Revocation | None:
    if isinstance(item, dict) and item["revoked"] is None:
        return None
    revoked = _take(item, "revoked", dict)
    _members(revoked, "a revocation", ("at", "reason"))
    return Revocation(_instant(revoked, "at"), _text(revoked, "reason"))


def _members(value: object, what: str, names: tuple[str, ...]) -> None:
    """Check that exactly these members are there: an unknown one might change what is meant."""
    if not isinstance(value, dict) or set(value) != set(names):
        got = ", ".join(sorted(map(str, value)))[:200] if isinstance(value, dict) else "no object"
        raise TrustError(
            f"not the members of {what} of trusted keys", expected=", ".join(names), got=got
        )


def _take(value: object, name: str, kind: type) -> Any:
    found = value[name] if isinstance(value, dict) else None
    if type(found) is not kind:
        raise TrustError(f"{name!r} among the trusted keys is of another kind than {kind.__name__}")
    return found


def _text(value: object, name: str) -> str:
    text: str = _take(value, name, str)
    if not 0 < len(text) <= _MOST_TEXT:
        raise TrustError(f"{name!r} among the trusted keys has not 1 to {_MOST_TEXT} characters")
    return text


def _count(value: object, name: str, least: int, most: int) -> int:
    number: int = _take(value, name, int)
    if not least <= number <= most:
        raise TrustError(f"{name!r} of the trusted keys is out of range", got=str(number)[:40])
    return number


def _instant(value: object, name: str) -> int:
    text = _take(value, name, str)
    try:
        if "." in text:
            raise ValueError("these are written to the second")
        return parse_instant(text)
    except ValueError as error:
        raise TrustError(
            f"{name!r} among the trusted keys is no instant",
            expected="such as 2026-11-22T05:00:00Z",
            got=repr(text)[:80],
        ) from error


def _instant_or_none(value: object, name: str) -> int | None:
    if isinstance(value, dict) and value[name] is None:
        return None
    return _instant(value, name)
