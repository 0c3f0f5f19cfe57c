"""The launcher for a machine on which a program can have no namespaces, used as `Launcher` is.

What it stands for is weaker, and `landlock_terms` says in what. Whether it may be used at all is
the plan's decision; this only builds it: a scratch folder with a copy of the workspace, a keeper
and a guardian (`guardian` says what these do), and a program under Landlock, two system-call
filters and, started by root, an id that owns nothing.

The processes are started from a fresh interpreter. `Launcher` forks before there is a key in the
supervisor; here it has become known only later that namespaces are refused.

Sources: posix_spawn(3), prctl(2) on PR_SET_CHILD_SUBREAPER.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import sys
from contextlib import suppress
from time import monotonic_ns

from beddel_cli.errors import GuestError, RefusedError
from beddel_cli.limits import BY_KEY, format_limit
from beddel_cli.process import kernel, messages
from beddel_cli.process.guardian import CHANNEL, KILL, LEASE
from beddel_cli.process.landlock_terms import beyond_this_rung, not_walled_words
from beddel_cli.process.launch import Launcher, Observed, Refused
from beddel_cli.process.messages import Ready, Shown
from beddel_cli.process.program import Program, Walls
from beddel_cli.process.scratch import (
    TEMPORARY,
    WORKSPACE,
    Scratch,
    ScratchMeter,
    choose_path,
    make,
    remove,
    sweep,
)
from beddel_cli.process.tree import own_cpu_ns
from beddel_cli.process.workspace_copy import Copied, TooLargeError, copy_workspace
from beddel_cli.record import changed

TYPE_CHECKING = False
if TYPE_CHECKING:
    import resource

    from beddel_cli.process.collect_rules import Manifest
    from beddel_cli.process.program import Mount

_LOWEST = 10
_SIGKILL = 9
# What every program has in its environment, where /tmp is its own.
_DEFAULTS = (("HOME", "/tmp"), ("TMPDIR", "/tmp"))  # noqa: S108


class GuardedLauncher(Launcher):
    """As `Launcher`, with a guardian where that has an init."""

    def __init__(self, keeper: int, channel: _socket.socket, lease: int, path: str) -> None:
        super().__init__(keeper, channel)
        self._copied: Copied | None = None
        # It changes files by name for a program that may not.
        self.works_for_program = True
        self.held_by = "the guardian of the program"
        self._keeper = keeper
        self._lease: int | None = lease
        self._path = path
        self._scratch: Scratch | None = None
        self._starter = 0
        self._children = frozenset(_children())

    @classmethod
    def start(cls) -> GuardedLauncher:
        """Start keeper and guardian, and remove what killed runs have left.

        Raises:
            GuestError: they could not be started.
        """
        started_ns = monotonic_ns()
        sweep(os.environ)
        try:
            path = choose_path(os.environ)
            # Whoever a killed guardian leaves is then ours to wait for, not init's.
            kernel.prctl(kernel.SET_CHILD_SUBREAPER, 1)
            ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
            lease_out, lease_in = os.pipe()
            keeper = _spawn(theirs.fileno(), lease_out, path, started_ns)
        except OSError as error:
            hint = "ulimit -n 1024" if error.errno == errno.EMFILE else None
            raise GuestError(f"cannot start a guardian: {error.strerror}", hint=hint) from error
        theirs.close()
        os.close(lease_out)
        return cls(keeper, ours, lease_in, path)

    def _send_program(
        self,
        program: Program,
        stdio: tuple[int, int, int],
        cgroup_files: tuple[int, ...],
        *,
        counts_memory: bool,
    ) -> Ready:
        # The caller's may deny us what we make ourselves.
        before = os.umask(0o022)
        try:
            self._scratch = scratch = make(self._path, self.identity if self._throw_away else None)
            self.upper = os.dup(scratch.workspace)
            self._copy(program, scratch)
            self.meter = ScratchMeter(scratch, program.disk_bytes, program.inodes)
        except OSError as error:
            raise Refused("scratch folder", error.errno or errno.EIO, str(error)) from error
        finally:
            os.umask(before)
        shown = tuple(_as_it_lies(mount) for mount in program.mounts)
        described = changed(
            program,
            environment=_environment(program.environment, scratch.path),
            workspace=None,
            workspace_target=os.path.join(scratch.path, WORKSPACE),
        )
        request = messages.request_of(
            described,
            shown,
            len(cgroup_files),
            counts_memory=counts_memory,
            counts_processes=self._counts_processes,
        )
        given = [] if program.terminal is not None else [*stdio]
        places = [scratch.workspace, scratch.temporary]
        places += [mount.descriptor for mount in program.mounts]
        self._send(messages.pack_request(request), [*given, *cgroup_files, *places])
        ready, descriptors = self._await_ready(0 if program.terminal is None else 1)
        self.terminal = descriptors[0] if descriptors else None
        self._starter = ready.starter
        return ready

    def _copy(self, program: Program, scratch: Scratch) -> None:
        if program.workspace is None:
            return
        identity = self.identity if self._throw_away else None
        try:
            self._copied = copy_workspace(
                program.workspace.descriptor,
                scratch.workspace,
                program.disk_bytes,
                program.inodes,
                identity,
            )
        except TooLargeError as error:
            raise too_large(error, program) from error

    def _walls(self, ready: Ready | None, failed: messages.Failed | None) -> Walls:
        walls = super()._walls(ready, failed)
        return walls if walls.proc is None else changed(walls, proc="closed")

    def observe(self) -> Observed:
        """Read from outside what the kernel enforces on the process that the program will be."""
        if self._starter:
            self.setup_cpu_ns = own_cpu_ns(self._starter)
        return self._observe(self._starter or None)

    def kill(self) -> None:
        """Let the guardian kill everything, and end."""
        self._say(KILL)

    def finish(self) -> resource.struct_rusage | None:
        """As `Launcher.finish`; also where somebody killed the guardian, whose orphans are ours."""
        usage = super().finish()
        self._end_orphans()
        return usage

    def _end_orphans(self) -> None:
        """Kill and reap whom a killed guardian has left; mostly the keeper was faster."""
        known = {*self._children, self._keeper}
        while left := set(_children()) - known:
            for pid in left:
                # Ours, and not reaped yet: the id is still its own.
                with suppress(PermissionError, ProcessLookupError):
                    os.kill(pid, _SIGKILL)
                os.waitpid(pid, 0)

    @property
    def copied(self) -> Manifest | None:
        """What the workspace was when the program started; None without a workspace."""
        return None if self._copied is None else self._copied.before

    def warnings(self) -> tuple[str, ...]:
        """Say what this does not stop, and what of the workspace was not copied."""
        found = [f"the landlock rung is weaker than namespaces: {not_walled_words()}"]
        left_out = () if self._copied is None else self._copied.left_out
        if left_out:
            path, why = left_out[0]
            name = path.decode("utf-8", "backslashreplace")
            found.append(f"not copied for the program: {len(left_out)}, first {name}: {why}")
        return tuple(found)

    def _end_lingering(self) -> None:
        """Let the keeper be: it stays to the very end."""

    def close(self) -> None:
        """As `Launcher.close`, and remove the scratch folder."""
        super().close()
        if self._scratch is not None:
            os.close(self._scratch.workspace)
            os.close(self._scratch.temporary)
            self._scratch = None
        if self._lease is not None:
            os.close(self._lease)
            self._lease = None
            with suppress(ChildProcessError):  # reaped already where it never came to a guardian
                os.waitpid(self._keeper, 0)
            with suppress(OSError):  # what a keeper that was killed has left; or a later run
                remove(self._path)
            kernel.prctl(kernel.SET_CHILD_SUBREAPER, 0)


def _spawn(channel: int, lease: int, path: str, started_ns: int) -> int:
    """Start the keeper in a fresh interpreter that inherits two descriptors and no variable."""
    if not sys.executable:
        raise OSError(errno.ENOENT, "Python does not know where its interpreter is")
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    code = (
        f"import sys; sys.path.insert(0, {os.path.dirname(package)!r}); "
        "from beddel_cli.process.guardian import main; main()"
    )
    high = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, _LOWEST) for each in (channel, lease)]
    try:
        return os.posix_spawn(
            sys.executable,
            [
                *(sys.executable, "-I", "-S", "-c", code),
                *(path, str(os.getpid()), str(started_ns)),
            ],
            {},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
                *((os.POSIX_SPAWN_DUP2, 0, standard) for standard in (1, 2)),
                (os.POSIX_SPAWN_DUP2, high[0], CHANNEL),
                (os.POSIX_SPAWN_DUP2, high[1], LEASE),
            ],
            setsigmask=(),
        )
    finally:
        for each in high:
            os.close(each)


def _children() -> list[int]:
    """Give the children of this process, which has one thread."""
    pid = os.getpid()
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except FileNotFoundError:
        return []  # CONFIG_PROC_CHILDREN is off: init reaps them then


def _as_it_lies(mount: Mount) -> Shown:
    return Shown(mount.source, mount.target, mount.writable, mount.folder, ready_made=False)


def _environment(
    environment: tuple[tuple[str, str], ...], scratch: str
) -> tuple[tuple[str, str], ...]:
    """Let what leads to /tmp lead to the scratch folder (pure)."""
    return tuple(
        (name, f"{scratch}/{TEMPORARY}" if (name, value) in _DEFAULTS else value)
        for name, value in environment
    )


def check_shown(program: Program) -> None:
    """Let only what of the host can be shown without mounts be asked for.

    Raises:
        RefusedError: a place or a mount that takes a mount namespace.
    """
    refusal = beyond_this_rung(program.workspace, program.mounts)
    if refusal is not None:
        raise refusal


def too_large(error: TooLargeError, program: Program) -> RefusedError:
    """Give the refusal of a workspace that cannot be copied."""
    most = str(error.most)
    if error.what == "bytes":
        most = format_limit(BY_KEY["disk"], program.disk_bytes)
    return RefusedError(
        "the workspace is too large to be copied, and this machine refuses an overlay",
        reason="files",
        needs=f"a workspace of at most {most}"
        + ("" if error.what == "bytes" else f" {error.what}"),
        found=f"more {error.what} in it; without a mount namespace it has to be copied",
        fix="name a smaller folder with --workspace",
    )
