"""The entry: the short way to `run` and `exec`, or the whole command line.

Typer and Rich cost more to import than a run takes, so a plain, correct `run JOB …` or `exec -- …`
does without them; everything else, and everything wrong, goes to `cli`.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from time import monotonic_ns

# As in `key_environment`, which is only loaded when one of them is there.
_SECRETS = ("BEDDEL_SIGNING_KEY", "BEDDEL_KEY_PASSWORD", "BEDDEL_KEY_PASSPHRASE")


def main() -> None:
    """Run the command line of this process and exit with its code."""
    started_ns = monotonic_ns()
    _reserve_standard_descriptors()
    try:
        code = _run(sys.argv[1:], started_ns=started_ns)
        if sys.stdout:  # None where the caller closed it
            sys.stdout.flush()
    except KeyboardInterrupt:
        os.write(2, b"beddel-cli: interrupted before the job started\n")
        code = 130
    except (OSError, MemoryError, ImportError, SystemError) as error:
        code = _give_up(error)
    # Everything is written and closed; taking the interpreter apart would only cost time.
    os._exit(code)


def _give_up(error: OSError | MemoryError | ImportError | SystemError) -> int:
    """Say what failed in one line; gives the exit code for our own fault.

    Whatever can fail otherwise has its own message. Left are standard output that is closed or
    full, and a machine so short of memory that not even a library can be loaded.
    """
    if isinstance(error, ImportError):
        why = f"cannot load a part of it: {error}"
    elif isinstance(error, SystemError):
        # Python's own word for an error it could not make, for want of memory.
        why = f"cannot go on: {error}"
    elif isinstance(error, MemoryError) or error.errno == errno.ENOMEM:
        why = "out of memory"
    elif error.errno == errno.EMFILE:
        why = "this process may have too few open files; try it after: ulimit -n 1024"
    elif error.errno == errno.ENOENT and error.filename is None:
        why = "the current folder is gone: change into one that is there"
    elif error.filename is not None:
        why = f"{error.filename!r}: {error.strerror}"
    else:
        why = f"cannot write: {error.strerror}"
    code = 125 if sys.argv[1:2] in (["run"], ["exec"]) else 2
    try:
        os.write(2, f"beddel-cli: {why}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        return code  # nobody hears it
    return code


def _run(arguments: list[str], *, started_ns: int) -> int:
    secrets = any(name in os.environ for name in _SECRETS)
    # `explain` starts nothing, not even itself, and nothing that could look for a secret.
    if secrets and arguments[:1] != ["explain"]:
        from beddel_cli.commands.run_command import restart_or_explain

        restart_or_explain()
    # All that is made now is needed to the end; going through it would copy every page of it that
    # is shared with a forked child.
    gc.disable()
    if arguments[:1] == ["run"]:
        from beddel_cli.options import parse_plain

        plain = parse_plain(arguments[1:])
        if plain is not None:
            from beddel_cli.commands.run_command import run_command

            return run_command(*plain, started_ns=started_ns)
    if arguments[:1] == ["exec"]:
        from beddel_cli.options import parse_plain_exec

        plain_exec = parse_plain_exec(arguments[1:])
        if plain_exec is not None:
            from beddel_cli.commands.run_command import exec_command

            return exec_command(*plain_exec, started_ns=started_ns)
    gc.enable()
    from beddel_cli.cli import run_app

    return run_app(arguments, started_ns=started_ns)


def _reserve_standard_descriptors() -> None:
    """Keep a closed 0, 1 or 2 from becoming the number of a pipe or file that we open.

    Each is opened the wrong way round, so that using it is still an error.
    """
    for descriptor, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, flags)


if __name__ == "__main__":
    main()
