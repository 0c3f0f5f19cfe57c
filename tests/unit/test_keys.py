"""Signing keys: made once, kept private, refused when they are anything else."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from beddel_cli.errors import HomeError, SigningKeyError, UnverifiableError, VerificationError
from beddel_cli.trust import keys, signing
from beddel_cli.trust.keys import (
    MAX_KEY_BYTES,
    Passphrases,
    generate_key,
    load_public_key,
    load_signing_key,
    local_public_keys,
    show_key,
)

if TYPE_CHECKING:
    from beddel_cli.trust.signing import Kind

PROJECT = Path(__file__).parents[2]
NOBODY = 65534
KINDS: tuple[Kind, ...] = ("p256", "ed25519")
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's files")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def private(home: Path) -> Path:
    """Where home keeps its private key; one was made."""
    load_signing_key(str(home))
    return home / "keys" / "signing.pem"


def key_file(folder: Path, pem: bytes, mode: int = 0o600) -> str:
    path = folder / "given.pem"
    path.write_bytes(pem)
    path.chmod(mode)
    return str(path)


def pkcs8(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@contextlib.contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("kind", KINDS)
def test_first_use_makes_a_key_and_later_uses_find_it(home: Path, kind: Kind) -> None:
    made = load_signing_key(str(home), kind=kind)
    found = load_signing_key(str(home))
    assert (made.origin, made.created, made.kind) == ("generated", True, kind)
    assert (found.origin, found.created, found.kind) == ("home", False, kind)
    assert found.key_id == made.key_id
    assert found.path == f"{home}/keys/signing.pem"
    assert found.public_path == f"{home}/keys/signing.pub.pem"
    assert Path(found.public_path).read_bytes() == found.public_pem == made.public_pem


@pytest.mark.parametrize("kind", KINDS)
def test_key_id_and_public_key_are_what_others_compute(home: Path, kind: Kind) -> None:
    key = load_signing_key(str(home), kind=kind)
    loaded = serialization.load_pem_private_key((home / "keys/signing.pem").read_bytes(), None)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    der = loaded.public_key().public_bytes(serialization.Encoding.DER, form)
    assert key.key_id == hashlib.sha256(der).hexdigest()
    assert key.public_pem == loaded.public_key().public_bytes(serialization.Encoding.PEM, form)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o777])
def test_files_are_private_whatever_the_umask(home: Path, mask: int) -> None:
    with umask(mask):
        load_signing_key(str(home))
    modes = {path.name: mode_of(path) for path in (home / "keys").iterdir()}
    assert modes == {"signing.pem": 0o600, "signing.pub.pem": 0o644}
    assert mode_of(home) == mode_of(home / "keys") == 0o700


def test_first_runs_at_once_make_one_key_and_all_use_it(home: Path) -> None:
    ready, go = os.pipe()
    answers, tell = os.pipe()
    children = []
    for _ in range(6):
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(ready, 1)  # all wait for the same end of file
            with contextlib.suppress(BaseException):
                key = load_signing_key(str(home))
                os.write(tell, f"{key.key_id} {key.created} {key.origin}\n".encode())
            os._exit(0)
        children.append(child)
    for fd in (ready, go, tell):
        os.close(fd)
    for child in children:
        os.waitpid(child, 0)
    with open(answers) as stream:
        said = [line.split() for line in stream]
    assert len(said) == 6
    assert len({key_id for key_id, *_ in said}) == 1
    assert sorted(rest for _, *rest in said) == [["False", "home"]] * 5 + [["True", "generated"]]
    assert sorted(os.listdir(home / "keys")) == ["signing.pem", "signing.pub.pem"]


@pytest.mark.parametrize("made", ["nothing", "home", "keys"])
def test_required_key_is_not_made(home: Path, made: str) -> None:
    if made != "nothing":
        home.mkdir(mode=0o700)
    if made == "keys":
        (home / "keys").mkdir(mode=0o700)
    before = sorted(home.parent.rglob("*"))
    with pytest.raises(SigningKeyError, match="may not make one") as caught:
        load_signing_key(str(home), require_key=True)
    assert "--signing-key FILE" in str(caught.value.hint)
    assert sorted(home.parent.rglob("*")) == before


def test_required_key_is_used_when_there_is_one(home: Path, private: Path) -> None:
    assert load_signing_key(str(home), require_key=True).path == str(private)


def test_file_goes_before_environment_goes_before_home(home: Path, private: Path) -> None:
    mine = load_signing_key(str(home))
    file = key_file(home.parent, generate_key())
    pem = generate_key().decode()
    from_file = load_signing_key(str(home), file=file, environment_pem=pem)
    from_environment = load_signing_key(str(home), environment_pem=pem)
    assert (from_file.origin, from_file.path, from_file.public_path) == ("file", file, None)
    assert (from_environment.origin, from_environment.path) == ("environment", None)
    assert len({key.key_id for key in (mine, from_file, from_environment)}) == 3
    assert not from_file.created
    assert not from_environment.created


def test_given_keys_leave_home_alone(home: Path) -> None:
    load_signing_key(str(home), file=key_file(home.parent, generate_key()), require_key=True)
    load_signing_key(str(home), environment_pem=generate_key().decode())
    assert not home.exists()


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_line_ends_and_blank_lines_around_do_not_matter(home: Path, ending: str) -> None:
    pem = "\n\n" + generate_key().decode() + "\n"
    key = load_signing_key(str(home), environment_pem=pem.replace("\n", ending))
    assert key.kind == "p256"


@pytest.mark.parametrize("damage", ["missing", "other", "empty"])
def test_public_key_beside_it_is_put_right(home: Path, private: Path, damage: str) -> None:
    public = private.with_name("signing.pub.pem")
    expected = public.read_bytes()
    if damage == "missing":
        public.unlink()
    else:
        public.write_bytes(b"" if damage == "empty" else b"-----BEGIN PUBLIC KEY-----\n")
    load_signing_key(str(home))
    assert public.read_bytes() == expected
    assert mode_of(public) == 0o644


def test_public_key_is_not_written_through_a_link(home: Path, private: Path) -> None:
    public = private.with_name("signing.pub.pem")
    public.unlink()
    public.symlink_to(home / "victim")
    (home / "victim").write_bytes(b"precious")
    with pytest.raises(SigningKeyError, match="is a link"):
        load_signing_key(str(home))
    assert (home / "victim").read_bytes() == b"precious"


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o610])
@pytest.mark.parametrize("where", ["home", "file"])
def test_key_that_others_have_access_to_is_refused(
    home: Path, private: Path, bits: int, where: str
) -> None:
    private.chmod(bits)
    file = str(private) if where == "file" else None
    with pytest.raises(SigningKeyError, match=f"has mode {bits:04o}") as caught:
        load_signing_key(str(home), file=file)
    assert caught.value.hint == f"chmod 600 {private}"
    private.chmod(0o400)
    assert load_signing_key(str(home), file=file).kind == "p256"


@as_root
def test_home_key_of_another_user_is_refused(home: Path, private: Path) -> None:
    os.chown(private, NOBODY, NOBODY)
    with pytest.raises(SigningKeyError, match=f"belongs to user {NOBODY}, expected 0") as caught:
        load_signing_key(str(home))
    assert caught.value.hint == f"sudo chown 0 {private}"


@as_root
def test_home_of_another_user_is_refused(home: Path, private: Path) -> None:
    os.chown(home, NOBODY, NOBODY)
    with pytest.raises(HomeError, match=f"belongs to user {NOBODY}"):
        load_signing_key(str(home))
    with pytest.raises(HomeError, match=f"belongs to user {NOBODY}"):
        local_public_keys(str(home))


def test_home_key_is_not_read_through_a_link_but_a_given_file_is(home: Path, private: Path) -> None:
    real = private.rename(home / "moved.pem")
    private.symlink_to(real)
    with pytest.raises(SigningKeyError, match="is a link"):
        load_signing_key(str(home))
    assert load_signing_key(str(home), file=str(private)).origin == "file"


@pytest.mark.parametrize("where", ["home", "file"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_only_a_regular_file_is_a_key_file(
    home: Path, private: Path, make: Callable[[Path], None], where: str
) -> None:
    private.unlink()
    make(private)
    with pytest.raises(SigningKeyError, match="is not a regular file"):
        load_signing_key(str(home), file=str(private) if where == "file" else None)


def test_missing_key_file(home: Path) -> None:
    with pytest.raises(SigningKeyError, match="does not exist"):
        load_signing_key(str(home), file=f"{home}/none.pem")


def test_reading_stops_at_the_size_of_a_key(home: Path) -> None:
    padded = generate_key().ljust(MAX_KEY_BYTES, b"\n")
    assert load_signing_key(str(home), file=key_file(home.parent, padded)).kind == "p256"
    with pytest.raises(SigningKeyError, match=f"larger than {MAX_KEY_BYTES} bytes"):
        load_signing_key(str(home), file=key_file(home.parent, padded + b"\n"))
    with pytest.raises(SigningKeyError, match="not a regular file"):
        load_signing_key(str(home), file="/dev/zero")


def wrong_point() -> bytes:
    """A P-256 PKCS#8 whose public half is another key's."""
    one, two = (
        serialization.load_pem_private_key(generate_key(), None).private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        for _ in range(2)
    )
    return keys._pem("PRIVATE KEY", one[:74] + two[74:])


