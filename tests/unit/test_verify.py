"""The trust rules for one receipt."""

from __future__ import annotations

import json
from typing import Any

import pytest

from beddel_cli.errors import UnverifiableError, UsageError, VerificationError
from beddel_cli.outcome import REASONS
from beddel_cli.trust.dsse import make_bundle, make_envelope
from beddel_cli.trust.keys import (
    PublicKey,
    SigningKey,
    generate_key,
    load_public_key,
    load_signing_key,
)
from beddel_cli.trust.verify import (
    PREDICATE_FAMILY,
    STATUSES,
    Mismatch,
    VerifiedReceipt,
    check_expectations,
    verify_envelope,
)
from tests.support.statements import (
    JOB,
    OUTPUT,
    as_payload,
    bundled,
    make_statement,
    sha256,
    sign,
    signed,
)


def new_key(kind: str = "p256") -> SigningKey:
    pem = generate_key(kind).decode()  # type: ignore[arg-type]
    return load_signing_key("/nowhere", environment_pem=pem)


KEY, OTHER = new_key(), new_key()


def public(*keys: SigningKey) -> list[PublicKey]:
    return [load_public_key(key.public_pem) for key in keys]


def verified(statement: dict[str, Any] | None = None) -> VerifiedReceipt:
    payload = as_payload(make_statement() if statement is None else statement)
    return verify_envelope(signed(KEY, payload), public(KEY))


@pytest.mark.parametrize("kind", ["p256", "ed25519"])
@pytest.mark.parametrize("build", [signed, bundled])
def test_good_receipt(kind: str, build: Any) -> None:
    key = new_key(kind)
    receipt = verify_envelope(build(key), public(OTHER, key))
    assert receipt.key.key_id == key.key_id
    assert receipt.statement == make_statement()
    assert receipt.predicate == make_statement()["predicate"]
    assert receipt.payload == as_payload(make_statement())
    assert receipt.bundle is (build is bundled)
    assert receipt.unknown_key_ids == ()


def test_without_a_key_nothing_is_verified() -> None:
    with pytest.raises(UnverifiableError, match="nothing was verified") as caught:
        verify_envelope(signed(KEY), [])
    assert caught.value.exit_code == 2


def test_key_that_was_not_given_is_named() -> None:
    with pytest.raises(UnverifiableError, match=KEY.key_id) as caught:
        verify_envelope(signed(KEY), public(OTHER))
    assert caught.value.got == KEY.key_id
    assert caught.value.expected == OTHER.key_id


@pytest.mark.parametrize("make", [make_envelope, None])
def test_key_id_is_no_proof(make: Any) -> None:
    payload = as_payload(make_statement())
    by_other = sign(payload, OTHER)
    claims_key = type(by_other)(KEY.key_id, by_other.value)
    data = make(payload, [claims_key]) if make else make_bundle(payload, claims_key)
    with pytest.raises(VerificationError, match=f"not by key {KEY.key_id}") as caught:
        verify_envelope(data, public(KEY, OTHER))
    assert caught.value.exit_code == 1


def test_changed_payload_is_bad_even_when_it_says_the_same() -> None:
    payload = as_payload(make_statement())
    for changed in (payload + b" ", payload.replace(b"success", b"failure")):
        with pytest.raises(VerificationError, match="not by key"):
            verify_envelope(make_envelope(changed, [sign(payload, KEY)]), public(KEY))


def test_signature_is_checked_before_the_payload_is_parsed() -> None:
    bad_json = b'{"_type": '
    with pytest.raises(VerificationError, match="not by key"):
        verify_envelope(make_envelope(bad_json, [sign(b"{}", KEY)]), public(KEY))
    with pytest.raises(VerificationError, match="the signature is good, but"):
        verify_envelope(signed(KEY, bad_json), public(KEY))


def test_signature_over_another_payload_type_is_bad() -> None:
    payload = as_payload(make_statement())
    bare = type(sign(payload, KEY))(KEY.key_id, KEY.sign(payload))
    with pytest.raises(VerificationError, match="not by key"):
        verify_envelope(make_envelope(payload, [bare]), public(KEY))


