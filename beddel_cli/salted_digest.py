"""Digests of a job's own data: plain, or salted so that nobody can try guesses against them.

A salted digest is HMAC-SHA256 with the salt as key over the SHA-256 of the bytes, in lower-case
hex, under its own name in an in-toto DigestSet. Who holds salt and bytes can check it; who holds
one of them learns nothing of the other.

Sources: in-toto attestation spec/v1/digest_set.md ("non-predefined algorithm"); RFC 2104.
"""

from __future__ import annotations

PLAIN, SALTED = "sha256", "saltedSha256"
SALT_BYTES = 32


def digest_set(sha256: str, salt: bytes | None) -> dict[str, str]:
    """Give the DigestSet that stands for bytes whose hex SHA-256 this is."""
    return {PLAIN: sha256} if salt is None else {SALTED: salted(sha256, salt)}


def salted(sha256: str, salt: bytes) -> str:
    """Give the salted digest of bytes whose hex SHA-256 this is."""
    from hmac import digest  # with a salt only: a plain run does not load it

    return digest(salt, bytes.fromhex(sha256), "sha256").hex()


def digest_text(digests: dict[str, str]) -> str:
    """Give a DigestSet for people: `sha256:…` or `saltedSha256:…`."""
    return " ".join(f"{name}:{value}" for name, value in sorted(digests.items()))