def openssh() -> bytes:
    return ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )


def sec1() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def public() -> bytes:
    return load_signing_key("/", environment_pem=generate_key().decode()).public_pem


UNUSABLE: dict[str, tuple[Callable[[], bytes], str]] = {
    "RSA": (lambda: pkcs8(rsa_key()), "kind receipts are not signed with: RSA"),
    "P-384": (
        lambda: pkcs8(ec.generate_private_key(ec.SECP384R1())),
        "kind receipts are not signed with: EC on secp384r1",
    ),
    "secp256k1": (
        lambda: pkcs8(ec.generate_private_key(ec.SECP256K1())),
        "kind receipts are not signed with: EC on secp256k1",
    ),
    "public": (public, "is a public key; signing needs the private one"),
    "SEC 1": (sec1, "is in the older SEC 1 form"),
    "OpenSSH": (openssh, "is in OpenSSH's own form"),
    "empty": (lambda: b"", "holds no PEM block"),
    "binary": (lambda: b"\x30\x81\x87\x00", "is not PEM text"),
    "prose": (lambda: b"secret sauce", "holds no PEM block"),
    "two": (lambda: generate_key() * 2, "holds 2 PEM blocks"),
    "cut": (lambda: generate_key()[:-10], "is cut off"),
    "text around": (lambda: b"mine:\n" + generate_key(), "has text around its PEM block"),
    "not base64": (lambda: generate_key().replace(b"M", b"!", 1), "its PEM is not base64"),
    "not a key": (lambda: keys._pem("PRIVATE KEY", b"0123456789"), "not a key that can be read"),
    "halves differ": (wrong_point, "its private and public parts do not agree"),
}


