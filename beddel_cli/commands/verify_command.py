"""`verify`: read a receipt, or a folder of them, and what goes with each; judge; print.

Nothing here fetches anything. A `.tlog-proof`, `.tsr` or `.capture` that lies beside a receipt is
evidence: it is used if it can be judged, a note says so if it cannot, and a bad one is never passed
over.
"""

from __future__ import annotations

import os
import sys
from time import time_ns
from typing import Annotated

import typer

from beddel_cli.errors import (
    BeddelError,
    HomeError,
    NotFoundError,
    UnverifiableError,
    UsageError,
    VerificationError,
)
from beddel_cli.home import locate
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from beddel_cli.render_verify import Judged
    from beddel_cli.trust.evidence import Logged
    from beddel_cli.trust.keys import PublicKey
    from beddel_cli.trust.trust_store import LoadedTrust
    from beddel_cli.trust.verify import VerifiedReceipt

_MOST_KEY_BYTES = 65536
STAMP_ENDING = ".tsr"


@record
class Expected:
    """What a receipt is compared to; None is not compared."""

    outcome: str | None
    profile: str | None
    job: bytes | None
    output: bytes | None
    salt: bytes | None = None


@record
class Believed:
    """What a receipt is judged by.

    Attributes:
        because: `own`, `given` or `list`.
        log_keys: keys of logs that the command line gives, or this machine's own.
        log_key_given: the command line gave one, so there has to be a proof.
        stamp_roots: PEM certificates of timestamp authorities; None: stamps are not judged.
    """

    keys: tuple[PublicKey, ...]
    because: str
    trust: LoadedTrust | None
    log_keys: tuple[PublicKey, ...]
    checkpoints: tuple[bytes, ...]
    stamp_roots: bytes | None
    now_ms: int
    log_key_given: bool


@record
class Evidence:
    """What goes with one receipt: a proof and a time stamp, and whether each was asked for.

    Attributes:
        captured: what `--capture` kept, where it lies beside the receipt.
        captured_path: where that is.
    """

    proof: bytes | None = None
    proof_named: bool = False
    stamp: bytes | None = None
    stamp_named: bool = False
    captured: bytes | None = None
    captured_path: str = ""


Keys = Annotated[
    list[str] | None,
    typer.Option("--key", metavar="PUB.pem", help="Trust this public key; repeatable."),
]
TrustFile = Annotated[
    str | None,
    typer.Option("--trust", metavar="FILE", help="Trust the keys of this signed list."),
]
Roots = Annotated[
    list[str] | None,
    typer.Option("--root", metavar="PUB.pem", help="The root key that signs the list."),
]
SaltFile = Annotated[
    str | None,
    typer.Option("--salt-file", metavar="FILE", help="The salt of a receipt made with --salt."),
]
LeastSerial = Annotated[
    int | None,
    typer.Option("--least-serial", metavar="N", help="Refuse an older list than this."),
]


