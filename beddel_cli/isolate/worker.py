"""The worker: a process that loads the engine, gives everything up, runs one job and dies.

It is forked before the supervisor has a thread, a key, a passphrase or a byte of any job, and it
never gets the key at all: what it inherits is the interpreter. The order below is the protection:
load while files can still be opened, confine, tell the supervisor, and only then read the job.
"""

from __future__ import annotations

import os
import sys
from time import perf_counter_ns

from beddel_cli.isolate.frames import (
    CODE_SOURCES,
    HEADER,
    READY,
    REPORT,
    REQUEST,
    SNAPSHOT,
    Ready,
    Request,
    pack_ready,
    pack_report,
    parse_request,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from beddel_cli.isolate.javascript import Pristine
    from beddel_cli.isolate.wasm import Engine

# Exit codes between worker and supervisor; nobody else sees them.
EXIT_DONE, EXIT_BROKEN = 0, 70


def serve(requests: int, reports: int, supervisor: int) -> None:
    """Be the worker, in a freshly forked child. Never returns.

    Args:
        requests: descriptor the job comes from.
        reports: descriptor the reports go to.
        supervisor: process id of the parent, to notice its death.
    """
    code = EXIT_BROKEN
    try:
        _serve(requests, reports, supervisor)
        code = EXIT_DONE
    except BaseException as error:  # noqa: BLE001
        # Whatever it was, a forked child must never go on as the main program.
        _say_why(reports, error)
    finally:
        os._exit(code)


def _serve(requests: int, reports: int, supervisor: int) -> None:
    started = perf_counter_ns()
    _close_everything_but(requests, reports)
    # Its own session: Ctrl-C on the terminal is for the supervisor to answer.
    os.setsid()
    # Imported here, after the fork, so that the supervisor never loads an engine.
    from beddel_cli.isolate import confine, javascript

    confine.die_with_parent(supervisor)
    engine, module, source = _load()
    pristine = javascript.read_pristine(engine, module)
    held = javascript.store_limits_hold(engine, module, pristine)
    _read_exactly(requests, 1)
    done = confine.confine()
    ready = Ready(
        no_new_privs=done.no_new_privs,
        capabilities=done.capabilities,
        rlimits=done.rlimits,
        landlock=done.landlock,
        landlock_abi=done.landlock_abi,
        landlock_probe=done.landlock_probe,
        seccomp=done.seccomp,
        store_limits_held=held,
        code_source=CODE_SOURCES.index(source),
        guest_pages=len(pristine.image) // 65536,
        setup_ns=perf_counter_ns() - started,
    )
    _send(reports, READY, pack_ready(ready))
    _answer(engine, module, pristine, _receive(requests), reports, requests)


def _load() -> tuple[Engine, int, str]:
    from beddel_cli.isolate.guest_code import load_guest
    from beddel_cli.isolate.wasm import Engine, load_library

    engine = Engine(load_library())
    guest = load_guest(engine)
    return engine, guest.module, guest.source


def _answer(
    engine: Engine, module: int, pristine: Pristine, request: Request, reports: int, requests: int
) -> None:
    from beddel_cli.isolate.javascript import run_javascript

    report, snapshot = run_javascript(engine, module, pristine, request)
    _send(reports, REPORT, pack_report(report))
    if snapshot is not None:
        _send(reports, SNAPSHOT, snapshot)
    # The supervisor measures this process while it is still whole, then closes the pipe.
    os.read(requests, 1)


def _close_everything_but(*keep: int) -> None:
    # Not up to RLIMIT_NOFILE: one opened before the limit was lowered lies above it.
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            try:
                os.close(int(name))
            except OSError:
                continue  # that of the listing itself


def _read_exactly(descriptor: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(descriptor, min(size, 1 << 20))
        if not part:
            raise EOFError("the supervisor closed the pipe")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _receive(requests: int) -> Request:
    kind, size = HEADER.unpack(_read_exactly(requests, HEADER.size))
    if kind != REQUEST:
        raise ValueError(f"frame of type {kind} where a request was expected")
    return parse_request(_read_exactly(requests, size))


def _send(reports: int, kind: int, payload: bytes) -> None:
    rest = memoryview(HEADER.pack(kind, len(payload)) + payload)
    while rest:
        rest = rest[os.write(reports, rest) :]


def _say_why(reports: int, error: BaseException) -> None:
    """Tell the supervisor why there will be no report; it shows the text as untrusted."""
    from beddel_cli.isolate.frames import BROKEN

    text = f"{type(error).__name__}: {error}"
    if sys.flags.dev_mode:
        import traceback

        text = traceback.format_exc()
    try:
        _send(reports, BROKEN, text.encode("utf-8", "replace")[:2000])
    except OSError:
        return
