"""The launcher and the init: what happens in the two processes between supervisor and program.

The launcher takes an id that owns nothing, leaves every namespace for a fresh one and forks the
init as its own sibling, so that the init's parent is the supervisor. The init is process 1 inside:
it builds the root, waits for the supervisor's request, finishes the walls, gives everything up,
and only on the supervisor's word starts the program. Then it reaps, and dies when the program
does; the kernel kills whatever is left of its PID namespace. It also dies when the supervisor
does, however that comes about.

Nothing here decides what a program may have. Every step has a name, and a failing one goes back to
the supervisor as that name and an errno.

Sources: user_namespaces(7), pid_namespaces(7), prctl(2), PR_SET_PDEATHSIG; signal(7).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import errno
import fcntl
import os
import select
import struct
from time import monotonic_ns, sleep

from beddel_cli.process import filesystem, kernel, messages, rights, sockets
from beddel_cli.process.cgroup import own_procs, read_hierarchies
from beddel_cli.process.filter import Grants
from beddel_cli.process.messages import Born, Event, Failed, Ready, Request
from beddel_cli.record import record

EXIT_DONE, EXIT_BROKEN = 0, 70
# Who the program is inside. Nobody is root there: no id but this one exists.
INSIDE_ID = 1000
# Ids that no distribution hands out: below systemd's last range, above container ranges.
FIRST_THROW_AWAY_ID, LAST_THROW_AWAY_ID = 1879048192, 2013265919
_OUR_NAMESPACES = (
    kernel.NEW_MOUNTS
    | kernel.NEW_NETWORK
    | kernel.NEW_IPC
    | kernel.NEW_HOSTNAME
    | kernel.NEW_CGROUP
    | kernel.NEW_PIDS
)
HOSTNAME = "sandbox"
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
# A SIGCHLD for which there was nobody to reap may come from the program, which can send them
# without end. Then the next one waits for this long, or the init would work for the program.
_DEAF_MS = 5
# Without a cgroup, how much writable private memory one process may have beside its limit: most
# of what runtimes reserve they never touch, and the supervisor looks at what they do.
_DATA_FACTOR = 8

# Grace periods take longer than this.
_HASTENED_EVERY_MS, _HASTENED_SECONDS = 4, 1
_SIGKILL, _SIGSTOP, _SIGTERM, _SIGCONT = 9, 19, 15, 18
_TIOCSCTTY, _TIOCSWINSZ, _TIOCSPTLCK, _TIOCGPTPEER = 0x540E, 0x5414, 0x40045431, 0x5441
_SIOCSIFFLAGS, _IFF_UP_RUNNING = 0x8914, 0x41
# How many closed connections the kernel remembers; no figure of ours counts what that takes, and in
# a network of one's own nobody is late with a packet.
_TCP_REMEMBERED = {"tcp_max_tw_buckets": "64"}
# Least, usual and most that one connection may hold to receive and to send.
_TCP_BYTES = {"tcp_rmem": "4096 131072 212992", "tcp_wmem": "4096 16384 212992"}


class Broken(Exception):
    """A step that failed, on its way to the supervisor."""

    def __init__(self, step: str, error: OSError) -> None:
        super().__init__(step)
        place = f"{error.filename}: " if error.filename else ""
        self.failed = Failed(step, error.errno or errno.EIO, place + (error.strerror or ""))


class At:
    """Names the step that an OSError within belongs to."""

    def __init__(self, step: str) -> None:
        self._step = step

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, OSError):
            named = error.step if isinstance(error, rights.StepError) else self._step
            raise Broken(named, error) from error


def launch(channel: _socket.socket, supervisor: int, started_ns: int) -> None:
    """Be the launcher, in a freshly forked child; as its own sibling be the init. Never returns.

    Args:
        channel: the socket to the supervisor.
        supervisor: process id of the parent, to notice its death.
        started_ns: monotonic time of the fork.
    """
    code = EXIT_BROKEN
    try:
        # The caller's may deny us what we make ourselves.
        os.umask(0o022)
        with At("start"):
            kernel.prctl(kernel.SET_PDEATHSIG, _SIGKILL)
            parent = os.pidfd_open(supervisor)
            if os.getppid() != supervisor:
                raise OSError(errno.ESRCH, "the supervisor is gone")
            channel, parent = keep_only(channel, parent)
            # Its own session: Ctrl-C on the terminal is for the supervisor to answer.
            os.setsid()
        _launch(channel, parent, started_ns)
        code = EXIT_DONE
    except Broken as broken:
        say(channel, messages.pack_failed(broken.failed))
    except BaseException as error:  # noqa: BLE001
        # Whatever it was, a forked child must never go on as the main program.
        text = f"{type(error).__name__}: {error}"
        say(channel, messages.pack_failed(Failed(messages.OUR_FAULT, 0, text)))
    finally:
        os._exit(code)


def say(channel: _socket.socket, message: bytes) -> None:
    """Send a last message, whether or not somebody hears it."""
    try:
        channel.send(message)
    except OSError:
        return  # nobody is there to hear it


def _launch(channel: _socket.socket, parent: int, started_ns: int) -> None:
    procs = _open_own_procs()
    with At("throw-away id"):
        identity, group, throw_away = _take_identity()
    with At("user namespace"):
        # Its files in /proc must be its own for the maps to be written.
        kernel.prctl(kernel.SET_DUMPABLE, 1)
        # The whole machine's first choice when memory runs out: the program, not its bystanders.
        write_proc("oom_score_adj", "1000")
        kernel.unshare(kernel.NEW_USERS)
    with At("id maps"):
        write_proc("setgroups", "deny")
        write_proc("gid_map", f"{INSIDE_ID} {group} 1")
        write_proc("uid_map", f"{INSIDE_ID} {identity} 1")
    with At("namespaces"):
        kernel.unshare(_OUR_NAMESPACES)
    with At("init"):
        pid = kernel.fork_sibling()
    if pid == 0:
        if procs is not None:
            os.close(procs)
        _be_init(channel, parent, started_ns)
    else:
        channel.send(messages.pack_born(Born(pid, identity, throw_away)))
        channel.close()
        if procs is not None:
            _hasten_joining(procs, parent)


def _open_own_procs() -> int | None:
    """Open the cgroup.procs of a cgroup that this process is in; None where it may not."""
    path = own_procs(read_hierarchies())
    try:
        return None if path is None else os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _hasten_joining(procs: int, parent: int) -> None:
    """Keep the kernel ready for the program joining its cgroup, until killed or for a second.

    Whoever joins a cgroup waits for a grace period of the whole machine, 10 to 20 ms, unless
    somebody did so just before. This process joins the one it is in, which changes nothing.

    Source: kernel/rcu/sync.c, by which cgroup_threadgroup_rwsem is entered.
    """
    _die_with(parent)
    for _ in range(_HASTENED_SECONDS * 1000 // _HASTENED_EVERY_MS):
        os.write(procs, b"0")
        sleep(_HASTENED_EVERY_MS / 1000)


def keep_only(channel: _socket.socket, parent: int) -> tuple[_socket.socket, int]:
    """Close every descriptor but two, which become 3 and 4; the standard ones lead nowhere."""
    high = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 10) for each in (channel.fileno(), parent)]
    nowhere = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for standard in range(3):
        os.dup2(nowhere, standard)
    os.dup2(high[0], 3, inheritable=False)
    os.dup2(high[1], 4, inheritable=False)
    channel.detach()
    kernel.close_from(5)
    return _socket.socket(fileno=3), 4


def write_proc(name: str, text: str) -> None:
    """Write to a file of this process in /proc."""
    descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)


def _take_identity() -> tuple[int, int, bool]:
    """As root become an id that owns nothing; anybody else stays who they are.

    Root of a container that has a single id is an ordinary user of the host, and stays one.
    """
    identity = find_identity()
    if identity is None:
        return os.geteuid(), os.getegid(), False
    take_identity(identity)
    return identity, identity, True


def find_identity() -> int | None:
    """Give an id that owns nothing; None for who is not root, or root of a single id."""
    if os.geteuid() != 0:
        return None
    with open("/proc/self/uid_map", encoding="utf-8") as file:
        users = parse_id_map(file.read())
    with open("/proc/self/gid_map", encoding="utf-8") as file:
        groups = parse_id_map(file.read())
    return choose_identity(users, groups, _taken_ids(), struct.unpack("<Q", os.urandom(8))[0])


def take_identity(identity: int) -> None:
    """Be that user and that group, without any other group.

    Raises:
        OSError: EPERM without CAP_SETUID and CAP_SETGID.
    """
    os.setgroups([])
    os.setresgid(identity, identity, identity)
    os.setresuid(identity, identity, identity)


def parse_id_map(text: str) -> tuple[tuple[int, int], ...]:
    """Read the ranges of ids, first and count, that exist according to an id map (pure)."""
    lines = [line.split() for line in text.splitlines()]
    return tuple((int(first), int(count)) for first, _, count in lines)


def choose_identity(
    users: tuple[tuple[int, int], ...],
    groups: tuple[tuple[int, int], ...],
    taken: frozenset[int],
    seed: int,
) -> int | None:
    """Choose an id that exists as user and group and that nobody has; None if there is none.

    One of the range that nobody hands out where that exists, else one of the upper half of the
    largest range there is (pure).
    """
    first, last = FIRST_THROW_AWAY_ID, LAST_THROW_AWAY_ID
    if not (_exists(first, users) and _exists(last, users)):
        begin, count = max(users, key=lambda each: each[1])
        first, last = begin + count // 2, begin + count - 1
    for attempt in range(64):
        identity = first + (seed + attempt) % (last - first + 1)
        free = identity != 0 and identity not in taken
        if free and _exists(identity, users) and _exists(identity, groups):
            return identity
    return None


def _exists(identity: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= identity < first + count for first, count in ranges)


def _taken_ids() -> frozenset[int]:
    taken = {65534}
    for path in ("/etc/passwd", "/etc/group"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                fields = [line.split(":") for line in file]
        except FileNotFoundError:
            continue
        taken |= {int(field[2]) for field in fields if len(field) > 2 and field[2].isdigit()}
    return frozenset(taken)


def _be_init(channel: _socket.socket, parent: int, started_ns: int) -> None:
    with At("init"):
        if os.getpid() != 1:
            # It signals everyone it can see: outside of a namespace of its own that is the host.
            raise OSError(errno.ENOSYS, "no PID namespace of its own")
    with At("start"):
        _die_with(parent)
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
        kernel.prctl(kernel.SET_NAME, b"beddel-init\0")
        kernel.wipe_command_line()
    with At("files"):
        own_proc = filesystem.build_root()
    with At("network"):
        _raise_loopback()
        _call_it_sandbox()
    filters = rights.usual_filters()
    waiting_ns = monotonic_ns()
    with At("request"):
        request, descriptors = receive_request(channel)
    asked_ns = monotonic_ns()
    with At("memory"):
        lists = _bound_uncounted(counted=request.counts_memory)
    standard = [] if request.terminal is not None else descriptors[:3]
    cgroups = descriptors[len(standard) :][: request.cgroup_files]
    with At("mounts"):
        built = filesystem.show_program(request, descriptors[len(standard) + len(cgroups) :])
    with At("root"):
        filesystem.enter()
    with At("terminal"):
        terminal = open_terminal(request.terminal)
    with At("start"):
        # Everything that takes a descriptor, before the job's own limit of them holds.
        wake, said = _make_wake(), os.pipe()
    with At("rights"):
        given = rights.give_up(limits_of(request), built.writable, _grants(request), filters)
    with At("start"):
        # Changing credentials undoes both.
        _die_with(parent)
    os.close(parent)
    ready = Ready(
        rlimits=given.rlimits,
        capabilities=given.capabilities,
        no_new_privs=given.no_new_privs,
        landlock=given.landlock,
        landlock_abi=given.landlock_abi,
        landlock_probe=given.landlock_probe,
        seccomp=given.seccomp,
        own_proc=own_proc,
        setup_ns=monotonic_ns() - started_ns,
        waited_ns=asked_ns - waiting_ns,
    )
    sent = [built.upper, lists, *terminal[:1]]
    rights_message = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(sent)}i", *sent))
    with At("ready"):
        channel.sendmsg([messages.pack_ready(ready)], [rights_message])
    for descriptor in sent:
        os.close(descriptor)
    if channel.recv(1) == messages.GO:
        program = _Start(request, standard, cgroups, terminal[1:])
        _serve(channel, program, wake, said)


def _die_with(parent: int) -> None:
    """Be killed when the supervisor dies, and let nobody look into this process's memory."""
    kernel.prctl(kernel.SET_PDEATHSIG, _SIGKILL)
    kernel.prctl(kernel.SET_DUMPABLE, 0)
    # From inside the namespace getppid says 0, dead or alive; the pidfd knows.
    poller = select.poll()
    poller.register(parent, select.POLLIN)
    if poller.poll(0):
        raise OSError(errno.ESRCH, "the supervisor is gone")