def verify(
    receipt: Annotated[
        str, typer.Argument(metavar="RECEIPT|DIR|-", help="DSSE file, bundle, or a folder of them.")
    ],
    key: Keys = None,
    trust: TrustFile = None,
    root: Roots = None,
    least_serial: LeastSerial = None,
    proof: Annotated[
        str | None,
        typer.Option(
            "--proof", metavar="FILE", help="Its proof; default: RECEIPT.tlog-proof if it is there."
        ),
    ] = None,
    log_key: Annotated[
        list[str] | None,
        typer.Option("--log-key", metavar="PUB.pem", help="Trust this key of a log; repeatable."),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint", metavar="FILE", help="What you kept of the log: the proof has to agree."
        ),
    ] = None,
    timestamp: Annotated[
        str | None,
        typer.Option(
            "--timestamp", metavar="FILE", help="Its time stamp; default: RECEIPT.tsr likewise."
        ),
    ] = None,
    timestamp_roots: Annotated[
        str | None,
        typer.Option("--timestamp-roots", metavar="PEM", help="Authorities to believe."),
    ] = None,
    expect_outcome: Annotated[
        str | None,
        typer.Option("--expect-outcome", metavar="WORD", help="Status or reason, e.g. success."),
    ] = None,
    expect_profile: Annotated[
        str | None, typer.Option("--expect-profile", metavar="NAME", help="Profile it ran under.")
    ] = None,
    job: Annotated[
        str | None, typer.Option("--job", metavar="FILE", help="The job file that was run.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="FILE", help="Its output; a program's standard one."),
    ] = None,
    salt_file: SaltFile = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say only what is wrong.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the whole decoded statement.")
    ] = False,
) -> int:
    """Check a receipt's signature, what it says, and who stands behind it.

    A receipt of a refusal or a failure is valid too: say what you expect. Exits 0 when everything
    holds, 1 when something does not, 2 when nothing could be told.
    """
    from beddel_cli import render_verify as render

    try:
        believed = _believed(key, trust, root, least_serial, log_key, checkpoint, timestamp_roots)
        expected = Expected(
            expect_outcome,
            expect_profile,
            _bytes(job, "job"),
            _bytes(output, "output"),
            read_salt(salt_file),
        )
        if os.path.isdir(receipt):
            if proof is not None or timestamp is not None:
                raise UsageError("--proof and --timestamp go with one receipt")
            return _verify_folder(receipt, believed, expected, as_json, quiet, verbose)
        data = read_receipt(receipt)
        judged = _judge(data, believed, expected, _evidence(receipt, proof, timestamp))
    except BeddelError as error:
        if as_json:
            sys.stdout.write(render.document(render.as_json_of_error(error)))
        else:
            sys.stderr.write(render.error_words(error))
        return render.verdict_of(error)
    if as_json:
        sys.stdout.write(render.document(render.as_json(judged)))
        return judged.exit_code
    if not quiet:
        sys.stdout.write(render.good_text(judged, verbose=verbose))
    elif verbose:
        sys.stdout.write(render.statement_text(judged.receipt))
    sys.stderr.write(render.trouble_text(judged))
    return judged.exit_code


def _verify_folder(
    folder: str, believed: Believed, expected: Expected, as_json: bool, quiet: bool, verbose: bool
) -> int:
    """Judge every .json file of a folder, and say of each what it is."""
    from beddel_cli import render_verify as render

    names = _receipt_names(folder)
    counts = {0: 0, 1: 0, 2: 0}
    warned: dict[str, int] = {}
    entries = []
    for name in names:
        found = _judge_file(os.path.join(folder, name), believed, expected)
        code = render.verdict_of(found) if isinstance(found, BeddelError) else found.exit_code
        counts[code] += 1
        for text in () if isinstance(found, BeddelError) else (*found.warnings, *found.notes):
            warned[text] = warned.get(text, 0) + 1
        if as_json:
            entries.append(_entry_json(name, found, verbose))
        elif code or not quiet:
            (sys.stderr if code else sys.stdout).write(render.line(name, found))
    code = 1 if counts[1] else 2 if counts[2] or not names else 0
    totals = {"valid": counts[0], "not_valid": counts[1], "could_not_tell": counts[2]}
    if as_json:
        members = {"exit_code": code, "folder": folder, **totals, "receipts": entries}
        sys.stdout.write(render.document(members, render.MANY_SCHEMA))
    elif not names:
        sys.stderr.write("COULD NOT TELL\nbeddel-cli: there is no .json file in this folder\n")
    elif not quiet or code:
        words = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in totals.items())
        (sys.stderr if code else sys.stdout).write(f"{len(names)} in all: {words}\n")
    if not as_json:
        sys.stderr.write(render.warned_text(warned))
    return code


def _entry_json(name: str, found: Judged | BeddelError, verbose: bool) -> dict[str, object]:
    from beddel_cli import render_verify as render

    if isinstance(found, BeddelError):
        return {"file": name, **render.as_json_of_error(found)}
    members = {"file": name, **render.as_json(found)}
    # Ten thousand statements are no document that anyone can read at once.
    return members if verbose else {**members, "statement": None}


