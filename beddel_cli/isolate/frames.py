"""What travels between supervisor and worker: three fixed layouts, checked on arrival.

A frame is a type byte, a length (u32, little-endian) and that many bytes. The supervisor treats
every byte of a worker as hostile: lengths are bounded before anything is read, each layout must
add up exactly, and nothing is ever evaluated or unpickled.
"""

from __future__ import annotations

import struct

from beddel_cli.record import record

HEADER = struct.Struct("<BI")
READY, REQUEST, REPORT, SNAPSHOT, BROKEN = 1, 2, 3, 4, 5

_READY = struct.Struct("<7HBIIQ")
_REQUEST = struct.Struct("<QQQQQIIIIII")
_REPORT = struct.Struct("<BBBBQQQQQIIIIIIIIII32s")

# The guest's largest status word (guests/javascript/README.md).
LAST_GUEST_STATUS = 8

# Endings of a worker's report.
SETTLED, TRAPPED, NOT_STARTED = 0, 1, 2
NO_TRAP_CODE = 255

# How the guest's native code came to be loaded.
CODE_SOURCES = ("packaged", "cached", "compiled")

ERROR_NAME_BYTES = 256
ERROR_MESSAGE_BYTES = 8 << 10
ERROR_STACK_BYTES = 16 << 10


class FrameError(Exception):
    """The other side sent something that is not of the agreed form."""


@record
class Ready:
    """The worker's word on its confinement, sent before it has seen a byte of any job."""

    no_new_privs: int
    capabilities: int
    rlimits: int
    landlock: int
    landlock_abi: int
    landlock_probe: int
    seccomp: int
    store_limits_held: bool
    code_source: int
    guest_pages: int
    setup_ns: int


@record
class Request:
    """One job for one isolate. Lengths in bytes, times in ns or µs as named."""

    wall_ns: int
    fuel: int
    memory_bytes: int
    clock_us: int
    seed: int
    output_bytes: int
    console_bytes: int
    allow_function: bool
    want_snapshot: bool
    code: bytes
    input: bytes


@record
class Report:
    """What a worker says of its one run. Every figure is the worker's word."""

    ending: int
    status: int
    trap_code: int
    fuel_used: int
    memory_bytes: int
    wall_ns: int
    cpu_ns: int
    instantiate_ns: int
    heap_used_bytes: int
    heap_peak_bytes: int
    output_total_bytes: int
    console_dropped_bytes: int
    console_dropped_entries: int
    memory_digest: bytes
    output: bytes
    error_name: bytes
    error_message: bytes
    error_stack: bytes
    console: bytes


def pack_ready(ready: Ready) -> bytes:
    """Give the payload of a READY frame."""
    return _READY.pack(
        ready.no_new_privs,
        ready.capabilities,
        ready.rlimits,
        ready.landlock,
        ready.landlock_abi,
        ready.landlock_probe,
        ready.seccomp,
        ready.store_limits_held,
        ready.code_source,
        ready.guest_pages,
        ready.setup_ns,
    )


def parse_ready(payload: bytes) -> Ready:
    """Read a READY frame.

    Raises:
        FrameError: wrong size or a value outside its range.
    """
    if len(payload) != _READY.size:
        raise FrameError(f"ready frame of {len(payload)} bytes, expected {_READY.size}")
    values = _READY.unpack(payload)
    held, source, pages, setup_ns = values[7:]
    if held > 1 or source >= len(CODE_SOURCES):
        raise FrameError("ready frame with a value out of range")
    no_new_privs, capabilities, rlimits, landlock, abi, probe, seccomp = values[:7]
    return Ready(
        no_new_privs=no_new_privs,
        capabilities=capabilities,
        rlimits=rlimits,
        landlock=landlock,
        landlock_abi=abi,
        landlock_probe=probe,
        seccomp=seccomp,
        store_limits_held=bool(held),
        code_source=source,
        guest_pages=pages,
        setup_ns=setup_ns,
    )


def ready_size() -> int:
    """Give the one length a READY frame may have."""
    return _READY.size


def pack_request(request: Request) -> bytes:
    """Give the payload of a REQUEST frame."""
    return (
        _REQUEST.pack(
            request.wall_ns,
            request.fuel,
            request.memory_bytes,
            request.clock_us,
            request.seed,
            request.output_bytes,
            request.console_bytes,
            request.allow_function,
            request.want_snapshot,
            len(request.code),
            len(request.input),
        )
        + request.code
        + request.input
    )


