"""Frames between supervisor and worker: exact layouts, and nothing believed beyond the limits."""

from __future__ import annotations

from typing import Any

import pytest

from beddel_cli.isolate.frames import (
    ERROR_MESSAGE_BYTES,
    ERROR_NAME_BYTES,
    ERROR_STACK_BYTES,
    TRAPPED,
    FrameError,
    pack_ready,
    pack_report,
    pack_request,
    parse_ready,
    parse_report,
    parse_request,
    ready_size,
    report_limit,
)
from beddel_cli.record import changed
from tests.support.values import READY, REPORT, REQUEST


def test_each_frame_comes_back_as_it_was_sent() -> None:
    assert parse_ready(pack_ready(READY)) == READY
    assert len(pack_ready(READY)) == ready_size()
    assert parse_request(pack_request(REQUEST)) == REQUEST
    assert parse_report(pack_report(REPORT), REQUEST) == REPORT


@pytest.mark.parametrize("change", [-1, 1])
def test_a_frame_of_another_length_is_refused(change: int) -> None:
    def altered(data: bytes) -> bytes:
        return data + b"\0" if change > 0 else data[:-1]

    with pytest.raises(FrameError):
        parse_ready(altered(pack_ready(READY)))
    with pytest.raises(FrameError):
        parse_request(altered(pack_request(REQUEST)))
    with pytest.raises(FrameError):
        parse_report(altered(pack_report(REPORT)), REQUEST)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"output": b"x" * 4097, "output_total_bytes": 4097}, "4097 for output, above"),
        ({"console": b"x" * 1025}, "1025 for console, above"),
        ({"error_name": b"x" * (ERROR_NAME_BYTES + 1)}, "for error name, above"),
        ({"error_message": b"x" * (ERROR_MESSAGE_BYTES + 1)}, "for error message, above"),
        ({"error_stack": b"x" * (ERROR_STACK_BYTES + 1)}, "for error stack, above"),
        ({"memory_bytes": (2 << 20) + 1}, "for linear memory, above"),
        ({"fuel_used": 1_000_001}, "for fuel, above"),
        ({"output_total_bytes": 3}, "not as long as it says"),
        ({"output_total_bytes": 5000}, "carries an output above its limit"),
        ({"ending": 3}, "out of range"),
        ({"status": 9}, "out of range"),
        ({"trap_code": 0}, "out of range"),
    ],
)
def test_a_report_beyond_its_request_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(FrameError, match=words):
        parse_report(pack_report(changed(REPORT, **changes)), REQUEST)


@pytest.mark.parametrize(
    "changes",
    [
        {"output": b"x" * 4096, "output_total_bytes": 4096},
        {"output": b"", "output_total_bytes": 5000},
        {"console": b"x" * 1024},
        {"error_stack": b"x" * ERROR_STACK_BYTES},
        {"memory_bytes": 2 << 20, "fuel_used": 1_000_000},
        {"ending": TRAPPED, "trap_code": 10},
    ],
)
def test_a_report_at_its_limits_is_taken(changes: dict[str, Any]) -> None:
    report = changed(REPORT, **changes)
    assert parse_report(pack_report(report), REQUEST) == report


def test_the_largest_report_fits_the_announced_limit_exactly() -> None:
    largest = changed(
        REPORT,
        output=b"x" * 4096,
        output_total_bytes=4096,
        console=b"x" * 1024,
        error_name=b"x" * ERROR_NAME_BYTES,
        error_message=b"x" * ERROR_MESSAGE_BYTES,
        error_stack=b"x" * ERROR_STACK_BYTES,
    )
    assert len(pack_report(largest)) == report_limit(4096, 1024)


def test_padding_and_flags_of_other_values_are_refused() -> None:
    data = bytearray(pack_report(REPORT))
    data[3] = 1
    with pytest.raises(FrameError, match="out of range"):
        parse_report(bytes(data), REQUEST)
    with pytest.raises(FrameError, match="out of range"):
        parse_ready(pack_ready(changed(READY, code_source=3)))
    with pytest.raises(FrameError, match="out of range"):
        parse_ready(pack_ready(changed(READY, store_limits_held=2)))
