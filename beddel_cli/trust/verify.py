"""The rules by which one receipt is believed. Pure: bytes and public keys in, a value out.

The order is the point. The signature is checked over the payload's raw bytes before anything in
them is parsed; a key id only says which key to try. Nothing verified is never a success: no key,
or only signatures by keys that were not given, is "could not tell", which is not "good".
"""

from __future__ import annotations

import hashlib

from beddel_cli.errors import JobError, UnverifiableError, UsageError, VerificationError
from beddel_cli.record import record
from beddel_cli.salted_digest import check_salt, digest_set, digest_text, name_of
from beddel_cli.trust.dsse import PAYLOAD_TYPE, pae, parse_envelope

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from beddel_cli.trust.dsse import Envelope, Signature
    from beddel_cli.trust.keys import PublicKey

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_FAMILY = "https://github.com/beddel/beddel-cli/attestation/sandbox-run/"
PREDICATE_TYPE = PREDICATE_FAMILY + "v0.1"
STREAMS = ("stdout", "stderr")
STATUSES = ("success", "failure", "limit", "refused", "fault", "interrupted")


@record
class VerifiedReceipt:
    """A receipt whose signature and shape were checked.

    Attributes:
        key: the one that made it, if it was given, else another that signed it; `signers` are all
            that did and were given.
        payload: the signed bytes; `statement` is what they say.
        bundle: it came as a Sigstore bundle.
        unknown_key_ids: further signatures that no given key can judge.
        signatures: all of the envelope's, in its order.
    """

    key: PublicKey
    payload: bytes
    statement: dict[str, Any]
    bundle: bool
    unknown_key_ids: tuple[str, ...]
    signers: tuple[PublicKey, ...] = ()
    signatures: tuple[Signature, ...] = ()

    @property
    def predicate(self) -> dict[str, Any]:
        """What the receipt says about the run."""
        predicate: dict[str, Any] = self.statement["predicate"]
        return predicate


@record
class Mismatch:
    """One expectation the receipt does not meet."""

    what: str
    expected: str
    got: str


@record
class Findings:
    """How a receipt compares to what was expected of it.

    Attributes:
        matches: one sentence for each expectation that holds, with how it holds.
    """

    mismatches: tuple[Mismatch, ...]
    matches: tuple[str, ...]


def verify_envelope(data: bytes, public_keys: Iterable[PublicKey]) -> VerifiedReceipt:
    """Verify a DSSE file or a Sigstore bundle against keys the caller trusts.

    Raises:
        VerificationError: it is not a receipt, not in canonical spelling, or a signature that
            claims to be by one of the keys is not.
        UnverifiableError: there is no key, or none that signed it.

    Source: DSSE v1.0.2, protocol.md, "Protocol"; in-toto/attestation spec/v1/statement.md.
    """
    keys = {key.key_id: key for key in public_keys}
    if not keys:
        raise UnverifiableError(
            "there is no public key to verify with, so nothing was verified",
            hint="--key PUB.pem",
        )
    envelope = parse_envelope(data)
    signers, unknown = _check_signatures(envelope, keys)
    statement = _parse_statement(envelope.payload)
    _check_agreement(statement)
    _check_plan(statement["predicate"])
    _check_maker(envelope, statement["predicate"])
    key_id = named_key(statement["predicate"])
    return VerifiedReceipt(
        key=next((key for key in signers if key.key_id == key_id), signers[0]),
        payload=envelope.payload,
        statement=statement,
        bundle=envelope.bundle,
        unknown_key_ids=unknown,
        signers=signers,
        signatures=envelope.signatures,
    )