def parse_request(payload: bytes) -> Request:
    """Read a REQUEST frame; it comes from our own supervisor.

    Raises:
        FrameError: lengths that do not add up.
    """
    if len(payload) < _REQUEST.size:
        raise FrameError(f"request frame of {len(payload)} bytes, expected {_REQUEST.size} or more")
    if len(payload) < _REQUEST.size:
        raise FrameError(f"request frame of {len(payload)} bytes, expected {_REQUEST.size} or more")
    wall_ns, fuel, memory, clock_us, seed, *rest = _REQUEST.unpack_from(payload)
    output, console, allow, snapshot, code_size, input_size = rest
    code_end = _REQUEST.size + code_size
    if code_end + input_size != len(payload):
        raise FrameError("request frame whose lengths do not add up")
    return Request(
        wall_ns=wall_ns,
        fuel=fuel,
        memory_bytes=memory,
        clock_us=clock_us,
        seed=seed,
        output_bytes=output,
        console_bytes=console,
        allow_function=bool(allow),
        want_snapshot=bool(snapshot),
        code=payload[_REQUEST.size : code_end],
        input=payload[code_end:],
    )


def pack_report(report: Report) -> bytes:
    """Give the payload of a REPORT frame."""
    blobs = (
        report.output,
        report.error_name,
        report.error_message,
        report.error_stack,
        report.console,
    )
    return _REPORT.pack(
        report.ending,
        report.status,
        report.trap_code,
        0,
        report.fuel_used,
        report.memory_bytes,
        report.wall_ns,
        report.cpu_ns,
        report.instantiate_ns,
        report.heap_used_bytes,
        report.heap_peak_bytes,
        report.output_total_bytes,
        report.console_dropped_bytes,
        report.console_dropped_entries,
        *(len(blob) for blob in blobs),
        report.memory_digest,
    ) + b"".join(blobs)


def report_limit(output_bytes: int, console_bytes: int) -> int:
    """Give the largest REPORT payload that a run with these limits may send."""
    errors = ERROR_NAME_BYTES + ERROR_MESSAGE_BYTES + ERROR_STACK_BYTES
    return _REPORT.size + output_bytes + console_bytes + errors


def parse_report(payload: bytes, request: Request) -> Report:
    """Read a REPORT frame and hold it against the request it answers.

    Raises:
        FrameError: sizes that do not add up, or a figure the run's limits make impossible.
    """
    if len(payload) < _REPORT.size:
        raise FrameError(f"report frame of {len(payload)} bytes, expected {_REPORT.size} or more")
    values = _REPORT.unpack_from(payload)
    sizes = values[14:19]
    if sum(sizes) != len(payload) - _REPORT.size:
        raise FrameError("report frame whose lengths do not add up")
    blobs = []
    start = _REPORT.size
    for size in sizes:
        blobs.append(payload[start : start + size])
        start += size
    report = Report(
        ending=values[0],
        status=values[1],
        trap_code=values[2],
        fuel_used=values[4],
        memory_bytes=values[5],
        wall_ns=values[6],
        cpu_ns=values[7],
        instantiate_ns=values[8],
        heap_used_bytes=values[9],
        heap_peak_bytes=values[10],
        output_total_bytes=values[11],
        console_dropped_bytes=values[12],
        console_dropped_entries=values[13],
        memory_digest=values[19],
        output=blobs[0],
        error_name=blobs[1],
        error_message=blobs[2],
        error_stack=blobs[3],
        console=blobs[4],
    )
    if values[3] or report.ending not in (SETTLED, TRAPPED, NOT_STARTED):
        raise FrameError("report frame with a value out of range")
    _check_report(report, request)
    return report


def _check_report(report: Report, request: Request) -> None:
    caps = (
        ("output", len(report.output), request.output_bytes),
        ("console", len(report.console), request.console_bytes),
        ("error name", len(report.error_name), ERROR_NAME_BYTES),
        ("error message", len(report.error_message), ERROR_MESSAGE_BYTES),
        ("error stack", len(report.error_stack), ERROR_STACK_BYTES),
        ("linear memory", report.memory_bytes, request.memory_bytes),
        ("fuel", report.fuel_used, request.fuel),
    )
    for what, got, cap in caps:
        if got > cap:
            raise FrameError(f"report of {got} for {what}, above its limit of {cap}")
    if report.output_total_bytes <= request.output_bytes:
        if len(report.output) != report.output_total_bytes:
            raise FrameError("report whose output is not as long as it says")
    elif report.output:
        raise FrameError("report that carries an output above its limit")
    if report.status > LAST_GUEST_STATUS or (
        report.ending == SETTLED and report.trap_code != NO_TRAP_CODE
    ):
        raise FrameError("report frame with a value out of range")
