"""Frames survive the trip, and no bytes of a worker get past its request's limits."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from beddel_cli.isolate.frames import (
    ERROR_MESSAGE_BYTES,
    ERROR_NAME_BYTES,
    ERROR_STACK_BYTES,
    NO_TRAP_CODE,
    FrameError,
    Ready,
    Report,
    Request,
    pack_ready,
    pack_report,
    pack_request,
    parse_ready,
    parse_report,
    parse_request,
)
from tests.support.values import REPORT, REQUEST

U16, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (16, 32, 64))
BLOB = st.binary(max_size=300)
REQUESTS = st.builds(
    Request,
    **dict.fromkeys(("wall_ns", "fuel", "memory_bytes", "clock_us", "seed"), U64),
    output_bytes=U32,
    console_bytes=U32,
    allow_function=st.booleans(),
    want_snapshot=st.booleans(),
    code=BLOB,
    input=BLOB,
)
READIES = st.builds(
    Ready,
    **dict.fromkeys(("no_new_privs", "capabilities", "rlimits", "landlock", "landlock_abi"), U16),
    landlock_probe=U16,
    seccomp=U16,
    store_limits_held=st.booleans(),
    code_source=st.integers(0, 2),
    guest_pages=U32,
    setup_ns=U64,
)
NUMBERS = dict.fromkeys(("fuel_used", "memory_bytes", "wall_ns", "cpu_ns", "instantiate_ns"), U64)
COUNTS = dict.fromkeys(
    (
        *("heap_used_bytes", "heap_peak_bytes", "output_total_bytes", "console_dropped_bytes"),
        "console_dropped_entries",
    ),
    U32,
)
BLOBS = ("output", "error_name", "error_message", "error_stack", "console")
REPORTS = st.builds(
    Report,
    ending=st.integers(0, 255),
    status=st.integers(0, 255),
    trap_code=st.integers(0, 255),
    **NUMBERS,
    **COUNTS,
    memory_digest=st.binary(min_size=32, max_size=32),
    **dict.fromkeys(BLOBS, BLOB),
)


@given(READIES)
def test_ready_frames_come_back_as_sent(ready: Ready) -> None:
    """What a worker says of its confinement arrives unchanged."""
    assert parse_ready(pack_ready(ready)) == ready


@given(REQUESTS)
def test_requests_come_back_as_sent(request: Request) -> None:
    """A request arrives unchanged."""
    assert parse_request(pack_request(request)) == request


def check(data: bytes, request: Request) -> None:
    """Take a report only if everything in it is within its request."""
    try:
        report = parse_report(data, request)
    except FrameError:
        return
    assert pack_report(report) == data
    assert len(report.output) <= request.output_bytes
    assert len(report.console) <= request.console_bytes
    assert len(report.error_name) <= ERROR_NAME_BYTES
    assert len(report.error_message) <= ERROR_MESSAGE_BYTES
    assert len(report.error_stack) <= ERROR_STACK_BYTES
    assert report.memory_bytes <= request.memory_bytes
    assert report.fuel_used <= request.fuel
    assert report.ending in (0, 1, 2)
    assert report.status <= 8
    assert report.ending != 0 or report.trap_code == NO_TRAP_CODE
    if report.output_total_bytes <= request.output_bytes:
        assert len(report.output) == report.output_total_bytes
    else:
        assert report.output == b""


@settings(max_examples=200)
@given(REPORTS, REQUESTS)
def test_any_report_is_within_its_request_or_refused(report: Report, request: Request) -> None:
    """A report that is accepted exceeds no limit of its request."""
    check(pack_report(report), request)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_report_within_limits_or_refused(data: bytes) -> None:
    """Whatever bytes come as a report, they give one within its request or a FrameError."""
    check(data, REQUEST)


@settings(max_examples=300)
@given(st.data())
def test_any_changed_byte_leaves_a_report_within_limits_or_refused(data: st.DataObject) -> None:
    """Changing bytes of a good report gives one within its request or a FrameError."""
    frame = bytearray(pack_report(REPORT))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    check(bytes(frame), REQUEST)


@given(st.binary(max_size=200))
def test_any_bytes_are_the_other_frames_or_refused(data: bytes) -> None:
    """Whatever bytes come, the other readers give a whole value of them or a FrameError."""
    with contextlib.suppress(FrameError):
        assert pack_ready(parse_ready(data)) == data
    with contextlib.suppress(FrameError):
        request = parse_request(data)
        assert data.endswith(request.code + request.input)
        assert len(pack_request(request)) == len(data)
