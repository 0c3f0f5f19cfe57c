"""The caller's terminal while a program has one of its own: raw, then exactly as it was before.

Raw, because the program's own terminal does the editing, the echo and Ctrl-C. The program can make
the caller's terminal answer to it (where is the cursor? what are you?), and such an answer that
comes late would be typed into the caller's shell. So whatever still arrives after the end is thrown
away, and modes that make a terminal send something by itself are switched off.

Sources: termios(3), ioctl_tty(2); XTerm Control Sequences for the modes.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import termios
from contextlib import suppress
from time import monotonic

# How long the terminal must be silent before what it said last counts as the last.
_QUIET_SECONDS = 0.05
_QUIET_AT_MOST_SECONDS = 0.5
# Mouse reports, focus reports, bracketed paste and application keys off; colours, scroll region and
# cursor as usual; back from the alternate screen.
_CALM = (
    b"\x1b[?1000;1002;1003;1004;1005;1006;1015;2004l\x1b[?1l\x1b>\x1b[?1049l\x1b[?25h\x1b[0m\x1b[r"
)
_CALM = _CALM.replace(b"\x1b[r", b"\x1b7\x1b[r\x1b8")


class OuterTerminal:
    """The caller's terminal. `enter` makes it raw; `leave` must follow, whatever happens."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._before: list[int | list[bytes | int]] | None = None

    def enter(self) -> None:
        """Make it raw; also after it was taken back by the shell for a while."""
        if self._before is None:
            self._before = termios.tcgetattr(self._descriptor)
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, _raw(self._before))

    def copy_size(self, inner: int) -> None:
        """Give a program's terminal the rows and columns of this one."""
        with suppress(OSError):
            size = fcntl.ioctl(self._descriptor, termios.TIOCGWINSZ, bytes(8))
            fcntl.ioctl(inner, termios.TIOCSWINSZ, size)

    def leave(self, *, spoken_to: bool) -> None:
        """Put it back as it was and discard input that nobody has read.

        Args:
            spoken_to: the program sent control sequences, so answers may still be on their way.
        """
        if self._before is None:
            return
        # Without this a job in the background would be stopped by the restoring.
        ttou = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        try:
            with suppress(OSError, termios.error):
                if spoken_to:
                    self._calm()
                # TCSAFLUSH discards what was received but not read.
                termios.tcsetattr(self._descriptor, termios.TCSAFLUSH, self._before)
        finally:
            signal.signal(signal.SIGTTOU, ttou)
            self._before = None

    def _calm(self) -> None:
        poller = select.poll()
        poller.register(self._descriptor, select.POLLOUT)
        if poller.poll(0):
            os.write(self._descriptor, _CALM)
        poller.modify(self._descriptor, select.POLLIN)
        until = monotonic() + _QUIET_AT_MOST_SECONDS
        while monotonic() < until and poller.poll(round(_QUIET_SECONDS * 1000)):
            termios.tcflush(self._descriptor, termios.TCIFLUSH)


def _raw(mode: list[int | list[bytes | int]]) -> list[int | list[bytes | int]]:
    """Give the same attributes in raw mode, as cfmakeraw does."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, characters = mode
    if not (
        isinstance(iflag, int)
        and isinstance(oflag, int)
        and isinstance(cflag, int)
        and isinstance(lflag, int)
        and isinstance(characters, list)
    ):
        raise AssertionError("tcgetattr gave something else than attributes")
    iflag &= ~(termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP)
    iflag &= ~(termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON)
    oflag &= ~termios.OPOST
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    cflag = (cflag & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
    characters = list(characters)
    characters[termios.VMIN], characters[termios.VTIME] = 1, 0
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, characters]
