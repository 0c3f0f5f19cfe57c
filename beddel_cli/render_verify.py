"""What `verify` found, as text for people and as JSON. Pure: values in, text out.

Everything that a receipt, a list of trusted keys or a log says is made visible on its way.
"""

from __future__ import annotations

import json

from beddel_cli.record import record
from beddel_cli.render import error_text, object_of_error
from beddel_cli.salted_digest import digest_text
from beddel_cli.terminal import json_for_terminal, json_text, visible
from beddel_cli.trust.evidence import moment_words
from beddel_cli.trust.instants import show_instant
from beddel_cli.trust.verify import STREAMS, stream_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from beddel_cli.errors import BeddelError
    from beddel_cli.trust.countersign import Standing
    from beddel_cli.trust.evidence import Logged
    from beddel_cli.trust.trust_list import TrustedKey
    from beddel_cli.trust.trust_store import LoadedTrust
    from beddel_cli.trust.verify import Findings, VerifiedReceipt

SCHEMA = "beddel-cli/verify/v1"
MANY_SCHEMA = "beddel-cli/verify-many/v1"
_MEMBERS = (
    *("valid", "exit_code", "key_id", "key_trusted_because", "bundle", "unknown_key_ids", "trust"),
    *("judged_at", "log", "timestamp", "warnings", "notes", "matches", "mismatches"),
    *("statement", "error"),
)
_BECAUSE = {
    "own": "it is this machine's own",
    "given": "it was given",
    "list": "the list of trusted keys says so",
}
_BECAUSE_WORDS = {
    "own": "this machine's own key, since no --key was given",
    "given": "given with --key",
    "list": "by the list of trusted keys",
}


