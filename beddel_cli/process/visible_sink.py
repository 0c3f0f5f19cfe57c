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

    A piece counts as taken once all that it became has been written, so nothing is lost when the
    other end takes only a part.
    """

    def __init__(self, sink: Sink) -> None:
        self.descriptor = sink.descriptor
        self._sink = sink
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
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
            self._rest = visible_lines(text).encode("utf-8", "backslashreplace")
        while self._rest:
            written = self._sink.write(memoryview(self._rest))
            if not written:
                return 0
            self._rest = self._rest[written:]
        done, self._taken = self._taken, 0
        return done
