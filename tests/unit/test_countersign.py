"""Who stands behind a receipt: who made it, who countersigned it, and who only says so."""

from __future__ import annotations

from typing import Any

import pytest

from beddel_cli.errors import UnverifiableError, UsageError, VerificationError
from beddel_cli.trust.countersign import claimed_time, countersigned, judge_receipt, maker
from beddel_cli.trust.dsse import MAX_SIGNATURES, Signature, make_envelope, parse_envelope
from beddel_cli.trust.keys import SigningKey
from beddel_cli.trust.trust_list import Moment, Revocation, Trust
from beddel_cli.trust.verify import VerifiedReceipt, verify_envelope
from tests.support.statements import as_payload, bundled, make_statement, sign, signed
from tests.support.trusted import DAY, HOUR, NOW, entry, make_trust, new_key, payload_at, public

KEY, ANN, BOB, EVE = new_key(), new_key("ed25519"), new_key(), new_key()
SEEN = Moment(NOW - DAY, "timestamp", NOW - DAY)


def receipt_by(*keys: SigningKey, trust: Trust, payload: bytes | None = None) -> VerifiedReceipt:
    """Give a receipt made by the first key and signed by the others too."""
    payload = payload_at(NOW - DAY, keys[0]) if payload is None else payload
    data = make_envelope(payload, [sign(payload, key) for key in keys])
    return verify_envelope(data, [each.public for each in trust.keys])


def counters(trust: Trust, *keys: SigningKey, moment: Moment = SEEN) -> list[str]:
    standing = judge_receipt(receipt_by(*keys, trust=trust), trust, moment, NOW)
    assert standing.signer.public.key_id == keys[0].key_id
    return [each.owner for each in standing.countersigners]


def listed(needed: int = 0, **of_bob: Any) -> Trust:
    return make_trust(
        entry(KEY, "receipt", owner="ci"),
        entry(ANN, "countersign", owner="ann"),
        entry(BOB, "countersign", owner="bob", **of_bob),
        countersigners=needed,
    )


def test_a_countersignature_is_added_and_nothing_else_changes() -> None:
    receipt = verify_envelope(signed(KEY), [public(KEY)])
    data = countersigned(receipt, ANN)
    before, after = parse_envelope(signed(KEY)), parse_envelope(data)
    assert after.payload == before.payload == receipt.payload
    assert [each.key_id for each in after.signatures] == [KEY.key_id, ANN.key_id]
    assert verify_envelope(data, [public(KEY), public(ANN)]).signers == (public(KEY), public(ANN))


def test_what_cannot_be_countersigned() -> None:
    keys = [new_key() for _ in range(MAX_SIGNATURES - 1)]
    payload = as_payload(make_statement())
    full = make_envelope(payload, [sign(payload, key) for key in (KEY, *keys)])
    for data, key, why in (
        (bundled(KEY), ANN, "exactly one signature"),
        (signed(KEY), KEY, "has signed this receipt already"),
        (full, ANN, f"at most {MAX_SIGNATURES} signatures"),
    ):
        with pytest.raises(UsageError, match=why):
            countersigned(verify_envelope(data, [public(KEY)]), key)


def test_as_many_owners_as_the_list_asks_for() -> None:
    assert counters(listed(0), KEY) == []
    assert counters(listed(1), KEY, BOB) == ["bob"]
    assert counters(listed(2), KEY, ANN, BOB) == ["ann", "bob"]
    for needed, keys in ((1, [KEY]), (2, [KEY, ANN]), (3, [KEY, ANN, BOB])):
        with pytest.raises(UnverifiableError, match="too few owners") as caught:
            counters(listed(needed), *keys)
        assert caught.value.exit_code == 2


def test_two_keys_of_one_owner_are_one_owner() -> None:
    trust = make_trust(
        entry(KEY, owner="ci"),
        entry(ANN, "countersign", owner="ann"),
        entry(BOB, "countersign", owner="ann"),
        countersigners=2,
    )
    with pytest.raises(UnverifiableError, match="too few owners"):
        counters(trust, KEY, ANN, BOB)


def test_the_maker_does_not_countersign_for_itself() -> None:
    trust = make_trust(entry(KEY, "receipt", "countersign", owner="ci"), countersigners=1)
    with pytest.raises(UnverifiableError, match="too few owners"):
        counters(trust, KEY)


