"""Start beddel-cli with a worker that is really confined, and then lies about the job."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from beddel_cli.isolate import confine, frames, supervisor

LIES = ("honest", "silent", "garbage", "twice", "no-json", "early", "breakdown", "opens", "stays")


def _read(descriptor: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += os.read(descriptor, size - len(data))
    return data


def _send(reports: int, kind: int, payload: bytes) -> None:
    os.write(reports, frames.HEADER.pack(kind, len(payload)) + payload)


def _report(lie: str, request: frames.Request) -> bytes:
    output = b"not JSON \x1b[2J" if lie == "no-json" else b"42"
    early = lie == "early"
    return frames.pack_report(
        frames.Report(
            ending=frames.TRAPPED if early else frames.SETTLED,
            status=0,
            trap_code=10 if early else frames.NO_TRAP_CODE,
            fuel_used=1,
            memory_bytes=request.memory_bytes // 65536 * 65536,
            wall_ns=1,
            cpu_ns=1,
            instantiate_ns=1,
            heap_used_bytes=0,
            heap_peak_bytes=0,
            output_total_bytes=0 if early else len(output),
            console_dropped_bytes=0,
            console_dropped_entries=0,
            memory_digest=bytes(32),
            output=b"" if early else output,
            error_name=b"",
            error_message=b"",
            error_stack=b"",
            console=b"",
        )
    )


def _lie(lie: str, reports: int, request: frames.Request) -> None:
    if lie == "silent":
        os._exit(0)
    if lie == "garbage":
        os.write(reports, b"\x1b[2J" * 1000)
    elif lie == "breakdown":
        _send(reports, frames.BROKEN, b"\x1b[2J\xff it broke")
    elif lie == "opens":
        os.open("/etc/passwd", os.O_RDONLY)
    elif lie == "stays":
        time.sleep(3600)
    else:
        payload = _report(lie, request)
        for _ in range(2 if lie == "twice" else 1):
            _send(reports, frames.REPORT, payload)


def liar(lie: str) -> Callable[[int, int, int], None]:
    """Give a `main` for `Worker.start`."""

    def main(requests: int, reports: int, parent: int) -> None:
        # Only its pipe is left to it, as to a real worker.
        first, second = sorted((requests, reports))
        os.closerange(0, first)
        os.closerange(first + 1, second)
        os.closerange(second + 1, 256)
        _read(requests, 1)
        done = confine.confine()
        ready = frames.Ready(
            no_new_privs=done.no_new_privs,
            capabilities=done.capabilities,
            rlimits=done.rlimits,
            landlock=done.landlock,
            landlock_abi=done.landlock_abi,
            landlock_probe=done.landlock_probe,
            seccomp=done.seccomp,
            store_limits_held=True,
            code_source=0,
            guest_pages=9,
            setup_ns=1,
        )
        _send(reports, frames.READY, frames.pack_ready(ready))
        _, size = frames.HEADER.unpack(_read(requests, frames.HEADER.size))
        _lie(lie, reports, frames.parse_request(_read(requests, size)))
        os.read(requests, 1)
        os._exit(0)

    return main


if __name__ == "__main__":
    chosen = sys.argv.pop(1)
    start = supervisor.Worker.start.__func__  # type: ignore[attr-defined]
    start.__defaults__ = (liar(chosen),)
    from beddel_cli.__main__ import main

    main()