def _judge_file(path: str, believed: Believed, expected: Expected) -> Judged | BeddelError:
    try:
        return _judge(read_receipt(path), believed, expected, _evidence(path, None, None))
    except UsageError:
        raise
    except BeddelError as error:
        return error


def _receipt_names(folder: str) -> list[str]:
    """Name the files of a folder that have to be receipts: those that end in .json."""
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(".json"))
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise UnverifiableError(f"cannot read folder {folder!r}: {why}") from error


def read_receipt(path: str) -> bytes:
    """Read what may be a receipt from a file, or from standard input (`-`)."""
    from beddel_cli.files import read_file, read_stdin

    return read_stdin("receipt") if path == "-" else read_file(path, "receipt")


def _bytes(path: str | None, what: str) -> bytes | None:
    from beddel_cli.files import read_file

    return None if path is None else read_file(path, what)


def read_salt(path: str | None) -> bytes | None:
    """Read the file that `--salt` made; None where none is named."""
    from beddel_cli.files import read_file
    from beddel_cli.salted_digest import SALT_BYTES

    return None if path is None else read_file(path, "salt", SALT_BYTES)


def verify_one(
    receipt: str,
    key: list[str] | None,
    trust: str | None,
    root: list[str] | None,
    least_serial: int | None,
) -> Judged:
    """Verify one receipt, with the proof and time stamp beside it, and expect nothing more of it.

    Raises:
        VerificationError: it is proved bad.
        BeddelError: nothing could be told.
    """
    believed = _believed(key, trust, root, least_serial, None, None, None)
    nothing = Expected(None, None, None, None)
    return _judge(read_receipt(receipt), believed, nothing, _evidence(receipt, None, None))


def _believed(
    key: list[str] | None,
    trust: str | None,
    root: list[str] | None,
    least_serial: int | None,
    log_key: list[str] | None,
    checkpoint: str | None,
    timestamp_roots: str | None,
) -> Believed:
    from beddel_cli.files import read_file
    from beddel_cli.log.audit_anchor import notes_in
    from beddel_cli.trust.keys import local_log_keys
    from beddel_cli.trust.timestamps import MAX_ROOTS_BYTES

    now_ms = time_ns() // 1_000_000
    keys, because, loaded = believed_keys(key, trust, root, least_serial, now_ms)
    kept: tuple[bytes, ...] = ()
    roots = None
    if checkpoint is not None:
        kept = tuple(notes_in(read_file(checkpoint, "checkpoint")))
        if not kept:
            raise UnverifiableError(f"there is no checkpoint in {checkpoint!r}")
    if timestamp_roots is not None:
        roots = read_file(timestamp_roots, "roots of time stamps", MAX_ROOTS_BYTES)
    log_keys = read_public_keys(log_key)
    if because == "own":
        log_keys = (*log_keys, *local_log_keys(locate(os.environ).home))
    return Believed(keys, because, loaded, log_keys, kept, roots, now_ms, bool(log_key))


def believed_keys(
    key: list[str] | None,
    trust: str | None,
    root: list[str] | None,
    least_serial: int | None,
    now_ms: int,
) -> tuple[tuple[PublicKey, ...], str, LoadedTrust | None]:
    """Give the keys to verify with, why, and the list they are from, if from one.

    Without options: by the list of trusted keys in this machine's home, or its own key alone.

    Raises:
        UsageError: options that contradict each other.
        TrustError, UnverifiableError, HomeError: the list or a key cannot be used.
    """
    from beddel_cli.trust.keys import local_public_keys
    from beddel_cli.trust.trust_list import ASKED_FOR, require_serial
    from beddel_cli.trust.trust_store import load_home_trust, load_trust

    if key and trust:
        raise UsageError("--key and --trust are two answers to one question", hint="give one")
    if key and (root or least_serial is not None):
        raise UsageError("--root and --least-serial are about a list of trusted keys, not --key")
    if key:
        return read_public_keys(key), "given", None
    if trust is not None:
        try:
            home: str | None = locate(os.environ).home
        except HomeError:  # a container's user without one can still verify
            home = None
        loaded = load_trust(trust, _root_keys(root, home), home, now_ms)
    elif root:
        raise UsageError("--root is the key of a list of trusted keys", hint="--trust FILE")
    else:
        own_home = locate(os.environ).home
        found = load_home_trust(own_home, now_ms)
        if found is None and least_serial is not None:
            raise UnverifiableError(f"there is no list of trusted keys in {own_home!r}")
        if found is None:
            return local_public_keys(own_home), "own", None
        loaded = found
    require_serial(loaded.trust, least_serial, ASKED_FOR)
    return tuple(entry.public for entry in loaded.trust.keys), "list", loaded


