"""Signed notes, checkpoints and proofs: published vectors, and every other spelling refused."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beddel_cli.errors import BeddelError, UnverifiableError, VerificationError
from beddel_cli.log.checkpoint import (
    MAX_NOTE_BYTES,
    MAX_PROOF_BYTES,
    Checkpoint,
    Note,
    NoteSignature,
    Proof,
    checkpoint_text,
    ed25519_key_hash,
    make_note,
    make_proof,
    parse_checkpoint,
    parse_note,
    parse_proof,
    raw_public_key,
    verifier_key,
    verify_checkpoint,
    verify_proof,
)
from beddel_cli.log.merkle import EMPTY_ROOT, leaf_hash, node_hash
from beddel_cli.trust.keys import (
    PublicKey,
    SigningKey,
    generate_key,
    load_public_key,
    load_signing_key,
)

# golang.org/x/mod/sumdb/note, the package's own example: key, text and signature.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_SEED = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_TEXT = (
    b"If you think cryptography is the answer to your problem,\n"
    b"then you don't know what your problem is.\n"
)
GO_NOTE = (
    GO_TEXT
    + "\n\N{EM DASH} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1"
    "FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n".encode()
)
# C2SP signed-note v1, "Format": the text has a blank line of its own.
SPEC_NOTE = (
    "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\n"
    "ed \N{LATIN SMALL LETTER E WITH GRAVE} subito sera.\n\n"
    "\N{EM DASH} quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+Ehf"
    "LW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
).encode()
# C2SP tlog-checkpoint v1, its example.
SPEC_CHECKPOINT = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "\N{EM DASH} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4U"
    "RYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
).encode()

ORIGIN = "log.example/one"
ROOT = bytes(range(32))


def new_key(kind: str = "ed25519") -> SigningKey:
    pem = generate_key(kind).decode()  # type: ignore[arg-type]
    return load_signing_key("/nowhere", environment_pem=pem)


KEY, OTHER, P256 = new_key(), new_key(), new_key("p256")


def public(key: SigningKey) -> PublicKey:
    return load_public_key(key.public_pem)


def signature(text: bytes, key: SigningKey = KEY, name: str = ORIGIN) -> NoteSignature:
    return NoteSignature(name, ed25519_key_hash(name, raw_public_key(public(key))), key.sign(text))


def signed(size: int = 5, root: bytes = ROOT, *extra: NoteSignature) -> bytes:
    text = checkpoint_text(ORIGIN, size, root)
    return make_note(text, [signature(text), *extra])


@dataclass(frozen=True)
class GoKey:
    """The public key of Go's example."""

    key_id = "go"
    kind = "ed25519"
    pem = (
        b"-----BEGIN PUBLIC KEY-----\n"
        + base64.b64encode(
            bytes.fromhex("302a300506032b6570032100")
            + base64.b64decode(GO_KEY.rpartition("+c74f20a3+")[2])[1:]
        )
        + b"\n-----END PUBLIC KEY-----\n"
    )


def test_go_example_is_made_and_read() -> None:
    key = load_public_key(GoKey.pem)
    raw = raw_public_key(key)
    assert verifier_key("PeterNeumann", raw) == GO_KEY
    note = parse_note(GO_NOTE)
    assert note.text == GO_TEXT
    (only,) = note.signatures
    assert only.name == "PeterNeumann"
    assert only.key_hash == ed25519_key_hash("PeterNeumann", raw) == bytes.fromhex("c74f20a3")
    key.verify(only.value, note.text)
    with pytest.raises(VerificationError):
        key.verify(only.value, note.text.replace(b"answer", b"Answer"))


def test_our_signature_is_the_published_one() -> None:
    """Ed25519 has one signature for a key and a text."""
    seed = base64.b64decode(GO_SEED)[1:]
    der = bytes.fromhex("302e020100300506032b657004220420") + seed
    pem = "-----BEGIN PRIVATE KEY-----\n" + base64.b64encode(der).decode()
    key = load_signing_key("/nowhere", environment_pem=pem + "\n-----END PRIVATE KEY-----\n")
    assert make_note(GO_TEXT, [signature(GO_TEXT, key, "PeterNeumann")]) == GO_NOTE


