"""RFC 3161 time stamps over a receipt's signature: ask for one, and check one. Needs an extra.

What is stamped is the signature of the key that made the receipt, so the stamp shows that this very
signature existed. `rfc3161-client` does the work; it is installed with `beddel-cli[timestamp]`.

Source: RFC 3161; over which bytes: Sigstore's bundle, RFC3161SignedTimestamp.
"""

from __future__ import annotations

from warnings import catch_warnings

from beddel_cli.errors import BeddelError, UnverifiableError, VerificationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_TOKEN_BYTES = 64 * 1024
MAX_ROOTS_BYTES = 1 << 20
_MOST_CAUSE = 100  # characters of a library's words


class TimestampError(BeddelError):
    """No time stamp was made."""

    code = "timestamp"


def make_query(signature: bytes) -> tuple[bytes, int]:
    """Give a request (DER) for a stamp over a signature, by SHA-256, and the nonce in it.

    Raises:
        UnverifiableError: the extra is not installed.
    """
    library = _library()
    builder = library.TimestampRequestBuilder().data(signature)
    request = builder.hash_algorithm(library.HashAlgorithm.SHA256).build()
    return bytes(request.as_bytes()), int(request.nonce)


def check_reply(reply: bytes, nonce: int | None, signature: bytes) -> None:
    """Check that an authority's answer is a stamp over this signature, and for this request.

    Whether the authority is one to believe is for those who verify: `check_stamp`.

    Args:
        nonce: of the request; None: it was made earlier and is not known any more.

    Raises:
        TimestampError: it refused, or answered something else.
    """
    answer = _decoded(reply, TimestampError)
    _require_granted(answer, TimestampError)
    _require_over(answer, signature, TimestampError)
    if nonce is not None and nonce != answer.tst_info.nonce:
        raise TimestampError("the authority's answer is to another request: its nonce differs")


def check_stamp(token: bytes, roots_pem: bytes, signature: bytes) -> int:
    """Give when a signature existed, in milliseconds, by an authority under one of the roots.

    Raises:
        VerificationError: it is no stamp over this signature by such an authority.
        UnverifiableError: the extra is not installed, or the roots cannot be read.
    """
    library = _library()
    answer = _decoded(token, VerificationError)
    _require_granted(answer, VerificationError)
    _require_over(answer, signature, VerificationError)
    with catch_warnings(action="ignore"):  # of odd certificates, which are judged here
        verifier = library.VerifierBuilder(roots=_roots(roots_pem)).build()
        try:
            _require_certificates(answer)
            verifier.verify_message(answer, signature)
        except (library.VerificationError, *_certificate_errors()) as error:
            raise VerificationError(
                "the time stamp is not one of an authority whose root was given",
                got=str(error).partition("\n")[0][:_MOST_CAUSE],
            ) from error
    return int(answer.tst_info.gen_time.timestamp() * 1000)


def _require_certificates(answer: Any) -> None:
    """Return if no two certificates have one issuer and number.

    The signature does not cover them, and the library takes as the signer's any that has its
    issuer and number: with two, its verdict would differ from one run to the next.

    Raises:
        VerificationError: two have.
    """
    from cryptography import x509

    found = [x509.load_der_x509_certificate(each) for each in answer.signed_data.certificates]
    if len({(each.issuer, each.serial_number) for each in found}) != len(found):
        raise VerificationError("two certificates of the time stamp have one issuer and number")


def _certificate_errors() -> tuple[type[Exception], ...]:
    """Give what reading a certificate raises that is none, or an odd one.

    Source: cryptography, "X.509 Reference": load_der_x509_certificate, Certificate.extensions, and
    NameAttribute, of which a type that does not go with its name is a TypeError.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    odd = (x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
    return (ValueError, TypeError, UnsupportedAlgorithm, *odd)


def _library() -> Any:
    try:
        import rfc3161_client
    except ImportError:
        raise UnverifiableError(
            "time stamps need a package that is not installed",
            hint="pip install 'beddel-cli[timestamp]'",
        ) from None
    return rfc3161_client


def _decoded(data: bytes, error_class: type[BeddelError]) -> Any:
    if len(data) > MAX_TOKEN_BYTES:
        raise error_class(
            "the time stamp is too large", expected=f"at most {MAX_TOKEN_BYTES} bytes"
        )
    try:
        return _library().decode_timestamp_response(data)
    except ValueError as error:
        if "InvalidSetOrdering" in str(error):
            raise error_class(
                "the certificates of the time stamp are not in the order that DER asks for, so it "
                "is not read; an answer with a chain often has this fault",
                hint="one with the signer's certificate alone, as was requested: of an authority "
                "that runs openssl, `ts -reply` without -chain; or ask another",
            ) from error
        raise error_class("this is no RFC 3161 response") from error


def _require_granted(answer: Any, error_class: type[BeddelError]) -> None:
    if answer.status != 0:
        words = " ".join(map(str, answer.status_string))[:200]
        raise error_class(f"the authority did not grant a time stamp: {words}", expected="granted")


def _require_over(answer: Any, signature: bytes, error_class: type[BeddelError]) -> None:
    from hashlib import sha256, sha384, sha512

    try:
        imprint = answer.tst_info.message_imprint
        algorithm, got = imprint.hash_algorithm.dotted_string, bytes(imprint.message)
    except ValueError as error:
        raise error_class("this is no RFC 3161 response") from error
    known = {
        f"2.16.840.1.101.3.4.2.{n}": each for n, each in enumerate((sha256, sha384, sha512), 1)
    }
    if algorithm not in known or known[algorithm](signature).digest() != got:
        raise error_class("the time stamp is over something else than this receipt's signature")


def _roots(pem: bytes) -> list[Any]:
    """Read the roots, and make sure that OpenSSL can, too: the library ends in a panic if not."""
    import ssl

    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    errors: tuple[type[Exception], ...] = (ssl.SSLError, *_certificate_errors())
    try:
        roots = x509.load_pem_x509_certificates(pem)
        every = b"".join(root.public_bytes(Encoding.DER) for root in roots)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=every)
    except errors as error:
        raise UnverifiableError(
            "the roots of time stamps are no PEM certificates", hint="--timestamp-roots PEM"
        ) from error
    return roots
