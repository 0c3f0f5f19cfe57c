"""Make, replace and retire the key files of a home.

A key file appears whole or not at all, and one that is there is never written over: what a key has
signed cannot be signed again.
"""

from __future__ import annotations

import os

from beddel_cli.errors import ReceiptWriteError, SigningKeyError
from beddel_cli.home import create_once, explain_write, open_folder, replace
from beddel_cli.trust.keys import (
    PRIVATE_NAME,
    PUBLIC_NAME,
    Passphrases,
    generate_key,
    load_signing_key,
    show_key,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from beddel_cli.home import Folder
    from beddel_cli.trust.keys import SigningKey
    from beddel_cli.trust.signing import Kind


def new_key(kind: Kind, passphrase: str | None) -> tuple[bytes, SigningKey]:
    """Make a key that is in no file yet; gives its PEM, encrypted if there is a passphrase."""
    pem = generate_key(kind, passphrase)
    text = pem.decode("ascii")
    return pem, load_signing_key("/", environment_pem=text, passphrases=Passphrases(passphrase))


def write_new(path: str, pem: bytes) -> None:
    """Put a private key where nothing is yet, for its owner's eyes only.

    Raises:
        SigningKeyError: something is there, or it cannot be written.
    """
    folder, name = os.path.split(os.path.abspath(path))
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            made = create_once(fd, name, pem, 0o600)
        finally:
            os.close(fd)
    except OSError as error:
        message, hint = explain_write(path, error)
        raise SigningKeyError(message, hint=hint) from error
    if not made:
        raise SigningKeyError(f"{path!r} is there already, and is not written over")


def write_home_file(home: str, name: str, data: bytes, *, folder: str | None = None) -> str:
    """Put a public file into a home, or a folder of it; gives its path.

    Raises:
        HomeError, ReceiptWriteError: the home cannot be used, or the file not be written.
    """
    with open_folder(home) as top:
        if folder is None:
            return _replace(top, name, data)
        with top.child(folder) as below:
            return _replace(below, name, data)


def _replace(folder: Folder, name: str, data: bytes) -> str:
    path = os.path.join(folder.path, name)
    try:
        replace(folder.fd, name, data, 0o644)
    except OSError as error:
        message, hint = explain_write(path, error)
        raise ReceiptWriteError(message, hint=hint) from error
    return path


def exchange_signing_key(home: str, pem: bytes, public_pem: bytes) -> str:
    """Put a new signing key into a home's place; gives the path of the old private key.

    The old one is kept beside it under the name of its id. The new one comes by one rename, so a
    run at the same time signs with the one or the other.

    Raises:
        SigningKeyError: there is no old one, or the new one cannot be written.
    """
    import fcntl

    old = show_key(home)
    kept = f"retired-{old.key_id[:16]}.pem"
    with open_folder(home, create=False) as top, top.child("keys", create=False) as keys:
        path = os.path.join(keys.path, kept)
        try:
            # So that nobody puts the old public key back who read the old private one before.
            fcntl.flock(keys.fd, fcntl.LOCK_EX)
            _keep(keys, kept)
            replace(keys.fd, PRIVATE_NAME, pem, 0o600)
            replace(keys.fd, PUBLIC_NAME, public_pem, 0o644)
        except OSError as error:
            message, hint = explain_write(path, error)
            raise SigningKeyError(message, hint=hint) from error
    return path


def _keep(keys: Folder, name: str) -> None:
    """Give the signing key's file a second name, unless it has it from an earlier attempt."""
    try:
        os.link(PRIVATE_NAME, name, src_dir_fd=keys.fd, dst_dir_fd=keys.fd)
    except FileExistsError:
        there = os.stat(name, dir_fd=keys.fd, follow_symlinks=False)
        if not os.path.samestat(there, os.stat(PRIVATE_NAME, dir_fd=keys.fd)):
            path = os.path.join(keys.path, name)
            raise SigningKeyError(f"{path!r} is there already") from None