def test_text_with_a_blank_line() -> None:
    note = parse_note(SPEC_NOTE)
    assert note.text.decode().count("\n\n") == 1
    assert note.text.endswith(b"sera.\n")
    assert [each.name for each in note.signatures] == ["quasimodo.example/salvatore"]
    assert make_note(note.text, note.signatures) == SPEC_NOTE


def test_published_checkpoint() -> None:
    note = parse_note(SPEC_CHECKPOINT)
    checkpoint = parse_checkpoint(note.text)
    assert checkpoint == Checkpoint(
        "example.com/behind-the-sofa",
        20852163,
        base64.b64decode("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="),
    )
    assert checkpoint_text(checkpoint.origin, checkpoint.size, checkpoint.root) == note.text
    with pytest.raises(UnverifiableError, match="key that was not given"):
        verify_checkpoint(SPEC_CHECKPOINT, [public(KEY)])


def test_own_checkpoint() -> None:
    checkpoint, key_id = verify_checkpoint(signed(), [public(P256), public(OTHER), public(KEY)])
    assert checkpoint == Checkpoint(ORIGIN, 5, ROOT)
    assert key_id == KEY.key_id
    assert verify_checkpoint(signed(0, EMPTY_ROOT), [public(KEY)])[0].size == 0


def test_nothing_to_verify_with() -> None:
    for keys in ([], [public(P256)], [public(OTHER)]):
        with pytest.raises(UnverifiableError):
            verify_checkpoint(signed(), keys)


def test_signature_under_another_name_does_not_count() -> None:
    text = checkpoint_text(ORIGIN, 5, ROOT)
    witness = make_note(text, [signature(text, KEY, "witness.example")])
    with pytest.raises(UnverifiableError):
        verify_checkpoint(witness, [public(KEY)])


def test_a_bad_signature_is_not_outvoted() -> None:
    """A key we know, over other text, beside a good signature."""
    bad = signature(b"something else\n", OTHER)
    with pytest.raises(VerificationError):
        verify_checkpoint(signed(5, ROOT, bad), [public(KEY), public(OTHER)])
    # To whoever does not know that key it is one of many unknown ones.
    assert verify_checkpoint(signed(5, ROOT, bad), [public(KEY)])[1] == KEY.key_id


@pytest.mark.parametrize("at", range(len(signed())))
def test_every_flipped_bit_is_refused(at: int) -> None:
    good = signed()
    changed = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
    with pytest.raises((VerificationError, UnverifiableError)):
        verify_checkpoint(changed, [public(KEY)])


MALFORMED_NOTES = {
    "empty": b"",
    "no signature": GO_TEXT,
    "blank line at the end": GO_TEXT + b"\n",
    "no line end": GO_NOTE[:-1],
    "carriage returns": GO_NOTE.replace(b"\n", b"\r\n"),
    "control character": GO_NOTE.replace(b"answer", b"ans\x1bwer"),
    "null byte": GO_NOTE.replace(b"answer", b"ans\x00wer"),
    "not UTF-8": GO_NOTE.replace(b"answer", b"ans\xffwer"),
    "hyphen for a dash": GO_NOTE.replace("\N{EM DASH}".encode(), b"-"),
    "name with a plus": GO_NOTE.replace(b"PeterNeumann", b"Peter+Neumann"),
    "name with a space": GO_NOTE.replace(b"PeterNeumann", b"Peter Neumann"),
    "name with a no-break space": GO_NOTE.replace(b"PeterNeumann", b"Peter\xc2\xa0Neumann"),
    "no name": GO_NOTE.replace(b" PeterNeumann", b" "),
    "unpadded": GO_NOTE.replace(b"M=\n", b"M\n"),
    "unused bits set": GO_NOTE.replace(b"M=\n", b"N=\n"),
    "white space in base64": GO_NOTE.replace(b"x08g", b"x0 8g"),
    "no bytes after the key": GO_TEXT + "\n\N{EM DASH} PeterNeumann x08gow==\n".encode(),
    "text only a blank line": GO_NOTE[len(GO_TEXT) :],
    "too many": GO_NOTE + GO_NOTE[len(GO_TEXT) + 1 :] * 64,
    "too large": b"x" * MAX_NOTE_BYTES + GO_NOTE,
}


