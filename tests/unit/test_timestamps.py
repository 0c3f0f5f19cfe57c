"""Time stamps by RFC 3161, of an authority of our own that is the openssl command line."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from time import time_ns

import pytest

from beddel_cli.errors import BeddelError, UnverifiableError, VerificationError
from beddel_cli.trust.dsse import make_envelope, parse_envelope
from beddel_cli.trust.timestamps import (
    MAX_TOKEN_BYTES,
    TimestampError,
    check_reply,
    check_stamp,
    make_query,
)
from beddel_cli.trust.trust_list import Revocation
from tests.support.command import CommandLine
from tests.support.der_mutants import inserted, mutants, nested
from tests.support.statements import sign
from tests.support.timestamp_authority import Authority
from tests.support.trusted import DAY, HOUR, entry, new_key, payload_at, trust_file

NOW = time_ns() // 1_000_000_000 * 1000
ROOT, KEY = new_key(), new_key()
PAYLOAD = payload_at(NOW - HOUR, KEY)
RECEIPT = make_envelope(PAYLOAD, [sign(PAYLOAD, KEY)])
SIGNATURE = parse_envelope(RECEIPT).signatures[0].value


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl") is None:
        if os.environ.get("CI"):
            pytest.fail("CI has no openssl")
        pytest.skip("openssl is not installed")
    return Authority(tmp_path_factory.mktemp("tsa") / "one")


@pytest.fixture(scope="module")
def stamp(authority: Authority) -> bytes:
    """A good stamp over the signature."""
    return authority.answer(make_query(SIGNATURE)[0])


def test_a_stamp_says_when(authority: Authority, stamp: bytes) -> None:
    at_ms = check_stamp(stamp, authority.root.read_bytes(), SIGNATURE)
    assert abs(at_ms - time_ns() // 1_000_000) < HOUR
    query, nonce = make_query(SIGNATURE)
    check_reply(authority.answer(query), nonce, SIGNATURE)
    with pytest.raises(TimestampError, match="its nonce differs"):
        check_reply(stamp, nonce, SIGNATURE)


def test_openssl_accepts_our_request_and_what_we_accept(
    authority: Authority, stamp: bytes, tmp_path: Path
) -> None:
    (tmp_path / "signature").write_bytes(SIGNATURE)
    (tmp_path / "stamp").write_bytes(stamp)
    done = subprocess.run(
        [
            "openssl",
            "ts",
            "-verify",
            "-in",
            "stamp",
            "-data",
            "signature",
            "-CAfile",
            authority.root,
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Verification: OK" in done.stdout + done.stderr


def test_a_stamp_over_something_else(authority: Authority, stamp: bytes) -> None:
    roots = authority.root.read_bytes()
    for other in (SIGNATURE + b"\0", SIGNATURE[:-1], b"", PAYLOAD, RECEIPT):
        with pytest.raises(VerificationError, match="over something else"):
            check_stamp(stamp, roots, other)
        with pytest.raises(TimestampError, match="over something else"):
            check_reply(stamp, None, other)


def test_certificates_out_of_order_are_said_with_the_remedy(
    authority: Authority, tmp_path: Path
) -> None:
    """DER sorts a set, and openssl does not sort the chain that it adds."""
    root, other = (each.root for each in (authority, Authority(tmp_path / "other")))
    query = make_query(SIGNATURE)[0]
    refused = 0
    for first, second in ((root, other), (other, root)):
        reply = authority.answer(query, first.read_text() + second.read_text())
        found = problem_of(reply, root.read_bytes())
        if found is not None:
            refused += 1
            assert "not in the order that DER asks for" in found.message
            assert "without -chain" in str(found.hint)
            with pytest.raises(TimestampError, match="not in the order that DER asks for"):
                check_reply(reply, None, SIGNATURE)
    assert refused, "one of the two is out of order"


def problem_of(stamp: bytes, roots: bytes) -> VerificationError | None:
    """Give why a stamp is not good; None where it is."""
    try:
        check_stamp(stamp, roots, SIGNATURE)
    except VerificationError as error:
        return error
    return None


def test_another_authority_is_not_believed(
    authority: Authority, stamp: bytes, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other")
    with pytest.raises(VerificationError, match="whose root was given"):
        check_stamp(stamp, other.root.read_bytes(), SIGNATURE)
    both = other.root.read_bytes() + authority.root.read_bytes()
    check_stamp(stamp, both, SIGNATURE)
    # The certificate that signs stamps is no root, and a key is no certificate.
    for roots in (b"", b"x", KEY.public_pem, authority.root.read_bytes()[:99]):
        with pytest.raises(UnverifiableError, match=r"no PEM certificates$"):
            check_stamp(stamp, roots, SIGNATURE)


def test_no_flipped_byte_of_a_stamp_is_another_time(authority: Authority, stamp: bytes) -> None:
    roots = authority.root.read_bytes()
    good = check_stamp(stamp, roots, SIGNATURE)
    held = 0
    for at in range(len(stamp)):
        changed = stamp[:at] + bytes([stamp[at] ^ 1 << at % 8]) + stamp[at + 1 :]
        try:
            assert check_stamp(changed, roots, SIGNATURE) == good
            held += 1
        except (VerificationError, UnverifiableError):
            continue
    # Some bytes are no part of what is signed, such as the certificates that come along.
    assert held < len(stamp) // 10


def holds(stamp: bytes, roots: bytes, at_ms: int) -> bool:
    """Tell whether a stamp is good, which may then be of one time only; there is no third."""
    try:
        found = check_stamp(stamp, roots, SIGNATURE)
    except (VerificationError, UnverifiableError):
        return False
    assert found == at_ms
    return True


def test_no_mutant_of_a_stamp_is_another_time(authority: Authority, stamp: bytes) -> None:
    """Each element spoiled in each way; how many more were tried by hand is in SECURITY.md."""
    roots = authority.root.read_bytes()
    good = check_stamp(stamp, roots, SIGNATURE)
    spoiled = {*mutants(stamp), nested(stamp, 7000)} - {stamp}
    assert len(spoiled) > 1500
    # Versions, names of algorithms and the like: what no authority signs, and nothing depends on.
    assert sum(holds(each, roots, good) for each in spoiled) < 20
    assert not any(holds(stamp[:size], roots, good) for size in range(len(stamp)))


def test_odd_certificates_beside_the_good_one(authority: Authority, stamp: bytes) -> None:
    """The signature does not cover them, so anybody may add one."""
    roots = authority.root.read_bytes()
    good = check_stamp(stamp, roots, SIGNATURE)
    pem = (authority.folder / "tsa.pem").read_text()
    own = ssl.PEM_cert_to_DER_cert(pem)
    other = ssl.PEM_cert_to_DER_cert(authority.root.read_text())
    assert holds(inserted(stamp, other, beside=own), roots, good)
    for odd in set(mutants(own)):
        holds(inserted(stamp, odd, beside=own), roots, good)
    renewed = own[:-1] + bytes([own[-1] ^ 1])
    with pytest.raises(VerificationError, match="one issuer and number"):
        check_stamp(inserted(stamp, renewed, beside=own), roots, SIGNATURE)


def test_odd_roots(authority: Authority, stamp: bytes) -> None:
    root = authority.root.read_text()
    good = check_stamp(stamp, root.encode(), SIGNATURE)
    for odd in set(mutants(ssl.PEM_cert_to_DER_cert(root))):
        holds(stamp, ssl.DER_cert_to_PEM_cert(odd).encode(), good)


@pytest.mark.parametrize("data", [b"", b"x", b"0" * 100, b"\x30\x03\x02\x01\x02", b"\x30\x80"])
def test_what_is_no_stamp(authority: Authority, data: bytes) -> None:
    with pytest.raises(VerificationError, match=r"^this is no RFC 3161 response$"):
        check_stamp(data, authority.root.read_bytes(), SIGNATURE)
    with pytest.raises(TimestampError):
        check_reply(data, None, SIGNATURE)
    with pytest.raises(VerificationError, match="too large"):
        check_stamp(b"0" * (MAX_TOKEN_BYTES + 1), b"", SIGNATURE)


def test_a_refusal_is_no_stamp(authority: Authority) -> None:
    refusal = authority.answer(b"\x30\x03\x02\x01\x01")
    for check in (
        lambda: check_stamp(refusal, authority.root.read_bytes(), SIGNATURE),
        lambda: check_reply(refusal, None, SIGNATURE),
    ):
        with pytest.raises(BeddelError, match="did not grant"):
            check()


def test_without_the_extra_it_is_said(monkeypatch: pytest.MonkeyPatch, stamp: bytes) -> None:
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    for call in (lambda: check_stamp(stamp, b"", SIGNATURE), lambda: make_query(SIGNATURE)):
        with pytest.raises(UnverifiableError, match="not installed") as caught:
            call()
        assert caught.value.hint == "pip install 'beddel-cli[timestamp]'"


@pytest.fixture
def beddel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    monkeypatch.setenv("BEDDEL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BEDDEL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    revoked = entry(KEY, revoked=Revocation(NOW + HOUR, "stolen"))
    span = {"issued_ms": NOW - DAY, "expires_ms": NOW + DAY}
    (tmp_path / "r.json").write_bytes(RECEIPT)
    (tmp_path / "key.pem").write_bytes(KEY.public_pem)
    (tmp_path / "root.pem").write_bytes(ROOT.public_pem)
    (tmp_path / "trust.json").write_bytes(trust_file(ROOT, revoked, **span))
    return CommandLine(capsys)


BY_KEY = ("--key", "key.pem")
BY_LIST = ("--trust", "trust.json", "--root", "root.pem")


def test_by_way_of_files(beddel: CommandLine, tmp_path: Path, authority: Authority) -> None:
    beddel("timestamp", "r.json", *BY_KEY, "--query", "q.tsq")
    (tmp_path / "a.tsr").write_bytes(authority.answer((tmp_path / "q.tsq").read_bytes()))
    assert (
        "time stamp  r.json.tsr" in beddel("timestamp", "r.json", *BY_KEY, "--reply", "a.tsr").err
    )
    # The key has been revoked, for a time that is still to come; what was stamped is older.
    assert "was revoked" in beddel("verify", "r.json", *BY_LIST, code=2).err
    roots = ("--timestamp-roots", authority.root)
    answer = beddel("verify", "r.json", *BY_LIST, *roots)
    assert "(by a timestamp authority)" in answer.out
    assert "stamped  20" in answer.out
    assert answer.err == ""
    document = beddel("verify", "r.json", *BY_LIST, *roots, "--json").json
    assert document["judged_at"]["source"] == "timestamp"
    assert document["timestamp"] == document["judged_at"]["time"]
    note = beddel("verify", "r.json", *BY_KEY).out
    assert "note     the time stamp beside the receipt was not judged" in note
    (tmp_path / "r.json.tsr").write_bytes(b"broken")
    assert "no RFC 3161 response" in beddel("verify", "r.json", *BY_LIST, *roots, code=1).err


def test_the_stamp_of_another_receipt_is_an_error(
    beddel: CommandLine, tmp_path: Path, authority: Authority, stamp: bytes
) -> None:
    other = make_envelope(PAYLOAD, [sign(PAYLOAD, KEY)])
    assert parse_envelope(other).signatures != parse_envelope(RECEIPT).signatures
    (tmp_path / "r.json").write_bytes(other)
    (tmp_path / "r.json.tsr").write_bytes(stamp)
    roots = ("--timestamp-roots", authority.root)
    assert "over something else" in beddel("verify", "r.json", *BY_KEY, *roots, code=1).err
    (tmp_path / "r.json").write_bytes(RECEIPT)
    beddel("verify", "r.json", *BY_KEY, *roots)


def test_nothing_is_stamped_unverified(beddel: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_bytes(RECEIPT.replace(b"A", b"B", 1))
    beddel("timestamp", "r.json", *BY_KEY, "--query", "q.tsq", code=1)
    assert not (tmp_path / "q.tsq").exists()
    for more in ((), ("--query", "q.tsq", "--reply", "a.tsr"), ("--url", "x", "--query", "q")):
        assert "one of --url" in beddel("timestamp", "r.json", *BY_KEY, *more, code=2).err


@contextmanager
def served(respond: Callable[[bytes], tuple[int, bytes]]) -> Iterator[str]:
    """Answer requests on the loopback interface; gives the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            respond(b"")

        def do_POST(self) -> None:
            status, body = respond(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.headers["Content-Type"] == "application/timestamp-query"
            self.send_response(status)
            if status == 302:
                self.send_header("Location", body.decode())
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_by_asking_an_authority(
    beddel: CommandLine, tmp_path: Path, authority: Authority, stamp: bytes
) -> None:
    asked = []

    def answer_once(query: bytes) -> tuple[int, bytes]:
        asked.append(query)
        return 200, authority.answer(query)

    with served(answer_once) as url:
        beddel("timestamp", "r.json", *BY_KEY, "--url", url)
        roots = ("--timestamp-roots", authority.root)
        assert "(RFC 3161)" in beddel("verify", "r.json", *BY_KEY, *roots).out
        (tmp_path / "r.json.tsr").unlink()
        assert len(asked) == 1
        with served(lambda _: (302, url.encode())) as elsewhere:
            answer = beddel("timestamp", "r.json", *BY_KEY, "--url", elsewhere, code=2)
            assert "it answered with status 302" in answer.err
        assert len(asked) == 1, "the address that was named is the one that is asked"
    for status, body, why in (
        (200, stamp, "its nonce differs"),
        (200, b"<html>", "no RFC 3161 response"),
        (200, b"0" * (MAX_TOKEN_BYTES + 1), "too large"),
        (500, b"", "it answered with status 500"),
    ):
        with served(lambda _, said=(status, body): said) as url:  # type: ignore[misc]
            answer = beddel("timestamp", "r.json", *BY_KEY, "--url", url, code=2)
            assert why in answer.err
    answer = beddel("timestamp", "r.json", *BY_KEY, "--url", "http://127.0.0.1:1/", code=2)
    assert "no answer from 'http://127.0.0.1:1/': Connection refused\n" in answer.err
    for address in ("file:///etc/passwd", "ftp://127.0.0.1/", "127.0.0.1", "http://127.0.0.1:1/"):
        beddel("timestamp", "r.json", *BY_KEY, "--url", address, code=2)
    assert not (tmp_path / "r.json.tsr").exists()
