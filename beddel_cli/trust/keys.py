"""Signing keys: where they come from, what their files must look like, who may read them."""

from __future__ import annotations

import binascii
import errno
import hashlib
import os
import stat

from beddel_cli.errors import (
    SigningKeyError,
    UnverifiableError,
    VerificationError,
    WrongPassphraseError,
    bug,
)
from beddel_cli.home import (
    NoFolderError,
    create_once,
    explain_write,
    open_folder,
    replace,
    shell_word,
)
from beddel_cli.record import record
from beddel_cli.trust.signing import (
    cryptography_key,
    kind_name,
    libcrypto_key,
    passphrase_bytes,
    require_one_spelling,
    spki_kind,
    with_low_s,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from beddel_cli.home import Folder
    from beddel_cli.trust.signing import CryptographyKey, Kind, LibcryptoKey

    Origin = Literal["generated", "home", "file", "environment"]

PRIVATE_NAME = "signing.pem"
PUBLIC_NAME = "signing.pub.pem"
LOG_PRIVATE_NAME = "log.pem"
LOG_PUBLIC_NAME = "log.pub.pem"
MAX_KEY_BYTES = 64 * 1024

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@record
class SigningKey:
    """A private key that can sign, and what may be said about it.

    Attributes:
        key_id: hex SHA-256 of the public key's SPKI DER.
        origin: `generated` by this very call, from `home`, from a `file`, from the `environment`.
        created: made by this call.
        path, public_path: its files, None for a key that has none.
    """

    key_id: str
    kind: Kind
    public_pem: bytes
    origin: Origin
    created: bool
    path: str | None
    public_path: str | None
    private: LibcryptoKey | CryptographyKey

    def sign(self, message: bytes) -> bytes:
        """Give the signature: DER with the smaller s for P-256, 64 raw bytes for Ed25519.

        Source: FIPS 186-5 section 6 with SHA-256; RFC 8032 section 5.1.
        """
        signature = self.private.sign(message)
        return with_low_s(signature) if self.kind == "p256" else signature

    @property
    def public_raw(self) -> bytes:
        """The 32 bytes of an Ed25519 public key."""
        return self.private.spki[-32:]

    def __repr__(self) -> str:
        return f"SigningKey({self.key_id}, {self.kind}, {self.origin})"


@record
class PublicKey:
    """A public key that receipts may be verified with."""

    key_id: str
    kind: Kind
    pem: bytes

    def verify(self, signature: bytes, message: bytes) -> None:
        """Return if this key made this very signature of the message.

        Raises:
            VerificationError: it did not, or the signature is not in its one accepted spelling.
        """
        self.opened()(signature, message)

    def opened(self) -> Callable[[bytes, bytes], None]:
        """Give what `verify` does, of a key that is parsed once: for many signatures."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519

        key = serialization.load_pem_public_key(self.pem)
        if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
            raise bug(f"a public key of kind {type(key).__name__}")

        def verify(signature: bytes, message: bytes) -> None:
            try:
                if isinstance(key, ec.EllipticCurvePublicKey):
                    require_one_spelling(signature)
                    key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
                else:
                    key.verify(signature, message)
            except InvalidSignature as error:
                raise VerificationError(
                    f"the signature is not by key {self.key_id} over these bytes"
                ) from error

        return verify


@record
class KeyInfo:
    """What may be shown about the key in a home folder."""

    key_id: str
    kind: Kind
    origin: Origin
    encrypted: bool
    path: str
    public_path: str
    public_pem: bytes


def generate_key(kind: Kind = "p256", passphrase: str | None = None) -> bytes:
    """Make a new private key, as PKCS#8 PEM, encrypted if a passphrase is given.

    Raises:
        SigningKeyError: the passphrase is empty.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    if passphrase == "":
        raise SigningKeyError("the passphrase is empty")
    key: EllipticCurvePrivateKey | Ed25519PrivateKey
    if kind == "p256":
        key = ec.generate_private_key(ec.SECP256R1())
    elif kind == "ed25519":
        key = ed25519.Ed25519PrivateKey.generate()
    else:
        raise bug(f"asked for a key of kind {kind!r}")
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase_bytes(passphrase))
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