@pytest.mark.parametrize("name", UNUSABLE)
@pytest.mark.parametrize("where", ["file", "environment", "home"])
def test_what_is_not_a_usable_key_is_named_and_not_shown(home: Path, name: str, where: str) -> None:
    make, message = UNUSABLE[name]
    pem = make()
    if where == "environment":
        call = {"environment_pem": pem.decode("utf-8", "surrogateescape")}
    elif where == "file":
        call = {"file": key_file(home.parent, pem)}
    else:
        (home / "keys").mkdir(mode=0o700, parents=True)
        (home / "keys" / "signing.pem").write_bytes(pem)
        (home / "keys" / "signing.pem").chmod(0o600)
        call = {}
    with pytest.raises(SigningKeyError) as caught:
        load_signing_key(str(home), **call)  # type: ignore[arg-type]
    assert message in caught.value.message
    said = f"{caught.value.message} {caught.value.hint}"
    body = [line for line in pem.decode("latin-1").split("\n") if line and "-----" not in line]
    assert not [line for line in body if line in said and line != "mine:"]


def test_private_half_alone_is_enough(home: Path) -> None:
    scalar = 7**50
    head = bytes.fromhex("3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420")
    pem = keys._pem("PRIVATE KEY", head + scalar.to_bytes(32, "big"))
    key = load_signing_key(str(home), environment_pem=pem.decode())
    numbers = ec.derive_private_key(scalar, ec.SECP256R1()).public_key()
    assert key.public_pem == numbers.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    load_public_key(key.public_pem).verify(key.sign(b"x"), b"x")


@pytest.mark.parametrize("kind", KINDS)
def test_encrypted_key_opens_with_its_passphrase_only(home: Path, kind: Kind) -> None:
    pem = generate_key(kind, "schön und geheim").decode()
    assert "ENCRYPTED" in pem
    key = load_signing_key(
        str(home), environment_pem=pem, passphrases=Passphrases("schön und geheim")
    )
    load_public_key(key.public_pem).verify(key.sign(b"x"), b"x")
    for wrong in ("", "schön", "x\udcff"):
        with pytest.raises(SigningKeyError, match="passphrase does not open") as caught:
            load_signing_key(str(home), environment_pem=pem, passphrases=Passphrases(wrong))
        assert "schön" not in str(caught.value)


