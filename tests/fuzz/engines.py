"""The guest, and the same engine as a native module, each in a process of its own.

Started as a program: what may crash, hang or take all memory is never the process that runs the
tests. Requests and answers travel as blocks with their length before them, so that after a crash
the number of answers tells whose it was.
"""

from __future__ import annotations

import importlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beddel_cli.isolate.frames import (
    Report,
    Request,
    pack_report,
    pack_request,
    parse_report,
    parse_request,
)
from beddel_cli.isolate.guest_code import load_guest
from beddel_cli.isolate.javascript import read_pristine, read_state, run_javascript
from beddel_cli.isolate.wasm import Engine, EngineError, Store, TrapError, load_library
from beddel_cli.record import changed

_FOLDER = Path(__file__).parent
_LENGTH = struct.Struct("<I")

# Far above what a program needs, and below what would hurt the machine.
_NATIVE_MEMORY_BYTES = 512 << 20
_NATIVE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Native:
    """How the native engine ended, with the guest's status numbers.

    `fulfilled` tells of the body's own promise, `threw` that some microtask did.
    """

    status: int
    output: str
    error_name: str
    error_message: str
    console: tuple[str, ...]
    fulfilled: bool
    threw: bool


class EngineProcessError(AssertionError):
    """The process ended before it had answered all; `answers` holds those it gave."""

    def __init__(self, what: str, answers: Sequence[bytes]) -> None:
        super().__init__(what)
        self.answers = answers


