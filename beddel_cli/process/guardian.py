"""The processes around a program that has no namespaces: keeper, guardian, and the program to be.

Without a PID namespace nothing dies by itself. The *guardian* adopts every orphan of the program
(it is their subreaper), sees the program to its end, and then kills until it has no child left,
which proves that none is alive: whoever is orphaned becomes its child. It does the same when the
supervisor lets go of the channel, be it by SIGKILL. The *keeper* outlives both: it kills what a
guardian that was killed itself has left, and removes the scratch folder once the lease on it ends.

`kill(-1)` is the one way to reach a tree that forks while it is being killed: the kernel signals
all it may signal at once, and nobody is born meanwhile. So keeper and guardian are made such that
they may signal the program's processes and no others, and that these may not signal them:

- started by root, the program has an id that owns nothing. The guardian has that id as its
  effective one only, which is what counts for who signals; its others, which count for who is
  signalled, are a second id that owns nothing.
- started by anybody else, all have one id. The keeper is in a Landlock domain that lets no signal
  out, the guardian in one within it, and the program in one within that.

Both are tried before anything is started: a signal to the supervisor must fail, and so must one to
the guardian from where the program will be.

The supervisor holds the signing key by then, so these processes come from a fresh interpreter and
not from a fork of it.

Sources: kill(2), "permission"; prctl(2) on PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG; landlock(7) on
LANDLOCK_SCOPE_SIGNAL; kernel/signal.c, kill_something_info; kernel/fork.c on pending signals.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import errno
import os
import select
import struct
import sys
from time import monotonic_ns, sleep

from beddel_cli.process import init, kernel, messages, rights, scratch, strict_rules
from beddel_cli.process.by_name import NameKeeper
from beddel_cli.process.filter import Grants, filter_program
from beddel_cli.process.init import EXIT_BROKEN, EXIT_DONE, At, Broken
from beddel_cli.process.messages import Born, Event, Failed, Ready, Request
from beddel_cli.record import changed

# What `landlock_rung` leaves open for us.
CHANNEL, LEASE = 3, 4
KILL = b"K"
_REPORT = struct.Struct("<7iQ")
_FAILED, _READY = b"F", b"R"
_SIGKILL, _SIGTERM, _SIGCONT, _SIGCHLD = 9, 15, 18, 17
_AGAIN_SECONDS = 0.001
_REMOVE_TRIES, _REMOVE_SECONDS = 100, 0.02


def main() -> None:
    """Be the keeper, and as its sibling the guardian. Never returns."""
    path, supervisor, started_ns = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    channel = _socket.socket(fileno=CHANNEL)
    code = EXIT_BROKEN
    try:
        # The caller's may deny us what we make ourselves.
        os.umask(0o022)
        _keep(channel, path, supervisor, started_ns)
        code = EXIT_DONE
    except Broken as broken:
        init.say(channel, messages.pack_failed(broken.failed))
    except BaseException as error:  # noqa: BLE001
        # Whatever it was, none of these processes may go on as another one.
        text = f"{type(error).__name__}: {error}"
        init.say(channel, messages.pack_failed(Failed(messages.OUR_FAULT, 0, text)))
    finally:
        os._exit(code)


def _keep(channel: _socket.socket, path: str, supervisor: int, started_ns: int) -> None:
    with At("start"):
        os.setsid()
        kernel.close_from(LEASE + 1)
        for descriptor in (CHANNEL, LEASE):
            os.set_inheritable(descriptor, False)
        kernel.prctl(kernel.SET_NAME, b"beddel-keeper\0")
        kernel.prctl(kernel.SET_DUMPABLE, 0)
        if os.getppid() != supervisor:
            raise OSError(errno.ESRCH, "the supervisor is gone")
    with At("throw-away id"):
        identities = _two_identities()
    if identities is None:
        _keep_signals_in(supervisor)
    with At("guardian"):
        guardian = kernel.fork_sibling()
    if guardian == 0:
        os.close(LEASE)
        if identities is None:
            _keep_signals_in(supervisor)
        _guard(channel, supervisor, identities, started_ns)
        return
    channel.close()
    _await(guardian)
    _kill_left(identities)
    poller = select.poll()
    poller.register(LEASE, select.POLLIN)
    poller.poll()
    _remove(path)


def _two_identities() -> tuple[int, int] | None:
    """Give the program's id and a second one for the guardian; None where it is the caller's own.

    Raises:
        OSError: there is none to be had.
    """
    program = init.find_identity()
    if program is None:
        return None
    for _ in range(64):
        other = init.find_identity()
        if other not in (None, program):
            return program, other or 0
    raise OSError(errno.EAGAIN, "no second id that owns nothing")


def _keep_signals_in(supervisor: int) -> None:
    """Let this process, and those it will start, signal nobody else."""
    with At("guardian"):
        abi = kernel.landlock_abi()
        if abi < strict_rules.SCOPES_SINCE:
            text = f"Landlock ABI {abi} keeps no signals in; {strict_rules.SCOPES_SINCE} does"
            raise OSError(errno.EOPNOTSUPP, text)
        kernel.prctl(kernel.SET_NO_NEW_PRIVS, 1)
        strict_rules.keep_signals_in()
        _check_harmless(supervisor)


def _check_harmless(supervisor: int) -> None:
    """Make sure that `kill(-1)` of ours cannot meet the supervisor, before it is ever used.

    Raises:
        OSError: EUCLEAN: a signal to it would go through.
    """
    number = _signal_errno(supervisor)
    if number != errno.EPERM:
        raise OSError(errno.EUCLEAN, f"a signal to the supervisor gave errno {number}, not EPERM")


def _signal_errno(pid: int) -> int:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _await(guardian: int) -> None:
    try:
        watched = os.pidfd_open(guardian)
    except ProcessLookupError:
        return
    poller = select.poll()
    poller.register(watched, select.POLLIN)
    poller.poll()
    os.close(watched)


def _kill_left(identities: tuple[int, int] | None) -> None:
    """Kill what a guardian has left; nothing where it came to its own end."""
    if identities is None:
        _signal_all(_SIGKILL)
        return
    pid = os.fork()
    if pid == 0:
        try:
            _be_able_to_signal(*identities)
            _signal_all(_SIGKILL)
        finally:
            os._exit(EXIT_DONE)
    os.waitpid(pid, 0)


def _be_able_to_signal(program: int, other: int) -> None:
    """Be who may signal the program's processes and no others, and whom these may not signal."""
    os.setgroups([])
    os.setresgid(other, other, other)
    os.setresuid(other, program, other)


