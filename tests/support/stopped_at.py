"""Run a command under ptrace(2) and do something to it exactly at one of its system calls.

Between two system calls a process changes nothing outside of itself. So whoever stops it at every
system call there is, one run for each, has stopped it in every state that anybody else can see.

Every process the command starts is traced too, wherever it is (namespaces, sessions, other ids), so
that which of them outlive it is known and not looked for. Processes are numbered in the order in
which they were made; 0 is the command itself.

Sources: ptrace(2); PTRACE_GET_SYSCALL_INFO needs Linux 5.3.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import pty
import signal
import stat
import struct
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

_TRACE_ME, _CONTINUE, _SYSTEM_CALL, _POKE_USER = 0, 7, 24, 6
_SET_OPTIONS, _GET_EVENT, _GET_SYSCALL_INFO = 0x4200, 0x4201, 0x420E
# Stops marked, every child and execve told, all killed when the tracer dies.
_OPTIONS = 1 | 2 | 4 | 8 | 16 | (1 << 20)
_EVENT_EXEC = 4
_MAKING = (1, 2, 3)  # fork, vfork, clone
_WALL = 0x40000000
_ENTRY = 1
# Offsets in struct user of x86-64.
_RAX, _ORIG_RAX = 10 * 8, 15 * 8
_SECONDS = 60
_OUTLIVE_SECONDS = 10

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


@dataclass(frozen=True, slots=True)
class Signal:
    """Send a signal, to the command or to the process that stands at the system call.

    `numbers`: the calls that are counted; None for all.
    """

    number: int
    to_command: bool = True
    numbers: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Let system calls fail: this one, or with `from_then_on` it and all later ones of its kind.

    Attributes:
        numbers: of the calls that fail, which are then the only ones counted.
    """

    errno: int
    numbers: frozenset[int]
    from_then_on: bool = False


@dataclass(frozen=True, slots=True)
class HangUp:
    """Go away as the reader of the command's streams 1 and 2, or one of them."""

    streams: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ControlC:
    """Type Ctrl-C at the terminal that the command was started from."""


Action = Signal | Failure | HangUp | ControlC


@dataclass(frozen=True, slots=True)
class Point:
    """Where something happens: at the `turn`-th call (from 1) of the `process`-th process."""

    turn: int
    action: Action
    process: int = 0


@dataclass(slots=True)
class Traced:
    """How a traced command ended.

    Attributes:
        pid: of the command.
        status: exit code of the command, or minus the signal that ended it.
        reached: whether the point was.
        calls: how many counted system calls each process made, by its number in the order of birth.
        processes: how each ended, in the same order; None for one that outlived the command.
        programs: for each execve the process's number and its arguments.
        survivors: arguments of the processes that had to be killed.
        unread: how many bytes of stdout were there when their reader went away.
    """

    pid: int = 0
    status: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    reached: bool = False
    calls: list[int] = field(default_factory=list)
    processes: list[int | None] = field(default_factory=list)
    programs: list[tuple[int, tuple[bytes, ...]]] = field(default_factory=list)
    survivors: list[str] = field(default_factory=list)
    unread: int = 0

    def ending_of(self, program: bytes) -> int | None:
        """Give how the process ended that executed a program last; None if none did."""
        found = [number for number, words in self.programs if words[:1] == (program,)]
        return self.processes[found[-1]] if found else None


class Hangs(Exception):
    """A traced command, or what it left, does not end."""


def trace(
    command: Sequence[str],
    point: Point | None,
    *,
    env: Mapping[str, str],
    cwd: Path,
    user: int | None = None,
    count: int = 0,
    counted: frozenset[int] | None = None,
    outlive_seconds: int = _OUTLIVE_SECONDS,
) -> Traced:
    """Run a command to its end and all it started to theirs, doing what is asked at one point.

    Args:
        user: whom to run it as; None for ourselves.
        count: without a point, the process whose calls are counted.
        counted: without a point, the calls that count; None for all.
        outlive_seconds: how long what it started may take to die after it.

    Raises:
        Hangs: it took more than a minute.
    """
    with _streams_for(None if point is None else point.action) as streams:
        pid = os.fork()
        if pid == 0:
            _become(command, streams, dict(env), cwd, user)
        streams.give_away()
        run = _Run(pid, point, count, counted, streams)
        run.outlive_seconds = outlive_seconds
        with _at_most(_SECONDS, run.kill_all), streams.watched():
            run.follow()
        run.told.stdout, run.told.stderr = streams.read(1), streams.read(2)
        return run.told