def _root_keys(root: list[str] | None, home: str | None) -> tuple[PublicKey, ...]:
    """Give the root keys of the command line, else this machine's own, which is then said."""
    from beddel_cli.trust.trust_store import home_root

    if root:
        return read_public_keys(root)
    own = None if home is None else home_root(home)
    return () if own is None else (own,)


def read_public_keys(paths: list[str] | None) -> tuple[PublicKey, ...]:
    """Read public keys that the command line names."""
    from beddel_cli.files import read_file
    from beddel_cli.trust.keys import load_public_key

    return tuple(
        load_public_key(read_file(path, "public key", _MOST_KEY_BYTES), repr(path))
        for path in paths or ()
    )


def _evidence(receipt: str, proof: str | None, stamp: str | None) -> Evidence:
    from beddel_cli.capture import CAPTURE_SUFFIX
    from beddel_cli.execution import PROOF_SUFFIX
    from beddel_cli.files import MAX_BYTES
    from beddel_cli.log.checkpoint import MAX_PROOF_BYTES
    from beddel_cli.trust.timestamps import MAX_TOKEN_BYTES

    found_proof = _beside(receipt, PROOF_SUFFIX, proof, "proof", MAX_PROOF_BYTES)
    found_stamp = _beside(receipt, STAMP_ENDING, stamp, "time stamp", MAX_TOKEN_BYTES)
    captured = _beside(receipt, CAPTURE_SUFFIX, None, "capture", MAX_BYTES)
    return Evidence(
        found_proof,
        proof is not None,
        found_stamp,
        stamp is not None,
        captured,
        receipt + CAPTURE_SUFFIX,
    )


def _beside(receipt: str, ending: str, named: str | None, what: str, most: int) -> bytes | None:
    from beddel_cli.files import read_file

    if named is not None:
        return read_file(named, what, most)
    if receipt == "-":
        return None
    try:
        return read_file(receipt + ending, what, most)
    except NotFoundError:
        return None


def _judge(data: bytes, believed: Believed, expected: Expected, evidence: Evidence) -> Judged:
    """Decide everything about one receipt, in the order in which it may be believed."""
    from beddel_cli.outcome import REASONS
    from beddel_cli.render_verify import Judged
    from beddel_cli.trust.countersign import claimed_time, judge_receipt, maker
    from beddel_cli.trust.evidence import choose_moment
    from beddel_cli.trust.verify import check_expectations, verify_envelope

    receipt = verify_envelope(data, believed.keys)
    loaded, now_ms = believed.trust, believed.now_ms
    trust = None if loaded is None else loaded.trust
    warnings = [loaded.warning] if loaded is not None and loaded.warning else []
    notes: list[str] = []
    if trust is None:
        warnings.extend(_unjudged_maker(receipt))
    if evidence.captured is not None:
        _check_captured(receipt, evidence.captured, evidence.captured_path, expected.salt, notes)
    logged = _logged(receipt, believed, evidence, notes)
    stamped_ms = None
    if evidence.stamp is None and believed.stamp_roots is not None:
        raise _nothing_to_judge("time stamp", "--timestamp-roots", "--timestamp")
    if evidence.stamp is not None:
        by = maker(receipt, trust)
        signature = next(each.value for each in receipt.signatures if each.key_id == by.key_id)
        stamped_ms = _stamped(evidence.stamp, signature, believed, evidence, notes)
    standing = None
    if trust is not None:
        moment = choose_moment(
            now_ms=now_ms,
            claimed_ms=claimed_time(receipt),
            logged=logged,
            stamped_ms=stamped_ms,
        )
        standing = judge_receipt(receipt, trust, moment, now_ms)
        warnings.extend(standing.warnings)
    findings = check_expectations(
        receipt,
        outcome=expected.outcome,
        profile=expected.profile,
        job_bytes=expected.job,
        output_bytes=expected.output,
        salt=expected.salt,
        reason_words=REASONS,
    )
    return Judged(
        receipt=receipt,
        findings=findings,
        because=believed.because,
        trust=loaded,
        standing=standing,
        logged=logged,
        stamped_ms=stamped_ms,
        warnings=tuple(warnings),
        notes=tuple(notes),
    )


