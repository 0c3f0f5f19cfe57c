"""What others have witnessed of a receipt: a log that has its end, a timestamp authority. Pure.

Either shows that the receipt existed at a time, and that is what its key is judged by. A log's time
is its holder's word. It counts when the root key named that log's key and nobody has revoked it:
whoever stole a signing key alone cannot back-date with it.
"""

from __future__ import annotations

from beddel_cli.errors import UnverifiableError, VerificationError
from beddel_cli.log.checkpoint import (
    parse_checkpoint,
    parse_note,
    verify_checkpoint,
    verify_proof,
)
from beddel_cli.log.log_entry import verify_logged
from beddel_cli.record import record
from beddel_cli.trust.instants import parse_instant, show_instant
from beddel_cli.trust.trust_list import Judgement, Moment, judge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from beddel_cli.log.checkpoint import Checkpoint
    from beddel_cli.trust.keys import PublicKey
    from beddel_cli.trust.trust_list import Trust, TrustedKey


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
    checkpoints: Sequence[bytes] = (),
) -> Logged:
    """Check that a log has the end of this receipt's run.

    Args:
        proof: a `.tlog-proof`.
        payload: what the receipt signs, its signature already verified.
        log_keys: given by the reader; those that the list trusts for logs are added.
        checkpoints: those that the reader kept, of any logs; the proof has to agree with them.

    Raises:
        VerificationError: it proves something else, or nothing; or the log's key had no right.
        UnverifiableError: the log's key is not known, or has been revoked since; or none
            of the checkpoints is of its log and size.
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
    if checkpoints:
        # By the proof's own key, which was judged: any other is not one of this log.
        _require_kept(proven.checkpoint, checkpoints, [keys[proven.key_id]])
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


def _require_kept(proved: Checkpoint, kept: Sequence[bytes], keys: Collection[PublicKey]) -> None:
    """Check that a checkpoint of the proof's log and size was kept, and says the same."""
    ours = [
        verify_checkpoint(note, keys)[0]
        for note in kept
        if parse_checkpoint(parse_note(note).text).origin == proved.origin
    ]
    same_size = [each for each in ours if each.size == proved.size]
    for each in same_size:
        if each.root != proved.root:
            raise VerificationError(
                f"two different logs of {each.size} entries have one name: the log was forked",
                expected=each.root.hex(),
                got=proved.root.hex(),
            )
    if not same_size:
        sizes = ", ".join(str(each.size) for each in ours[:10])
        raise UnverifiableError(
            "no checkpoint that was kept is of the proof's log and size, and one of another size "
            "does not show it",
            hint="where the log is: audit verify --against-anchor, or a proof for another size by "
            "audit show INDEX --proof FILE",
            expected=f"{proved.size} entries of {proved.origin!r}",
            got=f"{sizes} entries" if ours else "none of this log",
        )


def choose_moment(
    *, now_ms: int, claimed_ms: int | None, logged: Logged | None, stamped_ms: int | None
) -> Moment:
    """Give when a receipt's signature is judged.

    By the first that saw it, a time stamp, which is over the very signature, or a log that counts;
    else now. So a stamp that is had later takes nothing away.
    """
    log_ms = logged.at_ms if logged is not None and logged.trusted_time else None
    if stamped_ms is not None and (log_ms is None or stamped_ms <= log_ms):
        return Moment(stamped_ms, "timestamp", claimed_ms)
    if log_ms is not None:
        return Moment(log_ms, "log", claimed_ms)
    return Moment(now_ms, "now", claimed_ms)


def moment_words(moment: Moment) -> str:
    """Say when a signature was judged and by whose word."""
    words = {
        "timestamp": "by a timestamp authority",
        "log": "by the word of a trusted log",
        "now": "now, by this machine's clock",
    }
    return f"{show_instant(moment.at_ms)} ({words[moment.source]})"