def test_another_key_of_the_maker_does_not_count() -> None:
    """Two keys in one hand are not two people."""
    trust = make_trust(
        entry(KEY, owner="ci"), entry(ANN, "countersign", owner="ci"), countersigners=1
    )
    with pytest.raises(UnverifiableError, match="is of ci, who made it"):
        counters(trust, KEY, ANN)


@pytest.mark.parametrize("source", ["log", "timestamp"])
def test_nobody_witnessed_what_is_still_to_come(source: Any) -> None:
    """A log dates its entries as its holder likes: not into the time a key will be good at."""
    trust = make_trust(entry(KEY, from_ms=NOW + DAY))
    receipt = receipt_by(KEY, trust=trust, payload=payload_at(NOW + 2 * DAY, KEY))
    with pytest.raises(UnverifiableError, match="still to come"):
        judge_receipt(receipt, trust, Moment(NOW + 2 * DAY, source, NOW + 2 * DAY), NOW)
    # Clocks differ, and that alone is no reason.
    soon = NOW + 60_000
    receipt = receipt_by(KEY, trust=make_trust(entry(KEY)), payload=payload_at(soon, KEY))
    assert judge_receipt(receipt, make_trust(entry(KEY)), Moment(soon, source, soon), NOW)


def test_one_signature_does_not_count_twice() -> None:
    payload = payload_at(NOW - DAY, KEY)
    twice = [sign(payload, KEY), sign(payload, ANN), sign(payload, ANN)]
    with pytest.raises(VerificationError, match="two signatures name the same key"):
        verify_envelope(make_envelope(payload, twice), [public(KEY), public(ANN)])
    # Under another name it is a signature by nobody who is known.
    alias = Signature(ANN.key_id.upper(), twice[1].value)
    data = make_envelope(payload, [*twice[:2], alias])
    trust = listed(2)
    receipt = verify_envelope(data, [each.public for each in trust.keys])
    assert receipt.unknown_key_ids == (ANN.key_id.upper(),)
    with pytest.raises(UnverifiableError, match="too few owners"):
        judge_receipt(receipt, trust, SEEN, NOW)


def test_a_countersignature_by_nobody_on_the_list_does_not_count() -> None:
    with pytest.raises(UnverifiableError, match="too few owners"):
        counters(listed(1), KEY, EVE)


REVOKED = Revocation(NOW - HOUR, "lost")


@pytest.mark.parametrize(
    ("of_bob", "counts"),
    [
        ({}, True),
        ({"until_ms": NOW - HOUR}, False),  # it was good when the receipt was made: who saw it?
        ({"from_ms": NOW - HOUR}, True),  # it was made later, and countersigned then
        ({"from_ms": NOW - 9 * DAY, "until_ms": NOW - 8 * DAY}, False),
        ({"from_ms": NOW + HOUR}, False),
        ({"revoked": REVOKED}, False),
        ({"revoked": REVOKED, "until_ms": NOW + DAY}, False),
    ],
)
def test_when_a_countersignature_counts(of_bob: dict[str, Any], counts: bool) -> None:
    trust = listed(0, **of_bob)
    assert counters(trust, KEY, BOB) == (["bob"] if counts else [])
    standing = judge_receipt(receipt_by(KEY, BOB, trust=trust), trust, SEEN, NOW)
    assert any("does not count" in text for text in standing.warnings) is not counts


@pytest.mark.parametrize("source", ["now", "log", "timestamp"])
def test_a_retired_countersigner_does_not_count_whoever_saw_the_receipt(source: Any) -> None:
    """What was seen is the maker's signature; the other may be of today."""
    moment = Moment(NOW if source == "now" else NOW - DAY, source, NOW - DAY)
    assert counters(listed(1, until_ms=NOW + HOUR), KEY, BOB, moment=moment) == ["bob"]
    with pytest.raises(UnverifiableError, match="too few owners") as caught:
        counters(listed(1, until_ms=NOW - HOUR), KEY, BOB, moment=moment)
    assert f"key {BOB.key_id} was no longer valid" in caught.value.message