def _raise_loopback() -> None:
    any_socket = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    try:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP_RUNNING))
    finally:
        any_socket.close()


def _bound_uncounted(*, counted: bool) -> int:
    """Bound memory that is in no process, and give a socket that lists what sockets hold.

    Args:
        counted: whether a cgroup counts that memory, all but that of netlink sockets and of
            connections that are closed.
    """
    settings = _TCP_REMEMBERED
    if not counted:
        kernel.prctl(kernel.SET_THP_DISABLE, 1)
        settings = settings | _TCP_BYTES
    for name, most in settings.items():
        try:
            with open(f"/proc/sys/net/ipv4/{name}", "w", encoding="utf-8") as file:
                file.write(most)
        except OSError:
            continue  # read-only in containers; what it holds while connected is seen anyway
    kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC
    return _socket.socket(_socket.AF_NETLINK, kind, sockets.PROTOCOL).detach()


def _call_it_sandbox() -> None:
    _socket.sethostname(HOSTNAME)


def receive_request(channel: _socket.socket) -> tuple[Request, list[int]]:
    """Wait for the request; gives it and the descriptors that came with it, in order."""
    room = _socket.CMSG_SPACE(4 * messages.MAX_DESCRIPTORS)
    word, ancillary, flags, _ = channel.recvmsg(16, room, _socket.MSG_CMSG_CLOEXEC)
    if not word:
        os._exit(EXIT_DONE)  # the supervisor let go before it had a program
    whole = not flags & (_socket.MSG_CTRUNC | _socket.MSG_TRUNC)
    if word != messages.REQUEST or not whole or not ancillary:
        raise OSError(errno.EPROTO, "not a request")
    data = ancillary[0][2]
    memory, *descriptors = struct.unpack(f"{len(data) // 4}i", data)
    try:
        size = os.fstat(memory).st_size
        request = messages.parse_request(os.pread(memory, min(size, messages.REQUEST_BYTES), 0))
    finally:
        os.close(memory)
    return request, descriptors


