"""A program's standard streams, relayed byte for byte by an event loop that nobody can block.

The program never holds a descriptor of the caller: it gets pipes, and what goes through them is
counted, digested and passed on. A caller who does not read stops the program through the pipe, as
a slow `less` would; he does not stop the loop, so that clocks and limits go on.

Sources: pipe(7), write(2), open(2) for O_NONBLOCK and /proc/self/fd.
"""

from __future__ import annotations

import os
import select
import stat

from beddel_cli.process.program import Stream
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Sink(Protocol):
        """Where a program's output goes.

        `write` gives how many of the bytes it took, 0 when it can take none now; then `descriptor`
        polls writable once it can. It raises BrokenPipeError when nobody will read any more, and
        another OSError when it cannot keep what it was given.
        """

        descriptor: int

        def write(self, data: memoryview) -> int: ...


_CHUNK_BYTES = 65536
# A pipe that polls writable has room for this much; a terminal for less.
_SURE_OF_A_PIPE = select.PIPE_BUF
_SURE_OF_A_TERMINAL = 256
# Escape, enquiry, and the control sequence introducer of eight-bit terminals.
_ASKING_BYTES = (b"\x1b", b"\x05", b"\x9b")
_END_OF_FILE_KEY = b"\x04"


def _reopen(descriptor: int, flags: int) -> int | None:
    """Open the same pipe or terminal again without blocking; None where that cannot be.

    O_NONBLOCK belongs to the open file description, which the caller shares with its parent: set
    there, it would break a shell's next command.
    """
    try:
        path = f"/proc/self/fd/{descriptor}"
        return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None


