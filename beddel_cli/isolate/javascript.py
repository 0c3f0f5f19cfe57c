"""Drive the JavaScript guest: one request in, one report out, one fresh store.

Runs in the confined worker only. The guest's side of this interface, and the layout of its state
structure, are described in guests/javascript/README.md.
"""

from __future__ import annotations

import _thread
import hashlib
import struct
from time import perf_counter_ns, thread_time_ns

from beddel_cli.isolate.frames import (
    ERROR_MESSAGE_BYTES,
    ERROR_NAME_BYTES,
    ERROR_STACK_BYTES,
    NO_TRAP_CODE,
    NOT_STARTED,
    SETTLED,
    TRAPPED,
    Report,
    Request,
)
from beddel_cli.isolate.wasm import Engine, EngineError, Store, TrapError
from beddel_cli.record import record

# The guest's state structure: what the host writes before the run, then what the guest writes.
_HOST_FIELDS = struct.Struct("<QQII")
_GUEST_FIELDS = struct.Struct("<15I")
_ALLOW_FUNCTION = 1

DIGEST_PAGE_BYTES = 4096
_SUCCESS, _OUT_OF_MEMORY = 0, 2


@record
class Pristine:
    """The guest's memory before any job: its bytes and the digest of each 4 KiB page."""

    image: bytes
    page_digests: tuple[bytes, ...]


@record
class GuestState:
    """What the guest wrote of its run: addresses and lengths in its linear memory."""

    status: int
    output: int
    output_len: int
    error_name: int
    error_name_len: int
    error_message: int
    error_message_len: int
    error_stack: int
    error_stack_len: int
    console: int
    console_len: int
    console_dropped: int
    console_dropped_entries: int
    heap_used: int
    heap_peak: int


def read_pristine(engine: Engine, module: int) -> Pristine:
    """Instantiate the guest once, without running it, and remember its memory."""
    with Store(engine, module, memory_bytes=64 << 20, fuel=0) as store:
        image = bytes(store.memory_view())
    digests = tuple(
        hashlib.sha256(image[start : start + DIGEST_PAGE_BYTES]).digest()
        for start in range(0, len(image), DIGEST_PAGE_BYTES)
    )
    return Pristine(image=image, page_digests=digests)


def store_limits_hold(engine: Engine, module: int, pristine: Pristine) -> bool:
    """Try to start the guest one page below what it needs; True when the engine refuses."""
    try:
        with Store(engine, module, memory_bytes=len(pristine.image) - 65536, fuel=0):
            return False
    except EngineError:
        return True


def digest_memory(memory: memoryview, pristine: Pristine) -> bytes:
    """Give SHA-256 over the SHA-256 of each 4 KiB page of linear memory, in order.

    Pages the job never wrote keep the digest computed before it; only the others are hashed.
    """
    image, known = pristine.image, pristine.page_digests
    zeros = bytes(DIGEST_PAGE_BYTES)
    zeros_digest = hashlib.sha256(zeros).digest()
    # Slices of bytes compare with one memcmp; slices of a memoryview element by element.
    data = bytes(memory)
    digests = []
    for index, start in enumerate(range(0, len(data), DIGEST_PAGE_BYTES)):
        page = data[start : start + DIGEST_PAGE_BYTES]
        if index < len(known) and page == image[start : start + DIGEST_PAGE_BYTES]:
            digests.append(known[index])
        elif page == zeros:
            digests.append(zeros_digest)
        else:
            digests.append(hashlib.sha256(page).digest())
    return hashlib.sha256(b"".join(digests)).digest()


class _Watchdog:
    """Interrupt the engine when the run's time is up. Started after confinement, ends with it."""

    def __init__(self, engine: Engine, wall_ns: int) -> None:
        self._done = _thread.allocate_lock()
        self._done.acquire()
        self._engine = engine
        self._wall_seconds = wall_ns / 1e9
        _thread.start_new_thread(self._watch, ())

    def _watch(self) -> None:
        if not self._done.acquire(True, self._wall_seconds):
            self._engine.interrupt()

    def stop(self) -> None:
        self._done.release()