class Passphrases:
    """What opens encrypted keys: a passphrase that was given, then answers of a person.

    An answer that opened one key is tried on the next, so keys of one passphrase take one question.

    Attributes:
        known: those that were given or have opened something.
    """

    def __init__(
        self, given: str | None = None, prompt: Callable[[str], str] | None = None
    ) -> None:
        """Take what BEDDEL_KEY_PASSWORD or its file held, and who asks; None for nobody."""
        self.known = [] if given is None else [given]
        self._prompt = prompt

    def open(self, der: bytes, where: str) -> LibcryptoKey | CryptographyKey:
        """Open an encrypted key with one of them.

        Raises:
            SigningKeyError: none does; what it says is of the last that was tried.
        """
        wrong = None
        for known in self.known:
            try:
                return cryptography_key(der, known, where)
            except WrongPassphraseError as error:
                wrong = error
        if self._prompt is None:
            raise wrong or SigningKeyError(
                f"{where} is encrypted, and there is no terminal to ask for its passphrase",
                hint="put the passphrase into BEDDEL_KEY_PASSWORD, or the name of a file that "
                "holds it into BEDDEL_KEY_PASSWORD_FILE",
            )
        answer = self._prompt(f"passphrase for {where}: ")
        opened = cryptography_key(der, answer, where)
        self.known.append(answer)
        return opened


def load_signing_key(
    home: str,
    *,
    file: str | None = None,
    environment_pem: str | None = None,
    passphrases: Passphrases | None = None,
    require_key: bool = False,
    kind: Kind = "p256",
) -> SigningKey:
    """Give the key to sign with: the file's, else the environment's, else home's, else a new one.

    A new key is written whole, once even if several first runs race: they all use the one that was
    first. It is encrypted if a passphrase is given. The public key beside it is put right if it is
    missing or not this key's.

    Args:
        environment_pem: what BEDDEL_SIGNING_KEY held, already out of the environment.
        passphrases: what opens an encrypted one; the first of them encrypts a new one.
        require_key: refuse rather than make a key (or a home to put it in).
        kind: of the key to make.

    Raises:
        SigningKeyError: no key, or not one to be used: each message says what and why.
        HomeError: the home folder is not safe to use.
    """
    passphrases = passphrases or Passphrases()
    if file is not None:
        pem = _read_named_file(file)
        return _open_key(pem, f"key file {file!r}", "file", passphrases, path=file)
    if environment_pem is not None:
        pem = environment_pem.encode("utf-8", "surrogateescape")
        return _open_key(pem, "the key in BEDDEL_SIGNING_KEY", "environment", passphrases)
    try:
        with (
            open_folder(home, create=not require_key) as folder,
            folder.child("keys", create=not require_key) as keys,
        ):
            return _home_key(keys, passphrases, require_key=require_key, kind=kind)
    except NoFolderError:
        raise _no_key(home) from None


def load_log_key(
    home: str, passphrases: Passphrases | None = None, *, encrypted: bool = True
) -> SigningKey:
    """Give the key that signs the checkpoints of this home's logs, made if there is none.

    Args:
        encrypted: whether a passphrase that is known encrypts a new key. Not where it came with a
            key from elsewhere: the next run may come without it.

    Raises:
        SigningKeyError: it is not one to be used.
        HomeError: the home folder is not safe to use.
    """
    names = (LOG_PRIVATE_NAME, LOG_PUBLIC_NAME)
    with open_folder(home) as folder, folder.child("keys") as keys:
        key = _home_key(
            keys,
            passphrases or Passphrases(),
            require_key=False,
            kind="ed25519",
            names=names,
            encrypted=encrypted,
        )
    if key.kind != "ed25519":
        raise SigningKeyError(
            f"{key.path!r} is of a kind that checkpoints are not signed with",
            expected="Ed25519",
            got=key.kind,
        )
    return key


