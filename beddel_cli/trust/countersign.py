"""More signatures over the same receipt, and how many owners stand behind it. Pure.

Only a plain DSSE envelope can hold more than one signature; a Sigstore bundle holds exactly one. A
further signature is over the same bytes as the first, so nothing of the receipt changes.
"""

from __future__ import annotations

from beddel_cli.errors import UnverifiableError, UsageError, VerificationError, bug
from beddel_cli.record import record
from beddel_cli.trust.dsse import MAX_SIGNATURES, PAYLOAD_TYPE, Signature, make_envelope, pae
from beddel_cli.trust.instants import parse_instant, show_instant
from beddel_cli.trust.trust_list import (
    CLOCKS_DIFFER_MS,
    Judgement,
    Moment,
    Trust,
    TrustedKey,
    judge,
)
from beddel_cli.trust.verify import named_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from beddel_cli.trust.keys import PublicKey, SigningKey
    from beddel_cli.trust.verify import VerifiedReceipt


@record
class Standing:
    """Who stands behind a receipt, by a list of trusted keys.

    Attributes:
        signer: the entry of the key that made it.
        moment: when it was judged.
        countersigners: entries of the keys whose countersignatures count.
        warnings: what a reader should know although it holds.
    """

    signer: TrustedKey
    moment: Moment
    countersigners: tuple[TrustedKey, ...]
    warnings: tuple[str, ...]


def countersigned(receipt: VerifiedReceipt, key: SigningKey) -> bytes:
    """Give a verified receipt with one more signature.

    Raises:
        UsageError: it is in a bundle, is full, or this key has signed it already.
    """
    if receipt.bundle:
        raise UsageError(
            "a Sigstore bundle holds exactly one signature",
            hint="countersign the receipt's plain DSSE file, the one without --bundle",
        )
    if any(each.key_id == key.key_id for each in receipt.signatures):
        raise UsageError(f"key {key.key_id} has signed this receipt already")
    if len(receipt.signatures) >= MAX_SIGNATURES:
        raise UsageError(f"a receipt has at most {MAX_SIGNATURES} signatures")
    added = Signature(key.key_id, key.sign(pae(PAYLOAD_TYPE, receipt.payload)))
    return make_envelope(receipt.payload, [*receipt.signatures, added])


def claimed_time(receipt: VerifiedReceipt) -> int | None:
    """Give when a receipt says it was made, in milliseconds; None if it does not say."""
    for name in ("finishedAt", "startedAt"):
        text = receipt.predicate.get(name)
        if isinstance(text, str):
            try:
                return parse_instant(text)
            except ValueError:
                continue
    return None


def judge_receipt(receipt: VerifiedReceipt, trust: Trust, moment: Moment, now_ms: int) -> Standing:
    """Judge every key that signed a receipt, and count those who countersigned it.

    Args:
        moment: when the receipt's own signature is judged.
        now_ms: the reader's clock.

    Raises:
        VerificationError: no key that may sign receipts made it, or it had no right to then; or a
            key signed that may neither sign receipts nor countersign.
        UnverifiableError: nobody can tell, or too few owners countersigned.
    """
    entries = [entry for key in receipt.signers if (entry := trust.find(key.key_id)) is not None]
    for entry in entries:
        if not {"receipt", "countersign"} & set(entry.roles):
            raise VerificationError(judge(entry, "receipt", moment).why)
    if moment.witnessed and moment.at_ms > now_ms + CLOCKS_DIFFER_MS:
        raise UnverifiableError(
            "the receipt was seen at a time that is still to come: this machine's clock is wrong, "
            "or that of who saw it",
            expected=f"at most {show_instant(now_ms)}",
            got=show_instant(moment.at_ms),
        )
    signer = _judged_signer(receipt, trust, moment)
    others = [entry for entry in entries if entry != signer and "countersign" in entry.roles]
    counted, warnings = [], []
    for entry in others:
        judgement = _judge_countersigner(entry, signer, now_ms)
        if judgement.verdict == "good":
            counted.append(entry)
        else:
            warnings.append(f"a countersignature does not count: {judgement.why}")
    _require_owners(counted, trust.countersigners, warnings)
    if not moment.witnessed:
        warnings.append(
            "no trusted time: the key is judged by this machine's clock as of now, and nothing but "
            "the receipt's own word says when it was made"
        )
    elif moment.claimed_ms is not None and moment.claimed_ms > moment.at_ms + CLOCKS_DIFFER_MS:
        warnings.append(
            f"the receipt says that it is of {show_instant(moment.claimed_ms)}, later than it was "
            "seen: the clock of its machine was wrong"
        )
    return Standing(signer, moment, tuple(counted), tuple(warnings))


def maker(receipt: VerifiedReceipt, trust: Trust | None = None) -> PublicKey:
    """Give the key that made a receipt; further signatures are countersignatures.

    A receipt names that key. An older one does not: then it is the first that may sign receipts.

    Raises:
        UnverifiableError: the receipt names a key whose signature was not checked.
    """
    key_id = named_key(receipt.predicate)
    for key in receipt.signers:
        entry = None if trust is None else trust.find(key.key_id)
        may_sign = trust is None or (entry is not None and "receipt" in entry.roles)
        if key.key_id == key_id or (key_id is None and may_sign):
            return key
    if key_id is None:
        return receipt.signers[0]
    raise UnverifiableError(
        "the receipt says it was made by a key whose signature nobody here can judge",
        expected=str(key_id),
        got=", ".join(key.key_id for key in receipt.signers),
    )


def _judged_signer(receipt: VerifiedReceipt, trust: Trust, moment: Moment) -> TrustedKey:
    entry = trust.find(maker(receipt, trust).key_id)
    if entry is None:
        raise bug("a signature was checked with a key that is not among the trusted ones")
    judgement = judge(entry, "receipt", moment)
    if judgement.verdict == "bad":
        raise VerificationError(judgement.why)
    if judgement.verdict == "unknown":
        raise UnverifiableError(
            judgement.why, hint="a time stamp, or the proof of a trusted log, would show it"
        )
    return entry


def _judge_countersigner(entry: TrustedKey, signer: TrustedKey, now_ms: int) -> Judgement:
    """Judge a key for a countersignature, by the reader's clock.

    Whoever saw the receipt, a log or a timestamp authority, saw the signature of its maker and no
    other: a countersignature can have been made at any time until now. So its key has to be good
    now. Another key of the receipt's own maker is nobody else's word.
    """
    if entry.owner == signer.owner:
        return Judgement("bad", f"key {entry.public.key_id} is of {signer.owner}, who made it")
    return judge(entry, "countersign", Moment(now_ms, "now"))


def _require_owners(counted: list[TrustedKey], needed: int, why: list[str]) -> None:
    owners = {entry.owner for entry in counted}
    if len(owners) < needed:
        raise UnverifiableError(
            "too few owners have countersigned the receipt" + "".join(f"; {text}" for text in why),
            hint="beddel-cli countersign RECEIPT --signing-key FILE",
            expected=f"{needed} of those trusted to countersign",
            got=f"{len(owners)}: {', '.join(sorted(owners)) or 'nobody'}"[:400],
        )
