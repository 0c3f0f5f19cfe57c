"""A receipt that was changed or respelt in any way never verifies."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beddel_cli.errors import UnverifiableError, VerificationError
from beddel_cli.trust.dsse import Signature, make_bundle, make_envelope, parse_envelope
from beddel_cli.trust.keys import SigningKey, generate_key, load_public_key, load_signing_key
from beddel_cli.trust.verify import verify_envelope
from tests.support.statements import as_payload, bundled, make_statement, sign, signed

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
KINDS = ("p256", "ed25519")


def new_key(kind: str) -> SigningKey:
    pem = generate_key(kind).decode()  # type: ignore[arg-type]
    return load_signing_key("/nowhere", environment_pem=pem)


KEYS = {kind: new_key(kind) for kind in KINDS}
PUBLIC = [load_public_key(key.public_pem) for key in KEYS.values()]
PAYLOAD = as_payload(make_statement())
SIGNATURES = {kind: sign(PAYLOAD, key) for kind, key in KEYS.items()}


def verifies(data: bytes) -> bool:
    try:
        verify_envelope(data, PUBLIC)
    except (VerificationError, UnverifiableError):
        return False
    return True


def flips(data: bytes) -> Iterator[bytes]:
    """Give the data with each of its bits turned over, one at a time."""
    for at in range(len(data)):
        for bit in range(8):
            yield data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


@pytest.mark.parametrize("kind", KINDS)
def test_no_flipped_bit_of_the_payload_verifies(kind: str) -> None:
    assert verifies(make_envelope(PAYLOAD, [SIGNATURES[kind]]))
    for payload in flips(PAYLOAD):
        assert not verifies(make_envelope(payload, [SIGNATURES[kind]])), payload


@pytest.mark.parametrize("kind", KINDS)
def test_no_flipped_bit_of_the_signature_verifies(kind: str) -> None:
    signature = SIGNATURES[kind]
    assert verifies(make_bundle(PAYLOAD, signature))
    for value in flips(signature.value):
        changed = Signature(signature.key_id, value)
        assert not verifies(make_envelope(PAYLOAD, [changed])), value.hex()
        assert not verifies(make_bundle(PAYLOAD, changed)), value.hex()


@pytest.mark.parametrize("build", [signed, bundled])
def test_no_flipped_bit_of_the_file_verifies(build: Callable[[SigningKey], bytes]) -> None:
    data = build(KEYS["p256"])
    assert verifies(data)
    for changed in flips(data):
        assert not verifies(changed), changed


# Signed once: a signature is random, and its length may change from one to the next.
ORIGINAL = signed(KEYS["p256"], PAYLOAD)


@given(st.data())
def test_no_removed_added_or_moved_bytes_verify_as_something_else(data: st.DataObject) -> None:
    original = ORIGINAL
    at = data.draw(st.integers(0, len(original)))
    to = data.draw(st.integers(at, min(len(original), at + 8)))
    put = data.draw(st.binary(max_size=4) | st.sampled_from([b" ", b"\n", b"=", b"A", b'"', b"\\"]))
    changed = original[:at] + put + original[to:]
    if verifies(changed):
        # Only white space between tokens is free.
        assert parse_envelope(changed) == parse_envelope(original)
        assert changed.translate(None, b" \t\r\n") == original.translate(None, b" \t\r\n")


def base64_variants(text: str) -> Iterator[str]:
    """Give other texts that some decoder takes for the same bytes."""
    data = base64.b64decode(text)
    yield text.rstrip("=") if text.endswith("=") else text + "="
    yield text + "="
    yield text + "===="
    yield text + "\n"
    yield text + " "
    yield " " + text
    yield text[:4] + "\n" + text[4:]
    yield text[:4] + "\r\n" + text[4:]
    yield text[:5] + "=" + text[5:]
    yield text[:5] + "*" + text[5:]
    yield text + "AAAA"
    yield base64.urlsafe_b64encode(data + b"\xfb\xff\xfe").decode()
    yield base64.b32encode(data).decode()
    yield data.hex()
    # The first character in its full width.
    yield chr(ord(text[0]) + 0xFEE0) + text[1:]
    if text.endswith("="):
        # The unused bits of the last character before the padding.
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        padding = len(text) - len(text.rstrip("="))
        last = len(text) - padding - 1
        for extra in range(1, 4 ** (padding)):
            other = alphabet[alphabet.index(text[last]) ^ extra]
            yield text[:last] + other + text[last + 1 :]


@pytest.mark.parametrize("pad", [0, 1, 2])
def test_no_other_spelling_of_the_base64_verifies(pad: int) -> None:
    payload = PAYLOAD + b" " * ((pad - len(PAYLOAD)) % 3)
    signature = sign(payload, KEYS["ed25519"])
    good = json.loads(make_envelope(payload, [signature]))
    assert verifies(json.dumps(good).encode())
    assert good["payload"].count("=") == (3 - pad) % 3
    sig = good["signatures"][0]
    lenient = 0
    for text in base64_variants(good["payload"]):
        assert not verifies(json.dumps({**good, "payload": text}).encode()), text
        lenient += (
            binascii.a2b_base64(text.encode("ascii", "replace")) == payload
            if (_decodes(text))
            else 0
        )
    for text in base64_variants(sig["sig"]):
        changed = {**good, "signatures": [{**sig, "sig": text}]}
        assert not verifies(json.dumps(changed).encode()), text
    assert lenient >= 5  # these spellings do fool an ordinary decoder


def _decodes(text: str) -> bool:
    try:
        base64.b64decode(text)
    except ValueError:
        return False
    return True


def json_variants(data: bytes) -> Iterator[bytes]:
    """Give other texts that an ordinary JSON parser takes for the same values."""
    value = json.loads(data)
    text = data.decode()
    payload, sig = value["payload"], value["signatures"][0]["sig"]
    for string in (payload, sig, "payload", "sig", "application/vnd.in-toto+json"):
        yield text.replace(string, f"\\u{ord(string[0]):04x}{string[1:]}", 1).encode()
        yield text.replace(string, f"{string[:-1]}\\u{ord(string[-1]):04X}", 1).encode()
    yield text.replace("/", "\\/").encode()
    yield text.replace('{"payload":', '{"payload":"e30=","payload":', 1).encode()
    yield text.replace('{"payload":', f'{{"payload":"{payload}","payload":', 1).encode()
    yield text.replace('"sig":', '"sig":"MAA=","sig":', 1).encode()
    yield text.replace('"signatures":', '"signatures":[],"signatures":', 1).encode()
    yield text.replace('{"payload":', '{"extra":null,"payload":', 1).encode()
    for codec in ("utf-16", "utf-16-le", "utf-32", "utf-8-sig"):
        yield text.encode(codec)


def test_no_other_spelling_of_the_json_verifies() -> None:
    data = signed(KEYS["p256"], PAYLOAD)
    good = json.loads(data)
    variants = list(json_variants(data))
    same = [variant for variant in variants if variant != data and json.loads(variant) == good]
    assert len(same) >= 14  # these do fool an ordinary parser
    assert not [variant for variant in variants if verifies(variant)]


def der(r: int, s: int) -> bytes:
    parts = [number.to_bytes(number.bit_length() // 8 + 1, "big") for number in (r, s)]
    body = b"".join(b"\x02" + bytes([len(part)]) + part for part in parts)
    return b"\x30" + bytes([len(body)]) + body


def ecdsa_variants(signature: bytes) -> Iterator[bytes]:
    """Give other signatures that an ordinary verifier takes for as good."""
    r_end = 4 + signature[3]
    r, s = signature[4:r_end], signature[r_end + 2 :]
    number = int.from_bytes(s, "big")
    yield der(int.from_bytes(r, "big"), ORDER - number)
    yield der(int.from_bytes(r, "big"), ORDER + number)
    yield der(int.from_bytes(r, "big") + ORDER, number)
    yield b"\x30\x81" + signature[1:]
    yield b"\x30\x82\x00" + signature[1:]
    yield b"\x30\x80" + signature[2:] + b"\0\0"
    for first, second in ((b"\0" + r, s), (r, b"\0" + s)):
        body = b"\x02%c%b\x02%c%b" % (len(first), first, len(second), second)
        yield b"\x30%c%b" % (len(body), body)
    body = b"\x02\x81%c%b\x02%c%b" % (len(r), r, len(s), s)
    yield b"\x30%c%b" % (len(body), body)
    yield signature + b"\0"
    yield signature[:1] + bytes([signature[1] + 2]) + signature[2:] + b"\x05\0"
    yield int.from_bytes(r, "big").to_bytes(32, "big") + number.to_bytes(32, "big")
    yield der(int.from_bytes(r, "big"), 0)
    yield der(0, 0)
    yield b""


def test_no_other_form_of_the_ecdsa_signature_verifies() -> None:
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    from beddel_cli.trust.dsse import PAYLOAD_TYPE, pae

    signature = SIGNATURES["p256"]
    for value in ecdsa_variants(signature.value):
        changed = Signature(signature.key_id, value)
        assert not verifies(make_envelope(PAYLOAD, [changed])), value.hex()
    # The first of them does fool an ordinary verifier: that is what the rule is for.
    twin = next(ecdsa_variants(signature.value))
    key = serialization.load_pem_public_key(KEYS["p256"].public_pem)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(twin, pae(PAYLOAD_TYPE, PAYLOAD), ec.ECDSA(hashes.SHA256()))


def test_no_other_form_of_the_ed25519_signature_verifies() -> None:
    order = 2**252 + 27742317777372353535851937790883648493
    signature = SIGNATURES["ed25519"]
    r, s = signature.value[:32], int.from_bytes(signature.value[32:], "little")
    variants = [r + (s + order * times).to_bytes(32, "little") for times in range(1, 15)]
    variants += [signature.value + b"\0", signature.value[:-1], b"\0" * 64, b""]
    for value in variants:
        changed = Signature(signature.key_id, value)
        assert not verifies(make_envelope(PAYLOAD, [changed])), value.hex()


@given(st.binary(max_size=400))
def test_no_made_up_signature_verifies(value: bytes) -> None:
    for key in KEYS.values():
        assert not verifies(make_envelope(PAYLOAD, [Signature(key.key_id, value)]))
