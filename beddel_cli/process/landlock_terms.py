"""What the landlock rung does not stop, and what it cannot show a program. Pure.

One list, which summaries shorten and the documentation explains; a test holds the two together.
"""

from __future__ import annotations

import errno

from beddel_cli.errors import RefusedError
from beddel_cli.process.mount_rules import target_problem
from beddel_cli.process.program import DEFAULT_WORKSPACE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    class Asked(Protocol):
        """A mount or a workspace: one that is open, or only asked for."""

        @property
        def source(self) -> str: ...
        @property
        def target(self) -> str: ...
        @property
        def writable(self) -> bool: ...


# What namespaces stop and this does not: in a summary's words, and in full.
NOT_WALLED = (
    (
        "disk and inodes are sampled",
        "There is no file system of its own to be full: what lies in the scratch folder is "
        "measured every 20 ms to 1 s, the more files the less often. A look that finds too much "
        "(or folders deeper than 200) ends the run, and the last one, after the program's end, "
        "turns success into a limit's ending. Between looks the host's disk takes whatever can be "
        "written in that time, without a bound, and a look can miss what is moved from folder to "
        "folder meanwhile. A folder that a program closed to itself is opened for that. Files that "
        "were deleted and are still open are not counted.",
    ),
    (
        "names and figures of host files show",
        "Landlock judges opening, not looking: whether any path exists, and its size, times, mode "
        "and owner, and the text of a symbolic link, can be seen as far as the caller's own rights "
        "(as root: anybody's) reach. What is in files cannot.",
    ),
    (
        "host name, load and process ids show",
        "uname, sysinfo and the clocks are the host's, and kill(2) tells which process ids exist.",
    ),
    (
        "other programs' id is shared (not as root)",
        "An ordinary user's program runs under the user's own id: it can see the limits, priority "
        "and session of the user's processes, and takes part in the user's count of processes. "
        "Signals to them, their memory and changes to files by name are refused; mode and times "
        "within the scratch folder are changed for it by its guardian.",
    ),
    (
        "what waits in sockets takes memory uncounted (without a memory cgroup)",
        "Only in a network namespace of the program's own can its sockets be listed. What its "
        "connected pairs hold is bounded by their number and the machine's usual size of a buffer.",
    ),
    (
        "host files can be locked",
        "What may be read (system folders, mounts) can also be locked with flock(2) by whoever "
        "reads it.",
    ),
    (
        "/tmp, /dev/shm and /proc are missing, not private",  # noqa: S108
        "Programs that insist on them fail (git wants GIT_CONFIG_NOSYSTEM=1, since /etc/gitconfig "
        "is refused, not absent); TMPDIR and HOME lead to the scratch folder.",
    ),
    (
        "no sockets, not even to itself",
        "Without a network of its own there is no loopback to allow. Connected pairs work.",
    ),
)


# Steps of building the walls with namespaces that depend on the machine alone. What fails later has
# to do with the job or with what it shows, and whoever wrote those must not choose weaker walls.
MACHINE_STEPS = (*("user namespace", "id maps", "namespaces", "init", "files", "network", "root"),)
# Not a refusal, but a lack at this moment, which other programs could bring about.
_TRANSIENT = (errno.EAGAIN, errno.ENOMEM, errno.ENFILE, errno.EMFILE, errno.EINTR)


def is_refused_by_machine(step: str | None, number: int) -> bool:
    """Tell whether a step failed because this machine allows no namespaces.

    Args:
        step: as the init names it; None where none failed.
        number: its errno.
    """
    return step in MACHINE_STEPS and number not in (0, *_TRANSIENT)


def not_walled_words() -> str:
    """Give the list in a summary's words."""
    return "; ".join(words for words, _ in NOT_WALLED)


def beyond_this_rung(workspace: Asked | None, mounts: Iterable[Asked]) -> RefusedError | None:
    """Give the refusal of what takes a mount namespace to be shown; None where nothing does."""
    if workspace is not None and workspace.target != DEFAULT_WORKSPACE:
        what = f"a workspace at {workspace.target}"
        return _needs_namespaces(what, "leave its place out: the program starts in it")
    for mount in mounts:
        if mount.writable:
            what = f"a writable mount at {mount.target}"
            return _needs_namespaces(what, "use --workspace with --write-back or --results")
        if mount.target != mount.source:
            what = f"{mount.source} at {mount.target}"
            fix = f"show it where it is: --mount {mount.source}:{mount.source}"
            if target_problem(mount.source) is not None:
                fix = "copy it into the workspace: it cannot be shown where it is either"
            return _needs_namespaces(what, fix)
    return None


def _needs_namespaces(what: str, fix: str) -> RefusedError:
    return RefusedError(
        f"{what} takes a mount namespace, which this machine refuses",
        reason="files",
        needs=what,
        found="no mount namespace: the program would run on the landlock rung",
        fix=fix,
    )
