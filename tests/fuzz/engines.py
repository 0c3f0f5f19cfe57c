"""The guest and the same engine as a native module, each in a process of its own.

Started as a program: what may crash, hang or eat memory is never the process that runs the tests.
Requests and reports travel as length-prefixed blocks, so that after a crash the number of answers
tells which program it was.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from beddel_cli.isolate.frames import (
    Report,
    Request,
    pack_report,
    pack_request,
    parse_report,
    parse_request,
)

_LENGTH = struct.Struct("<I")

# Runs one body as the guest would, and says in the guest's words how it went. What it needs of the
# language it takes before the body can touch it.
_HARNESS = r"""
(() => {
  const evaluate = eval, stringify = JSON.stringify, text = String, isError = Error.isError;
  const nameOf = Object.getOwnPropertyDescriptor(DOMException.prototype, 'name').get;
  const isException = x => { try { nameOf.call(x); return true } catch { return false } };
  // UTF-16 code units in hexadecimal: lone surrogates do not survive the way to Python.
  const units = x => {
    let all = '';
    for (let i = 0; i < x.length; i++) all += x.charCodeAt(i).toString(16).padStart(4, '0');
    return all;
  };
  const shown = x => {
    if (typeof x === 'object' && x !== null) {
      try { const json = stringify(x); if (json !== undefined) return json } catch {}
    }
    try { return text(x) } catch { return null }
  };
  const property = (x, key) => {
    let value;
    try { value = x[key] } catch { return '' }
    return value === undefined || value === null ? '' : shown(value) ?? '';
  };
  const failed = (status, error) => isError(error) || isException(error)
    ? [status, property(error, 'name'), property(error, 'message')]
    : [status, '', shown(error) ?? 'a value that cannot be shown'];
  const notJson = ['circular reference', 'BigInt are forbidden in JSON.stringify'];
  let ending = () => [4, 'Error', 'the promise never settles'];
  const fulfilled = value => {
    if (value === undefined) return [0, 'null', ''];
    let json;
    try { json = stringify(value) } catch (error) {
      return failed(isError(error) && notJson.includes(error.message) ? 5 : 1, error);
    }
    return json !== undefined ? [0, json, ''] : [5, 'Error',
      typeof value === 'symbol' ? 'a symbol has no JSON form'
      : typeof value === 'function' ? 'a function has no JSON form'
      : 'its toJSON gave no JSON value'];
  };
  globalThis.beddelStart = source => {
    delete globalThis.beddelStart;
    let body;
    try { body = evaluate(`(async function (input) {'use strict';\n${source}\n})`) }
    catch (error) { ending = () => failed(6, error); return }
    body(null).then(value => { ending = () => fulfilled(value) },
      error => { ending = () => failed(1, error) });
  };
  return () => { const [status, ...texts] = ending(); return [status, ...texts.map(units)].join(' ') };
})()
"""


@dataclass(frozen=True, slots=True)
class Native:
    """How the native engine ended, with the guest's status numbers."""

    status: int
    output: str
    error_name: str
    error_message: str


class EngineProcessError(AssertionError):
    """The process ended before it had answered; `answered` tells how far it came."""

    def __init__(self, what: str, answered: int) -> None:
        super().__init__(what)
        self.answered = answered


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
            data = b"".join(_LENGTH.pack(len(block)) + block for block in blocks)
            output, errors = process.communicate(data, timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
            errors += f"\nstill running after {timeout} s".encode()
    answers = _split(output)
    if process.returncode != 0 or len(answers) != len(blocks):
        said = errors.decode("utf-8", "replace")[-2000:]
        raise EngineProcessError(
            f"the {role} process ended with {process.returncode} after {len(answers)} of"
            f" {len(blocks)} answers: {said}",
            len(answers),
        )
    return answers


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
    requests: Sequence[Request], *, environment: dict[str, str] | None = None, timeout: float = 120
) -> list[Report]:
    """Run each request in a fresh isolate. The supervisor's own check reads every report.

    Raises:
        EngineProcessError: the process crashed or took too long.
        FrameError: a report that a supervisor would not accept.
    """
    blocks = [pack_request(request) for request in requests]
    answers = _exchange("guest", blocks, environment or {}, timeout)
    return [parse_report(block, one) for block, one in zip(answers, requests, strict=True)]