def _signal_all(number: int) -> None:
    try:
        os.kill(-1, number)
    except (ProcessLookupError, PermissionError):
        return


def _remove(path: str) -> None:
    """Remove the scratch folder; what is left for whatever reason is swept by a later run."""
    for _ in range(_REMOVE_TRIES):
        try:
            scratch.remove(path)
        except OSError:
            sleep(_REMOVE_SECONDS)
        else:
            return


def _guard(
    channel: _socket.socket,
    supervisor: int,
    identities: tuple[int, int] | None,
    started_ns: int,
) -> None:
    """Be the guardian. Returns once it has no child left."""
    with At("guardian"):
        kernel.prctl(kernel.SET_CHILD_SUBREAPER, 1)
        kernel.prctl(kernel.SET_NAME, b"beddel-guardian\0")
        if os.getppid() != supervisor:
            raise OSError(errno.ESRCH, "the supervisor is gone")
    identity = os.geteuid() if identities is None else identities[0]
    channel.send(messages.pack_born(Born(os.getpid(), identity, identities is not None)))
    waiting_ns = monotonic_ns()
    with At("request"):
        request, descriptors = init.receive_request(channel)
    waited_ns = monotonic_ns() - waiting_ns
    with At("terminal"):
        terminal = init.open_terminal(request.terminal, "/dev/ptmx")
    said_out, said_in = os.pipe()
    go_out, go_in = os.pipe()
    ours, theirs = _socket.socketpair()
    with At("start"):
        wake = _wake_on_death()
        guardian = os.getpid()
        starter = os.fork()
    if starter == 0:
        # Both ends of the others: the program's end must show, and nobody may speak for us.
        for descriptor in (said_out, go_in, channel.detach(), *terminal[:1]):
            os.close(descriptor)
        ours.close()
        told = (go_out, said_in, theirs, guardian)
        _be_starter(request, descriptors, terminal[1:], identities, told)
    try:
        theirs.close()
        for descriptor in (said_in, go_out, *terminal[1:], *descriptors):
            os.close(descriptor)
        with At("guardian"):
            if identities is not None:
                _be_able_to_signal(*identities)
            # Changing credentials undoes both.
            kernel.prctl(kernel.SET_PDEATHSIG, _SIGTERM)
            kernel.prctl(kernel.SET_DUMPABLE, 0)
            _check_harmless(supervisor)
    except BaseException:
        # `kill(-1)` may still be root's, and there is nobody yet but this one.
        ours.close()
        os.kill(starter, _SIGKILL)
        os.waitpid(starter, 0)
        raise
    try:
        ready = _await_ready(os.read(said_out, 4096), starter, started_ns, waited_ns)
        names = _receive_listener(ours, request)
        _send_ready(channel, ready, terminal[:1])
        if channel.recv(1) == messages.GO:
            os.write(go_in, b"G")
            os.close(go_in)
            _see_to_its_end(channel, starter, said_out, wake, names)
    finally:
        _end_all()