class DescriptorSink:
    """Writes to a descriptor of the caller and never waits for its reader.

    Attributes:
        descriptor: polls writable when there is room.
    """

    def __init__(self, descriptor: int) -> None:
        mode = os.fstat(descriptor).st_mode
        self._own: int | None = None
        self._most = _CHUNK_BYTES
        self._ask_first = False
        terminal = stat.S_ISCHR(mode) and os.isatty(descriptor)
        if terminal or stat.S_ISFIFO(mode):
            self._own = _reopen(descriptor, os.O_WRONLY)
        # Files and devices such as /dev/null have no reader who could be slow.
        if self._own is None and (terminal or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            # Small pieces, and each only after asking, do not block either.
            self._ask_first = True
            self._most = _SURE_OF_A_TERMINAL if terminal else _SURE_OF_A_PIPE
        self.descriptor = descriptor if self._own is None else self._own

    def write(self, data: memoryview) -> int:
        """Write what there is room for; gives how many bytes that were.

        Raises:
            BrokenPipeError: nobody reads any more.
            OSError: the file or device cannot take it.
        """
        if self._ask_first:
            poller = select.poll()
            poller.register(self.descriptor, select.POLLOUT)
            if not poller.poll(0):
                return 0
        try:
            return os.write(self.descriptor, data[: self._most])
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Close what was opened here; the caller's descriptor stays open."""
        if self._own is not None:
            os.close(self._own)
            self._own = None


@record
class Streams:
    """What the caller gives and takes.

    Attributes:
        stdin: a descriptor to read from, the whole input as bytes, or None for no input.
        stdout, stderr: where output goes; None lets it end here, counted and digested all the same.
        head_bytes: how many first bytes of each to keep.
    """

    stdin: int | bytes | None
    stdout: Sink | None
    stderr: Sink | None
    head_bytes: int = 0


class Pipes:
    """The three pipes between a program and its supervisor.

    Attributes:
        program_ends: stdin, stdout and stderr for the program; close them once they are sent.
        stdin: our end; the program reads the end of its input once it is closed.
        stdout, stderr: our ends.
    """

    def __init__(self) -> None:
        inner_in, self.stdin = os.pipe()
        self.stdout, inner_out = os.pipe()
        self.stderr, inner_error = os.pipe()
        self.program_ends = (inner_in, inner_out, inner_error)
        self._sent = False
        for descriptor in (self.stdin, self.stdout, self.stderr):
            os.set_blocking(descriptor, False)

    def close_program_ends(self) -> None:
        """Close the program's ends here, without which its output would have no end."""
        if not self._sent:
            self._sent = True
            for descriptor in self.program_ends:
                os.close(descriptor)

    def close(self) -> None:
        """Close everything: for a run that did not come about."""
        self.close_program_ends()
        for descriptor in (self.stdin, self.stdout, self.stderr):
            os.close(descriptor)


class Outlet:
    """One stream from the program to the caller.

    Attributes:
        source: our end of the pipe (or the terminal); None once it has ended.
        total_bytes: read so far.
        failure: errno of a sink that could not keep what it was given.
        spoke_to_terminal: whether an escape or enquiry was among the bytes.
    """

    def __init__(
        self, source: int | None, sink: Sink | None, head_bytes: int, *, terminal: bool = False
    ) -> None:
        from hashlib import sha256

        self.source = source
        self.total_bytes = 0
        self.failure: int | None = None
        self.spoke_to_terminal = False
        self._terminal = terminal
        self._reads = True
        self._sink = sink
        self._pending = memoryview(b"")
        self._passed = 0
        self._digest = sha256()
        self._head = bytearray()
        self._head_bytes = head_bytes

    def interests(self) -> tuple[tuple[int, int], ...]:
        """Give what to poll: its source, or its sink while that has no room."""
        if self._pending and self._sink is not None:
            return ((self._sink.descriptor, select.POLLOUT),)
        if self.source is None or not self._reads:
            return ()
        return ((self.source, select.POLLIN),)

    def relay(self, most_bytes: int) -> int:
        """Pass on what there is, at most so many bytes; gives how many more there were.

        One chunk at most is read, and none while the sink has no room for the last one.
        """
        if self._pending:
            self._flush()
            return 0
        if self.source is None or not self._reads:
            return 0
        try:
            data = os.read(self.source, _CHUNK_BYTES)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""  # a terminal whose other side is closed answers with EIO
        if not data:
            self.close()
            return 0
        self.total_bytes += len(data)
        self._pending = memoryview(data)[:most_bytes]
        self._flush()
        return max(0, len(data) - most_bytes)

    def _flush(self) -> None:
        while self._pending:
            try:
                took = len(self._pending) if self._sink is None else self._sink.write(self._pending)
            except BrokenPipeError:
                # As between any two programs: who writes on gets SIGPIPE.
                self._give_up()
                return
            except OSError as error:
                self.failure = error.errno or 0
                self._give_up()
                return
            if not took:
                return
            self._note(self._pending[:took])
            self._pending = self._pending[took:]

    def _note(self, data: memoryview) -> None:
        self._passed += len(data)
        self._digest.update(data)
        if len(self._head) < self._head_bytes:
            self._head += data[: self._head_bytes - len(self._head)]
        if self._terminal and not self.spoke_to_terminal:
            taken = data.tobytes()
            self.spoke_to_terminal = any(byte in taken for byte in _ASKING_BYTES)

    def pause(self) -> None:
        """Read no more, but leave the program's end open; what was read is still passed on."""
        self._reads = False

    def _give_up(self) -> None:
        self._pending = memoryview(b"")
        self.close()

    def close(self) -> None:
        """Read no more. The program gets EPIPE for what it still writes."""
        if self.source is not None:
            os.close(self.source)
            self.source = None

    def result(self) -> Stream:
        """Give what came through."""
        return Stream(self.total_bytes, self._passed, self._digest.hexdigest(), bytes(self._head))


class Inlet:
    """Standard input, from the caller to the program.

    Nothing is read ahead of the program by more than one chunk and the pipe, and nothing from a
    terminal whose foreground another job has.
    """

    def __init__(
        self, source: int | bytes | None, target: int | None, *, terminal: bool = False
    ) -> None:
        self._target = target
        self._terminal = terminal
        self._own: int | None = None
        self._source: int | None = None
        self._pending = memoryview(source if isinstance(source, bytes) else b"")
        self._from_terminal = isinstance(source, int) and os.isatty(source)
        if isinstance(source, int):
            if self._from_terminal or stat.S_ISFIFO(os.fstat(source).st_mode):
                self._own = _reopen(source, os.O_RDONLY)
            self._source = source if self._own is None else self._own
        elif not self._pending:
            self._end()

    def interests(self) -> tuple[tuple[int, int], ...]:
        """Give what to poll."""
        if self._target is None:
            return ()
        if self._pending:
            return ((self._target, select.POLLOUT),)
        # Even without input to pass on, whether the program has closed its end is worth knowing;
        # with no events asked for, poll tells just that. A terminal is polled by its outlet.
        closed = () if self._terminal else ((self._target, 0),)
        if self._source is None or self._in_background():
            return closed
        return (*closed, (self._source, select.POLLIN))

    def _in_background(self) -> bool:
        if self._source is None or not self._from_terminal:
            return False
        try:
            return os.tcgetpgrp(self._source) != os.getpgrp()
        except OSError:
            return False  # not our controlling terminal: no job control to obey

    def owns(self, descriptor: int) -> bool:
        """Tell whether a poll answer is for this stream."""
        return descriptor in (self._source, self._target)

    def relay(self, descriptor: int, mask: int) -> None:
        """Pass on what a poll answer allows."""
        if descriptor == self._target and mask & (select.POLLERR | select.POLLNVAL):
            self.close()  # the program reads no more
            return
        if descriptor == self._source and not self._pending:
            self._read()
        self._flush()

    def _read(self) -> None:
        if self._source is None:
            return
        try:
            data = os.read(self._source, _CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # a directory, or a terminal that hung up: no more input
        if data:
            self._pending = memoryview(data)
        else:
            self._close_source()
            self._end()

    def _flush(self) -> None:
        if self._target is None or not self._pending:
            return
        try:
            written = os.write(self._target, self._pending)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._pending = self._pending[written:]
        if not self._pending and self._source is None and not self._terminal:
            self.close()  # the whole input was given as bytes, or has ended

    def _end(self) -> None:
        """Tell the program that no more input comes."""
        if self._terminal:
            # A terminal has no half that could be closed; this is what a person would type.
            self._pending = memoryview(_END_OF_FILE_KEY)
        else:
            self.close()

    def _close_source(self) -> None:
        if self._own is not None:
            os.close(self._own)
        self._own = self._source = None

    def close(self) -> None:
        """Stop relaying and close our end."""
        self._close_source()
        self._pending = memoryview(b"")
        if self._target is not None and not self._terminal:
            os.close(self._target)
        self._target = None
