"""The texts a log gives away: signed notes, checkpoints, and proofs that an entry is in it. Pure.

A checkpoint says of a log (its origin) how many entries it has and the root over them, and is
signed by the log's key: whoever keeps one can later tell whether the log still begins that way. A
`.tlog-proof` is a checkpoint, an index and the path between them: believed without the log.

Each text has one spelling: canonical base64, decimal numbers without leading zeroes, no carriage
returns. A signature is judged before what it signs is used.

Source: C2SP signed-note v1, tlog-checkpoint v1, tlog-proof v1.
"""

from __future__ import annotations

import binascii
from hashlib import sha256

from beddel_cli.errors import UnverifiableError, VerificationError, bug
from beddel_cli.log.merkle import HASH_BYTES, MOST_LEAVES, leaf_hash, verify_inclusion
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Protocol

    class VerifyingKey(Protocol):
        """A public key, such as `keys.PublicKey`."""

        @property
        def key_id(self) -> str: ...
        @property
        def kind(self) -> str: ...
        @property
        def pem(self) -> bytes: ...
        def verify(self, signature: bytes, message: bytes) -> None: ...
        def opened(self) -> Callable[[bytes, bytes], None]: ...


# Of an Ed25519 signature with its key's hash in front.
SIGNATURE_BYTES = 68
MAX_NOTE_BYTES = 256 * 1024
MAX_PROOF_BYTES = 1024 * 1024
PROOF_HEADER = "c2sp.org/tlog-proof@v1"

_MOST_SIGNATURES = 64
_MOST_STEPS = 64
_ED25519_TYPE = b"\x01"
_KEY_HASH_BYTES = 4
_DASH = "\N{EM DASH} "


@record
class NoteSignature:
    """One signature of a note: who claims to have made it, with which key, and its bytes.

    Attributes:
        key_hash: four bytes that say which key of that name to try; they prove nothing.
    """

    name: str
    key_hash: bytes
    value: bytes


@record
class Note:
    """A parsed note: well formed, nothing about it verified.

    Attributes:
        text: the signed bytes, with their last line end.
    """

    text: bytes
    signatures: tuple[NoteSignature, ...]


@record
class Checkpoint:
    """What a checkpoint says.

    Attributes:
        extensions: further lines, which nothing here gives a meaning.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()


@record
class Proof:
    """A parsed `.tlog-proof`: well formed, nothing about it verified.

    Attributes:
        extra: unsigned bytes beside the proof; ours are the entry itself.
        checkpoint: the signed note, as it stands in the file.
    """

    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None


@record
class ProvenEntry:
    """An entry that was proved to be in a log.

    Attributes:
        key_id: of the key that signed the checkpoint, as `keys` writes it.
    """

    entry: bytes
    index: int
    checkpoint: Checkpoint
    key_id: str


def checkpoint_text(origin: str, size: int, root: bytes) -> bytes:
    """Give the text of a checkpoint, which is what the log's key signs."""
    return f"{origin}\n{size}\n{_base64(root)}\n".encode()


def make_note(text: bytes, signatures: Iterable[NoteSignature]) -> bytes:
    """Put a text and its signatures together."""
    lines = [
        f"{_DASH}{each.name} {_base64(each.key_hash + each.value)}\n".encode()
        for each in signatures
    ]
    return b"".join((text, b"\n", *lines))


def make_proof(index: int, path: Sequence[bytes], checkpoint: bytes, extra: bytes | None) -> bytes:
    """Give a `.tlog-proof`: the way from one entry to a signed checkpoint."""
    lines = [PROOF_HEADER]
    if extra is not None:
        lines.append(f"extra {_base64(extra)}")
    lines.append(f"index {index}")
    lines.extend(_base64(step) for step in path)
    return "\n".join([*lines, "", ""]).encode() + checkpoint


def ed25519_key_hash(name: str, public: bytes) -> bytes:
    """Give the four bytes by which a note names an Ed25519 key.

    Args:
        public: the 32 bytes of the public key.
    """
    return sha256(name.encode() + b"\n" + _ED25519_TYPE + public).digest()[:_KEY_HASH_BYTES]


def verifier_key(name: str, public: bytes) -> str:
    """Give an Ed25519 key in the one-line form that other tools for signed notes read.

    Source: golang.org/x/mod/sumdb/note, "NewVerifier".
    """
    key_hash = ed25519_key_hash(name, public)
    return f"{name}+{key_hash.hex()}+{_base64(_ED25519_TYPE + public)}"


def parse_note(data: bytes) -> Note:
    """Take text and signatures apart.

    Raises:
        VerificationError: it is not a signed note.
    """
    if len(data) > MAX_NOTE_BYTES:
        raise _malformed("note", f"larger than {MAX_NOTE_BYTES} bytes")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError:
        raise _malformed("note", "not valid UTF-8") from None
    if any(character < " " and character != "\n" for character in whole):
        raise _malformed("note", "it holds a control character")
    text, separator, signed = whole.rpartition("\n\n")
    if not separator or not text or not signed.endswith("\n"):
        raise _malformed("note", "no blank line between its text and its signatures")
    lines = signed[:-1].split("\n")
    if len(lines) > _MOST_SIGNATURES:
        raise _malformed("note", f"more than {_MOST_SIGNATURES} signatures")
    return Note((text + "\n").encode(), tuple(_parse_signature(line) for line in lines))