def run_native(sources: Sequence[str], *, timeout: float = 120) -> list[Native]:
    """Run each source as the body of a strict async function in a native engine, in UTC.

    Raises:
        EngineProcessError: the process crashed or took too long.
    """
    blocks = [source.encode() for source in sources]
    answers = _exchange("native", blocks, {"TZ": "UTC"}, timeout)
    return [_parse_native(block) for block in answers]


def _parse_native(block: bytes) -> Native:
    status, first, second = block.decode().split(" ")
    one, two = (
        bytes.fromhex(units).decode("utf-16-be", "surrogatepass") for units in (first, second)
    )
    succeeded = status == "0"
    return Native(int(status), one if succeeded else "", "" if succeeded else one, two)


def read_surface() -> tuple[dict[str, str], dict[str, str]]:
    """Give what can be reached from the global object: of the guest, then of the native engine."""
    guest = _exchange("guest", [pack_request(_surface_request())], {}, 60)[0]
    native = _exchange("native", [_SURFACE.encode()], {"TZ": "UTC"}, 60)[0]
    report = parse_report(guest, _surface_request())
    return json.loads(report.output), json.loads(_parse_native(native).output)


def _surface_request() -> Request:
    return Request(
        wall_ns=60_000_000_000,
        fuel=10**10,
        memory_bytes=16 << 20,
        clock_us=0,
        seed=1,
        output_bytes=1 << 22,
        console_bytes=0,
        allow_function=True,
        want_snapshot=False,
        code=_SURFACE.encode(),
        input=b"",
    )


# Every property of every object that can be reached, with its attributes and what it is.
_SURFACE = r"""
const found = {}, seen = new Set();
const walk = (path, value) => {
  if (value === null || typeof value !== 'object' && typeof value !== 'function') return;
  if (seen.has(value)) return;
  seen.add(value);
  for (const key of Reflect.ownKeys(value)) {
    const own = Object.getOwnPropertyDescriptor(value, key), here = `${path}.${String(key)}`;
    const flags = ['writable', 'enumerable', 'configurable'].map(x => own[x] ? x[0] : '-').join('');
    const what = own.value;
    found[here] = `${flags} ` + (own.get || own.set ? `get ${own.get?.name} set ${own.set?.name}`
      : typeof what === 'function' ? `function ${what.name}/${what.length}`
      : typeof what === 'object' || typeof what === 'symbol' ? typeof what : String(what));
    for (const next of [what, own.get, own.set]) walk(here, next);
  }
  walk(`${path}.[[prototype]]`, Object.getPrototypeOf(value));
};
walk('globalThis', globalThis);
for (const [path, value] of Object.entries({
  generator: (function* () {})(), asyncGenerator: (async function* () {})(), async: async () => {},
  array: [].values(), string: ''[Symbol.iterator](), map: new Map().keys(), set: new Set().keys(),
  regexp: ''.matchAll(/a/g), wrapped: Iterator.from({ next() {} }), helper: [].values().map(x => x),
  concatenated: Iterator.concat(),
})) walk(path, value);
return found;
"""


def _read_blocks(stream: BinaryIO) -> list[bytes]:
    return _split(stream.read())


def _answer(block: bytes) -> None:
    sys.stdout.buffer.write(_LENGTH.pack(len(block)) + block)
    sys.stdout.buffer.flush()


def _be_guest() -> None:
    from beddel_cli.isolate.guest_code import load_guest
    from beddel_cli.isolate.javascript import read_pristine, run_javascript
    from beddel_cli.isolate.wasm import Engine, load_library

    engine = Engine(load_library())
    module = load_guest(engine).module
    pristine = read_pristine(engine, module)
    for block in _read_blocks(sys.stdin.buffer):
        report, _ = run_javascript(engine, module, pristine, parse_request(block))
        _answer(pack_report(report))


def _be_native() -> None:
    import quickjs

    for block in _read_blocks(sys.stdin.buffer):
        context = quickjs.Context()
        # Far above what a program needs, and below what would hurt the machine.
        context.set_memory_limit(512 << 20)
        context.set_time_limit(30)
        ending = context.eval(_HARNESS)
        start = context.get("beddelStart")
        start(block.decode())
        while True:
            try:
                if not context.execute_pending_job():
                    break
            except quickjs.JSException:
                # A microtask that threw; nobody waits for it.
                continue
        _answer(str(ending()).encode())


if __name__ == "__main__":
    {"guest": _be_guest, "native": _be_native}[sys.argv[1]]()