@pytest.mark.parametrize("name", MALFORMED_NOTES)
def test_malformed_note(name: str) -> None:
    with pytest.raises(VerificationError, match="not a note"):
        parse_note(MALFORMED_NOTES[name])


def test_sixteen_signatures_are_read() -> None:
    """As many as a verifier has to accept."""
    note = parse_note(GO_NOTE + GO_NOTE[len(GO_TEXT) + 1 :] * 15)
    assert len(note.signatures) == 16


ROOT_LINE = base64.b64encode(ROOT).decode()
MALFORMED_CHECKPOINTS = {
    "no size": f"{ORIGIN}\n{ROOT_LINE}\n",
    "leading zero": f"{ORIGIN}\n05\n{ROOT_LINE}\n",
    "negative": f"{ORIGIN}\n-5\n{ROOT_LINE}\n",
    "plus": f"{ORIGIN}\n+5\n{ROOT_LINE}\n",
    "space": f"{ORIGIN}\n 5\n{ROOT_LINE}\n",
    "underscore": f"{ORIGIN}\n1_0\n{ROOT_LINE}\n",
    "other digits": f"{ORIGIN}\n\u0665\n{ROOT_LINE}\n",
    "beyond 63 bits": f"{ORIGIN}\n{1 << 63}\n{ROOT_LINE}\n",
    "very long": f"{ORIGIN}\n{'9' * 5000}\n{ROOT_LINE}\n",
    "short root": f"{ORIGIN}\n5\n{base64.b64encode(ROOT[:31]).decode()}\n",
    "long root": f"{ORIGIN}\n5\n{base64.b64encode(ROOT + ROOT).decode()}\n",
    "root in hex": f"{ORIGIN}\n5\n{ROOT.hex()}\n",
    "no origin": f"\n5\n{ROOT_LINE}\n",
    "empty line": f"{ORIGIN}\n5\n{ROOT_LINE}\n\nmore\n",
}


@pytest.mark.parametrize("name", MALFORMED_CHECKPOINTS)
def test_malformed_checkpoint(name: str) -> None:
    with pytest.raises(VerificationError, match="not a checkpoint"):
        parse_checkpoint(MALFORMED_CHECKPOINTS[name].encode())


def test_extension_lines_are_kept_and_signed() -> None:
    text = checkpoint_text(ORIGIN, 5, ROOT) + b"more\n"
    note = make_note(text, [signature(text)])
    assert verify_checkpoint(note, [public(KEY)])[0].extensions == ("more",)


ENTRY = b'{"entry":"x"}'


def proof_of_second() -> tuple[bytes, bytes]:
    """A log of two entries, and the proof of the second."""
    first = leaf_hash(b"first")
    checkpoint = signed(2, node_hash(first, leaf_hash(ENTRY)))
    return make_proof(1, [first], checkpoint, ENTRY), checkpoint


def test_proof_is_made_and_read() -> None:
    data, checkpoint = proof_of_second()
    lines = data.decode().split("\n")
    assert lines[0] == "c2sp.org/tlog-proof@v1"
    assert lines[1] == "extra " + base64.b64encode(ENTRY).decode()
    assert lines[2] == "index 1"
    assert lines[4] == ""
    assert parse_proof(data) == Proof(1, (leaf_hash(b"first"),), checkpoint, ENTRY)
    proven = verify_proof(data, [public(KEY)])
    assert (proven.entry, proven.index, proven.key_id) == (ENTRY, 1, KEY.key_id)
    assert proven.checkpoint.size == 2


