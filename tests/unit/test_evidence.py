"""What a log has witnessed of a receipt, and whose log it may be."""

from __future__ import annotations

from typing import Any

import pytest

from beddel_cli.errors import UnverifiableError, VerificationError
from beddel_cli.trust.evidence import Logged, check_proof, choose_moment, moment_words
from beddel_cli.trust.trust_list import Revocation
from tests.support.trusted import (
    DAY,
    HOUR,
    NOW,
    ORIGIN,
    SmallLog,
    entry,
    finished,
    log_with,
    make_trust,
    new_key,
    payload_at,
    public,
)

KEY, LOG, OTHER = new_key(), new_key("ed25519"), new_key("ed25519")
PAYLOAD = payload_at(NOW - DAY, KEY)
SMALL = log_with(PAYLOAD, NOW - DAY, KEY, LOG)
PROOF = SMALL.proof(3)


def listed(*roles: str, **of_log: Any) -> Any:
    return make_trust(entry(KEY), entry(LOG, *(roles or ("log",)), **of_log))


def test_a_proof_shows_place_and_time() -> None:
    logged = check_proof(PROOF, PAYLOAD, [public(OTHER), public(LOG)])
    assert logged == Logged(ORIGIN, 3, 5, NOW - DAY, LOG.key_id, trusted_time=False)
    assert check_proof(PROOF, PAYLOAD, [], trust=listed()).trusted_time


def test_the_log_of_a_key_that_was_given_dates_nothing() -> None:
    # Given on the command line it proves the place; only the root says whose clock to believe.
    logged = check_proof(PROOF, PAYLOAD, [public(LOG)], trust=make_trust(entry(KEY)))
    assert not logged.trusted_time


@pytest.mark.parametrize("role", ["receipt", "countersign"])
def test_a_key_of_another_role_is_no_log(role: str) -> None:
    with pytest.raises(VerificationError, match=f"trusted for {role}, not for log"):
        check_proof(PROOF, PAYLOAD, [], trust=listed(role))
    # Nor does naming it on the command line as well make it one.
    with pytest.raises(VerificationError, match="not for log"):
        check_proof(PROOF, PAYLOAD, [public(LOG)], trust=listed(role))


@pytest.mark.parametrize(
    ("of_log", "error"),
    [
        ({"until_ms": NOW - HOUR}, None),  # retired since, and nobody has withdrawn it
        ({"until_ms": NOW - DAY}, VerificationError),
        ({"from_ms": NOW - HOUR}, VerificationError),
        ({"revoked": Revocation(NOW - 2 * DAY, "x")}, VerificationError),
        # Its holder may have written any time into any entry.
        ({"revoked": Revocation(NOW - HOUR, "x")}, UnverifiableError),
    ],
)
def test_when_a_log_is_believed(of_log: dict[str, Any], error: type[Exception] | None) -> None:
    trust = listed(**of_log)
    if error is None:
        assert check_proof(PROOF, PAYLOAD, [], trust=trust).trusted_time
    else:
        with pytest.raises(error):
            check_proof(PROOF, PAYLOAD, [], trust=trust)


def test_a_log_that_nobody_knows() -> None:
    with pytest.raises(UnverifiableError, match="signed by a key that was not given"):
        check_proof(PROOF, PAYLOAD, [public(OTHER)])
    with pytest.raises(UnverifiableError):
        check_proof(PROOF, PAYLOAD, [])


def test_the_proof_of_another_receipt() -> None:
    other = payload_at(NOW - HOUR, KEY)
    with pytest.raises(VerificationError, match="about another receipt"):
        check_proof(PROOF, other, [public(LOG)])
    with pytest.raises(VerificationError, match="not an entry of the log"):
        check_proof(SMALL.proof(1), PAYLOAD, [public(LOG)])
    elsewhere = payload_at(NOW - DAY, KEY, log={"origin": "another.test/log", "index": 2})
    log = log_with(elsewhere, NOW - DAY, KEY, LOG)
    with pytest.raises(VerificationError, match="names another place"):
        check_proof(log.proof(3), elsewhere, [public(LOG)])


def test_an_entry_without_a_time() -> None:
    entry_bytes = finished(PAYLOAD, NOW, KEY).replace(b'"2026-11-22T12:00:00.000Z"', b'"soon"')
    log = SmallLog(LOG, [b"", b"", b"", entry_bytes])
    with pytest.raises(VerificationError, match="has no time"):
        check_proof(log.proof(3), PAYLOAD, [public(LOG)])


def test_a_checkpoint_that_was_kept_has_to_agree() -> None:
    def check(*kept: bytes) -> Logged:
        return check_proof(PROOF, PAYLOAD, [public(LOG)], checkpoints=kept)

    same, shorter = SMALL.checkpoint(), SmallLog(LOG, SMALL.entries[:4]).checkpoint()
    elsewhere = SmallLog(OTHER, SMALL.entries).checkpoint("another.test/log")
    assert check(same).index == 3
    assert check(shorter, elsewhere, same).index == 3
    forked = SmallLog(LOG, [*SMALL.entries[:4], b"a different end"]).checkpoint()
    for kept in ((forked,), (same, forked), (forked, same)):
        with pytest.raises(VerificationError, match="the log was forked"):
            check(*kept)
    for kept in ((shorter,), (elsewhere,), (shorter, elsewhere)):
        with pytest.raises(UnverifiableError, match="of the proof's log and size"):
            check(*kept)
    with pytest.raises(UnverifiableError, match="a key that was not given"):
        check(same, SmallLog(OTHER, SMALL.entries).checkpoint())
    with pytest.raises(VerificationError):
        check(same.replace(b"\n5\n", b"\n6\n"))


def test_what_was_kept_is_by_the_key_of_the_log() -> None:
    """A key on the list for something else, or for another log, says nothing of this one."""
    other = SmallLog(OTHER, SMALL.entries).checkpoint()
    for role in ("countersign", "log"):
        trust = make_trust(entry(KEY), entry(LOG, "log"), entry(OTHER, role))
        with pytest.raises(UnverifiableError, match="a key that was not given"):
            check_proof(PROOF, PAYLOAD, [], trust=trust, checkpoints=[other])
    with pytest.raises(UnverifiableError, match="a key that was not given"):
        check_proof(PROOF, PAYLOAD, [public(LOG), public(OTHER)], checkpoints=[other])


def test_whose_word_a_moment_is() -> None:
    def moment(logged: Logged | None, stamped_ms: int | None) -> tuple[int, str]:
        chosen = choose_moment(now_ms=9, claimed_ms=1, logged=logged, stamped_ms=stamped_ms)
        assert chosen.claimed_ms == 1
        assert moment_words(chosen)
        return chosen.at_ms, chosen.source

    told = Logged(ORIGIN, 0, 1, 5, "", trusted_time=True)
    heard = Logged(ORIGIN, 0, 1, 5, "", trusted_time=False)
    assert moment(None, None) == moment(heard, None) == (9, "now")
    assert moment(told, None) == (5, "log")
    assert moment(None, 7) == moment(heard, 7) == (7, "timestamp")
    # The first that saw it: who has an old receipt stamped takes nothing away from it.
    assert moment(told, 7) == (5, "log")
    assert moment(told, 5) == (5, "timestamp")
    assert moment(told, 4) == (4, "timestamp")