def show_key(home: str) -> KeyInfo:
    """Say which key a home folder holds. Asks for no passphrase.

    Raises:
        SigningKeyError: there is none, or its public key is missing and it is encrypted.
        HomeError: the home folder is not safe to use.
    """
    try:
        with (
            open_folder(home, create=False) as folder,
            folder.child("keys", create=False) as keys,
        ):
            path = os.path.join(keys.path, PRIVATE_NAME)
            pem = _read_home_file(keys, PRIVATE_NAME, secret=True)
            if pem is None:
                raise _no_key_yet(home)
            label, _ = _one_block(pem, f"key file {path!r}")
            encrypted = label == "ENCRYPTED PRIVATE KEY"
            if encrypted:
                public = _home_public_key(keys)
            else:
                public = load_public_key(
                    _home_key(keys, Passphrases(), require_key=True).public_pem
                )
    except NoFolderError:
        raise _no_key_yet(home) from None
    if public is None:
        raise SigningKeyError(
            f"{path!r} is encrypted and its public key {PUBLIC_NAME!r} is not beside it",
            hint=f"openssl pkey -in {shell_word(path)} -pubout "
            f"-out {shell_word(os.path.join(keys.path, PUBLIC_NAME))}",
        )
    public_path = os.path.join(keys.path, PUBLIC_NAME)
    return KeyInfo(public.key_id, public.kind, "home", encrypted, path, public_path, public.pem)


def local_log_keys(home: str) -> tuple[PublicKey, ...]:
    """Give the public keys this user's own logs verify with: none if no key was made yet.

    Raises:
        HomeError, SigningKeyError, UnverifiableError: as for `local_public_keys`.
    """
    return _local_keys(home, LOG_PUBLIC_NAME)


def local_public_keys(home: str) -> tuple[PublicKey, ...]:
    """Give the public keys this user's own receipts verify with: none if no key was made yet.

    Raises:
        HomeError: the home folder is not safe to use.
        SigningKeyError: the public key's file is not safe to use.
        UnverifiableError: it holds something else.
    """
    return _local_keys(home, PUBLIC_NAME)


def _local_keys(home: str, name: str) -> tuple[PublicKey, ...]:
    try:
        with (
            open_folder(home, create=False) as folder,
            folder.child("keys", create=False) as keys,
        ):
            public = _home_public_key(keys, name)
    except NoFolderError:
        return ()
    return () if public is None else (public,)


def load_public_key(pem: bytes, where: str = "it") -> PublicKey:
    """Read a SubjectPublicKeyInfo PEM that holds a P-256 or Ed25519 key.

    Args:
        where: what it is called in messages.

    Raises:
        UnverifiableError: it holds anything else.

    Source: RFC 7468 section 13; RFC 5480; RFC 8410.
    """
    try:
        label, der = _one_block(pem, where, _PUBLIC_HINT)
    except SigningKeyError as error:
        raise UnverifiableError(error.message, hint=error.hint) from error
    if label != "PUBLIC KEY":
        hint = "keep that one secret; give the .pub.pem beside it" if "PRIVATE" in label else None
        raise UnverifiableError(
            f"{where} is no public key",
            hint=hint,
            expected='PEM "PUBLIC KEY"',
            got=f'PEM "{label}"',
        )
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnverifiableError(
            f"{where} does not parse: its PEM holds no key of a kind known here"
        ) from error
    kind = spki_kind(der)
    if kind is None:
        raise UnverifiableError(
            f"{where} is of a kind that is not used for receipts",
            expected="P-256 (uncompressed) or Ed25519",
            got=kind_name(key),
        )
    return PublicKey(_key_id(der), kind, _pem("PUBLIC KEY", der))