def test_countersignature_by_an_unknown_key_is_reported() -> None:
    payload = as_payload(make_statement())
    data = make_envelope(payload, [sign(payload, OTHER), sign(payload, KEY)])
    receipt = verify_envelope(data, public(KEY))
    assert (receipt.key.key_id, receipt.unknown_key_ids) == (KEY.key_id, (OTHER.key_id,))
    assert verify_envelope(data, public(KEY, OTHER)).unknown_key_ids == ()


def test_one_bad_signature_by_a_known_key_spoils_a_good_one() -> None:
    payload = as_payload(make_statement())
    data = make_envelope(payload, [sign(payload, KEY), sign(b"else", OTHER)])
    with pytest.raises(VerificationError, match=f"not by key {OTHER.key_id}"):
        verify_envelope(data, public(KEY, OTHER))


NOT_STRICT_JSON = {
    "not UTF-8": b'{"_type":"\xff"}',
    "UTF-16": as_payload(make_statement()).decode().encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + as_payload(make_statement()),
    "trailing": as_payload(make_statement()) + b"{}",
    "duplicate": b'{"_type":"x",' + as_payload(make_statement())[1:],
    "duplicate inside": as_payload(make_statement()).replace(
        b'{"status"', b'{"status":"success","status"'
    ),
    "NaN": as_payload(make_statement(figure=float("nan"))),
    "Infinity": as_payload(make_statement(figure=float("inf"))),
    "empty": b"",
    "bottomless": b"[" * 1_000_000,
    "endless number": b"9" * 100_000,
}


@pytest.mark.parametrize("name", NOT_STRICT_JSON)
def test_signed_payload_must_be_strict_json(name: str) -> None:
    with pytest.raises(VerificationError, match="the signature is good, but the payload"):
        verify_envelope(signed(KEY, NOT_STRICT_JSON[name]), public(KEY))


def changed_statement(path: str, value: Any) -> dict[str, Any]:
    statement: dict[str, Any] = json.loads(as_payload(make_statement()))
    *parents, last = path.split(".")
    holder: Any = statement
    for name in parents:
        holder = holder[int(name)] if name.isdigit() else holder[name]
    if value is KeyError:
        del holder[last]
    else:
        holder[last] = value
    return statement


MALFORMED: list[tuple[str, Any, str]] = [
    ("_type", "https://in-toto.io/Statement/v0.1", "_type"),
    ("_type", KeyError, "_type"),
    ("predicateType", "https://slsa.dev/provenance/v1", "something that is not a receipt"),
    ("predicateType", KeyError, "predicateType"),
    ("subject", [], "subject"),
    ("subject", {}, "subject"),
    ("subject", KeyError, "subject"),
    ("subject", [1], "what holds 'name'"),
    ("subject", [{"name": 1, "digest": sha256(JOB)}], "name"),
    ("subject", [{"name": "job", "digest": {}}], "sha256"),
    ("subject", [{"name": "job", "digest": {"sha256": "A" * 64}}], "sha256"),
    ("subject", [{"name": "job", "digest": {"sha256": "a" * 63}}], "sha256"),
    ("predicate", KeyError, "predicate"),
    ("predicate", [], "predicate"),
    ("predicate.outcome", "success", "outcome"),
    ("predicate.outcome.status", "great", "status"),
    ("predicate.outcome.status", True, "status"),
    ("predicate.outcome.status", KeyError, "status"),
    ("predicate.outcome.reason", 1, "reason"),
    ("predicate.outcome.reason", KeyError, "reason"),
    ("predicate.profile", KeyError, "profile"),
    ("predicate.profile.name", None, "name"),
    ("predicate.job", None, "job"),
    ("predicate.job.digest", KeyError, "digest"),
    ("predicate.job.digest.sha256", 0, "sha256"),
    ("predicate.output", KeyError, "output"),
    ("predicate.output", "42", "output"),
    ("predicate.output.bytes", -1, "bytes"),
    ("predicate.output.bytes", True, "bytes"),
    ("predicate.output.bytes", "2", "bytes"),
    ("predicate.output.bytes", KeyError, "bytes"),
]


@pytest.mark.parametrize(("path", "value", "named"), MALFORMED)
def test_malformed_statement_is_refused_and_the_member_named(
    path: str, value: Any, named: str
) -> None:
    with pytest.raises(VerificationError, match="the signature is good, but") as caught:
        verified(changed_statement(path, value))
    assert named in caught.value.message


