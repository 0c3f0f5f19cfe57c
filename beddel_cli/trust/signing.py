"""The private key operations: open a PKCS#8 key, sign with it, and the one spelling of a signature.

Signing goes through the libcrypto that this interpreter's `hashlib` already maps, by OpenSSL's
documented EVP calls. Loading a P-256 key and signing once that way costs 4 ms; `cryptography`,
whose import pulls in typing, enum, re and random, takes 54 ms (80 with `serialization`).
`cryptography` makes keys, opens encrypted ones, verifies, and signs where no libcrypto is found.

ECDSA signatures come in pairs: if (r, s) verifies, so does (r, n-s). We sign with the smaller s
and accept only that one, in minimal DER, so nobody can make a second valid receipt out of a first.
"""

from __future__ import annotations

from beddel_cli.errors import SigningKeyError, VerificationError, WrongPassphraseError, bug

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from collections.abc import Callable
    from typing import Literal

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

    Kind = Literal["p256", "ed25519"]

_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

# Each kind has one SubjectPublicKeyInfo and (unencrypted) one usual PKCS#8: a fixed head, then the
# key itself. RFC 5480 and RFC 5915 for P-256 (uncompressed point), RFC 8410 for Ed25519.
_SPKI_HEADS: dict[Kind, bytes] = {
    "p256": bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"),
    "ed25519": bytes.fromhex("302a300506032b6570032100"),
}
_SPKI_LENGTHS: dict[Kind, int] = {"p256": 91, "ed25519": 44}
_PKCS8_P256_HEAD = bytes.fromhex(
    "308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420"
)
_PKCS8_P256_POINT = bytes.fromhex("a14403420004")
_PKCS8_ED25519_HEAD = bytes.fromhex("302e020100300506032b657004220420")


def spki_kind(spki: bytes) -> Kind | None:
    for kind, head in _SPKI_HEADS.items():
        if spki.startswith(head) and len(spki) == _SPKI_LENGTHS[kind]:
            return kind
    return None


def kind_name(key: PrivateKeyTypes | PublicKeyTypes) -> str:
    curve = getattr(key, "curve", None)
    if curve is not None:
        return f"EC on {curve.name}"
    return type(key).__name__.removesuffix("PrivateKey").removesuffix("PublicKey")


def passphrase_bytes(passphrase: str) -> bytes:
    return passphrase.encode("utf-8", "surrogateescape")


def cryptography_key(
    der: bytes, passphrase: str | None, where: str
) -> LibcryptoKey | CryptographyKey:
    """Open any PKCS#8 the slow way; hand a key of ours on to libcrypto where there is one."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    secret = None if passphrase is None else passphrase_bytes(passphrase)
    try:
        key = serialization.load_der_private_key(der, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if secret is not None:
            raise WrongPassphraseError(f"the passphrase does not open {where}") from error
        raise SigningKeyError(
            f"{where} is not a key that can be read: its PEM holds none of a kind known here"
        ) from error
    if isinstance(key, ed25519.Ed25519PrivateKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
    ):
        opened = CryptographyKey(key)
        return libcrypto_key(opened.pkcs8(), where) or opened
    raise SigningKeyError(
        f"{where} is of a kind receipts are not signed with: {kind_name(key)}",
        expected="P-256 or Ed25519",
        got=kind_name(key),
    )


class CryptographyKey:
    """A private key in the hands of the `cryptography` package."""

    def __init__(self, key: EllipticCurvePrivateKey | Ed25519PrivateKey) -> None:
        from cryptography.hazmat.primitives import serialization

        self._key = key
        self.spki = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        kind = spki_kind(self.spki)
        if kind is None:
            raise bug("a checked key has an unknown public key")
        self.kind = kind

    def pkcs8(self) -> bytes:
        from cryptography.hazmat.primitives import serialization

        return self._key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def sign(self, message: bytes) -> bytes:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return self._key.sign(message, ec.ECDSA(hashes.SHA256()))
        return self._key.sign(message)


class LibcryptoKey:
    """A private key in the hands of libcrypto."""

    def __init__(self, library: _Libcrypto, handle: int, kind: Kind, spki: bytes) -> None:
        self._library = library
        self._handle = handle
        self.kind = kind
        self.spki = spki

    def __del__(self) -> None:
        self._library.free_key(self._handle)

    def sign(self, message: bytes) -> bytes:
        return self._library.sign(self._handle, message, with_sha256=self.kind == "p256")


def libcrypto_key(der: bytes, where: str) -> LibcryptoKey | None:
    """Open a PKCS#8 of the usual form; None if it has another or there is no library."""
    is_p256 = (
        len(der) == 138 and der.startswith(_PKCS8_P256_HEAD) and der[68:74] == _PKCS8_P256_POINT
    )
    is_ed25519 = len(der) == 48 and der.startswith(_PKCS8_ED25519_HEAD)
    if not (is_p256 or is_ed25519) or (library := _libcrypto()) is None:
        return None
    if is_p256:
        handle = library.open_pkcs8(der)
        kind: Kind = "p256"
        public = der[74:]
    else:
        handle = library.open_ed25519(der[16:])
        kind = "ed25519"
        public = library.ed25519_public(handle) if handle else b""
    if not handle:
        # Out of range, or the public point in the file is not this private key's.
        raise SigningKeyError(f"{where} is damaged: its private and public parts do not agree")
    return LibcryptoKey(library, handle, kind, _SPKI_HEADS[kind] + public)


_found_libcrypto: list[_Libcrypto | None] = []