@record
class Judged:
    """A receipt that was verified, with all that was found.

    Attributes:
        because: `own`, `given` or `list`: why its key is believed.
        standing: by the list of trusted keys; None where there is none.
        stamped_ms: when a timestamp authority saw its signature.
        notes: what lies beside the receipt and was not judged.
    """

    receipt: VerifiedReceipt
    findings: Findings
    because: str
    trust: LoadedTrust | None
    standing: Standing | None
    logged: Logged | None
    stamped_ms: int | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0, or 1 where an expectation is not met."""
        return 1 if self.findings.mismatches else 0


def verdict_of(error: BeddelError) -> int:
    """Give the exit code of a receipt that was not verified."""
    return error.exit_code if error.exit_code in (1, 2) else 2


def as_json(judged: Judged) -> dict[str, Any]:
    """Give the members of the document of one receipt."""
    receipt, findings = judged.receipt, judged.findings
    return {
        "valid": not findings.mismatches,
        "exit_code": judged.exit_code,
        "key_id": key_id(judged),
        "key_trusted_because": _BECAUSE[judged.because],
        "bundle": receipt.bundle,
        "unknown_key_ids": list(receipt.unknown_key_ids),
        "trust": _trust_json(judged),
        "judged_at": _moment_json(judged),
        "log": _log_json(judged.logged),
        "timestamp": None if judged.stamped_ms is None else show_instant(judged.stamped_ms),
        "warnings": list(judged.warnings),
        "notes": list(judged.notes),
        "matches": list(findings.matches),
        "mismatches": [
            {"what": item.what, "expected": item.expected, "got": item.got}
            for item in findings.mismatches
        ],
        "statement": receipt.statement,
        "error": None,
    }


def as_json_of_error(error: BeddelError) -> dict[str, Any]:
    """Give the members of the document of a receipt that was not verified."""
    found = object_of_error(error)
    code = verdict_of(error)
    empty = dict.fromkeys(_MEMBERS)
    return {**empty, "valid": False if code == 1 else None, "exit_code": code, "error": found}


def document(members: dict[str, Any], schema: str = SCHEMA) -> str:
    """Give the text of a document."""
    return json_text({"schema": schema, **members})


def key_words(judged: Judged) -> str:
    """Say which key signed, and why it is believed."""
    return f"{key_id(judged)} ({_BECAUSE_WORDS[judged.because]})"


def key_id(judged: Judged) -> str:
    """Give the id of the key that made the receipt."""
    standing = judged.standing
    return judged.receipt.key.key_id if standing is None else standing.signer.public.key_id


def _trust_json(judged: Judged) -> dict[str, Any] | None:
    loaded, standing = judged.trust, judged.standing
    if loaded is None or standing is None:
        return None
    return {
        "path": loaded.path,
        "serial": loaded.trust.serial,
        "expires": show_instant(loaded.trust.expires_ms),
        "root_key_ids": list(loaded.trust.signed_by),
        "owner": standing.signer.owner,
        "countersigners_needed": loaded.trust.countersigners,
        "countersigned_by": [_signer_json(entry) for entry in standing.countersigners],
    }


def _signer_json(entry: TrustedKey) -> dict[str, str]:
    return {"key_id": entry.public.key_id, "owner": entry.owner}


def _moment_json(judged: Judged) -> dict[str, str] | None:
    if judged.standing is None:
        return None
    moment = judged.standing.moment
    return {"time": show_instant(moment.at_ms), "source": moment.source}


def _log_json(logged: Logged | None) -> dict[str, Any] | None:
    if logged is None:
        return None
    return {
        "origin": logged.origin,
        "index": logged.index,
        "size": logged.size,
        "time": show_instant(logged.at_ms),
        "key_id": logged.key_id,
    }


def good_text(judged: Judged, *, verbose: bool) -> str:
    """Give what standard output gets of a receipt that was verified."""
    receipt, findings = judged.receipt, judged.findings
    lines = ["valid signature" if not findings.mismatches else "valid signature, BUT:"]
    lines += [f"  {label:<8} {value}" for label, value in _rows(judged)]
    lines += [f"  match    {visible(text)}" for text in findings.matches]
    text = "\n".join(lines) + "\n"
    return text + statement_text(receipt) if verbose else text


def _rows(judged: Judged) -> list[tuple[str, str]]:
    receipt, standing = judged.receipt, judged.standing
    predicate = receipt.predicate
    outcome, output = predicate["outcome"], predicate["output"]
    rows = [("key", key_words(judged))]
    if standing is not None:
        rows += _standing_rows(judged, standing)
    rows += [
        ("outcome", f"{visible(str(outcome['status']))} ({visible(str(outcome['reason']))})"),
        ("profile", profile_words(predicate["profile"])),
    ]
    for label, name in (("run", "runId"), ("started", "startedAt"), ("tenant", "tenant")):
        rows.append((label, visible(str(predicate.get(name)))))
    rows.append(("job", digest_text(predicate["job"]["digest"])))
    streams = [(name, stream_of(predicate, name)) for name in STREAMS]
    if output is not None or not any(said for _, said in streams):
        streams = [("output", output)]
    for name, said in streams:
        rows.append((name, "none" if said is None else digest_text(said["digest"])))
    if judged.logged is not None:
        logged = judged.logged
        place = f"entry {logged.index} of {logged.size} in {visible(logged.origin)}"
        rows.append(("log", f"{place}, proved; {show_instant(logged.at_ms)} by its word"))
    if judged.stamped_ms is not None:
        rows.append(("stamped", f"{show_instant(judged.stamped_ms)} (RFC 3161)"))
    rows += [("note", visible(text)) for text in judged.notes]
    for unknown in receipt.unknown_key_ids:
        rows.append(
            ("ignored", f"a signature that names key {visible(unknown)}, which was not given")
        )
    return rows


def _standing_rows(judged: Judged, standing: Standing) -> list[tuple[str, str]]:
    rows = [("owner", visible(standing.signer.owner))]
    for entry in standing.countersigners:
        rows.append(("counter", f"{entry.public.key_id} ({visible(entry.owner)})"))
    if judged.trust is not None:
        trust = judged.trust.trust
        what = f"{visible(judged.trust.path)}, serial {trust.serial}"
        rows.append(("trust", f"{what}, until {show_instant(trust.expires_ms)}"))
    rows.append(("judged", f"at {moment_words(standing.moment)}"))
    return rows


def trouble_text(judged: Judged) -> str:
    """Give what standard error gets of a receipt that was verified."""
    lines = [
        f"  MISMATCH {visible(item.what)}: expected {visible(item.expected)}, "
        f"got {visible(item.got)}\n"
        for item in judged.findings.mismatches
    ]
    return "".join([*lines, *(f"  warning  {visible(text)}\n" for text in judged.warnings)])


def warned_text(warned: dict[str, int]) -> str:
    """Give the warnings about many receipts, each once."""
    return "".join(f"warning ({n} of them)  {visible(text)}\n" for text, n in warned.items())


def error_words(error: BeddelError) -> str:
    """Give what standard error gets of a receipt that was not verified."""
    verdict = "NOT VALID" if verdict_of(error) == 1 else "COULD NOT TELL"
    return f"{verdict}\n{error_text(error)}"


def line(name: str, judged: Judged | BeddelError) -> str:
    """Give the one line of a receipt among many."""
    if not isinstance(judged, Judged):
        verdict = "NOT VALID" if verdict_of(judged) == 1 else "UNKNOWN"
        return f"{verdict:<9}  {visible(name)}  {visible(judged.message, 300)}\n"
    wrong = judged.findings.mismatches
    verdict = "MISMATCH" if wrong else "valid"
    outcome = judged.receipt.predicate["outcome"]
    said = f"{visible(str(outcome['status']))} ({visible(str(outcome['reason']))})"
    more = "".join(f"; {visible(x.what)}: expected {visible(x.expected, 100)}" for x in wrong)
    return f"{verdict:<9}  {visible(name)}  {key_id(judged)[:16]}  {said}{more}\n"


def statement_text(receipt: VerifiedReceipt) -> str:
    """Give the whole decoded statement."""
    text = json.dumps(receipt.statement, indent=2, ensure_ascii=False)
    lines = text.encode("utf-8", "surrogatepass").split(b"\n")
    return "statement\n" + b"\n".join(map(json_for_terminal, lines)).decode() + "\n"


def profile_words(said: dict[str, Any]) -> str:
    """Give what a receipt says of its profile."""
    name = visible(str(said["name"]))
    if said.get("builtIn") is not False:
        return name
    looser = said.get("looserThanBuiltIn")
    values = ", ".join(map(str, looser)) if isinstance(looser, list) else ""
    beyond = f", looser than any of those in {visible(values)}" if values else ""
    return f"{name} (not a built-in one{beyond})"