def _home_key(
    keys: Folder,
    passphrases: Passphrases,
    *,
    require_key: bool,
    kind: Kind = "p256",
    names: tuple[str, str] = (PRIVATE_NAME, PUBLIC_NAME),
    encrypted: bool = True,
) -> SigningKey:
    private_name, public_name = names
    path = os.path.join(keys.path, private_name)
    pem = _read_home_file(keys, private_name, secret=True)
    created = False
    if pem is None:
        if require_key:
            raise _no_key(os.path.dirname(keys.path))
        made = generate_key(kind, passphrases.known[0] if passphrases.known and encrypted else None)
        try:
            created = create_once(keys.fd, private_name, made, 0o600)
        except OSError as error:
            raise _cannot_write(path, error) from error
        # Whoever was first, the key in use is the one on disk.
        pem = _read_home_file(keys, private_name, secret=True)
        if pem is None:
            raise SigningKeyError(f"{path!r} was removed right after it was made")
    public_path = os.path.join(keys.path, public_name)
    key = _open_key(
        pem,
        f"key file {path!r}",
        "generated" if created else "home",
        passphrases,
        path=path,
        public_path=public_path,
    )
    if _read_home_file(keys, public_name, secret=False) != key.public_pem:
        _put_right(keys, names, pem, key.public_pem)
    return key


def _put_right(keys: Folder, names: tuple[str, str], pem: bytes, public_pem: bytes) -> None:
    """Write the public key of a private one, unless that was rotated away since it was read."""
    import fcntl

    private_name, public_name = names
    try:
        # Until the folder is closed; who rotates holds it too.
        fcntl.flock(keys.fd, fcntl.LOCK_EX)
        if _read_home_file(keys, private_name, secret=True) == pem:
            replace(keys.fd, public_name, public_pem, 0o644)
    except OSError as error:
        raise _cannot_write(os.path.join(keys.path, public_name), error) from error


def _home_public_key(keys: Folder, name: str = PUBLIC_NAME) -> PublicKey | None:
    pem = _read_home_file(keys, name, secret=False)
    return None if pem is None else load_public_key(pem, repr(os.path.join(keys.path, name)))


def _read_home_file(keys: Folder, name: str, *, secret: bool) -> bytes | None:
    """Read a key of ours, None if it is not there. Only a file we own, and through no link."""
    path = os.path.join(keys.path, name)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=keys.fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _cannot_read(path, error) from error
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid():
            raise SigningKeyError(
                f"key file {path!r} belongs to user {status.st_uid}, expected {os.geteuid()}",
                hint=f"sudo chown {os.geteuid()} {shell_word(path)}",
            )
        bad_bits = _OTHERS if secret else stat.S_IWGRP | stat.S_IWOTH
        return _read_checked(fd, status, path, bad_bits, "600" if secret else "644")
    finally:
        os.close(fd)