def limits_of(request: Request) -> rights.Limits:
    """Give the rlimits that stand behind the limits of the whole tree."""
    return rights.Limits(
        # A launcher that stays meanwhile counts too; where nothing else counts, it is gone by then.
        processes=request.processes + request.counts_processes,
        file_bytes=request.disk_bytes,
        # Whole seconds, rounded up, and one more: the supervisor counts for the whole tree.
        cpu_seconds=-(-request.cpu_ns // 1_000_000_000) + 1,
        data_bytes=None if request.counts_memory else request.memory_bytes * _DATA_FACTOR,
    )


def _grants(request: Request) -> Grants:
    return Grants(
        unix_sockets=not any(shown.writable for shown in request.mounts),
        ownerless_memory=request.counts_memory,
    )


def open_terminal(size: tuple[int, int] | None, device: str = "/dev/pts/ptmx") -> list[int]:
    """Make a terminal, of the sandbox's own devpts; gives its master and its other side."""
    if size is None:
        return []
    master = os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    fcntl.ioctl(master, _TIOCSWINSZ, struct.pack("4H", *size, 0, 0))
    side = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return [master, side]


def _make_wake() -> tuple[int, int]:
    """Give both ends of a pipe that is written to whenever a child has died."""
    wake_out, wake_in = os.pipe()
    os.set_blocking(wake_in, False)
    os.set_blocking(wake_out, False)
    return wake_out, wake_in


@record
class _Start:
    """What the program starts with."""

    request: Request
    standard: list[int]
    cgroups: list[int]
    terminal: list[int]


def _serve(
    channel: _socket.socket, start: _Start, wake: tuple[int, int], pipe: tuple[int, int]
) -> None:
    """Start the program, tell how that went, then reap until it ends."""
    wake_out, wake_in = wake
    said_out, said_in = pipe
    _signal.set_wakeup_fd(wake_in, warn_on_full_buffer=False)
    _signal.signal(_signal.SIGCHLD, note_nothing)
    try:
        pid = os.fork()
    except OSError as error:
        why = Event(messages.FAULT, error.errno or errno.EIO, 0, 0, "its first process")
        channel.send(messages.pack_event(why))
        return
    if pid == 0:
        try:
            become(start.request, start.standard, start.cgroups, start.terminal, said_in)
        finally:
            os._exit(EXIT_BROKEN)
    # The program's streams end when its last process does, not when the init does.
    for descriptor in (said_in, *start.standard, *start.cgroups, *start.terminal):
        os.close(descriptor)
    said = os.read(said_out, 512)
    os.close(said_out)
    if said:
        kind, code = struct.unpack_from("<Bi", said)
        detail = said[5:].decode("utf-8", "replace")
        channel.send(messages.pack_event(Event(kind, code, 0, 0, detail)))
        return
    channel.send(messages.pack_event(Event(messages.STARTED, 0, 0, 0, "")))
    _reap(channel, pid, wake_out)


def note_nothing(number: int, frame: object) -> None:
    """Be the handler that makes the kernel interrupt poll."""


def _reap(channel: _socket.socket, program: int, wake: int) -> None:
    """Reap whatever dies; tell when the program does. Ends also when the supervisor lets go."""
    poller = select.poll()
    poller.register(channel, select.POLLIN)
    poller.register(wake, select.POLLIN)
    while True:
        ready = dict(poller.poll())
        if channel.fileno() in ready:
            word = channel.recv(1)
            if word != messages.TERMINATE:
                return
            _signal_everyone(_SIGTERM)
            # A stopped process gets to see the signal only once it goes on.
            _signal_everyone(_SIGCONT)
        if wake in ready:
            os.read(wake, 4096)
        ended, reaped = reap_all(program)
        if ended is not None:
            channel.send(messages.pack_event(ended))
            return
        if wake in ready and not reaped:
            _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGCHLD,))
            poller.unregister(wake)
            poller.poll(_DEAF_MS)
            poller.register(wake, select.POLLIN)
            _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGCHLD,))


