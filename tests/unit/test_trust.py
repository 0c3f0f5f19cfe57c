"""Which keys are believed, for what and when; and which lists of them are read at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from beddel_cli.errors import TrustError, VerificationError
from beddel_cli.record import changed
from beddel_cli.trust.dsse import (
    PAYLOAD_TYPE,
    TRUST_PAYLOAD_TYPE,
    Signature,
    make_bundle,
    make_envelope,
    pae,
)
from beddel_cli.trust.keys import SigningKey
from beddel_cli.trust.trust_list import (
    CLOCKS_DIFFER_MS,
    MAX_KEYS,
    MAX_TRUST_BYTES,
    ROLES,
    SEEN_BEFORE,
    Moment,
    Revocation,
    Trust,
    find_by_prefix,
    judge,
    parse_trust,
    reissued,
    require_current,
    require_serial,
    sign_trust,
    trust_document,
    trust_payload,
    with_entry,
)
from beddel_cli.trust.verify import verify_envelope
from tests.support.statements import signed
from tests.support.trusted import DAY, HOUR, NOW, entry, make_trust, new_key, public, trust_file

if TYPE_CHECKING:
    from beddel_cli.trust.trust_list import Source

ROOT, KEY, OTHER, LOG = new_key(), new_key(), new_key("ed25519"), new_key("ed25519")
GOOD = make_trust(
    entry(KEY, from_ms=NOW - DAY, until_ms=NOW + DAY),
    entry(OTHER, "receipt", "countersign", owner="bob"),
    entry(LOG, "log", revoked=Revocation(NOW - HOUR, "lost")),
    countersigners=1,
)


def envelope(
    document: Any, root: SigningKey = ROOT, payload_type: str = TRUST_PAYLOAD_TYPE
) -> bytes:
    """Sign any document as a list is signed."""
    payload = document if isinstance(document, bytes) else json.dumps(document).encode()
    signature = Signature(root.key_id, root.sign(pae(payload_type, payload)))
    return make_envelope(payload, [signature], payload_type)


def test_what_is_written_is_read_again() -> None:
    read = parse_trust(sign_trust(GOOD, [ROOT]), [public(ROOT)])
    assert read == changed(GOOD, signed_by=(ROOT.key_id,))
    assert trust_payload(read) == trust_payload(GOOD)
    assert read.find(KEY.key_id) == GOOD.keys[0]
    assert read.find(ROOT.key_id) is None


@pytest.mark.parametrize("roots", [[OTHER], [KEY], []])
def test_a_list_by_another_root_is_not_believed(roots: list[SigningKey]) -> None:
    with pytest.raises(TrustError) as caught:
        parse_trust(trust_file(ROOT, entry(new_key())), [public(root) for root in roots])
    assert caught.value.exit_code == 2


def test_a_key_of_the_list_cannot_sign_the_list() -> None:
    data = envelope(trust_document(GOOD), KEY)
    with pytest.raises(TrustError, match="another root key"):
        parse_trust(data, [public(ROOT)])
    # Not even where the reader takes it for a root.
    with pytest.raises(TrustError, match="is also among the keys it vouches for"):
        parse_trust(data, [public(KEY)])
    with pytest.raises(TrustError, match="is also among"):
        sign_trust(GOOD, [KEY])


def test_a_list_may_be_signed_by_an_old_and_a_new_root() -> None:
    new_root = new_key("ed25519")
    data = sign_trust(GOOD, [ROOT, new_root])
    for roots in ([ROOT], [new_root], [ROOT, new_root]):
        trust = parse_trust(data, [public(root) for root in roots])
        assert trust.signed_by == tuple(root.key_id for root in roots)
    payload = trust_payload(GOOD)
    message = pae(TRUST_PAYLOAD_TYPE, payload)
    good = Signature(ROOT.key_id, ROOT.sign(message))
    bad = Signature(new_root.key_id, new_root.sign(message + b" "))
    data = make_envelope(payload, [good, bad], TRUST_PAYLOAD_TYPE)
    with pytest.raises(TrustError, match="not by key"):
        parse_trust(data, [public(ROOT), public(new_root)])


def test_neither_kind_of_document_passes_for_the_other() -> None:
    # The same payload, and a signature over the other type.
    for payload_type in (PAYLOAD_TYPE, "application/json"):
        with pytest.raises(TrustError, match="holds no list of trusted keys"):
            parse_trust(envelope(trust_document(GOOD), ROOT, payload_type), [public(ROOT)])
    relabelled = envelope(trust_document(GOOD), ROOT, PAYLOAD_TYPE).replace(
        PAYLOAD_TYPE.encode(), TRUST_PAYLOAD_TYPE.encode()
    )
    with pytest.raises(TrustError, match="not by key"):
        parse_trust(relabelled, [public(ROOT)])
    with pytest.raises(VerificationError, match="holds no in-toto statement"):
        verify_envelope(sign_trust(GOOD, [ROOT]), [public(ROOT)])
    with pytest.raises(TrustError, match="holds no list of trusted keys"):
        parse_trust(signed(ROOT), [public(ROOT)])


def test_a_list_in_a_bundle_is_not_read() -> None:
    payload = trust_payload(GOOD)
    signature = Signature(ROOT.key_id, ROOT.sign(pae(TRUST_PAYLOAD_TYPE, payload)))
    data = make_bundle(payload, signature).replace(
        PAYLOAD_TYPE.encode(), TRUST_PAYLOAD_TYPE.encode()
    )
    with pytest.raises(TrustError, match="not in a bundle"):
        parse_trust(data, [public(ROOT)])


def test_a_huge_list_is_not_looked_at() -> None:
    with pytest.raises(TrustError, match="too large"):
        parse_trust(b" " * (MAX_TRUST_BYTES + 1), [public(ROOT)])


def _set(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        holder: Any = document
        for name in path[:-1]:
            holder = holder[name]
        holder[path[-1]] = to

    return change


def _drop(*path: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        holder: Any = document
        for name in path[:-1]:
            holder = holder[name]
        del holder[path[-1]]

    return change


def _twice(document: dict[str, Any]) -> None:
    document["keys"].append({**document["keys"][0], "owner": "somebody else"})


PEM = KEY.public_pem.decode()
BAD: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "no schema": (_drop("schema"), "something else"),
    "a receipt's predicate": (
        _set("schema", to="https://in-toto.io/Statement/v1"),
        "something else",
    ),
    "a newer version": (_set("schema", to="beddel-cli/trust/v2"), "a version not known here"),
    "unknown member": (_set("also", to=1), "not the members"),
    "no serial": (_drop("serial"), "not the members"),
    "serial zero": (_set("serial", to=0), "out of range"),
    "serial true": (_set("serial", to=True), "another kind"),
    "serial text": (_set("serial", to="1"), "another kind"),
    "serial float": (_set("serial", to=1.0), "another kind"),
    "huge serial": (_set("serial", to=2**53), "out of range"),
    "negative threshold": (_set("countersigners", to=-1), "out of range"),
    "no end": (_set("expires", to=None), "another kind"),
    "ends before it begins": (_set("expires", to="2020-01-01T00:00:00Z"), "before it begins"),
    "a local time": (_set("issued", to="2026-11-22T05:00:00+01:00"), "no instant"),
    "a time with milliseconds": (_set("issued", to="2026-11-22T05:00:00.000Z"), "no instant"),
    "a day that is none": (_set("issued", to="2026-02-30T05:00:00Z"), "no instant"),
    "one-digit month": (_set("issued", to="2026-1-22T05:00:00Z"), "no instant"),
    "Arabic digits": (_set("issued", to="٢٠٢٦-11-22T05:00:00Z"), "no instant"),
    "no keys": (_set("keys", to=[]), "names no key"),
    "keys of another kind": (_set("keys", to={}), "another kind"),
    "a key that is text": (_set("keys", 0, to="x"), "not the members"),
    "unknown member of a key": (_set("keys", 0, "admin", to=True), "not the members"),
    "a key twice": (_twice, "stands twice"),
    "no owner": (_drop("keys", 0, "owner"), "not the members"),
    "empty owner": (_set("keys", 0, "owner", to=""), "characters"),
    "long owner": (_set("keys", 0, "owner", to="x" * 501), "characters"),
    "owner no text": (_set("keys", 0, "owner", to=["ann"]), "another kind"),
    "unknown role": (_set("keys", 0, "roles", to=["receipt", "root"]), "not known here"),
    "no role": (_set("keys", 0, "roles", to=[]), "not known here"),
    "role twice": (_set("keys", 0, "roles", to=["receipt", "receipt"]), "not known here"),
    "a log key for receipts": (_set("keys", 2, "roles", to=["receipt", "log"]), "nothing else"),
    "role as text": (_set("keys", 0, "roles", to="receipt"), "another kind"),
    "role in capitals": (_set("keys", 0, "roles", to=["Receipt"]), "not known here"),
    "role that is a list": (_set("keys", 0, "roles", to=[["receipt"]]), "not known here"),
    "a P-256 key for a log": (_set("keys", 0, "roles", to=["log"]), "not Ed25519"),
    "a private key": (
        _set("keys", 0, "publicKey", to=PEM.replace("PUBLIC", "PRIVATE")),
        "cannot be read",
    ),
    "a key with text after it": (_set("keys", 0, "publicKey", to=PEM + " "), "canonical spelling"),
    "a key with other line ends": (
        _set("keys", 0, "publicKey", to=PEM.replace("\n", "\r\n")),
        "canonical spelling",
    ),
    "a key not in ASCII": (_set("keys", 0, "publicKey", to=PEM + "ä"), "cannot be read"),
    "no validity": (_drop("keys", 0, "until"), "not the members"),
    "validity turned round": (
        _set("keys", 0, "until", to="2020-01-01T00:00:00Z"),
        "before it begins",
    ),
    "revoked: true": (_set("keys", 0, "revoked", to=True), "another kind"),
    "revocation without a reason": (
        _set("keys", 0, "revoked", to={"at": "2026-11-22T05:00:00Z"}),
        "not the members",
    ),
    "revocation with more": (_set("keys", 2, "revoked", "until", to=None), "not the members"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_signed_list_of_another_shape_is_not_read(name: str) -> None:
    change, message = BAD[name]
    document = trust_document(GOOD)
    parse_trust(envelope(document), [public(ROOT)])  # the control
    change(document)
    with pytest.raises(TrustError, match=message):
        parse_trust(envelope(document), [public(ROOT)])


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"1",
        b"null",
        trust_payload(GOOD)[:-1],
        trust_payload(GOOD) + b"{}",
        trust_payload(GOOD).replace(b'"serial":1', b'"serial":1,"serial":2'),
        trust_payload(GOOD).replace(b'"owner":"ann"', b'"owner":"eve","owner":"ann"'),
        b"\xef\xbb\xbf" + trust_payload(GOOD),
        b"[" * 100_000,
    ],
)
def test_a_signed_list_that_is_no_strict_json_is_not_read(payload: bytes) -> None:
    with pytest.raises(TrustError):
        parse_trust(envelope(payload), [public(ROOT)])


def test_too_many_keys_are_not_read() -> None:
    document = trust_document(GOOD)
    document["keys"] = document["keys"][:1] * (MAX_KEYS + 1)
    with pytest.raises(TrustError, match="too many"):
        parse_trust(envelope(document), [public(ROOT)])


def test_a_list_ends() -> None:
    require_current(GOOD, GOOD.expires_ms - 1)
    with pytest.raises(TrustError, match="ended at") as caught:
        require_current(GOOD, GOOD.expires_ms)
    assert caught.value.exit_code == 2


def test_a_list_of_the_future_shows_a_clock_that_was_turned_back() -> None:
    require_current(GOOD, GOOD.issued_ms - CLOCKS_DIFFER_MS)
    with pytest.raises(TrustError, match="still to come"):
        require_current(GOOD, GOOD.issued_ms - CLOCKS_DIFFER_MS - 1)


def test_an_older_list_than_one_seen_is_noticed() -> None:
    require_serial(GOOD, None, SEEN_BEFORE)
    require_serial(GOOD, GOOD.serial, SEEN_BEFORE)
    with pytest.raises(TrustError, match="an old copy was put back"):
        require_serial(GOOD, GOOD.serial + 1, SEEN_BEFORE)


def test_the_next_issue_has_the_next_number() -> None:
    later = reissued(GOOD, now_ms=NOW + 999, lifetime_ms=DAY, countersigners=0)
    assert (later.serial, later.issued_ms, later.expires_ms) == (2, NOW, NOW + DAY)
    assert (later.countersigners, later.keys) == (0, GOOD.keys)


def test_an_entry_takes_the_place_of_the_same_key() -> None:
    other = entry(KEY, "countersign", owner="new")
    assert with_entry(GOOD, other) == (other, *GOOD.keys[1:])
    added = entry(new_key())
    assert with_entry(GOOD, added) == (*GOOD.keys, added)


def test_a_key_is_found_by_the_start_of_its_id() -> None:
    assert find_by_prefix(GOOD, KEY.key_id[:8]) == GOOD.keys[0]
    for start in (KEY.key_id[:7], "", "0" * 64, KEY.key_id + "0"):
        with pytest.raises(TrustError, match="no trusted key"):
            find_by_prefix(GOOD, start)


T = NOW
FROM, UNTIL = T - DAY, T + DAY
SEEN: tuple[Source, ...] = ("timestamp", "log")
# What an entry says, when it is judged, by whom, what the receipt claims, and what comes of it.
JUDGED: list[tuple[dict[str, Any], Moment, str]] = [
    ({}, Moment(T, "now"), "good"),
    ({}, Moment(T, "log"), "good"),
    ({"from_ms": FROM, "until_ms": UNTIL}, Moment(T, "now", T - 1), "good"),
    *(({"from_ms": FROM}, Moment(FROM, seen), "good") for seen in SEEN),
    *(({"from_ms": FROM}, Moment(FROM - 1, seen), "bad") for seen in SEEN),
    *(({"until_ms": UNTIL}, Moment(UNTIL - 1, seen), "good") for seen in SEEN),
    ({"until_ms": UNTIL}, Moment(UNTIL, "log"), "bad"),
    *(({"revoked": Revocation(T, "x")}, Moment(T - 1, seen), "good") for seen in SEEN),
    ({"revoked": Revocation(T, "x")}, Moment(T, "log"), "bad"),
    # Anybody may have an old signature stamped: that shows nothing bad of it, and nothing good.
    ({"until_ms": UNTIL}, Moment(UNTIL, "timestamp"), "unknown"),
    ({"until_ms": UNTIL}, Moment(UNTIL + HOUR, "timestamp", T), "unknown"),
    ({"revoked": Revocation(T, "x")}, Moment(T, "timestamp", T - 1), "unknown"),
    ({"from_ms": FROM, "until_ms": UNTIL}, Moment(UNTIL, "timestamp", T), "unknown"),
    ({"until_ms": UNTIL}, Moment(UNTIL + HOUR, "timestamp", UNTIL), "bad"),
    # A witness counts for more than what the signer says, either way.
    ({"revoked": Revocation(T, "x")}, Moment(T + HOUR, "log", T - DAY), "bad"),
    ({"until_ms": UNTIL}, Moment(UNTIL + HOUR, "log", T), "bad"),
    # Back-dated, or perhaps not: nobody can tell, so it is not good.
    ({"revoked": Revocation(T, "x")}, Moment(T + HOUR, "now", T - DAY), "unknown"),
    ({"revoked": Revocation(T, "x")}, Moment(T + HOUR, "now", None), "unknown"),
    ({"revoked": Revocation(T, "x")}, Moment(T - HOUR, "now", T - DAY), "unknown"),
    ({"until_ms": UNTIL}, Moment(UNTIL, "now", T), "unknown"),
    ({"from_ms": FROM}, Moment(FROM - 1, "now", FROM), "unknown"),
    # By its own word it is bad.
    ({"revoked": Revocation(T, "x")}, Moment(T + HOUR, "now", T), "bad"),
    ({"until_ms": UNTIL}, Moment(UNTIL + HOUR, "now", UNTIL), "bad"),
    ({"until_ms": UNTIL}, Moment(T, "now", UNTIL), "bad"),
    ({"from_ms": FROM}, Moment(T, "now", FROM - 1), "bad"),
]


@pytest.mark.parametrize(("says", "moment", "verdict"), JUDGED)
def test_a_key_is_judged_at_a_moment(says: dict[str, Any], moment: Moment, verdict: str) -> None:
    judgement = judge(entry(KEY, **says), "receipt", moment)
    assert judgement.verdict == verdict, judgement.why
    assert (KEY.key_id in judgement.why) is (verdict != "good")


@pytest.mark.parametrize("has", ROLES)
@pytest.mark.parametrize("needs", ROLES)
def test_a_key_is_good_for_its_own_role_only(has: str, needs: str) -> None:
    judgement = judge(entry(LOG, has), needs, Moment(NOW, "log"))
    assert judgement.verdict == ("good" if has == needs else "bad")


def test_both_roles_of_a_key_count() -> None:
    both: Trust = GOOD
    for role in ("receipt", "countersign"):
        assert judge(both.keys[1], role, Moment(NOW, "now")).verdict == "good"
    assert judge(both.keys[1], "log", Moment(NOW, "now")).verdict == "bad"
