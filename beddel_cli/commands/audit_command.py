"""`audit`: look at a tenant's log, follow it, verify it, and keep its head elsewhere.

Looking verifies nothing and says nothing of the kind; `verify` is the one that judges.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from time import sleep
from typing import Annotated

import typer

from beddel_cli import render_audit as render
from beddel_cli.commands.run_command import tenant_name
from beddel_cli.errors import BeddelError, LedgerError, UsageError, VerificationError
from beddel_cli.figures import counted
from beddel_cli.home import locate, write_whole
from beddel_cli.log.audit import judge_log
from beddel_cli.log.audit_anchor import check_place, read_anchors, write_anchor
from beddel_cli.log.checkpoint import (
    NoteSignature,
    checkpoint_text,
    make_note,
    make_proof,
    parse_checkpoint,
    parse_note,
    raw_public_key,
    verify_proof,
)
from beddel_cli.log.ledger import open_ledger, open_log_file, tenants
from beddel_cli.log.ledger_file import DamagedError
from beddel_cli.log.log_entry import parse_entry
from beddel_cli.log.merkle import inclusion_path, leaf_hash, verify_inclusion
from beddel_cli.render import document_of_error, error_text
from beddel_cli.terminal import json_text, visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from beddel_cli.log.audit import Judgement
    from beddel_cli.log.checkpoint import Checkpoint, VerifyingKey
    from beddel_cli.log.ledger import Ledger, Row

EXIT_GOOD, EXIT_BAD, EXIT_COULD_NOT_TELL = 0, 1, 2
FOLLOW_SECONDS = 0.25

audit_app = typer.Typer(
    no_args_is_help=True, help="Look at the log of all runs, verify it, keep its head elsewhere."
)

_Tenant = Annotated[
    str | None,
    typer.Option("--tenant", metavar="NAME", help="Whose log (or BEDDEL_TENANT; default)."),
]
_Log = Annotated[
    str | None, typer.Option("--log", metavar="FILE", help="A copy of a log, not the home's own.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
_Keys = Annotated[
    list[str] | None,
    typer.Option("--key", metavar="PEM", help="Public key of the log; default: this home's own."),
]


@audit_app.command("list", epilog="Example: beddel-cli audit list --last 20")
def _list(
    tenant: _Tenant = None,
    log: _Log = None,
    last: Annotated[
        int, typer.Option("--last", min=1, metavar="N", help="So many of the newest entries.")
    ] = 50,
    everything: Annotated[bool, typer.Option("--all", help="Every entry.")] = False,
    all_tenants: Annotated[
        bool, typer.Option("--tenants", help="Name the logs there are.")
    ] = False,
    as_json: _Json = False,
) -> int:
    """List the newest entries of a log, oldest first, without verifying them."""
    if all_tenants:
        return _list_tenants(as_json)
    with (
        _error_document(as_json, render.LIST_SCHEMA, render.LIST_KEYS),
        _open(tenant, log) as ledger,
    ):
        ledger.begin_reading()
        start = 0 if everything else max(0, ledger.size() - last)
        if not as_json:
            for row in ledger.rows(start):
                print(render.entry_line(row))
            return EXIT_GOOD
        entries = [render.entry_json(row) for row in ledger.rows(start)]
        document = render.list_json(ledger.origin, ledger.path, entries)
    sys.stdout.write(json_text(document))
    return EXIT_GOOD


@contextmanager
def _error_document(as_json: bool, schema: str, keys: Sequence[str]) -> Iterator[None]:
    """Print an error that passes as the command's document, too, if it is to print one."""
    try:
        yield
    except BeddelError as error:
        if as_json:
            sys.stdout.write(json_text(document_of_error(schema, keys, error)))
        raise


def _list_tenants(as_json: bool) -> int:
    with _error_document(as_json, render.TENANTS_SCHEMA, ("tenants",)):
        found = tenants(locate(os.environ).home)
    if as_json:
        document = {"schema": render.TENANTS_SCHEMA, "tenants": list(found), "error": None}
        sys.stdout.write(json_text(document))
    else:
        sys.stdout.write("".join(f"{name}\n" for name in found))
    return EXIT_GOOD