def _signal_everyone(number: int) -> None:
    try:
        os.kill(-1, number)
    except ProcessLookupError:
        return


def reap_all(program: int) -> tuple[Event | None, int]:
    """Reap all who wait for it; gives the program's end, if it is among them, and how many."""
    reaped = 0
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return None, reaped
        if pid == 0:
            return None, reaped
        reaped += 1
        if pid == program:
            return Event(messages.ENDED, 0, status, usage.ru_maxrss * 1024, ""), reaped


def become(
    request: Request, standard: list[int], cgroups: list[int], terminal: list[int], say: int
) -> None:
    """Be the program. Returns never; where it cannot start, `say` tells why."""
    try:
        try:
            _prepare_streams(standard, terminal)
            _forget_signals()
            os.umask(0o022)
            os.chdir(request.workspace_target)
            for cgroup in cgroups:
                os.write(cgroup, b"0")
            rights.limit_files(request.open_files)
        except OSError as error:
            what = error.filename or "its cgroup, streams or limits"
            os.write(say, struct.pack("<Bi", messages.FAULT, error.errno) + what.encode()[:400])
            return
        code = _execute(request.arguments, dict(request.environment))
        os.write(say, struct.pack("<Bi", messages.NOT_STARTED, code))
    finally:
        os._exit(EXIT_BROKEN)