def parse_checkpoint(text: bytes) -> Checkpoint:
    """Read the text of a note as a checkpoint.

    Raises:
        VerificationError: it is not one.
    """
    lines = text.decode("utf-8").split("\n")
    if len(lines) < 4 or lines[-1] != "" or not all(lines[:-1]):
        raise _malformed("checkpoint", "expected origin, size and root, each on its line")
    origin, size, root, *extensions = lines[:-1]
    digest = _unbase64(root, "checkpoint")
    if len(digest) != HASH_BYTES:
        raise _malformed("checkpoint", f"a root of {len(digest)} bytes")
    return Checkpoint(origin, _number(size, "checkpoint"), digest, tuple(extensions))


def verify_checkpoint(data: bytes, keys: Iterable[VerifyingKey]) -> tuple[Checkpoint, str]:
    """Give what a checkpoint says and the id of the key that signed it.

    The log signs under its own origin; a signature under another name is a witness's and is not
    judged here.

    Raises:
        VerificationError: it is no checkpoint, or a signature that claims to be by one of the
            keys is not.
        UnverifiableError: there is no Ed25519 key, or none of them signed it.
    """
    note = parse_note(data)
    checkpoint = parse_checkpoint(note.text)
    candidates = [key for key in keys if key.kind == "ed25519"]
    if not candidates:
        raise UnverifiableError(
            "there is no public key of a log to verify with, so nothing was verified",
            expected="an Ed25519 public key",
        )
    signer = None
    for key in candidates:
        key_hash = ed25519_key_hash(checkpoint.origin, raw_public_key(key))
        for signature in note.signatures:
            if signature.name == checkpoint.origin and signature.key_hash == key_hash:
                key.verify(signature.value, note.text)
                signer = key
    if signer is None:
        raise UnverifiableError(
            f"the checkpoint of log {checkpoint.origin!r} is signed by a key that was not given",
            expected=", ".join(sorted(key.key_id for key in candidates)),
        )
    return checkpoint, signer.key_id


def raw_public_key(key: VerifyingKey) -> bytes:
    """Give the 32 bytes of an Ed25519 public key.

    Source: RFC 8410 section 4: they are the end of the SubjectPublicKeyInfo.
    """
    if key.kind != "ed25519":
        raise bug(f"asked for the raw bytes of a {key.kind} key")
    body = b"".join(key.pem.splitlines()[1:-1])
    return binascii.a2b_base64(body)[-32:]


def parse_proof(data: bytes) -> Proof:
    """Take a `.tlog-proof` apart.

    Raises:
        VerificationError: it is not one.
    """
    if len(data) > MAX_PROOF_BYTES:
        raise _malformed("proof", f"larger than {MAX_PROOF_BYTES} bytes")
    head, separator, checkpoint = data.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise _malformed("proof", "not ASCII before its checkpoint") from None
    if lines[0] != PROOF_HEADER:
        raise _malformed("proof", f"its first line is not {PROOF_HEADER!r}")
    if not separator:
        raise _malformed("proof", "no blank line before its checkpoint")
    rest = lines[1:]
    extra = None
    if rest and rest[0].startswith("extra "):
        extra = _unbase64(rest.pop(0).removeprefix("extra "), "proof")
    if not rest or not rest[0].startswith("index "):
        raise _malformed("proof", "no index")
    index = _number(rest.pop(0).removeprefix("index "), "proof")
    if len(rest) > _MOST_STEPS:
        raise _malformed("proof", f"more than {_MOST_STEPS} hashes")
    path = tuple(_unbase64(line, "proof") for line in rest)
    if any(len(step) != HASH_BYTES for step in path):
        raise _malformed("proof", f"a hash that has not {HASH_BYTES} bytes")
    return Proof(index, path, checkpoint, extra)


def verify_proof(data: bytes, keys: Iterable[VerifyingKey]) -> ProvenEntry:
    """Give the entry that a proof of ours carries and proves to be in a log.

    Raises:
        VerificationError: it is no proof, its checkpoint's signature is bad, or the path does not
            lead from the entry to the checkpoint's root.
        UnverifiableError: no given key signed its checkpoint, or it does not carry the entry.
    """
    proof = parse_proof(data)
    checkpoint, key_id = verify_checkpoint(proof.checkpoint, keys)
    if proof.extra is None:
        raise UnverifiableError("the proof does not carry the entry it is about")
    verify_inclusion(
        leaf_hash(proof.extra), proof.index, checkpoint.size, proof.path, checkpoint.root
    )
    return ProvenEntry(proof.extra, proof.index, checkpoint, key_id)


def _parse_signature(line: str) -> NoteSignature:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space or not is_note_name(name):
        raise _malformed("note", "a signature line that is none")
    value = _unbase64(encoded, "note")
    if len(value) <= _KEY_HASH_BYTES:
        raise _malformed("note", "a signature without bytes")
    return NoteSignature(name, value[:_KEY_HASH_BYTES], value[_KEY_HASH_BYTES:])


def is_note_name(name: str) -> bool:
    """Tell whether a key, and so a log, may have this name."""
    return bool(name) and "+" not in name and not any(c.isspace() or c < " " for c in name)


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit()) or (text[0] == "0" and text != "0"):
        raise _malformed(what, f"not a decimal number: {text[:40]!r}")
    if len(text) > 19 or int(text) > MOST_LEAVES:
        raise _malformed(what, f"a number that no log has: {text[:40]}")
    return int(text)


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def _unbase64(text: str, what: str) -> bytes:
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        data = None
    # Strict decoding still lets the unused bits of the last character vary.
    if not data or _base64(data) != text:
        raise _malformed(what, f"not canonical base64: {text[:40]!r}")
    return data


def _malformed(what: str, why: str) -> VerificationError:
    return VerificationError(f"this is not a {what}: {why}")