@dataclass(slots=True)
class _Streams:
    """Standard output and error of a command: its ends, and ours.

    Files unless somebody is to go away, since who reads files needs not be there. At a terminal
    both are one, and standard input too.
    """

    theirs: dict[int, int]
    ours: dict[int, int]
    terminal: bool = False
    unread: int = 0
    shown: list[bytes] = field(default_factory=list)

    def give_away(self) -> None:
        for descriptor in set(self.theirs.values()) - set(self.ours.values()):
            os.close(descriptor)

    def hang_up(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            waiting = bytearray(4)
            fcntl.ioctl(self.ours[number], termios.FIONREAD, waiting)
            if number == 1:
                (self.unread,) = struct.unpack("i", waiting)
            os.close(self.ours.pop(number))

    def type(self, keys: bytes) -> None:
        os.write(self.ours[1], keys)

    def read(self, number: int) -> bytes:
        descriptor = self.ours.get(number)
        if descriptor is None:
            return b""
        if self.terminal:
            return b"".join(self.shown)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        os.set_blocking(descriptor, False)
        found = b""
        with suppress(BlockingIOError):
            while part := os.read(descriptor, 1 << 16):
                found += part
        return found

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Have somebody read the terminal, who would hold up the command otherwise."""
        watcher = threading.Thread(target=self._watch)
        if self.terminal:
            watcher.start()
        yield
        if self.terminal:
            watcher.join()

    def _watch(self) -> None:
        # A terminal that nobody has any more answers EIO.
        with suppress(OSError):
            while part := os.read(self.ours[1], 1 << 16):
                self.shown.append(part)


@contextmanager
def _streams_for(action: Action | None) -> Iterator[_Streams]:
    if isinstance(action, HangUp):
        pipes = {number: os.pipe2(os.O_CLOEXEC) for number in (1, 2)}
        theirs = {number: ends[1] for number, ends in pipes.items()}
        streams = _Streams(theirs, {number: ends[0] for number, ends in pipes.items()})
    elif isinstance(action, ControlC):
        person, program = pty.openpty()
        os.fchmod(program, 0o666)
        streams = _Streams(dict.fromkeys((0, 1, 2), program), {1: person}, terminal=True)
    else:
        files = {number: os.memfd_create(f"stream {number}") for number in (1, 2)}
        streams = _Streams(files, files)
    try:
        yield streams
    finally:
        for descriptor in set(streams.ours.values()):
            os.close(descriptor)


def _become(
    command: Sequence[str], streams: _Streams, env: dict[str, str], cwd: Path, user: int | None
) -> NoReturn:
    try:
        os.setsid()
        if streams.terminal:
            fcntl.ioctl(streams.theirs[0], termios.TIOCSCTTY, 0)
        ends = {0: os.open(os.devnull, os.O_RDONLY)} | streams.theirs
        for number, descriptor in ends.items():
            os.dup2(descriptor, number)
        os.closerange(3, 256)
        os.chdir(cwd)
        if user is not None:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        _libc.ptrace(_TRACE_ME, 0, None, None)
        os.kill(os.getpid(), signal.SIGSTOP)
        os.execve(command[0], list(command), env)
    finally:
        os._exit(127)


@contextmanager
def _at_most(seconds: int, give_up: Callable[[], None]) -> Iterator[None]:
    def ring(_number: int, _frame: FrameType | None) -> None:
        give_up()
        raise Hangs(f"still there after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> None:
    """Call ptrace(2); a process that was killed meanwhile is told of by the next wait."""
    if _libc.ptrace(request, pid, address, data) < 0:
        number = ctypes.get_errno()
        if number != errno.ESRCH:
            raise OSError(number, os.strerror(number))


def _arguments(pid: int) -> tuple[bytes, ...]:
    with suppress(OSError):
        return tuple(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1])
    return ()


class _Run:
    """The command and everything it started, all traced."""

    def __init__(
        self,
        command: int,
        point: Point | None,
        count: int,
        counted: frozenset[int] | None,
        streams: _Streams,
    ) -> None:
        self.told = Traced(pid=command, calls=[0], processes=[None])
        self.outlive_seconds = _OUTLIVE_SECONDS
        self._command = command
        self._numbers = {command: 0}
        self._alive = {command}
        self._early: set[int] = set()
        self._held: int | None = None
        self._failing = False
        self._faked: set[int] = set()
        self._point = point
        self._streams = streams
        self._watched = count if point is None else point.process
        action = None if point is None else point.action
        self._failure = action if isinstance(action, Failure) else None
        self._counted = action.numbers if isinstance(action, Failure | Signal) else counted
        # Who dies of it goes on to be watched for nothing.
        self._done = False

    def kill_all(self) -> None:
        for pid in self._alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def follow(self) -> None:
        """Pass on everything that happens until nobody is left."""
        os.waitpid(self._command, _WALL)
        _ptrace(_SET_OPTIONS, self._command, 0, _OPTIONS)
        self._go_on(self._command)
        while self._alive:
            pid, status = os.waitpid(-1, _WALL)
            if os.WIFSTOPPED(status):
                self._note_stop(pid, status)
            else:
                self._note_end(pid, status)

    def _note_end(self, pid: int, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        number = self._numbers.get(pid)
        self._alive.discard(pid)
        if number is None:
            return
        if self.told.processes[number] is None:
            self.told.processes[number] = code
        if pid != self._command:
            return
        self.told.status = code
        if self._held is not None:
            held, self._held = self._held, None
            self._go_on(held)
        signal.signal(signal.SIGALRM, self._end_survivors)
        signal.alarm(self.outlive_seconds)

    def _end_survivors(self, _number: int, _frame: FrameType | None) -> None:
        for pid in self._alive:
            words = b" ".join(_arguments(pid)).decode("utf-8", "replace")
            self.told.survivors.append(f"{self._numbers.get(pid)}: {words}")
        self.kill_all()

    def _note_stop(self, pid: int, status: int) -> None:
        event, number = status >> 16, os.WSTOPSIG(status)
        if pid not in self._numbers:
            # Told of before its maker is; numbered then.
            self._early.add(pid)
            self._alive.add(pid)
        elif event in _MAKING:
            self._note_birth(self._event_message(pid))
            self._go_on(pid)
        elif event == _EVENT_EXEC:
            self.told.programs.append((self._numbers[pid], _arguments(pid)))
            self._go_on(pid)
        elif number == signal.SIGTRAP | 0x80:
            self._note_call(pid)
        elif event or number == signal.SIGTRAP:
            self._go_on(pid)
        elif number == signal.SIGSTOP and pid in self._early:
            self._early.discard(pid)
            self._go_on(pid)
        else:
            self._go_on(pid, number)

    def _note_birth(self, child: int) -> None:
        self._numbers[child] = len(self.told.processes)
        self.told.processes.append(None)
        self.told.calls.append(0)
        self._alive.add(child)
        if child in self._early:
            self._early.discard(child)
            self._go_on(child)
        else:
            self._early.add(child)

    def _event_message(self, pid: int) -> int:
        message = ctypes.c_ulong()
        _libc.ptrace(_GET_EVENT, pid, None, ctypes.addressof(message))
        return message.value

    def _go_on(self, pid: int, number: int = 0) -> None:
        watched = self._numbers.get(pid) == self._watched and not self._done
        _ptrace(_SYSTEM_CALL if watched else _CONTINUE, pid, 0, number)

    def _note_call(self, pid: int) -> None:
        info = ctypes.create_string_buffer(88)
        _libc.ptrace(_GET_SYSCALL_INFO, pid, len(info), ctypes.addressof(info))
        if pid in self._faked:
            self._faked.discard(pid)
            if self._failure is not None:
                _ptrace(_POKE_USER, pid, _RAX, (1 << 64) - self._failure.errno)
            self._done = not self._failing
        elif info.raw[0] == _ENTRY:
            (call,) = struct.unpack_from("<Q", info.raw, 24)
            if (self._counted is None or call in self._counted) and self._act(pid):
                return
        self._go_on(pid)

    def _act(self, pid: int) -> bool:
        """Count a call and do what is to be done at it; tells whether its process is held."""
        number = self._numbers[pid]
        self.told.calls[number] += 1
        point = self._point
        if self._failing and self._failure is not None:
            self._fake(pid)
        if point is None or self.told.calls[number] != point.turn:
            return False
        self.told.reached = True
        action = point.action
        if isinstance(action, Failure):
            self._failing = action.from_then_on
            self._fake(pid)
            return False
        self._done = True
        if isinstance(action, HangUp):
            self._streams.hang_up(action.streams)
            self.told.unread = self._streams.unread
        elif isinstance(action, ControlC):
            self._streams.type(b"\x03")
        else:
            return self._send(pid, action)
        return False

    def _send(self, pid: int, action: Signal) -> bool:
        target = self._command if action.to_command else pid
        with suppress(ProcessLookupError):
            os.kill(target, action.number)
        if action.number != signal.SIGKILL or target == pid or target not in self._alive:
            return False
        # It stays where it is until the command is dead.
        self._held = pid
        return True

    def _fake(self, pid: int) -> None:
        _ptrace(_POKE_USER, pid, _ORIG_RAX, (1 << 64) - 1)
        self._faked.add(pid)


def supported() -> str | None:
    """Tell why tracing is not possible here; None where it is."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"x86-64 Linux only, and this is {sys.platform} {platform.machine()}"
    try:
        told = trace(["/bin/true"], Point(1, Signal(signal.SIGKILL)), env={}, cwd=Path("/"))
    except OSError as error:
        return f"no ptrace: {error.strerror}"
    return None if told.status == -signal.SIGKILL else "a traced process was not stopped"