def _prepare_streams(standard: list[int], terminal: list[int]) -> None:
    os.setsid()
    for number, descriptor in enumerate(standard or terminal * 3):
        os.dup2(descriptor, number)
    if terminal:
        fcntl.ioctl(0, _TIOCSCTTY, 0)
    # All others close at execve: every one of them was opened so.


def _forget_signals() -> None:
    for number in range(1, _signal.NSIG):
        if number not in (_SIGKILL, _SIGSTOP):
            try:
                _signal.signal(number, _signal.SIG_DFL)
            except (OSError, ValueError):
                continue  # the C library keeps two for itself
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _execute(arguments: tuple[str, ...], environment: dict[str, str]) -> int:
    """Replace this process by the program; comes back only with the errno that says why not.

    A name without a slash is looked for in PATH, as execvp(3) does.
    """
    name = arguments[0]
    if not name:
        return errno.ENOENT
    folders = environment.get("PATH", DEFAULT_PATH).split(":")
    candidates = [name] if "/" in name else [f"{folder or '.'}/{name}" for folder in folders]
    code = errno.ENOENT
    for path in candidates:
        try:
            os.execve(path, arguments, environment)  # noqa: S606
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                code = error.errno or errno.EIO
        except ValueError:
            return errno.EINVAL
    return code