def check_expectations(
    verified: VerifiedReceipt,
    *,
    outcome: str | None = None,
    profile: str | None = None,
    job_bytes: bytes | None = None,
    output_bytes: bytes | None = None,
    salt: bytes | None = None,
    reason_words: Iterable[str] = (),
) -> Findings:
    """Compare a receipt to what its reader expects; what is None is not compared.

    Args:
        outcome: a status, or a reason.
        salt: what the receipt's digests are salted with, where they are.
        output_bytes: the output, or the output with the line end that a terminal is given; of a
            program its standard output.
        reason_words: the reasons there are, so that a misspelt one is told apart from a mismatch.

    Raises:
        UsageError: `outcome` is no status and no reason.
        UnverifiableError: the salt is missing, or is another.
    """
    predicate = verified.predicate
    if job_bytes is not None or output_bytes is not None or salt is not None:
        salt = check_salt(salt, predicate.get("salt"))
    mismatches: list[Mismatch] = []
    matches: list[str] = []

    def compare(what: str, expected: str, got: str, *, holds: bool, how: str = "") -> None:
        if holds:
            matches.append(f"{what} is {expected}{how}")
        else:
            mismatches.append(Mismatch(what, expected, got))

    if outcome is not None:
        status, reason = predicate["outcome"]["status"], predicate["outcome"]["reason"]
        _require_outcome_word(outcome, {*STATUSES, *reason_words, *([reason] if reason else [])})
        got = f"{status} ({reason})" if reason else status
        compare("outcome", outcome, got, holds=outcome in (status, reason))
    if profile is not None:
        name = predicate["profile"]["name"]
        compare("profile", profile, name, holds=profile == name)
    if job_bytes is not None:
        expected = _digest_of(job_bytes, salt)
        got = digest_text(predicate["job"]["digest"])
        compare("job", expected, got, holds=expected == got)
    if output_bytes is not None:
        expected = _digest_of(output_bytes, salt)
        what, got = _output_of(predicate)
        holds, how = expected == got, ""
        if what == "output" and not holds and output_bytes.endswith(b"\n"):
            holds = _digest_of(output_bytes[:-1], salt) == got
            how = " without its final line end, which the output itself does not have"
        compare(what, expected, got, holds=holds, how=how)
    return Findings(tuple(mismatches), tuple(matches))


def _check_signatures(
    envelope: Envelope, keys: Mapping[str, PublicKey]
) -> tuple[tuple[PublicKey, ...], tuple[str, ...]]:
    """Give the keys that signed. Every signature that names a known key must be by it."""
    message = pae(PAYLOAD_TYPE, envelope.payload)
    good: list[PublicKey] = []
    unknown: list[str] = []
    for signature in envelope.signatures:
        key = keys.get(signature.key_id)
        if key is None:
            unknown.append(signature.key_id)
        else:
            key.verify(signature.value, message)
            good.append(key)
    if not good:
        raise UnverifiableError(
            f"the receipt says it is signed by a key that was not given: {', '.join(unknown)!r}",
            hint="--key PUB.pem with the signer's public key",
            expected=", ".join(sorted(keys)),
            got=", ".join(unknown),
        )
    return tuple(good), tuple(unknown)


def _parse_statement(payload: bytes) -> dict[str, Any]:
    """Read a payload whose signature was checked: one strict JSON object of our own type."""
    from beddel_cli.json_strict import parse_json

    try:
        statement = parse_json(payload, "payload")
    except JobError as error:
        raise VerificationError(
            f"the signature is good, but the payload is no strict JSON: {error.message}"
        ) from error
    _check_statement(statement)
    return dict(statement)


def _check_statement(statement: object) -> None:
    _expect(statement, "_type", STATEMENT_TYPE)
    predicate_type = _text(statement, "predicateType")
    if predicate_type != PREDICATE_TYPE:
        expected, got = PREDICATE_TYPE, repr(predicate_type)
        if predicate_type.startswith(PREDICATE_FAMILY):
            raise UnverifiableError(
                "the signature is good, but the receipt is of a version not known here",
                expected=expected,
                got=got,
            )
        raise VerificationError(
            "the signature is good, but over something that is not a receipt",
            expected=expected,
            got=got,
        )
    subjects = _get(statement, "subject", list, "a list")
    if not subjects:
        raise _malformed("subject", "at least one", "an empty list")
    for subject in subjects:
        _text(subject, "name")
        _digest(subject)
    predicate = _get(statement, "predicate", dict, "an object")
    outcome = _get(predicate, "outcome", dict, "an object")
    status = _text(outcome, "status")
    if status not in STATUSES:
        raise _malformed("status", " or ".join(STATUSES), repr(status))
    if outcome.get("reason", "") is not None:
        _text(outcome, "reason")
    _text(_get(predicate, "profile", dict, "an object"), "name")
    _digest(_get(predicate, "job", dict, "an object"))
    if predicate.get("output", "") is not None:
        output = _get(predicate, "output", dict, "an object or null")
        _digest(output)
        if isinstance(_get(output, "bytes", int, "a count"), bool) or output["bytes"] < 0:
            raise _malformed("bytes", "a count", repr(output["bytes"]))
    for name in STREAMS:
        stream = stream_of(predicate, name)
        if stream is not None:
            _digest(stream)