@audit_app.command("show", epilog="Example: beddel-cli audit show 12 --proof run.tlog-proof")
def _show(
    which: Annotated[str, typer.Argument(metavar="INDEX|RUN", help="An index, or a run's id.")],
    tenant: _Tenant = None,
    log: _Log = None,
    proof: Annotated[
        str | None,
        typer.Option("--proof", metavar="FILE", help="Write the proof of the (last) entry here."),
    ] = None,
    as_json: _Json = False,
) -> int:
    """Show one entry, or those of a run, each with a proof made anew for the newest checkpoint."""
    with (
        _error_document(as_json, render.SHOW_SCHEMA, render.SHOW_KEYS),
        _open(tenant, log) as ledger,
    ):
        ledger.begin_reading()
        rows = _find(ledger, which)
        size, note = _head(ledger)
        shown = []
        for row in rows:
            path = inclusion_path(row.index, size, ledger.read_node)
            shown.append(render.shown_json(row, path, note))
        document = render.show_json(ledger.origin, _own_log_key(log), shown)
        if proof is not None:
            write_whole(proof, _sound_proof(ledger, rows[-1], path, note, log), 0o600)
    if as_json:
        sys.stdout.write(json_text(document))
    else:
        for row, entry in zip(rows, shown, strict=True):
            print(render.entry_line(row))
            sys.stdout.write(json_text(entry["entry"]))
    return EXIT_GOOD


@audit_app.command("tail", epilog="Example: beddel-cli audit tail --follow --json")
def _tail(
    tenant: _Tenant = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as entries come.")] = False,
    last: Annotated[
        int, typer.Option("--last", min=0, metavar="N", help="Begin so many entries back.")
    ] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line each.")] = False,
) -> int:
    """Print the newest entries, and with --follow each further one as it is written."""
    with _open(tenant, None) as ledger:
        for row in _following(ledger, max(0, ledger.size() - last), follow=follow):
            entry = render.entry_json(row)
            line = json_text(entry, indent=None) if as_json else f"{render.entry_line(row)}\n"
            sys.stdout.write(line)
            sys.stdout.flush()
    return EXIT_GOOD


@audit_app.command(
    "verify", epilog="Example: beddel-cli audit verify --against-anchor checkpoints.txt"
)
def _verify(
    tenant: _Tenant = None,
    log: _Log = None,
    key: _Keys = None,
    against_anchor: Annotated[
        list[str] | None,
        typer.Option(
            "--against-anchor",
            metavar="PLACE",
            help="File, folder or git:REPO with checkpoints; receipts' proofs are such.",
        ),
    ] = None,
    as_json: _Json = False,
) -> int:
    """Derive every hash of a log again from its entries, and judge signatures and anchors.

    Exits 0 when all is good, 1 when something is not, 2 when nothing could be verified.
    """
    try:
        trusted, why = _trusted(key)
        with _open(tenant, log) as ledger:
            ledger.begin_reading()
            found = _judge(ledger, trusted, against_anchor)
            path = ledger.path
    except BeddelError as error:
        bad = isinstance(error, DamagedError | VerificationError)
        code = EXIT_BAD if bad else EXIT_COULD_NOT_TELL
        if as_json:
            sys.stdout.write(json_text(render.judgement_json_of_error(error, code)))
        sys.stderr.write(("NOT GOOD\n" if bad else "could not tell\n") + error_text(error))
        return code
    code = EXIT_BAD if found.findings or found.key_id is None else EXIT_GOOD
    if as_json:
        name = None if log is not None else tenant_name(tenant, os.environ)
        sys.stdout.write(json_text(render.judgement_json(found, name, path, code, why)))
    else:
        sys.stdout.write(render.judgement_text(found, path, code, why))
    return code


@audit_app.command("anchor", epilog="Example: beddel-cli audit anchor --to git:/srv/anchors")
def _anchor(
    to: Annotated[
        list[str], typer.Option("--to", metavar="PLACE", help="file:PATH, git:REPO or syslog.")
    ],
    tenant: _Tenant = None,
    as_json: _Json = False,
) -> int:
    """Verify the log, then keep its newest checkpoint at each of the places.

    Exits 0 when every place took it, 1 when the log is not good, 2 when something failed; each
    place that took it is named all the same.
    """
    try:
        for place in to:
            check_place(place)
        trusted, _ = _trusted(None)
        with _open(tenant, None) as ledger:
            ledger.begin_reading()
            # What is kept is the newest checkpoint, so the signatures in front of it may wait.
            found = _judge(ledger, trusted, None, every_signature=False)
            if found.findings or found.key_id is None:
                raise VerificationError(
                    "the log is not good, and what is not good is not anchored",
                    hint="beddel-cli audit verify",
                )
            _, note = _head(ledger)
    except BeddelError as error:
        code = EXIT_BAD if isinstance(error, DamagedError | VerificationError) else 2
        if as_json:
            sys.stdout.write(json_text(render.anchor_json_of_error(error, code)))
        sys.stderr.write(error_text(error))
        return code
    written = [(place, *_keep(place, note)) for place in to]
    errors = [error for _, _, error in written if error is not None]
    code = EXIT_COULD_NOT_TELL if errors else EXIT_GOOD
    if as_json:
        sys.stdout.write(json_text(render.anchor_json(found, note, written, code)))
    else:
        sys.stdout.write(render.anchor_text(found, written))
    sys.stderr.write("".join(map(error_text, errors)))
    return code