def _check_captured(
    receipt: VerifiedReceipt, data: bytes, path: str, salt: bytes | None, notes: list[str]
) -> None:
    """Hold what was kept of the output against the digest that the receipt has of it.

    Raises:
        VerificationError: it is something else.
    """
    from hashlib import sha256

    from beddel_cli.salted_digest import digest_set, digest_text, name_of

    said = receipt.predicate.get("capture")
    if not isinstance(said, dict) or not isinstance(said.get("digest"), dict):
        notes.append("the capture beside the receipt was not judged: the receipt names none")
        return
    if receipt.predicate.get("salt") is not None and salt is None:
        notes.append("the capture beside the receipt was not judged: its digest is salted")
        return
    got = digest_set(sha256(data).hexdigest(), salt)
    known = said["digest"]
    if known != got:
        raise VerificationError(
            f"{path!r} is not what was kept of this run",
            expected=digest_text(known) if name_of(known) in known else "a digest unknown here",
            got=digest_text(got),
        )


def _unjudged_maker(receipt: VerifiedReceipt) -> list[str]:
    """Say where only somebody else's signature was checked, not that of the key that made it."""
    from beddel_cli.trust.verify import named_key

    key_id = named_key(receipt.predicate)
    if key_id is None or key_id == receipt.key.key_id:
        return []
    return [
        f"the receipt says that key {key_id} made it, which was not given: its signature was not "
        "judged"
    ]


def _logged(
    receipt: VerifiedReceipt, believed: Believed, evidence: Evidence, notes: list[str]
) -> Logged | None:
    from beddel_cli.trust.evidence import check_proof

    named = evidence.proof_named or bool(believed.checkpoints)
    if evidence.proof is None:
        if named:
            raise UnverifiableError(
                "a checkpoint shows nothing without a proof", hint="--proof FILE"
            )
        if believed.log_key_given:
            raise _nothing_to_judge("proof", "--log-key", "--proof")
        return None
    loaded = believed.trust
    if loaded is None and not believed.log_keys and not named:
        notes.append("the proof beside the receipt was not judged: no key of a log was given")
        return None
    try:
        return check_proof(
            evidence.proof,
            receipt.payload,
            believed.log_keys,
            trust=None if loaded is None else loaded.trust,
            checkpoints=believed.checkpoints,
        )
    except UnverifiableError as error:
        if named or believed.log_keys:
            raise
        notes.append(f"the proof beside the receipt does not count: {error.message}")
        return None


def _nothing_to_judge(what: str, by: str, option: str) -> UnverifiableError:
    """Say that what was asked for is not there: whoever removes it must not remove the question."""
    return UnverifiableError(
        f"there is no {what} beside the receipt, so {by} judged nothing",
        hint=f"{option} FILE if it is elsewhere; without {by} the rest is judged",
    )


def _stamped(
    stamp: bytes, signature: bytes, believed: Believed, evidence: Evidence, notes: list[str]
) -> int | None:
    from beddel_cli.trust.timestamps import check_stamp

    if believed.stamp_roots is None:
        if evidence.stamp_named:
            raise UnverifiableError(
                "a time stamp shows nothing without roots to believe", hint="--timestamp-roots PEM"
            )
        notes.append("the time stamp beside the receipt was not judged: no --timestamp-roots")
        return None
    return check_stamp(stamp, believed.stamp_roots, signature)
