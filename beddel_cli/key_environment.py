"""Take signing secrets out of the environment before anything can inherit them.

Deleting a variable leaves its bytes in the process's memory and in /proc/PID/environ, and a forked
worker has both. So a command that finds a secret there starts itself over without it: the secret
waits in a pipe, which is read only once the worker has been forked.
"""

from __future__ import annotations

import os
import sys

from beddel_cli.errors import SigningKeyError
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping

KEY_VARIABLE = "BEDDEL_SIGNING_KEY"
PASSPHRASE_VARIABLE = "BEDDEL_KEY_PASSPHRASE"  # noqa: S105 - the name, not the secret
_DESCRIPTOR_VARIABLE = "_BEDDEL_SECRETS_FD"
# What a pipe holds without a reader (pipe(7)).
_PIPE_BYTES = 65536


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
    secrets = [environ.get(KEY_VARIABLE), environ.get(PASSPHRASE_VARIABLE)]
    if secrets == [None, None]:
        return
    import json

    text = json.dumps(secrets).encode("ascii")
    if len(text) > _PIPE_BYTES:
        raise SigningKeyError(f"{KEY_VARIABLE} holds more than a key", expected="a PEM private key")
    reading, writing = os.pipe()
    os.write(writing, text)
    os.close(writing)
    os.set_inheritable(reading, True)
    clean = {
        name: value
        for name, value in environ.items()
        if name not in (KEY_VARIABLE, PASSPHRASE_VARIABLE)
    }
    clean[_DESCRIPTOR_VARIABLE] = str(reading)
    os.execve(sys.executable, sys.orig_argv, clean)  # noqa: S606 - this very command


def read_secrets(environ: MutableMapping[str, str]) -> Secrets:
    """Read, once, what `restart_without_secrets` left in the pipe; empty if it left nothing.

    Raises:
        SigningKeyError: the descriptor in the environment is not that pipe.
    """
    number = environ.pop(_DESCRIPTOR_VARIABLE, None)
    if number is None:
        return Secrets()
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
    return Secrets(pem, passphrase)
