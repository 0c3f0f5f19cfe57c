"""A program's output on its way to somebody's terminal, with nothing in it that acts there."""

from __future__ import annotations

import codecs

from beddel_cli.terminal import visible_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from beddel_cli.process.streams import Sink

# So few that what they become fits a terminal's buffer.
_CHUNK_BYTES = 512


class VisibleSink:
    """Shows control characters and bidirectional marks instead of sending them.

    In a step of GitHub Actions also what its runner would take for a command. A piece counts as
    taken once all that it became has been written, so nothing is lost when the other end takes
    only a part.
    """

    def __init__(self, sink: Sink, *, step_log: bool = False) -> None:
        self.descriptor = sink.descriptor
        self._sink = sink
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._step_log = step_log
        self._first = self._last = ""
        self._taken = 0
        self._rest = b""

    def write(self, data: memoryview) -> int:
        """Write what there is room for; gives how many bytes that were.

        Raises:
            BrokenPipeError: nobody reads any more.
            OSError: the terminal cannot take it.
        """
        if not self._taken:
            self._taken = min(len(data), _CHUNK_BYTES)
            text = self._decoder.decode(bytes(data[: self._taken]))
            shown = visible_lines(text)
            if self._step_log:
                shown = self._without_commands(shown)
            self._rest = shown.encode("utf-8", "backslashreplace")
        while self._rest:
            written = self._sink.write(memoryview(self._rest))
            if not written:
                return 0
            self._rest = self._rest[written:]
        done, self._taken = self._taken, 0
        return done

    def _without_commands(self, text: str) -> str:
        """Break `::` where a line begins with it, and `##[` anywhere.

        Source: actions/runner, ActionCommand.cs, TryParseV2 and TryParse.
        """
        out = []
        for char in text:
            begins = char == ":" and self._first == ":"
            inside = char == "[" and self._last == "##"
            out.append(f"\\x{ord(char):02x}" if begins or inside else char)
            if char == "\n":
                self._first = self._last = ""
            else:
                # Of a line, its first two characters that are not blank and its last two decide.
                self._first = (self._first + char).lstrip()[:2]
                self._last = (self._last + char)[-2:]
        return "".join(out)
