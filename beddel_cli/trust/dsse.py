"""The bytes around a signed payload: a DSSE envelope, alone or in a Sigstore bundle. Pure.

Every receipt has one spelling. Strings carry no escapes, base64 is canonical, each key appears
once and no key is unknown; so whoever changes payload or signature changes what the signature is
checked over, and whoever respells them is refused. Between tokens, white space and the order of
keys are free, because tools like `jq` move them and they carry nothing.

The reader below knows only objects, lists and plain strings, four levels deep. A general JSON
parser would have to be talked out of escapes, duplicate keys, numbers and bottomless nesting.
"""

from __future__ import annotations

import binascii

from beddel_cli.errors import UnverifiableError, VerificationError, bug
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

PAYLOAD_TYPE = "application/vnd.in-toto+json"
BUNDLE_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
TRUST_PAYLOAD_TYPE = "application/vnd.beddel.trust+json"
MAX_ENVELOPE_BYTES = 16 * 2**20
MAX_SIGNATURES = 16

_BUNDLE_FAMILY = "application/vnd.dev.sigstore.bundle"
_MOST_KEY_ID_CHARACTERS = 256
_WHAT = {PAYLOAD_TYPE: "in-toto statement", TRUST_PAYLOAD_TYPE: "list of trusted keys"}


@record
class Signature:
    """One signature over the envelope's PAE, and the id of the key it claims to be by."""

    key_id: str
    value: bytes


@record
class Envelope:
    """A parsed envelope: well formed, nothing about it verified.

    Attributes:
        bundle: it came inside a Sigstore bundle.
    """

    payload: bytes
    signatures: tuple[Signature, ...]
    bundle: bool = False


def pae(payload_type: str, payload: bytes) -> bytes:
    """Give the bytes that are signed: type and payload, each with its length in bytes.

    Source: DSSE v1.0.2, protocol.md, "Signature Definition".
    """
    type_bytes = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(type_bytes), type_bytes, len(payload), payload)


def make_envelope(
    payload: bytes, signatures: Iterable[Signature], payload_type: str = PAYLOAD_TYPE
) -> bytes:
    """Give the DSSE file: one line of JSON.

    Raises:
        ValueError: no signature, or a key id that would need escaping.

    Source: DSSE v1.0.2, envelope.md.
    """
    parts = [
        f'{{"keyid":"{_plain(each.key_id)}","sig":"{_encode(each.value)}"}}' for each in signatures
    ]
    if not parts:
        raise ValueError("an envelope needs a signature")
    return (
        f'{{"payload":"{_encode(payload)}","payloadType":"{payload_type}",'
        f'"signatures":[{",".join(parts)}]}}\n'
    ).encode()


def make_bundle(payload: bytes, signature: Signature) -> bytes:
    """Give the same as a Sigstore bundle v0.3. A bundle holds exactly one signature.

    Raises:
        ValueError: a key id that would need escaping.

    Source: sigstore/protobuf-specs, sigstore_bundle.proto; in-toto/attestation spec/v1/bundle.md.
    """
    envelope = make_envelope(payload, [signature]).rstrip().decode()
    return (
        f'{{"mediaType":"{BUNDLE_MEDIA_TYPE}",'
        f'"verificationMaterial":{{"publicKey":{{"hint":"{_plain(signature.key_id)}"}}}},'
        f'"dsseEnvelope":{envelope}}}\n'
    ).encode()


def parse_envelope(data: bytes, payload_type: str = PAYLOAD_TYPE) -> Envelope:
    """Read a DSSE file or a bundle (told apart by `mediaType`), in its one spelling only.

    The payload's type is part of what is signed, and only the one asked for is read: a document of
    one kind never counts as one of another.

    Raises:
        VerificationError: it is neither, or not spelt canonically.
        UnverifiableError: it is a Sigstore bundle of a version not known here.
    """
    if len(data) > MAX_ENVELOPE_BYTES:
        raise VerificationError(
            "the receipt is too large",
            expected=f"at most {MAX_ENVELOPE_BYTES} bytes",
            got=f"{len(data)} bytes",
        )
    reader = _Reader(data)
    members = reader.read_object({**_ENVELOPE, **_BUNDLE})
    reader.read_end()
    if "mediaType" in members:
        return _bundle(members, payload_type)
    return _envelope(members, payload_type, bundle=False)


def _bundle(members: Mapping[str, object], payload_type: str) -> Envelope:
    media_type = members["mediaType"]
    if media_type != BUNDLE_MEDIA_TYPE:
        raise _unknown_media_type(str(media_type))
    _require(members, _BUNDLE)
    material = _as_object(members["verificationMaterial"])
    _require(material, _MATERIAL)
    public_key = _as_object(material["publicKey"])
    _require(public_key, _PUBLIC_KEY)
    envelope = _envelope(_as_object(members["dsseEnvelope"]), payload_type, bundle=True)
    if len(envelope.signatures) != 1:
        raise _not_canonical("a bundle holds exactly one signature")
    if envelope.signatures[0].key_id != public_key["hint"]:
        raise _not_canonical("the bundle's key hint and the signature's key id differ")
    return envelope


def _envelope(members: Mapping[str, object], payload_type: str, *, bundle: bool) -> Envelope:
    _require(members, _ENVELOPE)
    if members["payloadType"] != payload_type:
        raise VerificationError(
            f"the envelope holds no {_WHAT.get(payload_type, 'payload of this type')}",
            expected=f'payloadType "{payload_type}"',
            got=repr(members["payloadType"]),
        )
    signatures = tuple(_signature(_as_object(each)) for each in _as_list(members["signatures"]))
    if not signatures:
        raise VerificationError("the envelope is not signed")
    if len({each.key_id for each in signatures}) != len(signatures):
        raise _not_canonical("two signatures name the same key")
    return Envelope(_decode(members["payload"], "payload"), signatures, bundle)


