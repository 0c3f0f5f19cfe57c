"""A launcher without walls: a program in a process-id namespace of its own, and nothing else.

It keeps the protocol of `beddel_cli.process.launch.Launcher`, as far as `supervise` uses it, so
that clocks, streams, limits and endings are tried without what the walls need. The init reports
over a socket; it dies with the test, and with it the tree.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import socket
import struct
import termios
from collections.abc import Sequence
from contextlib import suppress

from beddel_cli.process.launch import ENDED, FAULT, NOT_STARTED, STARTED
from beddel_cli.process.messages import Event

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEWUSER, _NEWPID = 0x10000000, 0x20000000
_PDEATHSIG = 1
_EVENT = struct.Struct("<iiiq")


class FakeLauncher:
    """One program. Attributes as in `Launcher`."""

    def __init__(
        self,
        command: Sequence[str],
        stdio: Sequence[int] = (),
        *,
        cgroup_files: Sequence[int] = (),
        upper: int | None = None,
        terminal: bool = False,
        silent: bool = False,
        folder: str = "/",
        processes: int | None = None,
    ) -> None:
        """Start the init, which waits for `go`.

        Args:
            processes: RLIMIT_NPROC, which holds for an ordinary user only.
            silent: the init dies instead of reporting the end.
        """
        self.upper = upper
        self.sockets: int | None = None
        self.terminal: int | None = None
        self.meter = None
        self.works_for_program = False
        self.held_by = "the init of the sandbox"
        self.setup_cpu_ns = 0
        slave = -1
        if terminal:
            self.terminal, slave = os.openpty()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._outer = os.fork()
        if self._outer == 0:
            try:
                ours.close()
                if slave >= 0:
                    stdio = (slave, slave, slave)
                _outer(
                    theirs,
                    list(command),
                    list(stdio),
                    list(cgroup_files),
                    silent,
                    folder,
                    processes,
                )
            finally:
                os._exit(70)
        theirs.close()
        if slave >= 0:
            os.close(slave)
        self._socket = ours
        self.events = ours.fileno()
        (self.pid,) = struct.unpack("<i", ours.recv(4))
        self.pidfd = os.pidfd_open(self.pid)
        ours.setblocking(False)
        self.terminated = 0
        self._usage: resource.struct_rusage | None = None

    def go(self) -> None:
        """Let it start."""
        try:
            self._socket.send(b"g")
        except OSError:
            return

    def next_event(self) -> Event | None:
        """Give the next event."""
        try:
            data = self._socket.recv(100)
        except OSError:
            return None
        if not data:
            return None
        kind, errno, status, maxrss = _EVENT.unpack(data)
        return Event(kind, errno, status, maxrss, "fake" if kind == FAULT else "")

    def terminate(self) -> None:
        """Ask the init to send SIGTERM to all."""
        self.terminated += 1
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGTERM)
        except ProcessLookupError:
            return

    def kill(self) -> None:
        """Kill the init and with it all."""
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return

    def finish(self) -> resource.struct_rusage | None:
        """Kill and reap; the outer process passes on what it reaped."""
        if self._usage is None:
            self.kill()
            _, _, self._usage = os.wait4(self._outer, 0)
        return self._usage

    def close(self) -> None:
        """Close what is left."""
        self._socket.close()
        os.close(self.pidfd)
        if self.terminal is not None:
            os.close(self.terminal)


def _outer(
    talk: socket.socket,
    command: list[str],
    stdio: list[int],
    cgroups: list[int],
    silent: bool,
    folder: str,
    processes: int | None,
) -> None:
    """Make the namespace, fork the init, wait for it."""
    kept = {0, 1, 2, talk.fileno(), *stdio, *cgroups}
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with suppress(OSError):
                os.close(int(name))
    _LIBC.prctl(_PDEATHSIG, signal.SIGKILL)
    flags = _NEWPID | (0 if os.geteuid() == 0 else _NEWUSER)
    if _LIBC.unshare(flags):
        raise OSError(ctypes.get_errno(), "unshare")
    init = os.fork()
    if init == 0:
        try:
            _LIBC.prctl(_PDEATHSIG, signal.SIGKILL)
            _init(talk, command, stdio, cgroups, silent, folder, processes)
        finally:
            os._exit(70)
    talk.send(struct.pack("<i", init))
    talk.close()
    for descriptor in {*stdio, *cgroups}:
        os.close(descriptor)
    os.waitpid(init, 0)
    os._exit(0)


def _terminate(number: int, frame: object) -> None:
    try:
        os.kill(-1, signal.SIGTERM)
        os.kill(-1, signal.SIGCONT)
    except ProcessLookupError:
        return


def _init(
    talk: socket.socket,
    command: list[str],
    stdio: list[int],
    cgroups: list[int],
    silent: bool,
    folder: str,
    processes: int | None,
) -> None:
    signal.signal(signal.SIGTERM, _terminate)
    if not talk.recv(1):
        return
    told, tells = os.pipe()
    program = os.fork()
    if program == 0:
        try:
            _program(command, stdio, cgroups, folder, processes)
        except OSError as error:
            os.write(tells, struct.pack("<i", error.errno or 0))
        finally:
            os._exit(70)
    os.close(tells)
    for descriptor in {*stdio, *cgroups}:
        os.close(descriptor)
    failed = os.read(told, 4)
    if failed:
        talk.send(_EVENT.pack(NOT_STARTED, struct.unpack("<i", failed)[0], 0, 0))
        return
    talk.send(_EVENT.pack(STARTED, 0, 0, 0))
    while True:
        pid, status, usage = os.wait4(-1, 0)
        if pid == program:
            if not silent:
                talk.send(_EVENT.pack(ENDED, 0, status, usage.ru_maxrss * 1024))
            return


def _program(
    command: list[str],
    stdio: list[int],
    cgroups: list[int],
    folder: str,
    processes: int | None,
) -> None:
    os.setsid()
    if processes is not None:
        # The init and the process that waits for it count too.
        resource.setrlimit(resource.RLIMIT_NPROC, (processes + 2, processes + 2))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for descriptor in cgroups:
        os.write(descriptor, b"0")
    kept = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 100) for descriptor in stdio]
    for number, descriptor in enumerate(kept):
        os.dup2(descriptor, number)
    if os.isatty(0):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.chdir(folder)
    os.execvpe(command[0], command, {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"})
