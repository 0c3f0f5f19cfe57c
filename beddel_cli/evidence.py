"""What others have witnessed of a receipt: a log that has its end, a timestamp authority. Pure.

Either shows that the receipt existed at a time, and that is what its key is judged by. A log's time
is its holder's word. It counts when the root key named that log's key and nobody has revoked it:
whoever stole a signing key alone cannot back-date with it.
"""

from __future__ import annotations

from beddel_cli.checkpoint import verify_checkpoint, verify_proof
from beddel_cli.errors import UnverifiableError, VerificationError
from beddel_cli.instants import parse_instant, show_instant
from beddel_cli.log_entry import verify_logged
from beddel_cli.record import record
from beddel_cli.trust import Judgement, Moment, judge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from beddel_cli.checkpoint import Checkpoint
    from beddel_cli.keys import PublicKey
    from beddel_cli.trust import Trust, TrustedKey


@record
class Logged:
    """A receipt's place in a log, proved.

    Attributes:
        at_ms: when its entry was written, by the log's word.
        key_id: of the key that signed the checkpoint.
        trusted_time: whether that word counts.
    """

    origin: str
    index: int
    size: int
    at_ms: int
    key_id: str
    trusted_time: bool


def check_proof(
    proof: bytes,
    payload: bytes,
    log_keys: Iterable[PublicKey],
    *,
    trust: Trust | None = None,
    checkpoint: bytes | None = None,
) -> Logged:
    """Check that a log has the end of this receipt's run.

    Args:
        proof: a `.tlog-proof`.
        payload: what the receipt signs, its signature already verified.
        log_keys: given by the reader; those that the list trusts for logs are added.
        checkpoint: one that the reader kept, which the proof has to agree with.

    Raises:
        VerificationError: it proves something else, or nothing; or the log's key had no right.
        UnverifiableError: the log's key is not known, or has been revoked since; or the kept
            checkpoint is of another size.
    """
    keys = {key.key_id: key for key in log_keys}
    if trust is not None:
        # All of them, so that a key that may not sign a log is told apart from an unknown one.
        keys |= {each.public.key_id: each.public for each in trust.keys}
    proven = verify_proof(proof, keys.values())
    entry = verify_logged(proven, payload)
    try:
        at_ms = parse_instant(entry.at)
    except ValueError as error:
        raise VerificationError(f"the log's entry has no time: {entry.at[:80]!r}") from error
    listed = None if trust is None else trust.find(proven.key_id)
    if listed is not None:
        _require_log_key(listed, at_ms)
    if checkpoint is not None:
        _require_same(proven.checkpoint, verify_checkpoint(checkpoint, keys.values())[0])
    place = proven.checkpoint
    return Logged(place.origin, proven.index, place.size, at_ms, proven.key_id, listed is not None)


def _require_log_key(entry: TrustedKey, at_ms: int) -> None:
    judgement = judge(entry, "log", Moment(at_ms, "log"))
    if judgement.verdict == "good" and entry.revoked is not None:
        # Whoever has the key may have written any time into any entry.
        judgement = Judgement("unknown", f"log key {entry.public.key_id} has been revoked")
    if judgement.verdict == "bad":
        raise VerificationError(f"the proof is by a log that had no right: {judgement.why}")
    if judgement.verdict == "unknown":
        raise UnverifiableError(judgement.why)


def _require_same(proved: Checkpoint, kept: Checkpoint) -> None:
    if proved.origin != kept.origin:
        raise VerificationError(
            "the proof and the checkpoint are of different logs",
            expected=repr(kept.origin),
            got=repr(proved.origin),
        )
    if proved.size != kept.size:
        raise UnverifiableError(
            "the checkpoint is of another size than the proof's, and one does not show the other",
            hint="beddel-cli audit verify --against-anchor, where the log is",
            expected=f"{kept.size} entries",
            got=f"{proved.size} entries",
        )
    if proved.root != kept.root:
        raise VerificationError(
            f"two different logs of {kept.size} entries have one name: the log was forked",
            expected=kept.root.hex(),
            got=proved.root.hex(),
        )


def choose_moment(
    *, now_ms: int, claimed_ms: int | None, logged: Logged | None, stamped_ms: int | None
) -> Moment:
    """Give when a receipt's signature is judged.

    By a time stamp, which is over the very signature; else by a log that counts; else now.
    """
    if stamped_ms is not None:
        return Moment(stamped_ms, "timestamp", claimed_ms)
    if logged is not None and logged.trusted_time:
        return Moment(logged.at_ms, "log", claimed_ms)
    return Moment(now_ms, "now", claimed_ms)


def moment_words(moment: Moment) -> str:
    """Say when a signature was judged and by whose word."""
    words = {
        "timestamp": "by a timestamp authority",
        "log": "by the word of a trusted log",
        "now": "now, by this machine's clock",
    }
    return f"{show_instant(moment.at_ms)} ({words[moment.source]})"