def _wake_on_death() -> int:
    """Give a descriptor that is readable when a child has died, or the supervisor."""
    wake_out, wake_in = os.pipe()
    os.set_blocking(wake_in, False)
    os.set_blocking(wake_out, False)
    _signal.set_wakeup_fd(wake_in, warn_on_full_buffer=False)
    for number in (_SIGCHLD, _SIGTERM):
        _signal.signal(number, init.note_nothing)
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    return wake_out


def _await_ready(said: bytes, starter: int, started_ns: int, waited_ns: int) -> Ready:
    if said[:1] == _FAILED:
        step, number, detail = said[1:].decode("utf-8", "replace").split("\0", 2)
        raise Broken(step, OSError(int(number), detail))
    if said[:1] != _READY or len(said) != 1 + _REPORT.size:
        raise Broken("start", OSError(errno.ESRCH, "it died while it was being started"))
    limited, capabilities, no_new_privs, landlock, abi, probe, seccomp, ready_ns = _REPORT.unpack(
        said[1:]
    )
    return Ready(
        rlimits=limited,
        capabilities=capabilities,
        no_new_privs=no_new_privs,
        landlock=landlock,
        landlock_abi=abi,
        landlock_probe=None if probe < 0 else probe,
        seccomp=seccomp,
        own_proc=False,
        setup_ns=ready_ns - started_ns,
        waited_ns=waited_ns,
        starter=starter,
    )


def _send_ready(channel: _socket.socket, ready: Ready, master: list[int]) -> None:
    rights_of_it = []
    if master:
        passed = struct.pack("i", master[0])
        rights_of_it.append((_socket.SOL_SOCKET, _socket.SCM_RIGHTS, passed))
    with At("ready"):
        channel.sendmsg([messages.pack_ready(ready)], rights_of_it)
    for descriptor in master:
        os.close(descriptor)