@pytest.mark.parametrize("role", ["log", "countersign"])
def test_a_key_with_another_role_makes_no_receipt(role: str) -> None:
    trust = make_trust(entry(ANN, role))
    with pytest.raises(VerificationError, match=f"trusted for {role}, not for receipt"):
        counters(trust, ANN)


def test_a_log_key_beside_a_good_one_is_not_passed_over() -> None:
    trust = make_trust(entry(KEY), entry(ANN, "log"))
    with pytest.raises(VerificationError, match="trusted for log, not for receipt"):
        counters(trust, KEY, ANN)


def test_only_the_key_that_a_receipt_names_can_have_made_it() -> None:
    trust = make_trust(entry(KEY, revoked=REVOKED), entry(BOB, "receipt", "countersign"))
    # Bob's signature is good; the receipt is of the revoked key all the same, in any order.
    payload = payload_at(NOW - DAY, KEY)
    for keys in ((KEY, BOB), (BOB, KEY)):
        receipt = receipt_by(*keys, trust=trust, payload=payload)
        with pytest.raises(UnverifiableError, match="was revoked"):
            judge_receipt(receipt, trust, Moment(NOW, "now", NOW - DAY), NOW)
    with pytest.raises(VerificationError, match="no signature by the key that it says made it"):
        receipt_by(BOB, trust=trust, payload=payload)
    # A signature that names the key is there, and nobody on the list is known by it.
    trust = make_trust(entry(BOB, "receipt", "countersign"))
    receipt = receipt_by(KEY, BOB, trust=trust, payload=payload)
    with pytest.raises(UnverifiableError, match="whose signature nobody here can judge"):
        judge_receipt(receipt, trust, SEEN, NOW)


def test_a_receipt_that_names_no_key_is_by_the_first_that_may_sign_receipts() -> None:
    trust = listed()
    payload = as_payload(make_statement())
    receipt = receipt_by(ANN, KEY, trust=trust, payload=payload)
    assert maker(receipt, trust).key_id == KEY.key_id
    assert maker(receipt).key_id == ANN.key_id


@pytest.mark.parametrize(
    ("revoked_at", "moment", "error"),
    [
        (NOW - HOUR, Moment(NOW, "now", NOW - DAY), UnverifiableError),
        (NOW - HOUR, Moment(NOW, "now", NOW - HOUR), VerificationError),
        (NOW - HOUR, Moment(NOW - HOUR, "log", NOW - DAY), VerificationError),
        (NOW - HOUR, Moment(NOW - HOUR - 1, "log", NOW - DAY), None),
    ],
)
def test_a_back_dated_receipt_of_a_revoked_key(
    revoked_at: int, moment: Moment, error: type[Exception] | None
) -> None:
    trust = make_trust(entry(KEY, revoked=Revocation(revoked_at, "stolen")))
    if error is None:
        assert counters(trust, KEY, moment=moment) == []
    else:
        with pytest.raises(error, match="revoked"):
            counters(trust, KEY, moment=moment)


def test_without_a_trusted_time_the_reader_is_warned() -> None:
    trust = listed()
    receipt = receipt_by(KEY, trust=trust)
    now = judge_receipt(receipt, trust, Moment(NOW, "now", NOW - DAY), NOW)
    assert any(text.startswith("no trusted time") for text in now.warnings)
    assert judge_receipt(receipt, trust, SEEN, NOW).warnings == ()


def test_a_receipt_from_after_it_was_seen_has_a_wrong_clock() -> None:
    trust = listed()
    receipt = receipt_by(KEY, trust=trust)
    late = Moment(NOW - DAY, "timestamp", NOW - DAY + HOUR)
    warnings = judge_receipt(receipt, trust, late, NOW).warnings
    assert [text for text in warnings if "later than it was seen" in text]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"finishedAt": "2026-11-22T12:00:00.000Z", "startedAt": "2020-01-01T00:00:00.000Z"}, NOW),
        ({"finishedAt": "soon", "startedAt": "2026-11-22T12:00:00.000Z"}, NOW),
        ({"startedAt": 7}, None),
        ({}, None),
    ],
)
def test_when_a_receipt_says_it_was_made(said: dict[str, Any], expected: int | None) -> None:
    payload = as_payload(make_statement(**said))
    receipt = verify_envelope(signed(KEY, payload), [public(KEY)])
    assert claimed_time(receipt) == expected
