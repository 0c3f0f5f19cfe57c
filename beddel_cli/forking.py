"""What must hold before guest code gets a process of its own, whichever runtime forks it."""

from __future__ import annotations

import os

from beddel_cli.errors import GuestError


def get_ready_to_fork(what: str) -> None:
    """Make sure that the child will be alone in its process, and that only we reap it.

    Args:
        what: what is to be started, for the message: `a worker`.

    Raises:
        GuestError: this process has other threads, or cannot tell.
    """
    try:
        threads = len(os.listdir("/proc/self/task"))
    except OSError as error:
        raise GuestError(
            f"cannot look at this process: /proc/self/task: {error.strerror}", hint="mount /proc"
        ) from error
    if threads != 1:
        raise GuestError(f"{what} can only be started from a process with one thread")
    # Inherited as ignored, SIGCHLD would make the kernel reap the child: no exit status, and a
    # process id that may be somebody else's when it is killed. The built-in module underneath
    # `signal`, which itself costs 3 ms before the fork.
    from _signal import SIG_DFL, SIGCHLD, signal  # type: ignore[import-not-found]

    signal(SIGCHLD, SIG_DFL)
