"""Start the walls, talk to the init inside them, and end them.

How a caller uses it, in this order:

    launcher = Launcher.start()            # first of all: before keys, threads, jobs
    walls = launcher.prepare(program, stdio, cgroup_files, counts_memory=…)
    observed = launcher.observe()          # what /proc says of the init, from outside
    launcher.go()                          # or finish() straight away, to refuse
    while (event := launcher.next_event()) is None: poll(launcher.events, launcher.pidfd, …)
    launcher.terminate() / launcher.kill()
    usage = launcher.finish()              # kills what is left, reaps; `upper` stays open
    collect(launcher.upper); launcher.close()

Started by root, the program runs under an id that owns nothing on the host. What it is to see of
the host is then given to the init as detached mounts, on which the owner of each folder appears as
that id. Started by anybody else, it runs under their own id, and the init finds each folder again
by name and compares it with the descriptor it was sent.

Sources: fork(2), unix(7) for SCM_RIGHTS, mount_setattr(2), "ID-mapped mounts"; proc(5).
"""

from __future__ import annotations

import _socket
import errno
import os
import select
import stat
import struct
from time import monotonic_ns

from beddel_cli.errors import GuestError
from beddel_cli.forking import get_ready_to_fork
from beddel_cli.process import messages
from beddel_cli.process.messages import Born, Event, Failed, MessageError, Ready, Shown
from beddel_cli.process.program import Mount, Program, Walls
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import resource

    from beddel_cli.process.scratch import ScratchMeter

# Kinds of Event.
STARTED, NOT_STARTED, FAULT, ENDED = (
    messages.STARTED,
    messages.NOT_STARTED,
    messages.FAULT,
    messages.ENDED,
)
# Setting up takes milliseconds; a machine that is out of memory takes longer.
READY_SECONDS = 30
_SIGKILL = 9
_EXIT_BROKEN = 70


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


class Refused(Exception):
    """A step failed; the walls will not stand."""

    def __init__(self, step: str, number: int, detail: str) -> None:
        super().__init__(step)
        self.failed = Failed(step, number, detail)