def _exchange(
    role: str, blocks: Sequence[bytes], environment: dict[str, str], timeout: float
) -> list[bytes]:
    """Give the blocks to a fresh process and collect its answers."""
    with subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).resolve()), role],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | environment,
    ) as process:
        try:
            output, errors = process.communicate(b"".join(map(_framed, blocks)), timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
            errors += f"\nstill running after {timeout} s".encode()
    answers = _split(output)
    if process.returncode != 0 or len(answers) != len(blocks):
        raise EngineProcessError(
            f"the {role} process ended with {process.returncode} after {len(answers)} of"
            f" {len(blocks)} answers: {errors.decode('utf-8', 'replace')[-2000:]}",
            answers,
        )
    return answers


def _framed(block: bytes) -> bytes:
    return _LENGTH.pack(len(block)) + block


def _split(data: bytes) -> list[bytes]:
    blocks = []
    start = _LENGTH.size
    while start <= len(data):
        (size,) = _LENGTH.unpack_from(data, start - _LENGTH.size)
        if start + size > len(data):
            break
        blocks.append(data[start : start + size])
        start += size + _LENGTH.size
    return blocks


def run_guest(
    requests: Sequence[Request], *, environment: dict[str, str] | None = None, timeout: float = 300
) -> list[Report]:
    """Run each request in a fresh isolate. Every report passes the supervisor's own check.

    Raises:
        EngineProcessError: the process crashed or took too long.
        FrameError: a report that a supervisor would not accept.
    """
    blocks = [pack_request(request) for request in requests]
    answers = _exchange("guest", blocks, environment or {}, timeout)
    return [parse_report(block, one) for block, one in zip(answers, requests, strict=True)]


def run_native(sources: Sequence[str], *, before: str = "", timeout: float = 300) -> list[Native]:
    """Run each source as the body of a strict async function in a native engine, in UTC.

    Args:
        sources: each gets a context of its own.
        before: a script that changes the context before it.
        timeout: in seconds, for all of them.

    Raises:
        EngineProcessError: the process crashed or took too long.
    """
    blocks = [json.dumps([before, source]).encode() for source in sources]
    answers = _exchange("native", blocks, {"TZ": "UTC"}, timeout)
    return [_parse_native(block) for block in answers]


def _parse_native(block: bytes) -> Native:
    threw, status, fulfilled, *units = block.decode("ascii").split(" ")
    one, two, *lines = (bytes.fromhex(each).decode("utf-16-be", "surrogatepass") for each in units)
    return Native(
        status=int(status),
        output=one if status == "0" else "",
        error_name="" if status == "0" else one,
        error_message=two,
        console=tuple(lines),
        fulfilled=fulfilled == "1",
        threw=threw == "1",
    )


def read_surface(request: Request) -> tuple[dict[str, str], dict[str, str]]:
    """Give what can be reached from the global object: of the guest, then of the native engine.

    Args:
        request: the limits that the guest gets for it.
    """
    source = (_FOLDER / "surface.js").read_text(encoding="utf-8")
    report = run_guest([changed(request, code=source.encode())])[0]
    guest: dict[str, str] = json.loads(report.output)
    native: dict[str, str] = json.loads(run_native([source])[0].output)
    return guest, native


@dataclass(frozen=True, slots=True)
class Conversation:
    """Calls to one instance's exports, beside what a host of ours would do.

    Each call is its name and its texts, which are placed into blocks of their own; a lone number
    in place of a text is passed as it is.
    """

    memory_bytes: int
    fuel: int
    flags: int
    console_cap: int
    calls: Sequence[tuple[str, Sequence[bytes | int]]]


@dataclass(frozen=True, slots=True)
class Reply:
    """What one call gave, and what the guest's structure said afterwards."""

    result: int | None
    trap_code: int | None
    trapped: bool
    status: int
    console_bytes: int
    memory_bytes: int
    texts_lie_inside: bool


def converse(conversations: Sequence[Conversation], *, timeout: float = 300) -> list[list[Reply]]:
    """Have each conversation with a fresh instance.

    Raises:
        EngineProcessError: the process crashed or took too long.
    """
    blocks = []
    for one in conversations:
        calls = [
            [name, [value.hex() if isinstance(value, bytes) else value for value in values]]
            for name, values in one.calls
        ]
        words = [one.memory_bytes, one.fuel, one.flags, one.console_cap, calls]
        blocks.append(json.dumps(words).encode())
    answers = _exchange("converse", blocks, {}, timeout)
    return [[Reply(**reply) for reply in json.loads(answer)] for answer in answers]


def _answer(block: bytes) -> None:
    sys.stdout.buffer.write(_framed(block))
    sys.stdout.buffer.flush()


def _be_guest() -> None:
    engine = Engine(load_library())
    module = load_guest(engine).module
    pristine = read_pristine(engine, module)
    for block in _split(sys.stdin.buffer.read()):
        report, _ = run_javascript(engine, module, pristine, parse_request(block))
        _answer(pack_report(report))


def _be_native() -> None:
    quickjs = importlib.import_module("quickjs")
    harness = (_FOLDER / "native_harness.js").read_text(encoding="utf-8")
    for block in _split(sys.stdin.buffer.read()):
        before, source = json.loads(block)
        context = quickjs.Context()
        context.set_memory_limit(_NATIVE_MEMORY_BYTES)
        context.set_time_limit(_NATIVE_SECONDS)
        start = context.eval(harness)
        context.eval(before)
        ending = start(source)
        more, threw = True, 0
        while more:
            try:
                more = context.execute_pending_job()
            except quickjs.JSException:
                # A microtask of the program's; it has no promise to reject.
                threw = 1
        _answer(f"{threw} {ending()}".encode("ascii"))


def _be_converse() -> None:
    engine = Engine(load_library())
    module = load_guest(engine).module
    for block in _split(sys.stdin.buffer.read()):
        memory_bytes, fuel, flags, console_cap, calls = json.loads(block)
        with Store(engine, module, memory_bytes=memory_bytes, fuel=fuel) as store:
            address = store.call(b"beddel_state")
            store.write(address, struct.pack("<QQII", 0, 1, flags, console_cap))
            replies = [_call(store, address, name, values) for name, values in calls]
        _answer(json.dumps(replies).encode())


def _call(store: Store, address: int, name: str, values: list[str | int]) -> dict[str, Any]:
    result, trap_code, trapped = None, None, False
    try:
        arguments: list[int] = []
        for value in values:
            arguments += [value] if isinstance(value, int) else _place(store, bytes.fromhex(value))
        result = store.call(name.encode(), *arguments)
    except TrapError as trap:
        trap_code, trapped = trap.code, True
    state = read_state(store, address)
    inside = True
    for start, size in (
        (state.output, state.output_len),
        (state.error_name, state.error_name_len),
        (state.error_message, state.error_message_len),
        (state.error_stack, state.error_stack_len),
        (state.console, state.console_len),
    ):
        try:
            store.read(start, size)
        except EngineError:
            inside = False
    return {
        "result": result,
        "trap_code": trap_code,
        "trapped": trapped,
        "status": state.status,
        "console_bytes": state.console_len,
        "memory_bytes": store.memory_size(),
        "texts_lie_inside": inside,
    }


def _place(store: Store, text: bytes) -> list[int]:
    address = store.call(b"beddel_alloc", len(text))
    if address:
        store.write(address, text)
    return [address, len(text) if address else 0]


if __name__ == "__main__":
    {"guest": _be_guest, "native": _be_native, "converse": _be_converse}[sys.argv[1]]()