def test_proof_of_a_log_of_one() -> None:
    checkpoint = signed(1, leaf_hash(ENTRY))
    data = make_proof(0, [], checkpoint, ENTRY)
    assert b"index 0\n\nlog.example" in data
    assert verify_proof(data, [public(KEY)]).index == 0


def test_proof_without_its_entry_proves_nothing_alone() -> None:
    data, checkpoint = proof_of_second()
    bare = make_proof(1, parse_proof(data).path, checkpoint, None)
    assert parse_proof(bare).extra is None
    with pytest.raises(UnverifiableError, match="does not carry"):
        verify_proof(bare, [public(KEY)])


def test_proof_of_other_things_is_refused() -> None:
    data, checkpoint = proof_of_second()
    first = leaf_hash(b"first")
    for wrong in (
        make_proof(1, [first], checkpoint, ENTRY + b" "),
        make_proof(0, [first], checkpoint, ENTRY),
        make_proof(2, [first], checkpoint, ENTRY),
        make_proof(1, [], checkpoint, ENTRY),
        make_proof(1, [first, first], checkpoint, ENTRY),
        make_proof(1, [leaf_hash(b"other")], checkpoint, ENTRY),
    ):
        with pytest.raises(VerificationError):
            verify_proof(wrong, [public(KEY)])
    with pytest.raises(UnverifiableError):
        verify_proof(data, [public(OTHER)])


@pytest.mark.parametrize("at", range(len(proof_of_second()[0])))
def test_every_flipped_bit_of_a_proof_is_refused(at: int) -> None:
    good = proof_of_second()[0]
    changed = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
    with pytest.raises((VerificationError, UnverifiableError)):
        verify_proof(changed, [public(KEY)])


GOOD_PROOF = proof_of_second()[0]
MALFORMED_PROOFS = {
    "empty": b"",
    "another version": GOOD_PROOF.replace(b"@v1", b"@v2"),
    "carriage returns": GOOD_PROOF.replace(b"\n", b"\r\n"),
    "no blank line": GOOD_PROOF.partition(b"\n\n")[0],
    "no index": GOOD_PROOF.replace(b"index 1\n", b""),
    "index with zero": GOOD_PROOF.replace(b"index 1", b"index 01"),
    "two extras": GOOD_PROOF.replace(b"extra ", b"extra AAAA\nextra "),
    "extra after index": GOOD_PROOF.replace(b"index 1\n", b"index 1\nextra AAAA\n"),
    "short hash": GOOD_PROOF.replace(b"index 1\n", b"index 1\nAAAA\n"),
    "not ASCII": GOOD_PROOF.replace(b"index 1", "index \u0661".encode()),
    "endless": GOOD_PROOF.replace(b"index 1\n", b"index 1\n" + (ROOT_LINE + "\n").encode() * 64),
    "too large": GOOD_PROOF + b"x" * MAX_PROOF_BYTES,
}


@pytest.mark.parametrize("name", MALFORMED_PROOFS)
def test_malformed_proof(name: str) -> None:
    with pytest.raises(VerificationError, match="not a proof"):
        parse_proof(MALFORMED_PROOFS[name])


@given(st.binary(max_size=400))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    for parse in (parse_note, parse_proof):
        try:
            parse(data)
        except BeddelError:
            continue


@given(st.text(max_size=80).map(lambda text: (text + "\n\n").encode("utf-8", "replace")))
def test_a_note_that_parses_has_one_spelling(text: bytes) -> None:
    data = text + GO_NOTE[len(GO_TEXT) + 1 :]
    try:
        note = parse_note(data)
    except VerificationError:
        return
    assert make_note(note.text, note.signatures) == data
    assert isinstance(note, Note)