def run_javascript(
    engine: Engine, module: int, pristine: Pristine, request: Request
) -> tuple[Report, bytes | None]:
    """Run one job in a fresh store; gives the report and, if asked for, the linear memory.

    Never raises for anything a job can do: traps and refusals of the engine are endings.
    """
    started = perf_counter_ns()
    cpu_started = thread_time_ns()
    watchdog = _Watchdog(engine, request.wall_ns)
    try:
        store = Store(engine, module, memory_bytes=request.memory_bytes, fuel=request.fuel)
    except EngineError:
        watchdog.stop()
        return _not_started(perf_counter_ns() - started), None
    with store:
        instantiate_ns = perf_counter_ns() - started
        ending, trap_code, address = SETTLED, NO_TRAP_CODE, 0
        try:
            address = store.call(b"beddel_state")
            enter(store, address, request)
        except TrapError as trap:
            ending = TRAPPED
            trap_code = NO_TRAP_CODE if trap.code is None else trap.code
        watchdog.stop()
        wall_ns = perf_counter_ns() - started
        cpu_ns = thread_time_ns() - cpu_started
        report = _read_report(
            store,
            request,
            pristine,
            address=address,
            ending=ending,
            trap_code=trap_code,
            times=(wall_ns, cpu_ns, instantiate_ns),
        )
        snapshot = bytes(store.memory_view()) if request.want_snapshot else None
        return report, snapshot


def enter(store: Store, address: int, request: Request) -> None:
    """Hand the guest its job and run it; `read_state` then says how it went.

    Raises:
        TrapError: the engine stopped it.
    """
    flags = _ALLOW_FUNCTION if request.allow_function else 0
    host = _HOST_FIELDS.pack(request.clock_us, request.seed, flags, request.console_bytes)
    store.write(address, host)
    # The guest takes over both blocks and frees them when it has parsed them.
    blocks = [_place(store, text) for text in (request.code, request.input)]
    if 0 in blocks:
        store.write(address + _HOST_FIELDS.size, struct.pack("<I", _OUT_OF_MEMORY))
        return
    code, input_ = blocks
    store.call(b"beddel_run", code, len(request.code), input_, len(request.input))


def _place(store: Store, text: bytes) -> int:
    address = store.call(b"beddel_alloc", len(text))
    if address:
        store.write(address, text)
    return address


def read_state(store: Store, address: int) -> GuestState:
    """Read the guest's own account; valid at any time, also after a trap."""
    raw = store.read(address + _HOST_FIELDS.size, _GUEST_FIELDS.size)
    return GuestState(*_GUEST_FIELDS.unpack(raw))


def _read_report(
    store: Store,
    request: Request,
    pristine: Pristine,
    *,
    address: int,
    ending: int,
    trap_code: int,
    times: tuple[int, int, int],
) -> Report:
    state = read_state(store, address) if address else GuestState(*(0,) * 15)
    settled = ending == SETTLED
    succeeded = settled and state.status == _SUCCESS
    output_total = state.output_len if succeeded else 0
    fits = output_total <= request.output_bytes
    failed = settled and not succeeded
    return Report(
        ending=ending,
        # After a trap the guest's word stands only if it had found no memory before.
        status=state.status if settled or state.status == _OUT_OF_MEMORY else 0,
        trap_code=trap_code,
        fuel_used=request.fuel - store.fuel_left(),
        memory_bytes=store.memory_size(),
        wall_ns=times[0],
        cpu_ns=times[1],
        instantiate_ns=times[2],
        heap_used_bytes=state.heap_used,
        heap_peak_bytes=state.heap_peak,
        output_total_bytes=output_total,
        console_dropped_bytes=state.console_dropped,
        console_dropped_entries=state.console_dropped_entries,
        memory_digest=digest_memory(store.memory_view(), pristine),
        output=_copy(store, state.output, output_total, request.output_bytes) if fits else b"",
        error_name=_copy(store, state.error_name, state.error_name_len, ERROR_NAME_BYTES, failed),
        error_message=_copy(
            store, state.error_message, state.error_message_len, ERROR_MESSAGE_BYTES, failed
        ),
        error_stack=_copy(
            store, state.error_stack, state.error_stack_len, ERROR_STACK_BYTES, failed
        ),
        console=_copy(store, state.console, state.console_len, request.console_bytes),
    )


def _copy(store: Store, address: int, size: int, cap: int, wanted: bool = True) -> bytes:
    return store.read(address, min(size, cap)) if wanted and size else b""


def _not_started(wall_ns: int) -> Report:
    return Report(
        ending=NOT_STARTED,
        status=0,
        trap_code=NO_TRAP_CODE,
        fuel_used=0,
        memory_bytes=0,
        wall_ns=wall_ns,
        cpu_ns=0,
        instantiate_ns=0,
        heap_used_bytes=0,
        heap_peak_bytes=0,
        output_total_bytes=0,
        console_dropped_bytes=0,
        console_dropped_entries=0,
        memory_digest=bytes(32),
        output=b"",
        error_name=b"",
        error_message=b"",
        error_stack=b"",
        console=b"",
    )