def test_passphrase_is_asked_for_only_where_someone_can_answer(home: Path) -> None:
    file = key_file(home.parent, generate_key(passphrase="open sesame"))
    with pytest.raises(SigningKeyError, match="no terminal to ask") as caught:
        load_signing_key(str(home), file=file)
    assert "BEDDEL_KEY_PASSWORD" in str(caught.value.hint)
    asked = []

    def prompt(question: str) -> str:
        asked.append(question)
        return "open sesame"

    load_signing_key(str(home), file=file, passphrases=Passphrases(None, prompt))
    load_signing_key(str(home), file=file, passphrases=Passphrases("open sesame", prompt))
    assert asked == [f"passphrase for key file {file!r}: "]


def test_new_key_is_encrypted_when_there_is_a_passphrase(home: Path) -> None:
    made = load_signing_key(str(home), passphrases=Passphrases("open sesame"))
    assert b"ENCRYPTED" in (home / "keys" / "signing.pem").read_bytes()
    assert load_signing_key(str(home), passphrases=Passphrases("open sesame")).key_id == made.key_id
    with pytest.raises(SigningKeyError, match="is encrypted"):
        load_signing_key(str(home))


def test_empty_passphrase_does_not_make_an_open_key(home: Path) -> None:
    with pytest.raises(SigningKeyError, match="the passphrase is empty"):
        load_signing_key(str(home), passphrases=Passphrases(""))
    assert not (home / "keys" / "signing.pem").exists()


@as_root
def test_full_disk_leaves_no_half_key(home: Path) -> None:
    home.mkdir(mode=0o700)
    code = (
        "import os, sys\n"
        "from beddel_cli.errors import SigningKeyError\n"
        "from beddel_cli.trust.keys import load_signing_key\n"
        "home = sys.argv[1]; os.chmod(home, 0o700); os.mkdir(home + '/keys', 0o700)\n"
        "big = open(home + '/big', 'wb', buffering=0)\n"
        "try:\n"
        "    while True: big.write(bytes(4096))\n"
        "except OSError: pass\n"
        "try: load_signing_key(home)\n"
        "except SigningKeyError as error: print(error.message, os.listdir(home + '/keys'))\n"
    )
    script = 'mount -t tmpfs -o size=64k none "$1" || exit 77; shift; exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "-", home, sys.executable, "-c", code, home],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip(f"cannot mount a disk here: {done.stderr.strip()}")
    assert done.stdout == f"the disk is full: cannot write '{home}/keys/signing.pem' []\n"


def test_private_key_is_in_no_text_about_it(home: Path) -> None:
    key = load_signing_key(str(home))
    assert repr(key) == str(key) == f"SigningKey({key.key_id}, p256, generated)"


@pytest.mark.parametrize("kind", KINDS)
def test_both_signers_sign_what_both_kinds_of_verifier_accept(home: Path, kind: Kind) -> None:
    loaded = serialization.load_pem_private_key(generate_key(kind), None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey)
    slow = signing.CryptographyKey(loaded)
    fast = signing.libcrypto_key(slow.pkcs8(), "here")
    if fast is None:
        pytest.skip("this Python has no libcrypto of its own")
    assert (fast.spki, fast.kind) == (slow.spki, slow.kind)
    for signer in (slow, fast):
        for message in (b"", b"x", b"\0" * 100_000):
            signature = signer.sign(message)
            if isinstance(loaded, ec.EllipticCurvePrivateKey):
                loaded.public_key().verify(signature, message, ec.ECDSA(hashes.SHA256()))
            else:
                loaded.public_key().verify(signature, message)