class Launcher:
    """The walls of one run. Always ended by `finish` and `close`, whatever happened.

    Attributes:
        pid: process id of the init, a child of this process; None until `prepare` has learnt it.
        pidfd: its pidfd, readable once it is dead (which is when all of the program is); None as
            above.
        events: descriptor that is readable when `next_event` has something; for poll().
        upper: descriptor of the folder that holds what the program wrote to its workspace; empty
            where it cannot write there, None until the walls stand. It outlives the walls, and
            fstatvfs on it gives what the program's file system (workspace, /tmp and /dev/shm
            together) holds.
        own_inodes: how many inodes of that file system are ours, not the program's.
        sockets: a socket that lists the sockets of the program's network namespace, None until the
            walls stand.
        terminal: master of the program's terminal, None without one.
        held_by: who holds the program, in words.
        works_for_program: whether what the init spends from then on is spent for the program.
        setup_cpu_ns: what the process that the program will be has spent before that.
        meter: measures what the program writes, where it has no file system of its own.
        identity: the program's user id on the host, None until known.
    """

    def __init__(self, launcher: int, channel: _socket.socket) -> None:
        self.pid: int | None = None
        self.pidfd: int | None = None
        self.upper: int | None = None
        self.sockets: int | None = None
        self.terminal: int | None = None
        self.held_by = "the init of the sandbox"
        self.works_for_program = False
        self.setup_cpu_ns = 0
        self.meter: ScratchMeter | None = None
        self.own_inodes = 0
        self.identity: int | None = None
        self.events = channel.fileno()
        self._channel = channel
        self._launcher: int | None = launcher
        self._lingering: int | None = None
        self._throw_away = False
        self._counts_processes = False
        self._usage: resource.struct_rusage | None = None

    @classmethod
    def start(cls) -> Launcher:
        """Fork the launcher and return at once; it makes all that does not depend on the job.

        Call it first: the child inherits everything this process holds.

        Raises:
            GuestError: this process has other threads, or cannot fork.
        """
        get_ready_to_fork("a program")
        # What both sides need is imported once.
        from beddel_cli.process import cgroup, kernel  # noqa: F401

        supervisor = os.getpid()
        started_ns = monotonic_ns()
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        try:
            pid = os.fork()
        except OSError as error:
            ours.close()
            theirs.close()
            raise GuestError(f"cannot start a launcher: {error.strerror}") from error
        if pid == 0:
            try:
                ours.close()
                # Imported here, after the fork, beside whatever the supervisor does meanwhile.
                from beddel_cli.process.init import launch

                launch(theirs, supervisor, started_ns)
            finally:
                os._exit(_EXIT_BROKEN)
        theirs.close()
        return cls(pid, ours)

    def prepare(
        self,
        program: Program,
        stdio: tuple[int, int, int],
        cgroup_files: tuple[int, ...] = (),
        *,
        counts_memory: bool = False,
        counts_processes: bool = False,
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
            counts_processes: whether one of them counts processes. Where none does, the rlimit
                alone is exact, and by it nobody but the init may count beside the program.
        """
        self._counts_processes = counts_processes
        try:
            self._learn_of_init()
            ready = self._send_program(program, stdio, cgroup_files, counts_memory=counts_memory)
        except Refused as refused:
            return self._walls(None, refused.failed)
        except MessageError as error:
            return self._walls(None, Failed(messages.OUR_FAULT, 0, str(error)))
        return self._walls(ready, None)

    def _learn_of_init(self) -> None:
        launcher = self._launcher
        if launcher is None:
            raise AssertionError("prepare was called twice")
        born, _ = self._next_message()
        if isinstance(born, Failed):
            raise Refused(born.step, born.errno, born.detail)
        if not isinstance(born, Born):
            raise MessageError("an init that is ready before it exists")
        self.pidfd = _own_child(born.pid)
        self.pid, self.identity, self._throw_away = born.pid, born.identity, born.throw_away
        self._launcher, self._lingering = None, launcher

    def _send_program(
        self,
        program: Program,
        stdio: tuple[int, int, int],
        cgroup_files: tuple[int, ...],
        *,
        counts_memory: bool,
    ) -> Ready:
        mounts = [] if program.workspace is None else [_as_workspace(program, program.workspace)]
        mounts += program.mounts
        trees = self._trees(mounts)
        try:
            shown = tuple(_shown(mount, ready_made=self._throw_away) for mount in mounts)
            request = messages.request_of(
                program,
                shown,
                len(cgroup_files),
                counts_memory=counts_memory,
                counts_processes=self._counts_processes,
            )
            given = [] if program.terminal is not None else [*stdio]
            if self._throw_away and self.identity is not None:
                _let_open_again(given, self.identity)
            places = trees if self._throw_away else [mount.descriptor for mount in mounts]
            self._send(messages.pack_request(request), [*given, *cgroup_files, *places])
        finally:
            for tree in trees:
                os.close(tree)
        wanted = 2 if program.terminal is None else 3
        ready, descriptors = self._await_ready(wanted)
        self.upper = descriptors[0]
        store = os.fstatvfs(self.upper)
        self.own_inodes = store.f_files - store.f_ffree
        self.sockets = descriptors[1]
        self.terminal = descriptors[2] if wanted == 3 else None
        return ready

    def _await_ready(self, wanted: int) -> tuple[Ready, list[int]]:
        """Wait until the walls stand; gives what comes with that, as many descriptors as wanted."""
        ready, descriptors = self._next_message()
        if isinstance(ready, Failed):
            raise Refused(ready.step, ready.errno, ready.detail)
        if not isinstance(ready, Ready) or len(descriptors) != wanted:
            for descriptor in descriptors:
                os.close(descriptor)
            raise MessageError("an init that is ready without its descriptors")
        return ready, descriptors

    def _trees(self, mounts: list[Mount]) -> list[int]:
        """As root, make the detached mounts on which each owner appears as the program's id."""
        if not self._throw_away or self.identity is None:
            return []
        trees: list[int] = []
        maps: dict[tuple[int, int], int] = {}
        try:
            for mount in mounts:
                status = os.fstat(mount.descriptor)
                owner = (status.st_uid, status.st_gid)
                if owner not in maps:
                    maps[owner] = _id_map(owner, self.identity)
                trees.append(_mapped_tree(mount, maps[owner]))
        except OSError as error:
            for tree in trees:
                os.close(tree)
            place = f"{error.filename}: " if error.filename else ""
            text = place + (error.strerror or "")
            raise Refused("mapped mounts", error.errno or errno.EIO, text) from error
        finally:
            for each in maps.values():
                os.close(each)
        return trees

    def _send(self, request: bytes, descriptors: list[int]) -> None:
        if len(request) > messages.REQUEST_BYTES:
            raise Refused("request", errno.E2BIG, f"{len(request)} bytes of arguments")
        memory = os.memfd_create("request")
        try:
            rest = memoryview(request)
            while rest:
                rest = rest[os.write(memory, rest) :]
            passed = struct.pack(f"{1 + len(descriptors)}i", memory, *descriptors)
            rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, passed)
            self._channel.sendmsg([messages.REQUEST], [rights])
        except (BrokenPipeError, ConnectionResetError):
            return  # it said why before it died
        except OSError as error:
            raise Refused("request", error.errno or errno.EIO, error.strerror or "") from error
        finally:
            os.close(memory)

    def _next_message(self) -> tuple[Born | Ready | Failed, list[int]]:
        """Wait for the next message of those before the start, and the descriptors beside it."""
        deadline = monotonic_ns() + READY_SECONDS * 1_000_000_000
        poller = select.poll()
        poller.register(self._channel, select.POLLIN)
        watched = self._watch(poller)
        try:
            while True:
                left_ms = (deadline - monotonic_ns()) // 1_000_000
                if left_ms < 0:
                    raise Refused("start", errno.ETIMEDOUT, f"not ready within {READY_SECONDS} s")
                if not poller.poll(left_ms + 1):
                    continue
                try:
                    data, descriptors = self._receive(_socket.MSG_DONTWAIT)
                except BlockingIOError:
                    data, descriptors = b"", []
                if not data:
                    raise Refused("start", 0, "it died while it was being started")
                return messages.parse_before_start(data), descriptors
        finally:
            if watched is not None:
                os.close(watched)

    def _watch(self, poller: select.poll) -> int | None:
        """Let the poller also notice the death of whom the next message is to come from."""
        if self.pidfd is not None:
            poller.register(self.pidfd, select.POLLIN)
            return None
        watched = os.pidfd_open(self._launcher or 0)
        poller.register(watched, select.POLLIN)
        return watched

    def _receive(self, flags: int) -> tuple[bytes, list[int]]:
        try:
            data, ancillary, arrived, _ = self._receive_once(flags)
        except ConnectionResetError:
            # It died with our last word unread, told once. What it said before comes after that.
            data, ancillary, arrived, _ = self._receive_once(flags)
        descriptors: list[int] = []
        for level, kind, words in ancillary:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                descriptors += struct.unpack(f"{len(words) // 4}i", words)
        if arrived & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
            for descriptor in descriptors:
                os.close(descriptor)
            raise MessageError("a message that is too long")
        return data, descriptors

    def _receive_once(self, flags: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]:
        flags |= _socket.MSG_CMSG_CLOEXEC
        return self._channel.recvmsg(messages.MESSAGE_BYTES, _socket.CMSG_SPACE(12), flags)

    def _walls(self, ready: Ready | None, failed: Failed | None) -> Walls:
        thrown = f"throw-away id {self.identity}" if self._throw_away else "own id"
        return Walls(
            failed_step=failed.step if failed else None,
            failed_errno=failed.errno if failed else 0,
            failed_detail=failed.detail if failed else "",
            identity=thrown if self.identity is not None else "",
            proc=("own" if ready.own_proc else "empty") if ready else None,
            no_new_privs=ready.no_new_privs if ready else None,
            capabilities=ready.capabilities if ready else None,
            rlimits=ready.rlimits if ready else None,
            landlock=ready.landlock if ready else None,
            landlock_abi=ready.landlock_abi if ready else 0,
            landlock_probe=ready.landlock_probe if ready else None,
            seccomp=ready.seccomp if ready else None,
            setup_ns=ready.setup_ns if ready else 0,
            waited_ns=ready.waited_ns if ready else 0,
        )

    def observe(self) -> Observed:
        """Read from outside what the kernel enforces on the init, and so on the program."""
        return self._observe(self.pid)

    def _observe(self, pid: int | None) -> Observed:
        status = _status_of(pid)
        ours = _status_of("self")
        its_filters = _integer(status.get("Seccomp_filters"), 10)
        our_filters = _integer(ours.get("Seccomp_filters"), 10)
        unknown = its_filters is None or our_filters is None
        users = status.get("Uid")
        return Observed(
            no_new_privs=_integer(status.get("NoNewPrivs"), 10),
            seccomp_mode=_integer(status.get("Seccomp"), 10),
            seccomp_filters=None if unknown else (its_filters or 0) - (our_filters or 0),
            effective=_integer(status.get("CapEff"), 16),
            permitted=_integer(status.get("CapPrm"), 16),
            inheritable=_integer(status.get("CapInh"), 16),
            bounding=_integer(status.get("CapBnd"), 16),
            ambient=_integer(status.get("CapAmb"), 16),
            user_ids=None if users is None else tuple(int(user) for user in users.split()),
            threads=_integer(status.get("Threads"), 10),
            core_limit=_core_limit(pid),
        )

    def go(self) -> None:
        """Let the init start the program. Its first event says whether that worked.

        Where the init is dead already, the pidfd says so; this does not raise.
        """
        if not self._counts_processes:
            self._end_lingering()
        self._say(messages.GO)

    def next_event(self) -> Event | None:
        """Give the next event if there is one; never waits. Also None once the init is gone.

        Raises:
            GuestError: a step of the init's failed, or it said something that is not of the agreed
                form.
        """
        try:
            data, descriptors = self._receive(_socket.MSG_DONTWAIT)
            if descriptors:
                for descriptor in descriptors:
                    os.close(descriptor)
                raise MessageError("an event with descriptors")
            event = messages.parse_event(data) if data else None
            self._end_lingering()
            if isinstance(event, Failed):
                raise GuestError(failed_words(event))
            return event
        except (BlockingIOError, ConnectionResetError):
            return None
        except MessageError as error:
            raise GuestError(f"{self.held_by} is not ours: {error}") from error

    def terminate(self) -> None:
        """Send SIGTERM (then SIGCONT) to every process of the program. Never raises when gone."""
        self._say(messages.TERMINATE)

    def _say(self, word: bytes) -> None:
        try:
            self._channel.send(word, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError, BlockingIOError):
            return

    def kill(self) -> None:
        """Send SIGKILL to the init, and so to everything inside. Never raises when gone."""
        from _signal import pidfd_send_signal  # type: ignore[import-not-found]

        if self.pidfd is None:
            return
        try:
            pidfd_send_signal(self.pidfd, _SIGKILL)
        except ProcessLookupError:
            return

    def finish(self) -> resource.struct_rusage | None:
        """Kill what is left, wait until the last process is dead, and reap the init.

        Gives the init's usage, which includes every process it reaped (not those that died with
        it); None where there never was one. May be called again. `upper`, `terminal` and `events`
        stay open: an event sent before the end can still be read.
        """
        if self._launcher is not None:
            self._finish_launcher()
        self._end_lingering()
        if self.pid is None or self._usage is not None:
            return self._usage
        self.kill()
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        # A signal handler that raised between these two would make us kill a stranger later.
        # `wait4` itself imports `resource`, and where that fails the init is reaped already.
        import resource  # noqa: F401
        from _signal import SIG_BLOCK, SIG_SETMASK, SIGHUP, SIGINT, SIGTERM, pthread_sigmask

        blocked = pthread_sigmask(SIG_BLOCK, (SIGHUP, SIGINT, SIGTERM))
        try:
            _, _, self._usage = os.wait4(self.pid, 0)
        finally:
            pthread_sigmask(SIG_SETMASK, blocked)
        return self._usage

    def _end_lingering(self) -> None:
        """Reap the launcher, which stays until the program has joined its cgroup."""
        lingering = self._lingering
        if lingering is not None:
            os.kill(lingering, _SIGKILL)
            # First: a signal handler that raises in between leaves a dead child, not a stranger.
            self._lingering = None
            os.waitpid(lingering, 0)

    def _finish_launcher(self) -> None:
        """End a launcher whose init this process may not know of yet."""
        launcher = self._launcher
        if launcher is None:
            return
        # Not killed before it has told of the init, which would be a child nobody knew of.
        try:
            self._learn_of_init()
        except (Refused, MessageError):
            # Not reaped yet, so that its id is still its own.
            os.kill(launcher, _SIGKILL)
            self._launcher = None
            os.waitpid(launcher, 0)

    def close(self) -> None:
        """Close `events`, `pidfd`, `upper`, `sockets` and `terminal`. Call `finish` first."""
        self._channel.close()
        for descriptor in (self.pidfd, self.upper, self.sockets, self.terminal):
            if descriptor is not None:
                os.close(descriptor)
        self.pidfd = self.upper = self.sockets = self.terminal = None