def _libcrypto() -> _Libcrypto | None:
    if not _found_libcrypto:
        _found_libcrypto.append(_find_libcrypto())
    return _found_libcrypto[0]


def _find_libcrypto() -> _Libcrypto | None:
    import ctypes

    try:
        import _hashlib

        # dlsym(3) on the module's handle also searches the libcrypto it is linked with.
        return _Libcrypto(ctypes.CDLL(_hashlib.__file__))
    except (ImportError, AttributeError, OSError):
        return None  # a Python with its own static OpenSSL: `cryptography` signs


class _Libcrypto:
    """The few calls of OpenSSL 1.1.1 and later that signing takes.

    Source: EVP_DigestSignInit(3), EVP_PKEY_new(3), EVP_PKEY_check(3), d2i_PrivateKey(3).
    """

    _ED25519 = 1087  # EVP_PKEY_ED25519, the NID in <openssl/obj_mac.h>
    _MOST_SIGNATURE_BYTES = 128

    def __init__(self, library: ctypes.CDLL) -> None:
        import ctypes

        self._ctypes = ctypes
        pointer, size, number, text = (
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_int,
            ctypes.c_char_p,
        )

        def call(name: str, result: object, *arguments: object) -> Callable[..., int]:
            function = getattr(library, name)
            function.restype = result
            function.argtypes = arguments
            return function  # type: ignore[no-any-return]

        self._from_der = call("d2i_AutoPrivateKey", pointer, pointer, pointer, ctypes.c_long)
        self._from_raw = call("EVP_PKEY_new_raw_private_key", pointer, number, pointer, text, size)
        self._raw_public = call("EVP_PKEY_get_raw_public_key", number, pointer, text, pointer)
        self._check_new = call("EVP_PKEY_CTX_new", pointer, pointer, pointer)
        self._check = call("EVP_PKEY_check", number, pointer)
        self._check_free = call("EVP_PKEY_CTX_free", None, pointer)
        self._digest_new = call("EVP_MD_CTX_new", pointer)
        self._digest_free = call("EVP_MD_CTX_free", None, pointer)
        self._sha256 = call("EVP_sha256", pointer)
        self._sign_init = call("EVP_DigestSignInit", number, *[pointer] * 5)
        self._sign = call("EVP_DigestSign", number, pointer, text, pointer, text, size)
        self._clear_errors = call("ERR_clear_error", None)
        self.free_key = call("EVP_PKEY_free", None, pointer)

    def open_pkcs8(self, der: bytes) -> int | None:
        """Open a key whose two halves agree; None if they do not."""
        start = self._ctypes.c_char_p(der)
        handle = self._from_der(None, self._ctypes.byref(start), len(der))
        if not handle:
            self._clear_errors()
            return None
        context = self._check_new(handle, None)
        agrees = self._check(context)
        self._check_free(context)
        if agrees != 1:
            self._clear_errors()
            self.free_key(handle)
            return None
        return handle

    def open_ed25519(self, seed: bytes) -> int | None:
        return self._from_raw(self._ED25519, None, seed, len(seed)) or None

    def ed25519_public(self, handle: int) -> bytes:
        out = self._ctypes.create_string_buffer(32)
        length = self._ctypes.c_size_t(32)
        if self._raw_public(handle, out, self._ctypes.byref(length)) != 1:
            raise bug("libcrypto gives no public key for an Ed25519 key")
        return out.raw

    def sign(self, handle: int, message: bytes, *, with_sha256: bool) -> bytes:
        out = self._ctypes.create_string_buffer(self._MOST_SIGNATURE_BYTES)
        length = self._ctypes.c_size_t(self._MOST_SIGNATURE_BYTES)
        digest = self._sha256() if with_sha256 else None
        context = self._digest_new()
        try:
            if (
                self._sign_init(context, None, digest, None, handle) != 1
                or self._sign(context, out, self._ctypes.byref(length), message, len(message)) != 1
            ):
                self._clear_errors()
                raise SigningKeyError("libcrypto would not sign with this key")
        finally:
            self._digest_free(context)
        return out.raw[: length.value]


def with_low_s(signature: bytes) -> bytes:
    r, s = ecdsa_pair(signature)
    return _ecdsa_der(r, min(s, _P256_ORDER - s))


def require_one_spelling(signature: bytes) -> None:
    """Check that an ECDSA signature is minimal DER and has the smaller s.

    Raises:
        VerificationError: it has another spelling, which is how a copy would be made.
    """
    r, s = ecdsa_pair(signature)
    in_range = 0 < r < _P256_ORDER and 0 < s <= _P256_ORDER // 2
    if not in_range or _ecdsa_der(r, s) != signature:
        raise VerificationError(
            "the ECDSA signature is not in its canonical form",
            expected="minimal DER with the smaller of the two values of s",
            got=f"{len(signature)} bytes",
        )


def ecdsa_pair(signature: bytes) -> tuple[int, int]:
    """Take r and s from where they would be; encoding them again tells if this was DER."""
    at = 4 + (signature[3] if len(signature) > 3 else 0)
    return int.from_bytes(signature[4:at], "big"), int.from_bytes(signature[at + 2 :], "big")


def _ecdsa_der(r: int, s: int) -> bytes:
    parts = [number.to_bytes(number.bit_length() // 8 + 1, "big") for number in (r, s)]
    body = b"".join(b"\x02%c%b" % (len(part), part) for part in parts)
    return b"\x30%c%b" % (len(body), body)
