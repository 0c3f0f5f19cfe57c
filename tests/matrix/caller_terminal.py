"""A terminal that a caller sits at while a column runs a program, and what became of it."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_SIZE = struct.pack("HHHH", 30, 100, 0, 0)


@dataclass(slots=True)
class CallerTerminal:
    """A pair of a terminal and whoever looks at it.

    Attributes:
        shown: all that came to be seen.
        facts: by name, what became of the terminal; once `look` was called.
    """

    master: int
    slave: int
    before: list[object]
    shown: bytes = b""
    facts: dict[str, bytes | bool] = field(default_factory=dict)

    def watch(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        """Read what is shown until the process has ended.

        Raises:
            subprocess.TimeoutExpired: it hangs.
        """
        deadline = time.monotonic() + seconds
        while process.poll() is None:
            self._read(0.1)
            if time.monotonic() > deadline:
                process.kill()
                raise subprocess.TimeoutExpired("the program at a terminal", seconds)
        self._read(0.05)

    def _read(self, seconds: float) -> None:
        while select.select([self.master], [], [], seconds)[0]:
            self.shown += os.read(self.master, 65536)

    def look(self) -> None:
        """See what became of it."""
        os.set_blocking(self.slave, False)
        settings = termios.tcgetattr(self.slave)
        raw = [*settings]
        # What was typed is to be had without waiting for a line's end.
        raw[3] &= ~(termios.ICANON | termios.ECHO)
        termios.tcsetattr(self.slave, termios.TCSANOW, raw)
        try:
            typed = os.read(self.slave, 4096)
        except BlockingIOError:
            typed = b""
        size = fcntl.ioctl(self.slave, termios.TIOCGWINSZ, bytes(8))
        self.facts = {"typed": typed, "shown": self.shown, "size": size != _SIZE,
                      "settings": settings[3] != self.before[3]}  # fmt: skip


@contextmanager
def caller_terminal() -> Iterator[CallerTerminal]:
    """Give a fresh one."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, _SIZE)
    try:
        yield CallerTerminal(master, slave, termios.tcgetattr(slave))
    finally:
        os.close(master)
        os.close(slave)


def take(descriptor: int) -> None:
    """Make a terminal the one of this new session; for a child before it becomes a program."""
    os.setsid()
    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)