@pytest.mark.parametrize("payload", [b"1", b"[]", b'"x"', b"null", b"{}"])
def test_signed_json_of_another_shape_is_refused(payload: bytes) -> None:
    with pytest.raises(VerificationError, match="malformed"):
        verify_envelope(signed(KEY, payload), public(KEY))


def test_newer_receipt_is_not_called_bad() -> None:
    with pytest.raises(UnverifiableError, match="a version not known here"):
        verified(changed_statement("predicateType", PREDICATE_FAMILY + "v0.2"))


def test_a_run_was_what_its_plan_says() -> None:
    frozen, real, recorded = ({"clock": name} for name in ("frozen", "real", "recorded"))
    repeats = {"replayOf": sha256(b"first")}
    refused = {"status": "refused", "reason": "limits"}
    stopped = {"status": "interrupted", "reason": "terminated"}
    for good in (
        {"plan": frozen, "determinism": frozen},
        {"plan": real, "determinism": real, "replayOf": None},
        {"plan": frozen, "determinism": recorded, **repeats},
        {"plan": frozen, "determinism": None, "outcome": stopped},
        {"plan": {"runtime": "process"}, "determinism": None},
        {"plan": None, "determinism": None, "outcome": refused},
    ):
        assert verified(make_statement(**good))
    for bad, words in (
        ({"plan": frozen, "determinism": None}, "the clock"),
        ({"plan": frozen, "determinism": real}, "the clock"),
        ({"plan": real, "determinism": frozen}, "the clock"),
        ({"plan": frozen, "determinism": recorded, "replayOf": None}, "the clock"),
        ({"plan": frozen, "determinism": frozen, "outcome": refused}, "has a plan unless"),
        ({"plan": None, "determinism": None}, "has a plan unless"),
    ):
        with pytest.raises(VerificationError, match=f"contradicts itself.*{words}"):
            verified(make_statement(**bad))


def test_the_key_that_a_receipt_names_has_to_be_among_those_that_signed_it() -> None:
    payload = as_payload(make_statement(key={"id": KEY.key_id, "origin": "home"}))
    both = make_envelope(payload, [sign(payload, OTHER), sign(payload, KEY)])
    assert verify_envelope(both, public(OTHER, KEY)).key.key_id == KEY.key_id
    assert verify_envelope(both, public(OTHER)).key.key_id == OTHER.key_id
    with pytest.raises(VerificationError, match="no signature by the key that it says made it"):
        verify_envelope(signed(OTHER, payload), public(OTHER))