def _signature(members: Mapping[str, object]) -> Signature:
    _require(members, _SIGNATURE)
    key_id = str(members["keyid"])
    if not 0 < len(key_id) <= _MOST_KEY_ID_CHARACTERS:
        raise _not_canonical(f"a key id has 1 to {_MOST_KEY_ID_CHARACTERS} characters")
    return Signature(key_id, _decode(members["sig"], "signature"))


def _require(members: Mapping[str, object], shape: Mapping[str, object]) -> None:
    """Check that exactly the keys of `shape` are there."""
    if members.keys() != shape.keys():
        raise VerificationError(
            "not a receipt: not the keys of a DSSE envelope or Sigstore bundle",
            expected=", ".join(sorted(shape)),
            got=", ".join(sorted(members)) or "none",
        )


def _as_object(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise bug(f"the reader let through {type(value).__name__} for an object")
    return value


def _as_list(value: object) -> Sequence[object]:
    if not isinstance(value, list):
        raise bug(f"the reader let through {type(value).__name__} for a list")
    return value


def _unknown_media_type(media_type: str) -> VerificationError | UnverifiableError:
    expected, got = f'mediaType "{BUNDLE_MEDIA_TYPE}"', repr(media_type)
    if media_type.startswith(_BUNDLE_FAMILY):
        return UnverifiableError("another version of bundle", expected=expected, got=got)
    return VerificationError("not a Sigstore bundle", expected=expected, got=got)


def _encode(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def _decode(value: object, what: str) -> bytes:
    text = str(value)
    try:
        data = binascii.a2b_base64(text)
    except ValueError as error:
        raise _not_canonical(f"the {what} is not base64 ({error})") from error
    # Decoders skip stray characters, and let unused last bits be anything: RFC 4648 section 3.5.
    if _encode(data) != text:
        raise _not_canonical(f"the {what}'s base64 is not the canonical one")
    return data


def _plain(text: str) -> str:
    if not text or not _is_plain(text) or len(text) > _MOST_KEY_ID_CHARACTERS:
        raise ValueError(f"not a key id: {text!r}")
    return text


def _is_plain(text: str) -> bool:
    """Tell whether JSON has just one spelling for this text that needs no escape."""
    return text.isascii() and text.isprintable() and "\\" not in text and '"' not in text


def _not_canonical(why: str) -> VerificationError:
    return VerificationError(f"not a receipt in its canonical spelling: {why}")


class _Reader:
    """Reads objects and lists of a known shape and strings without escapes. Fails closed."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def read_object(self, shape: Mapping[str, Callable[[_Reader], object]]) -> dict[str, object]:
        """Read an object whose keys are all in `shape`, each at most once."""
        members: dict[str, object] = {}
        self._take(b"{")
        while True:
            name = self.read_string()
            if name not in shape:
                raise self._error(f"unknown key {name!r}")
            if name in members:
                raise self._error(f"duplicate key {name!r}")
            self._take(b":")
            members[name] = shape[name](self)
            if self._take(b",}") == b"}":
                return members

    def read_list(self, item: Callable[[_Reader], object]) -> list[object]:
        """Read a list, of at most as many items as an envelope may have signatures."""
        items: list[object] = []
        self._take(b"[")
        if self._peek() == b"]":
            self._take(b"]")
            return items
        while True:
            if len(items) == MAX_SIGNATURES:
                raise self._error(f"more than {MAX_SIGNATURES} signatures")
            items.append(item(self))
            if self._take(b",]") == b"]":
                return items

    def read_string(self) -> str:
        """Read a string of printable ASCII that is written as it is."""
        self._take(b'"')
        end = self._data.find(b'"', self._at)
        if end < 0:
            raise self._error("a string that does not end")
        text = self._data[self._at : end].decode("latin-1")
        if not _is_plain(text):
            raise self._error("a string with escapes or unprintable characters")
        self._at = end + 1
        return text

    def read_end(self) -> None:
        """Check that nothing follows."""
        if self._peek():
            raise self._error("more bytes after the end")

    def _peek(self) -> bytes:
        """Skip white space, in steps that make 16 MiB of it cheap; give the byte after it."""
        while chunk := self._data[self._at : self._at + 4096]:
            rest = chunk.lstrip(b" \t\r\n")
            self._at += len(chunk) - len(rest)
            if rest:
                return rest[:1]
        return b""

    def _take(self, one_of: bytes) -> bytes:
        byte = self._peek()
        if not byte or byte not in one_of:
            wanted = " or ".join(repr(chr(each)) for each in one_of)
            found = repr(byte.decode("latin-1")) if byte else "the end"
            raise self._error(f"expected {wanted}, found {found}")
        self._at += 1
        return byte

    def _error(self, what: str) -> VerificationError:
        return _not_canonical(f"{what} at byte {self._at}")


_SIGNATURE = {"keyid": _Reader.read_string, "sig": _Reader.read_string}
_ENVELOPE = {
    "payload": _Reader.read_string,
    "payloadType": _Reader.read_string,
    "signatures": lambda reader: reader.read_list(lambda inner: inner.read_object(_SIGNATURE)),
}
_PUBLIC_KEY = {"hint": _Reader.read_string}
_MATERIAL = {"publicKey": lambda reader: reader.read_object(_PUBLIC_KEY)}
_BUNDLE = {
    "mediaType": _Reader.read_string,
    "verificationMaterial": lambda reader: reader.read_object(_MATERIAL),
    "dsseEnvelope": lambda reader: reader.read_object(_ENVELOPE),
}