def test_python_without_libcrypto_signs_too(home: Path, private: Path) -> None:
    code = (
        "import hashlib, sys\n"
        "sys.modules['_hashlib'] = None\n"
        "from beddel_cli.trust.keys import load_signing_key, load_public_key\n"
        "key = load_signing_key(sys.argv[1])\n"
        "load_public_key(key.public_pem).verify(key.sign(b'x'), b'x')\n"
        "print(type(key.private).__name__, key.key_id)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, home],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"CryptographyKey {load_signing_key(str(home)).key_id}\n"


def test_p256_signatures_always_have_the_smaller_s(home: Path) -> None:
    key = load_signing_key(str(home))
    signatures = [key.sign(b"%d" % number) for number in range(64)]
    assert all(signing.ecdsa_pair(signature)[1] <= ORDER // 2 for signature in signatures)
    for number, signature in enumerate(signatures):
        load_public_key(key.public_pem).verify(signature, b"%d" % number)


@pytest.mark.parametrize("kind", KINDS)
def test_signature_of_another_message_or_key_is_bad(home: Path, kind: Kind) -> None:
    key = load_signing_key(str(home), kind=kind)
    other = load_signing_key(str(home), environment_pem=generate_key(kind).decode())
    public_key = load_public_key(key.public_pem)
    public_key.verify(key.sign(b"x"), b"x")
    for signature in (key.sign(b"y"), other.sign(b"x"), b"", b"\x30", key.sign(b"x") + b"\0"):
        with pytest.raises(VerificationError):
            public_key.verify(signature, b"x")


def test_local_public_keys(home: Path) -> None:
    assert local_public_keys(str(home)) == ()
    assert not home.exists()
    key = load_signing_key(str(home))
    (found,) = local_public_keys(str(home))
    assert (found.key_id, found.kind, found.pem) == (key.key_id, key.kind, key.public_pem)


def test_public_key_others_may_change_is_not_trusted(home: Path, private: Path) -> None:
    private.with_name("signing.pub.pem").chmod(0o646)
    with pytest.raises(SigningKeyError, match="has mode 0646") as caught:
        local_public_keys(str(home))
    assert str(caught.value.hint).startswith("chmod 644 ")


def test_show_key(home: Path) -> None:
    with pytest.raises(SigningKeyError, match="there is no signing key"):
        show_key(str(home))
    assert not home.exists()
    key = load_signing_key(str(home), kind="ed25519")
    shown = show_key(str(home))
    assert (shown.key_id, shown.kind, shown.origin) == (key.key_id, "ed25519", "home")
    assert (shown.path, shown.public_path) == (key.path, key.public_path)
    assert (shown.encrypted, shown.public_pem) == (False, key.public_pem)


def test_show_key_needs_no_passphrase_but_then_the_public_file(home: Path) -> None:
    key = load_signing_key(str(home), passphrases=Passphrases("open sesame"))
    shown = show_key(str(home))
    assert (shown.key_id, shown.encrypted) == (key.key_id, True)
    (home / "keys" / "signing.pub.pem").unlink()
    with pytest.raises(SigningKeyError, match=r"public key 'signing\.pub\.pem' is not beside it"):
        show_key(str(home))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (generate_key, "'a.pem' is no public key"),
        (lambda: b"junk", "'a.pem' holds no PEM block"),
        (lambda: keys._pem("PUBLIC KEY", b"0123456789"), "does not parse"),
        (
            lambda: (
                rsa_key()
                .public_key()
                .public_bytes(
                    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
                )
            ),
            "of a kind that is not used",
        ),
        (
            lambda: keys._pem(
                "PUBLIC KEY", signing._SPKI_HEADS["p256"] + b"\1" * 64
            ),  # not a point of the curve
            "does not parse",
        ),
    ],
)
def test_what_is_not_a_public_key_of_ours(make: Callable[[], bytes], message: str) -> None:
    with pytest.raises(UnverifiableError, match=message) as caught:
        load_public_key(make(), "'a.pem'")
    # Whoever verifies has no use for a way to make a private key, nor for a parser's own words.
    assert "genpkey" not in (caught.value.hint or "")
    assert "ASN.1" not in caught.value.message


def test_hot_path_imports_nothing_dear(home: Path, private: Path) -> None:
    dear = ["base64", "cryptography", "dataclasses", "enum", "json", "pathlib", "re"]
    dear += ["subprocess", "tempfile", "typing"]
    code = (
        "import sys; before = set(sys.modules)\n"
        "import beddel_cli.trust.dsse, beddel_cli.trust.verify\n"
        "from beddel_cli.home import locate\n"
        "from beddel_cli.trust.keys import load_signing_key\n"
        "locate({'BEDDEL_HOME': sys.argv[1], 'BEDDEL_CACHE_DIR': '/c'})\n"
        "key = load_signing_key(sys.argv[1]); key.sign(b'x')\n"
        f"print(key.origin, sorted((set(sys.modules) - before) & set({dear!r})))\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            f"import sys; sys.path.insert(0, {str(PROJECT)!r})\n" + code,
            home,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "home []\n"