def _read_named_file(path: str) -> bytes:
    """Read a key file a person named: links are theirs to make, its mode is not."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _cannot_read(path, error) from error
    try:
        return _read_checked(fd, os.fstat(fd), path, _OTHERS, "600")
    finally:
        os.close(fd)


def _read_checked(fd: int, status: os.stat_result, path: str, bad_bits: int, mode: str) -> bytes:
    if not stat.S_ISREG(status.st_mode):
        raise SigningKeyError(
            f"{path!r} is not a regular file",
            hint="a key that is not in a file can be passed in BEDDEL_SIGNING_KEY",
        )
    if status.st_mode & bad_bits:
        raise SigningKeyError(
            f"key file {path!r} has mode {stat.S_IMODE(status.st_mode):04o}: "
            "others have access to it",
            hint=f"chmod {mode} {shell_word(path)}",
        )
    data = b""
    while chunk := os.read(fd, MAX_KEY_BYTES + 1 - len(data)):
        data += chunk
        if len(data) > MAX_KEY_BYTES:
            raise SigningKeyError(f"{path!r} is larger than {MAX_KEY_BYTES} bytes: not a key file")
    return data


def _open_key(
    pem: bytes,
    where: str,
    origin: Origin,
    passphrases: Passphrases,
    *,
    path: str | None = None,
    public_path: str | None = None,
) -> SigningKey:
    label, der = _one_block(pem, where)
    if label == "PRIVATE KEY":
        private = libcrypto_key(der, where) or cryptography_key(der, None, where)
    elif label == "ENCRYPTED PRIVATE KEY":
        private = passphrases.open(der, where)
    else:
        raise _wrong_label(label, where)
    return SigningKey(
        key_id=_key_id(private.spki),
        kind=private.kind,
        public_pem=_pem("PUBLIC KEY", private.spki),
        origin=origin,
        created=origin == "generated",
        path=path,
        public_path=public_path,
        private=private,
    )


_PRIVATE_HINT = (
    "expected PKCS#8 PEM: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"
)
_PUBLIC_HINT = "the signer's public key, as `beddel-cli keys export --out PUB.pem` writes it"


def _one_block(pem: bytes, where: str, hint: str = _PRIVATE_HINT) -> tuple[str, bytes]:
    """Read text that is one PEM block and nothing else. Never echoes what it read.

    Source: RFC 7468 sections 2 and 3.
    """
    try:
        lines = [line.strip() for line in pem.decode("ascii").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise SigningKeyError(f"{where} is not PEM text", hint=hint) from None
    labels = [line[11:-5] for line in lines if line.startswith("-----BEGIN ")]
    if not labels:
        raise SigningKeyError(f"{where} holds no PEM block", hint=hint)
    if len(labels) > 1:
        raise SigningKeyError(f"{where} holds {len(labels)} PEM blocks, expected one", hint=hint)
    label = labels[0]
    if lines[0] != f"-----BEGIN {label}-----" or lines[-1] != f"-----END {label}-----":
        raise SigningKeyError(f"{where} is cut off, or has text around its PEM block")
    if label not in ("PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "PUBLIC KEY"):
        return label, b""
    try:
        return label, binascii.a2b_base64("".join(lines[1:-1]), strict_mode=True)
    except ValueError as error:
        raise SigningKeyError(f"{where} is damaged: its PEM is not base64") from error


def _wrong_label(label: str, where: str) -> SigningKeyError:
    convert = "openssl pkcs8 -topk8 -nocrypt -in OLD.pem -out NEW.pem"
    say = {
        "PUBLIC KEY": ("is a public key; signing needs the private one", None),
        "CERTIFICATE": ("is a certificate; signing needs the private key", None),
        "EC PRIVATE KEY": ("is in the older SEC 1 form, expected PKCS#8", convert),
        "RSA PRIVATE KEY": ("is an RSA key, expected P-256 or Ed25519", None),
        "DSA PRIVATE KEY": ("is a DSA key, expected P-256 or Ed25519", None),
        "OPENSSH PRIVATE KEY": ("is in OpenSSH's own form, expected PKCS#8 PEM", None),
    }
    what, hint = say.get(label, ("is not a private key in PKCS#8 PEM", None))
    return SigningKeyError(f"{where} {what}", hint=hint)


def _no_key_yet(home: str) -> SigningKeyError:
    return SigningKeyError(
        f"there is no signing key in {home!r} yet", hint="the first `beddel-cli run` makes one"
    )


def _no_key(home: str) -> SigningKeyError:
    return SigningKeyError(
        f"there is no signing key in {home!r}, and this run may not make one",
        hint="--signing-key FILE, or BEDDEL_SIGNING_KEY, or one run without --require-key",
    )


def _cannot_read(path: str, error: OSError) -> SigningKeyError:
    if error.errno == errno.ELOOP:
        return SigningKeyError(f"key file {path!r} is a link", hint=f"rm {shell_word(path)}")
    if error.errno == errno.ENOENT:
        return SigningKeyError(f"key file {path!r} does not exist")
    return SigningKeyError(f"cannot read key file {path!r}: {os.strerror(error.errno or 0)}")


def _cannot_write(path: str, error: OSError) -> SigningKeyError:
    message, hint = explain_write(path, error)
    return SigningKeyError(message, hint=hint)


def _key_id(spki: bytes) -> str:
    return hashlib.sha256(spki).hexdigest()


def _pem(label: str, der: bytes) -> bytes:
    text = binascii.b2a_base64(der, newline=False).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()
