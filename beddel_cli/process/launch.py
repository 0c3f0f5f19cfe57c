"""Start the walls, talk to the init inside them, and end them.

How a caller uses it, in this order:

    launcher = Launcher.start()            # first of all: before keys, threads, jobs; returns at once
    walls = launcher.prepare(program, stdio, cgroup_files, counts_memory=…)
    observed = launcher.observe()          # what /proc says of the init, from outside
    launcher.go()                          # or finish() straight away, to refuse
    while (event := launcher.next_event()) is None: poll(launcher.events, launcher.pidfd, …)
    launcher.terminate() / launcher.kill()
    usage = launcher.finish()              # kills what is left, reaps; `upper` stays open
    collect(launcher.upper); launcher.close()
"""

from __future__ import annotations

from beddel_cli.process.program import Program, Walls
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import resource

# Kinds of Event.
STARTED, NOT_STARTED, FAULT, ENDED = 1, 2, 3, 4


@record
class Event:
    """One thing the init said of the program after `go`; its word, checked for form only.

    Attributes:
        kind: STARTED: execve succeeded. NOT_STARTED: it failed with `errno`; nothing else comes.
            FAULT: a step of ours before it failed with `errno` (`detail` names it); nothing else
            comes. ENDED: the program itself ended with `status`; all its other processes are being
            killed.
        status: a wait status, as os.waitstatus_to_exitcode takes it (ENDED only, else 0).
        maxrss_bytes: ru_maxrss of the program and those it waited for. Never less than what the
            init itself had resident when it forked, some 15 MiB (ENDED only, else 0).
    """

    kind: int
    errno: int
    status: int
    maxrss_bytes: int
    detail: str


@record
class Observed:
    """What /proc says of the confined init, read by the supervisor. None: could not be read.

    The program is forked from the init after this, so that all of it binds the program too.
    `seccomp_filters` counts those beyond the supervisor's own. Capability sets are bit masks.
    """

    no_new_privs: int | None
    seccomp_mode: int | None
    seccomp_filters: int | None
    effective: int | None
    permitted: int | None
    inheritable: int | None
    bounding: int | None
    ambient: int | None
    user_ids: tuple[int, ...] | None
    threads: int | None
    core_limit: int | None


class Launcher:
    """The walls of one run. Always ended by `finish` and `close`, whatever happened.

    Attributes:
        pid: process id of the init, a child of this process; None until `prepare` has learnt it.
        pidfd: its pidfd, readable once it is dead (which is when all of the program is); None as
            above.
        events: descriptor that is readable when `next_event` has something; for poll().
        upper: descriptor of the folder that holds what the program wrote to its workspace, None
            where it cannot write there. It outlives the walls, and fstatvfs on it gives what the
            program's file system (workspace, /tmp and /dev/shm together) holds.
        terminal: master of the program's terminal, None without one.
    """

    pid: int | None
    pidfd: int | None
    events: int
    upper: int | None
    terminal: int | None

    @classmethod
    def start(cls) -> Launcher:
        """Fork the launcher and return at once; it makes all that does not depend on the job.

        Call it first: the child inherits everything this process holds.

        Raises:
            GuestError: this process has other threads, or cannot fork.
        """
        raise NotImplementedError

    def prepare(
        self,
        program: Program,
        stdio: tuple[int, int, int],
        cgroup_files: tuple[int, ...] = (),
        *,
        counts_memory: bool = False,
    ) -> Walls:
        """Send the program's description, let the init finish the walls, and say how they stand.

        Where `failed_step` is set nothing can be started; call `finish`. Never raises for what
        the machine refused.

        Args:
            stdio: the program's ends of its three streams. Copies go inside: close yours
                afterwards, or you will never see their end. Ignored with a terminal.
            cgroup_files: cgroup.procs files opened for writing; the program joins each by itself
                just before execve. The caller closes its own.
            counts_memory: whether one of the cgroups counts memory. Where none does, the program
                gets no memory that a look at its processes cannot see (SysV segments, memfds).
        """
        raise NotImplementedError

    def observe(self) -> Observed:
        """Read from outside what the kernel enforces on the init, and so on the program."""
        raise NotImplementedError

    def go(self) -> None:
        """Let the init start the program. Its first event says whether that worked.

        Where the init is dead already, the pidfd says so; this does not raise.
        """
        raise NotImplementedError

    def next_event(self) -> Event | None:
        """Give the next event if there is one; never waits. Also None once the init is gone.

        Raises:
            GuestError: the init said something that is not of the agreed form.
        """
        raise NotImplementedError

    def terminate(self) -> None:
        """Send SIGTERM (then SIGCONT) to every process of the program. Never raises when gone."""
        raise NotImplementedError

    def kill(self) -> None:
        """Send SIGKILL to the init, and so to everything inside. Never raises when gone."""
        raise NotImplementedError

    def finish(self) -> resource.struct_rusage | None:
        """Kill what is left, wait until the last process is dead, and reap the init.

        Gives the init's usage, which includes every process it reaped (not those that died with
        it); None where there never was one. May be called again. `upper`, `terminal` and `events`
        stay open: an event sent before the end can still be read.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Close `events`, `pidfd`, `upper` and `terminal`. Call `finish` first."""
        raise NotImplementedError
