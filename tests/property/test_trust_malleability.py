"""A list of trusted keys, a countersigned receipt or a proof that was changed never verifies."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from beddel_cli.errors import TrustError, UnverifiableError, VerificationError
from beddel_cli.trust.countersign import judge_receipt
from beddel_cli.trust.dsse import TRUST_PAYLOAD_TYPE, make_envelope, parse_envelope
from beddel_cli.trust.evidence import check_proof
from beddel_cli.trust.instants import parse_instant, show_instant
from beddel_cli.trust.trust_list import (
    ROLES,
    Moment,
    Revocation,
    Trust,
    TrustedKey,
    judge,
    parse_trust,
    sign_trust,
)
from beddel_cli.trust.verify import verify_envelope
from tests.support.statements import sign
from tests.support.trusted import (
    DAY,
    NOW,
    entry,
    log_with,
    make_trust,
    new_key,
    payload_at,
    public,
    trust_file,
)

# Ed25519: its signatures are the same each time, and twice as quick to check in a loop.
ROOT, KEY, ANN, LOG = (new_key("ed25519") for _ in range(4))
LIST = trust_file(ROOT, entry(KEY), entry(ANN, "countersign", owner="bob"), countersigners=1)
TRUST = parse_trust(LIST, [public(ROOT)])
PAYLOAD = payload_at(NOW - DAY, KEY)
COUNTERSIGNED = make_envelope(PAYLOAD, [sign(PAYLOAD, KEY), sign(PAYLOAD, ANN)])
PROOF = log_with(PAYLOAD, NOW - DAY, KEY, LOG).proof(3)
KEYS = [public(KEY), public(ANN)]


def list_is_read(data: bytes) -> bool:
    try:
        parse_trust(data, [public(ROOT)])
    except TrustError:
        return False
    return True


def stands(data: bytes) -> bool:
    """Tell whether a receipt verifies with as many countersignatures as the list asks for."""
    try:
        receipt = verify_envelope(data, KEYS)
        judge_receipt(receipt, TRUST, Moment(NOW, "now", NOW - DAY), NOW)
    except (VerificationError, UnverifiableError):
        return False
    return True


def proves(data: bytes) -> bool:
    try:
        check_proof(data, PAYLOAD, [public(LOG)])
    except (VerificationError, UnverifiableError):
        return False
    return True


def flips(data: bytes) -> Iterator[bytes]:
    """Give the data with one bit of each byte turned over, another one from byte to byte."""
    for at in range(len(data)):
        yield data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]


def test_no_flipped_byte_of_a_list_is_read() -> None:
    assert list_is_read(LIST)
    # The last byte is a line end outside of the JSON; another white space is all it may become.
    for changed in flips(LIST):
        assert not list_is_read(changed), changed


def test_no_flipped_byte_of_a_countersigned_receipt_stands() -> None:
    assert stands(COUNTERSIGNED)
    for changed in flips(COUNTERSIGNED):
        assert not stands(changed), changed


def test_no_flipped_byte_of_a_proof_proves() -> None:
    assert proves(PROOF)
    for changed in flips(PROOF):
        assert not proves(changed), changed


@given(st.data())
def test_no_removed_added_or_moved_bytes_of_a_list_are_read_as_another(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(LIST)))
    to = data.draw(st.integers(at, min(len(LIST), at + 8)))
    put = data.draw(st.binary(max_size=4) | st.sampled_from([b" ", b"\n", b"=", b"A", b'"', b"\\"]))
    changed = LIST[:at] + put + LIST[to:]
    if list_is_read(changed):
        # Only white space between tokens is free.
        original = parse_envelope(LIST, TRUST_PAYLOAD_TYPE)
        assert parse_envelope(changed, TRUST_PAYLOAD_TYPE) == original


@given(st.data())
def test_no_removed_added_or_moved_bytes_of_a_proof_prove(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(PROOF)))
    to = data.draw(st.integers(at, min(len(PROOF), at + 8)))
    put = data.draw(st.binary(max_size=4) | st.sampled_from([b" ", b"\n", b"=", b"A", b"-"]))
    changed = PROOF[:at] + put + PROOF[to:]
    assert proves(changed) is (changed == PROOF)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    assert not list_is_read(data)
    assert not proves(data)
    assert not list_is_read(LIST[:20] + data)
    assert not proves(PROOF[:40] + data)


# From the year 1 to the year 9999.
INSTANTS = st.integers(-62_135_596_800, 253_402_300_799).map(lambda seconds: seconds * 1000)
TEXTS = st.text(min_size=1, max_size=20)


SETS_OF_ROLES = (
    *((role,) for role in ROLES),
    *(("receipt", "countersign"), ("countersign", "receipt")),
)


@st.composite
def entries(draw: st.DrawFn) -> TrustedKey:
    from_ms, until_ms = draw(st.none() | INSTANTS), draw(st.none() | INSTANTS)
    if from_ms is not None and until_ms is not None:
        from_ms, until_ms = min(from_ms, until_ms), max(from_ms, until_ms)
    return TrustedKey(
        public=public(KEY),
        owner=draw(TEXTS),
        roles=draw(st.sampled_from(SETS_OF_ROLES)),
        from_ms=from_ms,
        until_ms=until_ms,
        revoked=draw(st.none() | st.builds(Revocation, INSTANTS, TEXTS)),
    )


@given(entries(), st.integers(1, 2**53 - 1))
def test_what_is_written_is_read_again_whatever_it_says(key: TrustedKey, serial: int) -> None:
    trust: Trust = make_trust(key, serial=serial)
    assert parse_trust(sign_trust(trust, [ROOT]), [public(ROOT)]).keys == (key,)


@given(entries(), st.sampled_from(ROLES), INSTANTS, st.none() | INSTANTS)
def test_a_witness_can_only_be_stricter_than_the_list(
    key: TrustedKey, role: str, at_ms: int, claimed_ms: int | None
) -> None:
    """Whatever is judged good without a witness is good for one who saw it at that very time."""
    judged = judge(key, role, Moment(at_ms, "now", claimed_ms))
    if judged.verdict == "good":
        assert judge(key, role, Moment(at_ms, "log", claimed_ms)).verdict == "good"
        assert role in key.roles
        assert key.revoked is None


@given(INSTANTS, st.integers(0, 999))
def test_instants_have_one_spelling(seconds_ms: int, part: int) -> None:
    assert parse_instant(show_instant(seconds_ms)) == seconds_ms
    assert parse_instant(show_instant(seconds_ms + part, milliseconds=True)) == seconds_ms + part
