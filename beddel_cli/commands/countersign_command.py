"""`countersign` and `timestamp`: what others add to a receipt that was verified.

Neither changes what is signed. A countersignature goes into the receipt's own envelope; a time
stamp lies beside it. A request leaves this machine only for the address that --url names.
"""

from __future__ import annotations

import os
import sys
from time import time_ns
from typing import Annotated

import typer

from beddel_cli.commands.run_command import passphrase_prompt
from beddel_cli.commands.verify_command import (
    STAMP_ENDING,
    Keys,
    LeastSerial,
    Roots,
    TrustFile,
    believed_keys,
    read_receipt,
)
from beddel_cli.errors import BeddelError, UsageError
from beddel_cli.home import locate
from beddel_cli.terminal import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from beddel_cli.trust.verify import VerifiedReceipt

_SECONDS = 20
_MOST_CAUSE = 100  # characters of a library's words

_Receipt = Annotated[str, typer.Argument(metavar="RECEIPT|-", help="A plain DSSE file.")]
_OneReceipt = Annotated[str, typer.Argument(metavar="RECEIPT", help="DSSE file or bundle.")]


def countersign(
    receipt: _Receipt,
    key: Keys = None,
    trust: TrustFile = None,
    root: Roots = None,
    least_serial: LeastSerial = None,
    signing_key: Annotated[
        str | None,
        typer.Option("--signing-key", metavar="FILE", help="Sign with this, not home's."),
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="Write it here, not over RECEIPT.")
    ] = None,
) -> int:
    """Verify a receipt, and add a signature of one's own to it.

    Whose countersignature counts, and how many a receipt needs, the list of trusted keys says.
    Exits 0 when it was added, 1 when the receipt is not valid, 2 when nothing could be told
    or done.
    """
    from beddel_cli.home import write_whole
    from beddel_cli.trust.countersign import countersigned
    from beddel_cli.trust.key_environment import read_secrets
    from beddel_cli.trust.keys import Passphrases, load_signing_key

    try:
        verified = _verified(receipt, key, trust, root, least_serial)
        secrets = read_secrets(os.environ)
        mine = load_signing_key(
            locate(os.environ).home,
            file=signing_key,
            environment_pem=secrets.pem,
            passphrases=Passphrases(secrets.passphrase, passphrase_prompt()),
            require_key=True,
        )
        data = countersigned(verified, mine)
        if out is None and receipt == "-":
            sys.stdout.write(data.decode("ascii"))
        elif out is None:
            # In its own place, and no more people may read it than before.
            write_whole(receipt, data, os.stat(receipt).st_mode & 0o666)
        else:
            write_whole(out, data, 0o644)
    except BeddelError as error:
        return _explain(error)
    where = "" if out is None and receipt == "-" else f" in {visible(out or receipt)}"
    number = len(verified.signatures) + 1
    sys.stderr.write(f"countersigned by {mine.key_id}: {number} signatures{where}\n")
    return 0


def timestamp(
    receipt: _OneReceipt,
    key: Keys = None,
    trust: TrustFile = None,
    root: Roots = None,
    least_serial: LeastSerial = None,
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", help="Ask this authority (RFC 3161).")
    ] = None,
    query: Annotated[
        str | None, typer.Option("--query", metavar="FILE", help="Only write the request here.")
    ] = None,
    reply: Annotated[
        str | None, typer.Option("--reply", metavar="FILE", help="Take the answer from here.")
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="Default: RECEIPT.tsr.")
    ] = None,
) -> int:
    """Have an authority witness that a receipt's signature exists now.

    With --query and --reply another machine does the asking. Believing the authority is up to
    whoever verifies: verify --timestamp-roots. Exits 0 when it was done, 1 when the receipt is not
    valid, 2 when nothing could be told or done.
    """
    from beddel_cli.files import read_file
    from beddel_cli.home import write_whole
    from beddel_cli.trust.countersign import maker
    from beddel_cli.trust.timestamps import MAX_TOKEN_BYTES, check_reply, make_query

    try:
        if [url, query, reply].count(None) != 2:
            raise UsageError("where from?", expected="one of --url, --query, --reply")
        verified = _verified(receipt, key, trust, root, least_serial)
        by = maker(verified)
        signature = next(x.value for x in verified.signatures if x.key_id == by.key_id)
        path = receipt + STAMP_ENDING if out is None else out
        nonce = None
        if reply is not None:
            answer = read_file(reply, "answer", MAX_TOKEN_BYTES)
        else:
            request, nonce = make_query(signature)
            if query is not None:
                write_whole(query, request, 0o644)
                sys.stderr.write(f"request  {visible(query)}\n")
                return 0
            answer = _ask(url or "", request)
        check_reply(answer, nonce, signature)
        write_whole(path, answer, 0o644)
    except BeddelError as error:
        return _explain(error)
    sys.stderr.write(f"time stamp  {visible(path)}\n")
    return 0


def _ask(url: str, request: bytes) -> bytes:
    """Send a request to an authority and give its answer.

    Source: RFC 3161 section 3.4.
    """
    from http.client import HTTPException
    from urllib.request import HTTPRedirectHandler, Request, build_opener

    from beddel_cli.trust.timestamps import MAX_TOKEN_BYTES, TimestampError

    class Stay(HTTPRedirectHandler):
        """The address that was named is the one that is asked."""

        def redirect_request(self, *_: object) -> None:
            return None

    if not url.startswith(("http://", "https://")):
        raise UsageError(f"--url {url!r}", expected="http:// or https://")
    headers = {"Content-Type": "application/timestamp-query", "User-Agent": "beddel-cli"}
    try:
        asked = Request(url, data=request, headers=headers, method="POST")  # noqa: S310 - checked
        with build_opener(Stay).open(asked, timeout=_SECONDS) as answer:
            data: bytes = answer.read(MAX_TOKEN_BYTES + 1)
    except (OSError, HTTPException, ValueError) as error:
        raise TimestampError(f"no answer from {url!r}: {_why(error)}") from error
    return data


def _why(error: Exception) -> str:
    """Say in short why nobody answered; libraries wrap it in words of their own."""
    from urllib.error import HTTPError

    if isinstance(error, HTTPError):
        return f"it answered with status {error.code}"
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return f"nothing came within {_SECONDS} s"
    if certificate := getattr(reason, "verify_message", None):
        return f"its certificate is not good: {certificate}"
    text = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    return text[:_MOST_CAUSE] or "the connection ended"


def _verified(
    receipt: str,
    key: list[str] | None,
    trust: str | None,
    root: list[str] | None,
    least_serial: int | None,
) -> VerifiedReceipt:
    """Verify a receipt by key and list; who has to countersign it is not asked yet."""
    from beddel_cli.record import changed
    from beddel_cli.trust.countersign import claimed_time, judge_receipt
    from beddel_cli.trust.trust_list import Moment
    from beddel_cli.trust.verify import verify_envelope

    now_ms = time_ns() // 1_000_000
    keys, _because, loaded = believed_keys(key, trust, root, least_serial, now_ms)
    verified = verify_envelope(read_receipt(receipt), keys)
    if loaded is not None:
        moment = Moment(now_ms, "now", claimed_time(verified))
        judge_receipt(verified, changed(loaded.trust, countersigners=0), moment, now_ms)
    return verified


def _explain(error: BeddelError) -> int:
    from beddel_cli.render_verify import error_words, verdict_of

    sys.stderr.write(error_words(error))
    return verdict_of(error)
