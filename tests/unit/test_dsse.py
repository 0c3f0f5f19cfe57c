"""The envelope's one spelling."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beddel_cli.errors import UnverifiableError, VerificationError
from beddel_cli.trust.dsse import (
    BUNDLE_MEDIA_TYPE,
    MAX_ENVELOPE_BYTES,
    MAX_SIGNATURES,
    PAYLOAD_TYPE,
    Envelope,
    Signature,
    make_bundle,
    make_envelope,
    pae,
    parse_envelope,
)

PAYLOAD = b'{"a":"\xc3\xb6"}'
SIGNATURE = Signature("0a1b", b"\x30\x01\xff")
ENVELOPE = make_envelope(PAYLOAD, [SIGNATURE])
BUNDLE = make_bundle(PAYLOAD, SIGNATURE)
KEY_IDS = st.text("0123456789abcdef:+/ -", min_size=1, max_size=64)


def test_pae_counts_bytes_not_characters() -> None:
    assert pae("ö", "ä€".encode()) == b"DSSEv1 2 \xc3\xb6 5 \xc3\xa4\xe2\x82\xac"
    assert pae("", b"") == b"DSSEv1 0  0 "


def test_files_are_plain_json_with_the_documented_members() -> None:
    envelope = {
        "payload": base64.b64encode(PAYLOAD).decode(),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"keyid": "0a1b", "sig": "MAH/"}],
    }
    assert json.loads(ENVELOPE) == envelope
    assert json.loads(BUNDLE) == {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": "0a1b"}},
        "dsseEnvelope": envelope,
    }
    for data in (ENVELOPE, BUNDLE):
        assert data.endswith(b"}\n")
        assert data.count(b"\n") == 1


@given(st.binary(max_size=300), st.dictionaries(KEY_IDS, st.binary(max_size=80), min_size=1))
def test_what_is_made_is_what_is_parsed(payload: bytes, signed: dict[str, bytes]) -> None:
    signatures = tuple(Signature(key_id, value) for key_id, value in signed.items())
    data = make_envelope(payload, signatures[:MAX_SIGNATURES])
    assert parse_envelope(data) == Envelope(payload, signatures[:MAX_SIGNATURES], False)
    bundle = make_bundle(payload, signatures[0])
    assert parse_envelope(bundle) == Envelope(payload, signatures[:1], True)


@given(st.binary(max_size=200) | st.text('{}[]:," \\/uabpd=\n', max_size=80).map(str.encode))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    with pytest.raises(VerificationError):
        parse_envelope(data)


@pytest.mark.parametrize("key_id", ["", "a\n", 'a"', "a\\", "ä", "x" * 257])
def test_key_id_that_would_need_an_escape_is_not_written(key_id: str) -> None:
    with pytest.raises(ValueError, match="not a key id"):
        make_envelope(PAYLOAD, [Signature(key_id, b"x")])
    with pytest.raises(ValueError, match="not a key id"):
        make_bundle(PAYLOAD, Signature(key_id, b"x"))


def test_unsigned_envelope_is_neither_written_nor_read() -> None:
    with pytest.raises(ValueError, match="needs a signature"):
        make_envelope(PAYLOAD, [])
    with pytest.raises(VerificationError, match="not signed"):
        parse_envelope(json.dumps({**json.loads(ENVELOPE), "signatures": []}).encode())


@pytest.mark.parametrize("data", [ENVELOPE, BUNDLE])
def test_white_space_and_order_are_free(data: bytes) -> None:
    value = json.loads(data)
    turned = dict(reversed(value.items()))
    for respelt in (
        json.dumps(value),
        json.dumps(value, indent="\t"),
        json.dumps(turned, indent=2).replace("\n", "\r\n"),
        f"\n \t{json.dumps(value)}\n\n",
        data.decode().rstrip(),
    ):
        assert parse_envelope(respelt.encode()) == parse_envelope(data)


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
@pytest.mark.parametrize("options", [["."], ["-S", "."], ["-c", "."], ["--tab", "."]])
def test_jq_does_not_break_a_receipt(options: list[str]) -> None:
    through = subprocess.run(["jq", *options], input=BUNDLE, capture_output=True, check=True)
    assert through.stdout != BUNDLE or options == ["-c", "."]
    assert parse_envelope(through.stdout) == parse_envelope(BUNDLE)


def envelope_with(**members: object) -> bytes:
    return json.dumps({**json.loads(ENVELOPE), **members}).encode()


def bundle_with(**members: object) -> bytes:
    return json.dumps({**json.loads(BUNDLE), **members}).encode()


SIG = {"keyid": "0a1b", "sig": "MAH/"}
REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "expected '{', found the end"),
    "null": (b"null", "expected '{', found 'n'"),
    "list": (b"[]", "expected '{'"),
    "no members": (b"{}", "expected '\"'"),
    "more after it": (ENVELOPE + b"{}", "more bytes after the end"),
    "NUL after it": (ENVELOPE + b"\0", "more bytes after the end"),
    "byte order mark": (b"\xef\xbb\xbf" + ENVELOPE, "expected '{'"),
    "UTF-16": (ENVELOPE.decode().encode("utf-16"), "expected '{'"),
    "cut": (ENVELOPE[:-2], "found the end"),
    "cut in a string": (ENVELOPE[:20], "a string that does not end"),
    "trailing comma": (ENVELOPE.replace(b"]}", b"],}"), "expected '\"', found '}'"),
    "single quotes": (ENVELOPE.replace(b'"', b"'"), "expected '\"'"),
    "comment": (b"//x\n" + ENVELOPE, "expected '{'"),
    "form feed": (b"\f" + ENVELOPE, "expected '{'"),
    "unknown member": (envelope_with(extra="x"), "unknown key 'extra'"),
    "missing member": (b'{"payload":"","signatures":[]}', "not the keys of a DSSE envelope"),
    "member in capitals": (ENVELOPE.replace(b'"payload"', b'"Payload"'), "unknown key 'Payload'"),
    "duplicate member": (
        ENVELOPE.replace(b'{"payload":', b'{"payload":"","payload":'),
        "duplicate key 'payload'",
    ),
    "escaped member": (ENVELOPE.replace(b'"payload"', b'"p\\u0061yload"'), "with escapes"),
    "escaped duplicate": (
        ENVELOPE.replace(b'{"payload":', b'{"p\\u0061yload":"","payload":'),
        "with escapes",
    ),
    "escaped slash": (ENVELOPE.replace(b"/", b"\\/"), "with escapes"),
    "duplicate keyid": (ENVELOPE.replace(b'"sig"', b'"keyid":"0a1b","sig"'), "duplicate key"),
    "unknown in signature": (
        envelope_with(signatures=[{**SIG, "cert": "x"}]),
        "unknown key 'cert'",
    ),
    "no keyid": (envelope_with(signatures=[{"sig": "MAH/"}]), "not the keys"),
    "empty keyid": (envelope_with(signatures=[{**SIG, "keyid": ""}]), "a key id has 1 to 256"),
    "long keyid": (envelope_with(signatures=[{**SIG, "keyid": "x" * 257}]), "a key id has 1 to"),
    "same signer twice": (envelope_with(signatures=[SIG, SIG]), "two signatures name the same key"),
    "signature is text": (envelope_with(signatures=["MAH/"]), "expected '{'"),
    "signatures is object": (envelope_with(signatures=SIG), "expected '['"),
    "payload is object": (envelope_with(payload={}), "expected '\"'"),
    "payload is null": (envelope_with(payload=None), "expected '\"'"),
    "payload is number": (envelope_with(payload=1), "expected '\"'"),
    "other payload type": (envelope_with(payloadType="text/plain"), "no in-toto statement"),
    "payload type in capitals": (envelope_with(payloadType=PAYLOAD_TYPE.upper()), "no in-toto"),
    "raw newline in base64": (
        envelope_with(payload="e30=\n").replace(b"\\n", b"\n"),
        "unprintable",
    ),
    "two hints": (BUNDLE.replace(b'{"hint"', b'{"hint":"0a1b","hint"'), "duplicate key 'hint'"),
    "other hint": (BUNDLE.replace(b'"hint":"0a', b'"hint":"0b'), "key hint and the signature's"),
    "certificate": (
        bundle_with(verificationMaterial={"certificate": {"rawBytes": ""}}),
        "unknown key 'certificate'",
    ),
    "bundle without envelope": (
        json.dumps({"mediaType": BUNDLE_MEDIA_TYPE}).encode(),
        "not the keys of a DSSE envelope or Sigstore bundle",
    ),
    "bundle and envelope in one": (bundle_with(**json.loads(ENVELOPE)), "not the keys"),
    "envelope with bundle parts": (
        envelope_with(dsseEnvelope=json.loads(ENVELOPE)),
        "not the keys",
    ),
    "bundle in a bundle": (bundle_with(dsseEnvelope=json.loads(BUNDLE)), "unknown key 'mediaType'"),
    "bundle with two signatures": (
        bundle_with(
            dsseEnvelope={**json.loads(ENVELOPE), "signatures": [SIG, {**SIG, "keyid": "0b"}]}
        ),
        "a bundle holds exactly one signature",
    ),
    "other media type": (bundle_with(mediaType="application/json"), "not a Sigstore bundle"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_everything_else_is_refused_and_says_why(name: str) -> None:
    data, message = REFUSED[name]
    with pytest.raises(VerificationError) as caught:
        parse_envelope(data)
    assert message in caught.value.message


@pytest.mark.parametrize("version", ["v0.4+json", "+json;version=0.1", ".v1+json"])
def test_another_version_of_bundle_is_not_called_bad(version: str) -> None:
    media_type = f"application/vnd.dev.sigstore.bundle{'' if version[0] in '+.' else '.'}{version}"
    with pytest.raises(UnverifiableError, match="another version of bundle") as caught:
        parse_envelope(bundle_with(mediaType=media_type))
    assert caught.value.got == repr(media_type)


@pytest.mark.parametrize(
    "text",
    [
        "e30",
        "e30==",
        "e3 0=",
        "e30=\u0020",
        "=e30",
        "e3=0",
        "e31=",
        "e30=e30=",
        "-_-_",
        "e",
        "====",
    ],
)
@pytest.mark.parametrize("where", ["payload", "sig"])
def test_base64_has_one_spelling(text: str, where: str) -> None:
    def build(value: str) -> bytes:
        if where == "payload":
            return envelope_with(payload=value)
        return envelope_with(signatures=[{"keyid": "0a1b", "sig": value}])

    assert parse_envelope(build("e30="))
    with pytest.raises(VerificationError, match="base64"):
        parse_envelope(build(text))


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 1_000_000,
        b'{"dsseEnvelope":' * 100_000,
        b'{"signatures":' + b"[" * 1_000_000,
        b'{"verificationMaterial":' * 100_000,
        b'{"payload":' + b'{"a":' * 500_000,
    ],
)
def test_bottomless_nesting_is_refused(data: bytes) -> None:
    with pytest.raises(VerificationError):
        parse_envelope(data)


def test_size_and_signatures_are_bounded() -> None:
    many = [Signature(f"{number}", b"x") for number in range(MAX_SIGNATURES)]
    assert len(parse_envelope(make_envelope(PAYLOAD, many)).signatures) == MAX_SIGNATURES
    with pytest.raises(VerificationError, match=f"more than {MAX_SIGNATURES} signatures"):
        parse_envelope(make_envelope(PAYLOAD, [*many, Signature("more", b"x")]))
    padded = ENVELOPE.ljust(MAX_ENVELOPE_BYTES)
    assert parse_envelope(padded) == parse_envelope(ENVELOPE)
    with pytest.raises(VerificationError, match="too large"):
        parse_envelope(padded + b" ")