CONTRADICTIONS: dict[str, dict[str, Any]] = {
    "job differs": changed_statement("predicate.job.digest", sha256(b"other")),
    "no job subject": changed_statement("subject", [{"name": "output", "digest": sha256(OUTPUT)}]),
    "two job subjects": changed_statement(
        "subject", [*make_statement()["subject"], {"name": "job", "digest": sha256(JOB)}]
    ),
    "output differs": changed_statement("predicate.output.digest", sha256(b"43")),
    "output subject without output": changed_statement("predicate.output", None),
    "output without subject": changed_statement(
        "subject", [{"name": "job", "digest": sha256(JOB)}]
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_receipt_that_contradicts_itself_is_refused(name: str) -> None:
    with pytest.raises(VerificationError, match="contradicts itself about the"):
        verified(CONTRADICTIONS[name])


def test_further_subjects_and_no_reason_are_fine() -> None:
    statement = make_statement(outcome={"status": "success", "reason": None}, output=None)
    statement["subject"].append({"name": "notes", "digest": sha256(b"")})
    assert verified(statement).predicate["output"] is None


def test_no_expectation_finds_nothing() -> None:
    findings = check_expectations(verified())
    assert (findings.mismatches, findings.matches) == ((), ())


def test_all_expectations_met() -> None:
    findings = check_expectations(
        verified(), outcome="success", profile="ultra-secure", job_bytes=JOB, output_bytes=OUTPUT
    )
    assert findings.mismatches == ()
    assert findings.matches == (
        "outcome is success",
        "profile is ultra-secure",
        f"job is sha256:{sha256(JOB)['sha256']}",
        f"output is sha256:{sha256(OUTPUT)['sha256']}",
    )


def test_all_expectations_missed_are_listed_at_once() -> None:
    statement = make_statement(outcome={"status": "limit", "reason": "wall"})
    findings = check_expectations(
        verified(statement),
        outcome="success",
        profile="high-security",
        job_bytes=b"other",
        output_bytes=b"43",
    )
    assert findings.matches == ()
    assert findings.mismatches == (
        Mismatch("outcome", "success", "limit (wall)"),
        Mismatch("profile", "high-security", "ultra-secure"),
        Mismatch("job", f"sha256:{sha256(b'other')['sha256']}", f"sha256:{sha256(JOB)['sha256']}"),
        Mismatch(
            "output", f"sha256:{sha256(b'43')['sha256']}", f"sha256:{sha256(OUTPUT)['sha256']}"
        ),
    )


def test_signed_refusal_is_a_receipt_but_no_success() -> None:
    statement = make_statement(outcome={"status": "refused", "reason": "limits"}, output=None)
    receipt = verified(statement)
    assert check_expectations(receipt, outcome="success").mismatches[0].got == "refused (limits)"
    assert check_expectations(receipt, output_bytes=b"").mismatches[0].got == "no output"
    for word in ("refused", "limits"):
        assert check_expectations(receipt, outcome=word).mismatches == ()


def test_output_as_a_terminal_shows_it_matches_and_says_so() -> None:
    findings = check_expectations(verified(), output_bytes=OUTPUT + b"\n")
    assert findings.mismatches == ()
    assert "without its final line end" in findings.matches[0]
    for wrong in (OUTPUT + b"\n\n", OUTPUT + b" ", OUTPUT[:-1], b"\n"):
        assert check_expectations(verified(), output_bytes=wrong).mismatches


def program_statement(**changes: Any) -> dict[str, Any]:
    """Give the statement of a program, which has streams and no output."""
    streams = {name: {"digest": sha256(name.encode()), "bytes": 6} for name in ("stdout", "stderr")}
    statement = make_statement(output=None, streams=streams)
    for name, stream in streams.items():
        statement["subject"].append({"name": name, "digest": stream["digest"]})
    statement["predicate"] |= changes
    return statement


def test_the_output_of_a_program_is_its_standard_output() -> None:
    receipt = verified(program_statement())
    findings = check_expectations(receipt, output_bytes=b"stdout")
    assert findings.mismatches == ()
    assert findings.matches == (f"standard output is sha256:{sha256(b'stdout')['sha256']}",)
    for wrong in (b"stderr", b"", b"stdout\n"):
        (found,) = check_expectations(receipt, output_bytes=wrong).mismatches
        assert found.what == "standard output"
    # Nothing was started: there is no stream either.
    for streams in (None, {}, 1, {"stdout": None}):
        statement = make_statement(output=None, streams=streams)
        (found,) = check_expectations(verified(statement), output_bytes=b"").mismatches
        assert (found.what, found.got) == ("output", "no output")


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_the_subject_of_a_stream_says_the_same_as_the_predicate(name: str) -> None:
    other = {"stdout": {"digest": sha256(b"stdout")}, "stderr": {"digest": sha256(b"stderr")}}
    other[name] = {"digest": sha256(b"other")}
    with pytest.raises(VerificationError, match=f"contradicts itself about the {name}"):
        verified(program_statement(streams=other))
    with pytest.raises(VerificationError, match=f"contradicts itself about the {name}"):
        verified(program_statement(streams={**other, name: None}))
    for digest in ({"sha256": "x"}, {}, 1):
        with pytest.raises(VerificationError, match="malformed"):
            verified(program_statement(streams={**other, name: {"digest": digest}}))


@pytest.mark.parametrize("word", ["sucess", "", "SUCCESS", "ok "])
def test_misspelt_outcome_is_a_usage_error_that_lists_the_words(word: str) -> None:
    with pytest.raises(UsageError, match="unknown outcome") as caught:
        check_expectations(verified(), outcome=word, reason_words=REASONS)
    for known in (*STATUSES, *REASONS):
        assert known in str(caught.value.expected)
    # Said once.
    near = {"sucess": "success", "ok ": "ok"}.get(word)
    assert caught.value.hint == (near and f"did you mean {near!r}?")


def test_every_reason_is_known() -> None:
    for word in REASONS:
        findings = check_expectations(verified(), outcome=word, reason_words=REASONS)
        assert bool(findings.mismatches) is (word != "ok")
    assert set(STATUSES) == {status for status, *_ in REASONS.values()}