def _check_agreement(statement: Mapping[str, Any]) -> None:
    """Check that the subjects say the same of job, output and streams as the predicate does.

    Tools that match artifacts read the subjects, we read the predicate: a receipt in which the
    two differ would mean different things to different readers.
    """
    predicate = statement["predicate"]
    named: dict[str, list[str]] = {}
    for subject in statement["subject"]:
        named.setdefault(subject["name"], []).append(digest_text(subject["digest"]))
    output = predicate["output"]
    streams = [(name, stream_of(predicate, name)) for name in STREAMS]
    for name, value in (("job", predicate["job"]), ("output", output), *streams):
        expected = [digest_text(value["digest"])] if value is not None else []
        if named.get(name, []) != expected:
            raise VerificationError(
                f"the receipt contradicts itself about the {name}",
                expected=f"subject {name!r} as in the predicate: {', '.join(expected) or 'none'}",
                got=", ".join(named.get(name, [])) or "none",
            )


def _output_of(predicate: Mapping[str, Any]) -> tuple[str, str]:
    """Give what a run's output is called, and its digest: a program's is its standard output."""
    output, stdout = predicate["output"], stream_of(predicate, "stdout")
    if output is None and stdout is not None:
        return "standard output", digest_text(stdout["digest"])
    return "output", digest_text(output["digest"]) if output else "no output"


def stream_of(predicate: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """Give what a receipt says of one of a program's streams; None where there is none."""
    streams = predicate.get("streams")
    stream = streams.get(name) if isinstance(streams, dict) else None
    return stream if isinstance(stream, dict) else None


def _check_plan(predicate: Mapping[str, Any]) -> None:
    """Check that the run was what its plan says, as far as the receipt has both.

    What a repetition is judged by depends on it: a frozen clock makes fuel and memory comparable.
    """
    status, plan = predicate["outcome"]["status"], predicate.get("plan")
    if "plan" in predicate and (plan is None) != (status == "refused"):
        raise VerificationError(
            "the receipt contradicts itself: a run has a plan unless it was refused",
            got=f"{status}, {'no plan' if plan is None else 'and a plan'}",
        )
    clock = plan.get("clock") if isinstance(plan, dict) else None
    if clock is None or "determinism" not in predicate or status == "interrupted":
        return
    said = predicate["determinism"]
    got = said.get("clock") if isinstance(said, dict) else None
    # Whoever repeats a run has the clock of that run, whatever his profile has.
    if got != clock and not (got == "recorded" and predicate.get("replayOf") is not None):
        raise VerificationError(
            "the receipt contradicts itself about the clock of the run",
            expected=f"{str(clock)[:40]!r}, as its plan says",
            got="nothing" if got is None else repr(str(got)[:40]),
        )


def _check_maker(envelope: Envelope, predicate: Mapping[str, Any]) -> None:
    """Check that the key which a receipt says made it is among those that signed it."""
    key_id = named_key(predicate)
    if key_id is not None and key_id not in {each.key_id for each in envelope.signatures}:
        raise VerificationError(
            "the receipt contradicts itself: it has no signature by the key that it says made it",
            expected=key_id,
            got=", ".join(each.key_id for each in envelope.signatures),
        )


def named_key(predicate: Mapping[str, Any]) -> str | None:
    """Give the id of the key that a receipt says made it; None where it does not say."""
    said = predicate.get("key")
    key_id = said.get("id") if isinstance(said, dict) else None
    return key_id if isinstance(key_id, str) else None


def _require_outcome_word(word: str, known: set[str]) -> None:
    if word not in known:
        from beddel_cli.shape import suggestion

        raise UsageError(
            f"unknown outcome {word!r}",
            expected=", ".join(sorted(known)),
            hint=suggestion(word, sorted(known)),
        )


def _get(value: object, key: str, kind: type, wanted: str) -> Any:
    """Take a member of the given type out of what should be an object."""
    if not isinstance(value, dict):
        raise _malformed(f"what holds {key!r}", "an object", type(value).__name__)
    if not isinstance(value.get(key), kind):
        raise _malformed(key, wanted, type(value[key]).__name__ if key in value else "nothing")
    return value[key]


def _text(value: object, key: str) -> str:
    return str(_get(value, key, str, "text"))


def _digest(value: object) -> None:
    digests = _get(value, "digest", dict, "an object")
    name = name_of(digests)
    text = _text(digests, name)
    if len(text) != 64 or not set(text) <= set("0123456789abcdef"):
        raise _malformed(name, "64 lower-case hexadecimal digits", repr(text[:80]))


def _expect(value: object, key: str, expected: str) -> None:
    if (got := _text(value, key)) != expected:
        raise _malformed(key, repr(expected), repr(got))


def _malformed(what: str, expected: str, got: str) -> VerificationError:
    return VerificationError(
        f"the signature is good, but the statement is malformed: {what}",
        expected=expected,
        got=got,
    )


def _digest_of(data: bytes, salt: bytes | None) -> str:
    return digest_text(digest_set(hashlib.sha256(data).hexdigest(), salt))
