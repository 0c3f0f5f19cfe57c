"""Take signing secrets out of the environment before anything can inherit them.

Deleting a variable leaves its bytes in the process's memory and in /proc/PID/environ, and a forked
worker has both. So a command that finds a secret there starts itself over without it: the secret
waits in a pipe, which is read only once the worker has been forked.
"""

from __future__ import annotations

import os
import stat
import sys

from beddel_cli.errors import SigningKeyError
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping

KEY_VARIABLE = "BEDDEL_SIGNING_KEY"
PASSWORD_VARIABLE = "BEDDEL_KEY_PASSWORD"  # noqa: S105 - the name, not the secret
# The name it had first. It holds the same, so it is taken out of the environment the same way.
OLDER_PASSWORD_VARIABLE = "BEDDEL_KEY_PASSPHRASE"  # noqa: S105
PASSWORD_FILE_VARIABLE = "BEDDEL_KEY_PASSWORD_FILE"  # noqa: S105
SECRET_VARIABLES = (KEY_VARIABLE, PASSWORD_VARIABLE, OLDER_PASSWORD_VARIABLE)
_DESCRIPTOR_VARIABLE = "_BEDDEL_SECRETS_FD"
# What a pipe holds without a reader (pipe(7)).
_PIPE_BYTES = 65536
_MOST_PASSWORD_BYTES = 4096


@record
class Secrets:
    """What the environment held: a PEM private key, a passphrase, either or none."""

    pem: str | None = None
    passphrase: str | None = None

    def __repr__(self) -> str:
        return "Secrets(…)"


def restart_without_secrets(environ: MutableMapping[str, str]) -> None:
    """Start this command over, with the same arguments, when the environment holds a secret.

    Returns only when it holds none.

    Raises:
        SigningKeyError: the secret is larger than any key.
    """
    found = [environ.get(name) for name in SECRET_VARIABLES]
    if found == [None, None, None]:
        return
    secrets = [found[0], found[2] if found[1] is None else found[1]]
    import json

    text = json.dumps(secrets).encode("ascii")
    if len(text) > _PIPE_BYTES:
        raise SigningKeyError(f"{KEY_VARIABLE} holds more than a key", expected="a PEM private key")
    reading, writing = os.pipe()
    os.write(writing, text)
    os.close(writing)
    os.set_inheritable(reading, True)
    clean = {name: value for name, value in environ.items() if name not in SECRET_VARIABLES}
    clean[_DESCRIPTOR_VARIABLE] = str(reading)
    os.execve(sys.executable, sys.orig_argv, clean)  # noqa: S606 - this very command


def read_secrets(environ: MutableMapping[str, str]) -> Secrets:
    """Read, once, what `restart_without_secrets` left in the pipe; empty if it left nothing.

    A passphrase that is in a file is read here too, so not before the worker has been forked.

    Raises:
        SigningKeyError: the descriptor in the environment is not that pipe, or the file that
            should hold the passphrase does not.
    """
    number = environ.pop(_DESCRIPTOR_VARIABLE, None)
    pem, passphrase = (None, None) if number is None else _read_pipe(number)
    path = environ.get(PASSWORD_FILE_VARIABLE)
    if path is None:
        return Secrets(pem, passphrase)
    if passphrase is not None:
        raise SigningKeyError(f"both {PASSWORD_VARIABLE} and {PASSWORD_FILE_VARIABLE} are set")
    return Secrets(pem, _read_password(path))


def _read_password(path: str) -> str:
    """Read the first and only line of a file; which may be shared, as container secrets are."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _bad_password_file(path, os.strerror(error.errno or 0)) from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _bad_password_file(path, "not a regular file")
        data = os.read(fd, _MOST_PASSWORD_BYTES + 1)
    except OSError as error:
        raise _bad_password_file(path, os.strerror(error.errno or 0)) from error
    finally:
        os.close(fd)
    line = data.removesuffix(b"\n").removesuffix(b"\r")
    if not line or b"\n" in line or len(data) > _MOST_PASSWORD_BYTES:
        raise _bad_password_file(path, "it does not hold one line")
    return line.decode("utf-8", "surrogateescape")


def _bad_password_file(path: str, why: str) -> SigningKeyError:
    return SigningKeyError(f"no passphrase in {path!r} ({PASSWORD_FILE_VARIABLE}): {why}")


def _read_pipe(number: str) -> tuple[str | None, str | None]:
    import json

    try:
        with os.fdopen(int(number), "rb") as pipe:
            found = json.loads(pipe.read(_PIPE_BYTES))
        if not isinstance(found, list) or [type(item) in (str, type(None)) for item in found] != [
            True,
            True,
        ]:
            raise ValueError("not a pair of texts")
        pem, passphrase = found
    except (OSError, ValueError, OverflowError) as error:
        raise SigningKeyError(
            f"{_DESCRIPTOR_VARIABLE} is for beddel-cli itself and holds nothing usable",
            hint=f"unset {_DESCRIPTOR_VARIABLE}",
        ) from error
    return pem, passphrase