def _receive_listener(ours: _socket.socket, request: Request) -> NameKeeper | None:
    """Take charge of the calls that the program's filter hands over; None where it hands none."""
    with At("listener"):
        data, ancillary, _, _ = ours.recvmsg(1, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    ours.close()
    if data != b"L" or not ancillary:
        return None
    (listener,) = struct.unpack("i", ancillary[0][2])
    workspace = os.path.realpath(request.workspace_target)
    temporary = os.path.join(os.path.dirname(workspace), scratch.TEMPORARY)
    folders = (workspace, temporary) if request.workspace_writable else (temporary,)
    numbers = strict_rules.asked_numbers(os.uname().machine)
    return NameKeeper(listener, numbers, folders)


def _see_to_its_end(
    channel: _socket.socket, program: int, said_out: int, wake: int, names: NameKeeper | None
) -> None:
    """Tell how the start went, then reap until the program ends or the supervisor lets go."""
    said = os.read(said_out, 512)
    if said:
        kind, code = struct.unpack_from("<Bi", said)
        detail = said[5:].decode("utf-8", "replace")
        channel.send(messages.pack_event(Event(kind, code, 0, 0, detail)))
        return
    channel.send(messages.pack_event(Event(messages.STARTED, 0, 0, 0, "")))
    poller = select.poll()
    poller.register(channel, select.POLLIN)
    poller.register(wake, select.POLLIN)
    if names is not None:
        poller.register(names.listener, select.POLLIN)
    while True:
        ready = dict(poller.poll())
        if channel.fileno() in ready:
            if channel.recv(1) != messages.TERMINATE:
                return
            _signal_all(_SIGTERM)
            # A stopped process gets to see the signal only once it goes on.
            _signal_all(_SIGCONT)
        if names is not None and names.listener in ready:
            if ready[names.listener] & select.POLLIN:
                names.answer()
            else:
                poller.unregister(names.listener)  # nobody is left who could ask
        if wake in ready:
            os.read(wake, 4096)
        ended, _ = init.reap_all(program)
        if ended is not None:
            channel.send(messages.pack_event(ended))
            return


def _end_all() -> None:
    """Kill and reap until there is no child: whoever is orphaned becomes one, so nobody is left."""
    while True:
        _signal_all(_SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        sleep(_AGAIN_SECONDS)


def _be_starter(
    request: Request,
    descriptors: list[int],
    terminal: list[int],
    identities: tuple[int, int] | None,
    to_guardian: tuple[int, int, _socket.socket, int],
) -> None:
    """Give everything up, and on the guardian's word become the program. Never returns."""
    go, say, channel, guardian = to_guardian
    try:
        standard = [] if request.terminal is not None else descriptors[:3]
        cgroups = descriptors[len(standard) :][: request.cgroup_files]
        places = descriptors[len(standard) + len(cgroups) :]
        try:
            report = _give_up(request, places, identities, channel, guardian)
        except Broken as broken:
            failed = broken.failed
            os.write(say, _FAILED + f"{failed.step}\0{failed.errno}\0{failed.detail}".encode())
            return
        os.write(say, _READY + report)
        if os.read(go, 1) == b"G":
            init.become(request, standard, cgroups, terminal, say)
    finally:
        os._exit(EXIT_BROKEN)


def _give_up(
    request: Request,
    places: list[int],
    identities: tuple[int, int] | None,
    channel: _socket.socket,
    guardian: int,
) -> bytes:
    with At("start"):
        # Its files in /proc are its own only while it may be looked into.
        kernel.prctl(kernel.SET_DUMPABLE, 1)
        # The whole machine's first choice when memory runs out: the program, not its bystanders.
        init.write_proc("oom_score_adj", "1000")
    with At("throw-away id"):
        # While it may. Nobody but root may empty the bounding set; what is in it then stays out of
        # reach by no_new_privs.
        if os.geteuid() == 0:
            kernel.lock_capabilities()
        if identities is not None:
            init.take_identity(identities[0])
    with At("start"):
        kernel.prctl(kernel.SET_PDEATHSIG, _SIGKILL)
        kernel.prctl(kernel.SET_DUMPABLE, 0)
        if os.getppid() != guardian:
            raise OSError(errno.ESRCH, "the guardian is gone")
        if not request.counts_memory:
            # As the init does, see there.
            kernel.prctl(kernel.SET_THP_DISABLE, 1)
    with At("landlock"):
        machine, abi = os.uname().machine, kernel.landlock_abi()
    strict = strict_rules.Strict(
        own_id=identities is None,
        landlock_abi=abi,
        asks=identities is None,
        guardian=guardian,
    )
    allowed = strict_rules.Places(
        written=tuple(places[:2]) if request.workspace_writable else (places[1],),
        read=tuple(places[2:] if request.workspace_writable else [places[0], *places[2:]]),
        terminal=request.terminal is not None,
        counts_memory=request.counts_memory,
    )
    usual = Grants(unix_sockets=False, ownerless_memory=request.counts_memory)
    # Counted while /proc may still be read.
    limits = _limits(request, own_id=identities is None)
    with At("rights"):
        given = rights.give_up_by(
            limits,
            kernel.empty_capabilities,
            lambda abi: strict_rules.restrict_files(abi, allowed),
            lambda: _install(machine, usual, strict, channel),
        )
    # Where it has not told of a listener by now, there is none.
    channel.close()
    with At("guardian"):
        number = _signal_errno(guardian)
        if number != errno.EPERM:
            text = f"a signal of the program's to it gave errno {number}, not EPERM"
            raise OSError(errno.EUCLEAN, text)
    return _REPORT.pack(
        given.rlimits,
        given.capabilities,
        given.no_new_privs,
        given.landlock,
        given.landlock_abi,
        -1 if given.landlock_probe is None else given.landlock_probe,
        given.seccomp,
        monotonic_ns(),
    )


def _install(
    machine: str, usual: Grants, strict: strict_rules.Strict, channel: _socket.socket
) -> None:
    """Install both filters, and let the guardian have what the second one hands over."""
    kernel.install_filter(filter_program(machine, usual))
    listener = _listen(machine, strict) if strict.asks else None
    if listener is None:
        refusing = changed(strict, asks=False)
        kernel.install_filter(strict_rules.strict_filter(machine, refusing))
    else:
        passed = struct.pack("i", listener)
        channel.sendmsg([b"L"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, passed)])
        os.close(listener)


def _listen(machine: str, strict: strict_rules.Strict) -> int | None:
    """Install the filter that hands calls over; None where one around us does so already."""
    try:
        return kernel.install_listening_filter(strict_rules.strict_filter(machine, strict))
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EACCES):
            raise
        return None


def _limits(request: Request, *, own_id: bool) -> rights.Limits:
    """Give the rlimits. The kernel counts processes by user, so under an own id others count too.

    There is no init that counts as one.
    """
    usual = init.limits_of(request)
    others = _processes_of(os.geteuid()) if own_id else 0
    return rights.Limits(
        processes=request.processes - 1 + others,
        file_bytes=usual.file_bytes,
        cpu_seconds=usual.cpu_seconds,
        data_bytes=usual.data_bytes,
    )


def _processes_of(user: int) -> int:
    """Count the processes and threads of a user, this one not among them."""
    count = -1
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/status", encoding="utf-8", errors="replace") as file:
                    status = dict(line.partition(":")[::2] for line in file)
                if int(status["Uid"].split()[0]) == user:
                    count += int(status["Threads"])
            except (OSError, KeyError):
                continue  # gone meanwhile
    return count
