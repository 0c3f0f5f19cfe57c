"""Digests of a job's own data: plain, or salted so that nobody can try guesses against them.

A salted digest is HMAC-SHA256 with the salt as key over the SHA-256 of the bytes, in lower-case
hex, under its own name in an in-toto DigestSet. Who holds salt and bytes can check it; who holds
one of them learns nothing of the other.

Sources: in-toto attestation spec/v1/digest_set.md ("non-predefined algorithm"); RFC 2104.
"""

from __future__ import annotations

import hashlib

from beddel_cli.errors import UnverifiableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PLAIN, SALTED = "sha256", "saltedSha256"
SALT_BYTES = 32
SALTING = "HMAC-SHA256 with the salt as key, over the SHA-256 of the bytes"


def digest_set(sha256: str, salt: bytes | None) -> dict[str, str]:
    """Give the DigestSet that stands for bytes whose hex SHA-256 this is."""
    return {PLAIN: sha256} if salt is None else {SALTED: salted(sha256, salt)}


def salted(sha256: str, salt: bytes) -> str:
    """Give the salted digest of bytes whose hex SHA-256 this is."""
    from hmac import digest  # with a salt only: a plain run does not load it

    return digest(salt, bytes.fromhex(sha256), "sha256").hex()


def digest_text(digests: dict[str, str]) -> str:
    """Give what counts of a DigestSet: `sha256:…`, or `saltedSha256:…` where it has no other.

    Algorithms unknown here do not count, as the specification has it.
    """
    name = name_of(digests)
    return f"{name}:{digests[name]}"


def name_of(digests: dict[str, str]) -> str:
    """Give the name under which a DigestSet has the digest that counts."""
    return SALTED if SALTED in digests and PLAIN not in digests else PLAIN


def check_salt(salt: bytes | None, said: Any) -> bytes | None:
    """Give the salt that a receipt's digests were made with; None where they are plain.

    Args:
        salt: what the reader gave, None where he gave nothing.
        said: the receipt's member `salt`.

    Raises:
        UnverifiableError: there is none where one is needed, or it is another, or not needed.
    """
    if said is None and salt is None:
        return None
    if said is None:
        raise UnverifiableError(
            "the receipt's digests are not salted", hint="leave --salt-file out"
        )
    if salt is None:
        raise UnverifiableError(
            "the receipt's digests are salted, and only their salt can tell what they stand for",
            hint="--salt-file with the file that --salt made",
        )
    digest = hashlib.sha256(salt).hexdigest()
    if not isinstance(said, dict) or said.get("digest") != {PLAIN: digest}:
        raise UnverifiableError("it is not the salt of this receipt")
    return salt
