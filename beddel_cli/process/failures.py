"""What to say where walls could not be built and it is not this machine that refuses them. Pure.

A machine that lacks something is `remedies`'s matter, and a refusal. Here is the rest: what the job
or its caller asks to be shown, what this process or this user has used up, and mistakes of our own.

Sources: errno(3), unix(7) on ETOOMANYREFS, mount_setattr(2) on ID-mapped mounts.
"""

from __future__ import annotations

import errno
import os

from beddel_cli.errors import BeddelError, GuestError, RefusedError, UsageError
from beddel_cli.process.messages import OUR_FAULT, REQUEST_BYTES
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from beddel_cli.process.mount_rules import MountRequest
    from beddel_cli.process.program import Mount, Walls

_SHOWING = ("mounts", "mapped mounts")
# A kernel without overlays, or that refuses mounts whatever is mounted.
_OF_THE_MACHINE = (errno.ENODEV, errno.ENOSYS, errno.EPERM)
_PLENTY_OF_FILES = 1024


@record
class Caller:
    """What of this process bears on its own failures: its RLIMIT_NOFILE and RLIMIT_NPROC."""

    open_files: int
    processes: int


def other_cause(
    walls: Walls, caller: Caller, shown: Sequence[tuple[MountRequest, Mount]] = ()
) -> BeddelError | None:
    """Give the error for walls that failed; None where it is the machine that refuses them.

    Args:
        shown: what the program was to be shown, as it was asked for and as it was opened.
    """
    step, number = walls.failed_step, walls.failed_errno
    if step is None:
        return None
    failed = _words(walls)
    used_up = _used_up(step, number, caller)
    if used_up is not None:
        cause, hint = used_up
        return GuestError(f"the walls could not be built: {failed}: {cause}", hint=hint)
    if step in _SHOWING and number not in _OF_THE_MACHINE:
        return _not_shown(walls, failed, shown)
    if step == "request" and number == errno.E2BIG:
        return _too_long(walls)
    if step == "scratch folder":
        return GuestError(
            f"no scratch folder can be made: {failed}", hint="set TMPDIR to a folder with room"
        )
    if step == OUR_FAULT:
        return GuestError(f"bug in beddel-cli: {walls.failed_detail}", hint="please report this")
    return None


def _words(walls: Walls) -> str:
    number = walls.failed_errno
    words = f"{walls.failed_step} failed"
    if number:
        words += f" with {errno.errorcode.get(number, number)}"
    detail = walls.failed_detail or (os.strerror(number) if number else "")
    return f"{words} ({detail})" if detail else words


def _used_up(step: str, number: int, caller: Caller) -> tuple[str, str] | None:
    """Give the cause, and what helps, where something is used up at this moment."""
    if number == errno.EMFILE:
        return (
            f"this process may have {caller.open_files} open files",
            f"ulimit -n {max(_PLENTY_OF_FILES, caller.open_files * 2)}",
        )
    if number == errno.ETOOMANYREFS:
        return (
            "other programs of this user have as many descriptors on their way through sockets as "
            f"one user may ({caller.open_files}, the limit of open files)",
            "end the program that does not receive them",
        )
    if number == errno.ENFILE:
        return "this machine has as many open files as it may", "sudo sysctl -w fs.file-max=1000000"
    if number == errno.ENOMEM:
        return "there is too little memory", "run it again when there is more"
    if number == errno.EAGAIN and step in ("start", "init", "guardian", "mapped mounts"):
        return (
            "this user, or the container, has too many processes (ulimit -u gives "
            f"{caller.processes})",
            "end some, or ulimit -u unlimited",
        )
    return None


def _not_shown(
    walls: Walls, failed: str, shown: Sequence[tuple[MountRequest, Mount]]
) -> RefusedError:
    """Give the refusal of something that cannot be shown, as the kernel has it."""
    place, _, _ = walls.failed_detail.rpartition(": ")
    meant = [request for request, mount in shown if place in (mount.source, mount.target)]
    name = repr(meant[0].source if meant else place or "what was asked for")
    return RefusedError(
        f"{name} cannot be shown to a program: {failed}",
        reason="files",
        needs=f"{name} at {meant[0].target}" if meant else name,
        found=failed,
        fix=_fix(walls),
        place=meant[0].place if meant else None,
    )


def _fix(walls: Walls) -> str:
    if walls.failed_step == "mapped mounts":
        return "copy it to a file system that can show another owner, such as ext4 or tmpfs"
    if walls.failed_errno == errno.EINVAL:
        return "name a folder that holds no mount, on a file system that an overlay can lie upon"
    if walls.failed_errno in (errno.ELOOP, errno.ENOTDIR, errno.ENOENT, errno.EISDIR):
        return "choose another place inside, such as /data"
    if walls.failed_errno == errno.ENOSPC:
        return "ask for fewer mounts, or for places that are less deep"
    return "name a folder that stays where it is and that you may read"


def _too_long(walls: Walls) -> BeddelError:
    return UsageError(
        f"the command and its variables are too long: {walls.failed_detail}",
        expected=f"at most {REQUEST_BYTES} bytes",
        got=walls.failed_detail,
    )
