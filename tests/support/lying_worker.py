"""Workers that lie. Each is given to `Worker.start` in place of the real one.

A double is honest up to the moment of its lie: it says that it is ready in the words of an honest
worker, takes the job, and only then says what no worker should.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from beddel_cli.isolate.frames import (
    BROKEN,
    HEADER,
    NO_TRAP_CODE,
    READY,
    REPORT,
    SETTLED,
    SNAPSHOT,
    Ready,
    Report,
    Request,
    pack_ready,
    pack_report,
    parse_request,
)
from beddel_cli.record import changed

Main = Callable[[int, int, int], None]
# What is written after the job has arrived, given the job.
Lie = Callable[["Stage"], None]

PAGE_BYTES = 65536
GUEST_PAGES = 9

READY_WORDS = Ready(
    no_new_privs=0,
    capabilities=0,
    rlimits=0,
    landlock=0,
    landlock_abi=6,
    landlock_probe=13,
    seccomp=0,
    store_limits_held=True,
    code_source=0,
    guest_pages=GUEST_PAGES,
    setup_ns=1_000_000,
)


def honest_report(**changes: object) -> Report:
    """Give the report of a job that returned 42."""
    report = Report(
        ending=SETTLED,
        status=0,
        trap_code=NO_TRAP_CODE,
        fuel_used=1000,
        memory_bytes=GUEST_PAGES * PAGE_BYTES,
        wall_ns=1000,
        cpu_ns=1000,
        instantiate_ns=500,
        heap_used_bytes=1000,
        heap_peak_bytes=2000,
        output_total_bytes=2,
        console_dropped_bytes=0,
        console_dropped_entries=0,
        memory_digest=bytes(32),
        output=b"42",
        error_name=b"",
        error_message=b"",
        error_stack=b"",
        console=b"",
    )
    if "output" in changes and "output_total_bytes" not in changes:
        output = changes["output"]
        assert isinstance(output, bytes)
        changes["output_total_bytes"] = len(output)
    return changed(report, **changes)


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a lie is told: the pipes and the job that came."""

    requests: int
    reports: int
    request: Request

    def send(self, data: bytes) -> None:
        """Write bytes as they are."""
        send(self.reports, data)

    def frame(self, kind: int, payload: bytes) -> None:
        """Write a proper frame."""
        self.send(frame(kind, payload))

    def report(self, **changes: object) -> None:
        """Write a well-formed report with some figures replaced."""
        self.frame(REPORT, pack_report(honest_report(**changes)))

    def be_dismissed(self) -> None:
        """Wait, as an honest worker does, until the supervisor has measured it."""
        os.read(self.requests, 1)


def send(descriptor: int, data: bytes) -> None:
    """Write everything."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def frame(kind: int, payload: bytes) -> bytes:
    """Give a frame's bytes."""
    return HEADER.pack(kind, len(payload)) + payload


def read_exactly(descriptor: int, size: int) -> bytes:
    """Read that many bytes."""
    data = b""
    while len(data) < size:
        part = os.read(descriptor, size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def receive(requests: int) -> Request:
    """Read the job."""
    _, size = HEADER.unpack(read_exactly(requests, HEADER.size))
    return parse_request(read_exactly(requests, size))


def lying(lie: Lie, *, status: int = 0) -> Main:
    """Give a worker that is honest until it has the job, then does `lie` and exits."""

    def main(requests: int, reports: int, supervisor: int) -> None:
        _close_the_rest(requests, reports)
        read_exactly(requests, 1)
        send(reports, frame(READY, pack_ready(READY_WORDS)))
        lie(Stage(requests, reports, receive(requests)))
        os._exit(status)

    return main


def lying_at_start(words: Callable[[int], None]) -> Main:
    """Give a worker that lies instead of being ready."""

    def main(requests: int, reports: int, supervisor: int) -> None:
        _close_the_rest(requests, reports)
        read_exactly(requests, 1)
        words(reports)
        os._exit(0)

    return main


def _close_the_rest(*keep: int) -> None:
    for descriptor in range(3, 64):
        if descriptor not in keep:
            try:
                os.close(descriptor)
            except OSError:
                continue


def sleep_forever() -> None:
    """Do nothing, for longer than any supervisor waits."""
    time.sleep(3600)


__all__ = ["BROKEN", "READY", "REPORT", "SNAPSHOT"]