def _keep(place: str, note: bytes) -> tuple[str | None, BeddelError | None]:
    """Keep a checkpoint at one of the places: where it went, or why it did not."""
    try:
        return write_anchor(place, note), None
    except BeddelError as error:
        return None, error


def _open(tenant: str | None, log: str | None) -> Ledger:
    if log is None:
        name = tenant_name(tenant, os.environ)
        return open_ledger(locate(os.environ).home, name, create=False)
    if tenant is not None:
        raise UsageError("--log names a file, and --tenant a log of this home; give one of them")
    return open_log_file(log)


def _trusted(paths: list[str] | None) -> tuple[tuple[VerifyingKey, ...], str]:
    """Give the keys to judge with, and why they are trusted."""
    from beddel_cli.commands.verify_command import read_public_keys
    from beddel_cli.trust.keys import local_log_keys

    if paths:
        keys = read_public_keys(paths)
        return keys, "given with --key"
    return local_log_keys(locate(os.environ).home), "this home's own key, since no --key was given"


def _own_log_key(log: str | None) -> bytes | None:
    from beddel_cli.trust.keys import local_log_keys

    keys = local_log_keys(locate(os.environ).home) if log is None else ()
    return raw_public_key(keys[0]) if keys else None


def _judge(
    ledger: Ledger,
    trusted: tuple[VerifyingKey, ...],
    places: list[str] | None,
    *,
    every_signature: bool = True,
) -> Judgement:
    anchors = None
    found_in: dict[Checkpoint, str] = {}
    if places:
        read = [read_anchors(place, ledger.origin, trusted) for place in places]
        for place, each in zip(places, read, strict=True):
            if each.passed_over:
                sys.stderr.write(
                    f"warning  {visible(place)}: passed over {counted(each.passed_over, 'line')}, "
                    "without a checkpoint that the log's key signed\n"
                )
            found_in |= dict.fromkeys(each.checkpoints, place)
        anchors = [checkpoint for each in read for checkpoint in each.checkpoints]
    return judge_log(
        ledger.origin,
        ledger.rows,
        trusted,
        anchors,
        places=found_in,
        every_signature=every_signature,
    )


def _head(ledger: Ledger) -> tuple[int, bytes]:
    """Give the number of entries and the checkpoint over them, as it was signed."""
    size = ledger.size()
    if size == 0:
        raise LedgerError(f"log {ledger.path!r} has no entries")
    text = checkpoint_text(ledger.origin, size, ledger.root(size))
    stored = ledger.signature(size - 1)
    return size, make_note(text, [NoteSignature(ledger.origin, stored[:4], stored[4:])])


def _sound_proof(
    ledger: Ledger, row: Row, path: tuple[bytes, ...], note: bytes, log: str | None
) -> bytes:
    """Give an entry's proof, which verifies; of a copy, whose key is not known, up to the root."""
    from beddel_cli.trust.keys import local_log_keys

    proof = make_proof(row.index, path, note, row.data)
    try:
        if log is None:
            verify_proof(proof, local_log_keys(locate(os.environ).home))
        else:
            head = parse_checkpoint(parse_note(note).text)
            verify_inclusion(leaf_hash(row.data), row.index, head.size, path, head.root)
    except VerificationError as error:
        raise DamagedError(
            f"log {ledger.path!r} was altered, so entry {row.index} has no proof: {error.message}",
            hint="beddel-cli audit verify",
        ) from error
    return proof


def _find(ledger: Ledger, which: str) -> list[Row]:
    # A run's id may consist of digits too, but then it is longer than any index.
    if which.isascii() and which.isdigit() and len(which) < 19 and which == str(int(which)):
        row = ledger.row(int(which))
        found = [] if row is None else [row]
    else:
        found = [row for row in ledger.rows() if _is_of_run(row, which)]
    if not found:
        raise LedgerError(f"log {ledger.path!r} has no entry {which!r}")
    return found


def _is_of_run(row: Row, run_id: str) -> bool:
    if run_id.encode("utf-8", "surrogateescape") not in row.data:
        return False
    try:
        return parse_entry(row.data).run_id == run_id
    except VerificationError:
        return False


def _following(ledger: Ledger, start: int, *, follow: bool) -> Iterator[Row]:
    """Give entries from an index on; with `follow` without end, as they are written."""
    while True:
        for row in ledger.rows(start):
            yield row
            start = row.index + 1
        if not follow:
            return
        sleep(FOLLOW_SECONDS)
