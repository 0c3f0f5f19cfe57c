"""Signals to this command while a program runs: noted, never lost, never in the middle of a step.

While an inbox is open no handler raises. Each signal becomes a byte in a pipe, which the event loop
of `supervise` polls beside everything else. The first one asks the program to end, the second one
kills it.

`_signal` is the built-in module underneath `signal`, whose enumerations cost 3 ms to make.

Source: signal.set_wakeup_fd in the Python documentation; signal-safety(7).
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

STOPPING = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "terminated",
}


class SignalInbox:
    """Receives SIGINT, SIGTERM and SIGHUP, with a terminal also SIGWINCH and SIGCONT.

    What is ignored when it opens (nohup, `&` of a shell) stays ignored. Open it in the main thread,
    after the last step that may raise and before the program starts. A signal that arrives earlier
    goes to the handlers of before. Keep it open until the ending is judged, or a late signal would
    cost the answer.
    """

    def __init__(self, *, terminal: bool = False) -> None:
        self.descriptor, self._writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._before: dict[int, object] = {}
        self._wakeup_before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        more = (signal.SIGWINCH, signal.SIGCONT) if terminal else ()
        for number in (*STOPPING, *more):
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, _note)

    def take(self) -> tuple[int, ...]:
        """Give the numbers of the signals since the last call, in their order."""
        try:
            return tuple(os.read(self.descriptor, 4096))
        except BlockingIOError:
            return ()

    def release(self) -> None:
        """Give the handlers of before their signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self.descriptor)
        os.close(self._writing)


def _note(number: int, frame: FrameType | None) -> None:
    """Do nothing: its byte is in the pipe already."""