def failed_words(failed: Failed) -> str:
    """Say which step failed, and with what."""
    words = f"{failed.step} failed"
    if failed.errno:
        words += f" with {errno.errorcode.get(failed.errno, failed.errno)}"
    detail = failed.detail or (os.strerror(failed.errno) if failed.errno else "")
    return f"{words}: {detail}" if detail else words


def _own_child(pid: int) -> int:
    """Give a pidfd of a child of ours.

    Raises:
        MessageError: it is none.
    """
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        raise MessageError(f"an init that is not our child: {pid}") from None
    return os.pidfd_open(pid)


def _as_workspace(program: Program, workspace: Mount) -> Mount:
    # Never writable itself: what is written goes to the layer above it.
    return Mount(
        source=workspace.source,
        descriptor=workspace.descriptor,
        target=program.workspace_target,
        writable=False,
        folder=True,
    )


def _shown(mount: Mount, *, ready_made: bool) -> Shown:
    return Shown(
        source=mount.source,
        target=mount.target,
        writable=mount.writable,
        folder=mount.folder,
        ready_made=ready_made,
    )


def _mapped_tree(mount: Mount, users: int) -> int:
    """Give a detached mount of what a descriptor says, its owner mapped to the program's id.

    Raises:
        OSError: refused; EINVAL where the file system cannot map ids.
    """
    from beddel_cli.process import kernel

    tree = kernel.clone_tree("", folder=mount.descriptor, recursive=False)
    attributes = kernel.NO_SUID | kernel.NO_DEVICES | (0 if mount.writable else kernel.READ_ONLY)
    try:
        kernel.restrict_tree(tree, attributes, users=users)
    except OSError as error:
        os.close(tree)
        raise OSError(error.errno, error.strerror, mount.source) from error
    return tree


def _id_map(owner: tuple[int, int], identity: int) -> int:
    """Give a user namespace in which only `owner` exists, as `identity`; by descriptor.

    It belongs to a child that lives just long enough.

    Raises:
        OSError: refused.
    """
    from beddel_cli.process import kernel

    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            kernel.unshare(kernel.NEW_USERS)
            theirs.send(b"\0")
            theirs.recv(1)
        finally:
            os._exit(0)
    theirs.close()
    try:
        if ours.recv(1) != b"\0":
            raise OSError(errno.EPERM, "no user namespace for the id map")
        for name, before in (("uid_map", owner[0]), ("gid_map", owner[1])):
            descriptor = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, f"{before} {identity} 1".encode("ascii"))
            finally:
                os.close(descriptor)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        ours.close()
        os.waitpid(pid, 0)


def _let_open_again(pipes: list[int], identity: int) -> None:
    """Let the program open its own streams by name (/dev/stdout), as under its caller's id."""
    for pipe in pipes:
        if stat.S_ISFIFO(os.fstat(pipe).st_mode):
            os.fchown(pipe, identity, identity)


def _status_of(pid: int | str | None) -> dict[str, str]:
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            pairs = [line.partition(":") for line in file]
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in pairs}


def _core_limit(pid: int | None) -> int | None:
    """Read the hard limit out of /proc, which shows it also where prlimit(2) may not look.

    The init has another id than root's supervisor, and no capability of ours counts inside.
    """
    try:
        with open(f"/proc/{pid}/limits", encoding="utf-8") as file:
            hard = next(line.split()[5] for line in file if line.startswith("Max core file size"))
    except (OSError, StopIteration):
        return None
    return int(hard) if hard.isdigit() else None


def _integer(text: str | None, radix: int) -> int | None:
    return None if text is None else int(text, radix)
