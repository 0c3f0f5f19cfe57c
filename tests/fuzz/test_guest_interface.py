"""What a host may hand the guest, at random: any bytes, any limits, any order of calls.

Every report passes the check that a supervisor makes of it (`run_guest` parses them), so a status
outside of its range, a length above its cap or a figure beyond the limits is red by itself.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pytest

from beddel_cli.guests import javascript_facts
from beddel_cli.isolate.frames import (
    LAST_GUEST_STATUS,
    NOT_STARTED,
    SETTLED,
    TRAPPED,
    Report,
    Request,
)
from beddel_cli.isolate.wasm import TRAP_OUT_OF_FUEL, TRAP_STACK_OVERFLOW
from beddel_cli.outcome import FAULT
from tests.fuzz.engines import Conversation, Reply, converse, run_guest
from tests.fuzz.judgement import judge_report
from tests.fuzz.program_grammar import make_program

CASES, SLOW_CASES = 400, 8000
SUCCESS, ERROR, OUT_OF_MEMORY, STACK_OVERFLOW, NEVER_SETTLES, NOT_JSON, SYNTAX, INPUT = range(8)
STATUSES = range(LAST_GUEST_STATUS + 1)
UNFINISHED = 255
PAGE_BYTES = 65536
LEVELS = ("log", "info", "warn", "error", "debug")

_FRAGMENTS = (
    *("return input", "return", "throw input", "await null", "{", "}", "(", ")", "/*", "//", "`${"),
    *(
        "'",
        '"',
        "\\u",
        "\\",
        "=>",
        "async",
        "await",
        "yield",
        "function",
        "class",
        "#x",
        "let x = 1",
    ),
    *(
        "for (;;) ;",
        "while (true) {",
        "x",
        "0n",
        "08",
        "/[/",
        "\n",
        "\r\n",
        "\u2028",
        "\ufeff",
        "\x00",
    ),
    *(
        "console.log(input)",
        "return [1, 2]",
        "return 1n",
        "return () => 1",
        "\ud83d\ude00",
        "é",
        "<!--",
    ),
    *(
        "JSON.stringify(input)",
        "new Array(1e9).fill(1)",
        "'x'.repeat(1e6)",
        "-->",
        "#!",
        "import('x')",
    ),
    *("(function f() { f() })()", "await new Promise(() => {})", "return { toJSON: 1 }", ";", ","),
)
# One for each status and more, each of which can be parsed.
_BODIES = (
    *(
        b"return input",
        b"return input",
        b"throw input",
        b"throw new Error(input)",
        b"return () => 0",
    ),
    *(b"await new Promise(() => {})", b"return (function f() { return f() + 1 })()", b"return 1n"),
    *(b"return 'x'.repeat(9e6)", b"Promise.reject(input)\nreturn 1", b"for (;;) ;", b"", b"return"),
    *(b"for (;;) console.log(input)", b"console.error(input, input)\nconsole.debug('\xc3\xa9')"),
    *(
        b"throw Object.assign(new Error('x'.repeat(1e5)), { name: 'y'.repeat(1e4) })",
        b"// \xff\xfe",
    ),
    *(b"queueMicrotask(() => { throw input })", b"return JSON.rawJSON('\"\\ud800\"')"),
    *(b"return new Array(1e4).fill(input)", b"return { toJSON() { throw input } }"),
)


def _bytes(random: Random, most: int = 200) -> bytes:
    return random.randbytes(random.randint(0, most))


def _damaged(random: Random, text: bytes) -> bytes:
    """Flip, drop, double or cut some bytes."""
    data = bytearray(text)
    for _ in range(random.randint(1, 4)):
        at = random.randint(0, len(data))
        match random.randint(0, 4):
            case 0:
                data[at : at + 1] = random.randbytes(1)
            case 1:
                del data[at : at + random.randint(1, 20)]
            case 2:
                data[at:at] = data[at : at + random.randint(1, 20)]
            case 3:
                data[at:at] = random.choice(
                    (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\0", b"\xf4\x90")
                )
            case _:
                del data[at:]
    return bytes(data)


def _code(random: Random) -> bytes:
    match random.randint(0, 5):
        case 0:
            return _bytes(random)
        case 1 | 2:
            words = random.choices(_FRAGMENTS, k=random.randint(0, 8))
            return random.choice((" ", "", "\n")).join(words).encode("utf-8", "surrogatepass")
        case 3:
            return _damaged(random, make_program(random.randint(0, 999)).source.encode())
        case 4:
            return make_program(random.randint(0, 999)).source.encode()
        case _:
            return random.choice(_BODIES)


def _value(random: Random, depth: int = 4) -> object:
    """Give a value that JSON carries unchanged through an engine of doubles."""
    kind = random.randint(0, 7 if depth else 5)
    if kind == 6:
        return [_value(random, depth - 1) for _ in range(random.randint(0, 5))]
    if kind == 7:
        return {_text(random): _value(random, depth - 1) for _ in range(random.randint(0, 5))}
    simple = (
        None,
        random.random() < 0.5,
        random.randint(-(2**53), 2**53),
        random.uniform(-1e9, 1e9),
        _text(random),
        "",
    )
    return simple[kind]


def _text(random: Random) -> str:
    alphabet = 'ab"\\/\n\x00\x7fé€\u2028\ud83d\ude00\U0001f600 __proto__1'
    return "".join(random.choices(alphabet, k=random.randint(0, 12)))


def _input(random: Random) -> tuple[bytes, bool | None]:
    """Give an input, and whether it is JSON: None where that was not asked of Python."""
    valid = json.dumps(_value(random), ensure_ascii=random.random() < 0.5)
    data = valid.encode("utf-8", "surrogatepass")
    match random.randint(0, 7):
        case 0:
            return b"", True
        case 1:
            return _bytes(random), None
        case 2:
            return _damaged(random, data), None
        case 3:
            return data + random.choice((b"]", b"}", b",", b"x", b"\0", b" 1")), False
        case 4:
            deep = random.choice((10, 1000, 20_000, 200_000))
            return random.choice((b"[", b'{"a":', b"[[],")) * deep, False if deep < 1000 else None
        case _:
            return random.choice((b"", b" ", b"\n\t")) + data, True


def make_request(seed: int) -> tuple[Request, bool | None]:
    """Give a request that a supervisor could send, and whether its input is JSON."""
    random = Random(seed)
    pristine = int(javascript_facts()["memory_pages"]) * PAGE_BYTES
    data, is_json = _input(random)
    request = Request(
        wall_ns=120_000_000_000,
        fuel=random.choice((*(0, 1000, random.randint(0, 10**6)), *(5 * 10**8,) * 5)),
        memory_bytes=random.choice(
            (
                *(random.choice((0, pristine - 1, random.randint(0, pristine))), pristine),
                *(pristine + 1, pristine + PAGE_BYTES, pristine + random.randint(0, 1 << 20)),
                *(2 << 20, 8 << 20, 8 << 20, 64 << 20),
            )
        ),
        clock_us=random.choice((0, 1, 2**63, 2**64 - 1, random.getrandbits(64))),
        seed=random.choice((0, 1, 2**64 - 1, random.getrandbits(64))),
        output_bytes=random.choice((0, 1, 2, random.randint(0, 5000), 1 << 20, 2**32 - 1)),
        console_bytes=random.choice((0, 3, 4, 5, random.randint(0, 5000), 1 << 16, 2**32 - 1)),
        allow_function=random.random() < 0.5,
        want_snapshot=False,
        code=_code(random),
        input=data,
    )
    return request, is_json


def check_report(request: Request, report: Report, is_json: bool | None) -> str:
    """Hold a report against what its request makes possible; gives the name of the ending."""
    pristine = int(javascript_facts()["memory_pages"]) * PAGE_BYTES
    assert (report.ending == NOT_STARTED) == (request.memory_bytes < pristine)
    if report.ending == NOT_STARTED:
        return "not started"
    assert report.fuel_used <= request.fuel
    assert pristine <= report.memory_bytes <= request.memory_bytes
    assert report.heap_used_bytes <= report.heap_peak_bytes <= report.memory_bytes
    _check_console(report.console, request.console_bytes)
    if report.ending == TRAPPED:
        assert report.output == report.error_name == b""
        if report.status == OUT_OF_MEMORY:
            return "memory, trapped"
        assert report.status == 0
        assert report.trap_code in (TRAP_OUT_OF_FUEL, TRAP_STACK_OVERFLOW)
        return f"trap {report.trap_code}"
    assert report.ending == SETTLED
    if report.status == SUCCESS:
        assert not report.error_name
        assert not report.error_message
        assert report.output_total_bytes > 0
        if report.output_total_bytes <= request.output_bytes:
            json.loads(report.output.decode("utf-8"))
    else:
        assert report.output_total_bytes == 0
        # Any error may be empty, and the host is out of words when its blocks find no place.
        may_be_silent = report.status not in (STACK_OVERFLOW, NEVER_SETTLES, NOT_JSON)
        assert report.error_name or report.error_message or may_be_silent
    if report.status in (SYNTAX, INPUT):
        assert report.error_name == b"SyntaxError"
    if report.status in (NOT_JSON, NEVER_SETTLES):
        assert report.error_name in (b"Error", b"TypeError")
    if is_json is not None and report.status not in (SYNTAX, OUT_OF_MEMORY):
        # A source that cannot be parsed is told of first.
        assert (report.status == INPUT) == (not is_json)
    # A supervisor sends only input that is JSON.
    if report.status != INPUT:
        outcome = judge_report(request, report)
        assert outcome.status != FAULT, outcome.message
    return f"status {report.status}"


def _check_console(console: bytes, cap: int) -> list[tuple[str, bytes]]:
    assert len(console) <= cap
    entries = []
    start = 0
    while start < len(console):
        (header,) = struct.unpack_from("<I", console, start)
        start += 4
        size, level = header >> 3, header & 7
        assert level < len(LEVELS)
        assert start + size <= len(console)
        entries.append((LEVELS[level], console[start : start + size]))
        start += size
    return entries


def _check_requests(first: int, count: int) -> Counter[str]:
    made = [make_request(seed) for seed in range(first, first + count)]
    reports = run_guest([request for request, _ in made])
    endings: Counter[str] = Counter()
    for at, ((request, is_json), report) in enumerate(zip(made, reports, strict=True)):
        try:
            endings[check_report(request, report, is_json)] += 1
        except (AssertionError, ValueError) as error:
            error.add_note(f"seed {first + at}: {request}\n{report}")
            raise
    return endings


def test_any_request_ends_in_a_way_that_fits_it() -> None:
    endings = _check_requests(0, CASES)
    every = {f"status {status}" for status in STATUSES}
    assert set(endings) >= {*every, "not started", f"trap {TRAP_OUT_OF_FUEL}"}


def _request(code: str, data: bytes = b"", **changes: int) -> Request:
    values = {"output_bytes": 1 << 20, "console_bytes": 1 << 16, "memory_bytes": 8 << 20} | changes
    return Request(
        wall_ns=120_000_000_000,
        fuel=2 * 10**9,
        clock_us=0,
        seed=1,
        allow_function=False,
        want_snapshot=False,
        code=code.encode(),
        input=data,
        **values,
    )


def test_a_value_comes_back_as_it_went_in() -> None:
    random = Random(1)
    values = [_value(random) for _ in range(300)]
    texts = [json.dumps(value, ensure_ascii=False) for value in values]
    data = [text.encode("utf-8", "surrogatepass") for text in texts]
    reports = run_guest([_request("return input", each) for each in data])
    for value, report in zip(values, reports, strict=True):
        assert report.status == SUCCESS
        assert json.loads(report.output) == _paired(value)


def _paired(value: object) -> object:
    """Surrogates that lone stood side by side are one character after UTF-16."""
    return json.loads(json.dumps(value))


def test_an_output_is_given_whole_or_counted() -> None:
    random = Random(2)
    cases = []
    for _ in range(200):
        length = random.choice((0, 1, 2, random.randint(0, 3000), 100_000))
        size = length + 2
        cap = random.choice((0, 1, size - 1, size, size + 1, random.randint(0, 4000)))
        cases.append((length, cap))
    reports = run_guest(
        [_request(f"return 'x'.repeat({length})", output_bytes=cap) for length, cap in cases]
    )
    for (length, cap), report in zip(cases, reports, strict=True):
        whole = b'"' + b"x" * length + b'"'
        assert report.status == SUCCESS
        assert report.output_total_bytes == len(whole)
        assert report.output == (whole if len(whole) <= cap else b"")
    assert len({bool(report.output) for report in reports}) == 2


def test_console_entries_are_kept_whole_or_counted() -> None:
    """Against a model: an entry that does not fit is dropped, a shorter one after it may fit."""
    random = Random(3)
    cases = []
    for _ in range(150):
        entries = [
            (random.choice(LEVELS), "xé€😀"[random.randint(0, 3)] * random.choice((0, 1, 7, 300)))
            for _ in range(random.randint(0, 30))
        ]
        cases.append((entries, random.choice((0, 3, 4, 5, 64, 700, 4000, 1 << 16))))
    code = "for (const [level, text] of input) console[level](text)"
    reports = run_guest(
        [_request(code, json.dumps(entries).encode(), console_bytes=cap) for entries, cap in cases]
    )
    dropped = 0
    for (entries, cap), report in zip(cases, reports, strict=True):
        kept, bytes_lost, entries_lost, used = [], 0, 0, 0
        for level, text in entries:
            data = text.encode()
            if used + 4 + len(data) <= cap:
                kept.append((level, data))
                used += 4 + len(data)
            else:
                bytes_lost += len(data)
                entries_lost += 1
        assert _check_console(report.console, cap) == kept
        assert report.console_dropped_bytes == bytes_lost
        assert report.console_dropped_entries == entries_lost
        dropped += entries_lost
    assert dropped


@dataclass(frozen=True, slots=True)
class Case:
    """A conversation with one instance, and what must come of it."""

    talk: Conversation
    check: Callable[[list[Reply]], None]


def _name(random: Random) -> bytes:
    return random.choice(
        (b"", b"a", b"lodash", b"../x", b"\0", b"a\0b", b"\xff", _bytes(random, 30))
    )


def make_conversation(seed: int) -> Conversation:
    """Give modules, then a run, then whatever a host should not call."""
    random = Random(seed)
    pristine = int(javascript_facts()["memory_pages"]) * PAGE_BYTES
    calls: list[tuple[str, list[bytes | int]]] = []
    for _ in range(random.randint(0, 4)):
        source = random.choice(
            (_code(random), b"module.exports = 42", b"exports.x = self", b"return", b"")
        )
        calls.append(("beddel_module", [_name(random), source]))
    for _ in range(random.randint(0, 2)):
        size = random.choice((0, 1, 4095, 65536, 1 << 24, 1 << 31, random.randint(0, 2**32 - 2)))
        calls.insert(random.randint(0, len(calls)), ("beddel_alloc", [size]))
    uses = b"return typeof require + require('a')"
    data = _input(random)[0]
    run: list[bytes | int] = [random.choice((_code(random), uses, b"return input"))]
    run += [0, 0] if random.random() < 0.5 else [data]
    calls.append(("beddel_run", run))
    late: list[bytes | int] = [b"late", b""]
    calls += random.choices(
        [("beddel_run", run), ("beddel_module", late), ("beddel_state", [])], k=2
    )
    return Conversation(
        memory_bytes=random.choice((pristine, pristine + PAGE_BYTES, 2 << 20, 8 << 20)),
        fuel=random.choice((1000, 10**6, 2 * 10**8)),
        flags=random.choice((0, 1, 2**32 - 1)),
        console_cap=random.choice((0, 100, 2**32 - 1)),
        calls=calls,
    )


def check_conversation(talk: Conversation, replies: list[Reply]) -> None:
    """Hold each reply against the interface that README.md describes."""
    has_run = ended = False
    for (name, values), reply in zip(talk.calls, replies, strict=True):
        assert reply.texts_lie_inside
        assert reply.console_bytes <= talk.console_cap
        assert reply.memory_bytes <= talk.memory_bytes
        assert reply.status in (*STATUSES, UNFINISHED)
        if reply.trapped and reply.trap_code not in (TRAP_OUT_OF_FUEL, TRAP_STACK_OVERFLOW):
            # What ends in `unreachable`: a second run, or no memory to go on at all.
            assert (name == "beddel_run" and has_run) or reply.status == OUT_OF_MEMORY or ended
        if name == "beddel_run":
            assert not has_run or reply.trapped
            has_run = True
        if name == "beddel_alloc" and not reply.trapped:
            size = values[0]
            assert isinstance(size, int)
            assert reply.result is not None
            assert not reply.result or reply.result + size < reply.memory_bytes
        if name in ("beddel_run", "beddel_module") and not reply.trapped and not ended:
            assert reply.result in STATUSES
            assert reply.status == (reply.result or (UNFINISHED, SUCCESS)[name == "beddel_run"])
        ended |= reply.trapped


def _check_conversations(first: int, count: int) -> Counter[str]:
    talks = [make_conversation(seed) for seed in range(first, first + count)]
    seen: Counter[str] = Counter()
    for at, (talk, replies) in enumerate(zip(talks, converse(talks), strict=True)):
        try:
            check_conversation(talk, replies)
        except AssertionError as error:
            error.add_note(f"seed {first + at}: {talk}\n{replies}")
            raise
        seen.update(
            f"{call[0]} {reply.result}" for call, reply in zip(talk.calls, replies, strict=True)
        )
    return seen


def test_any_calls_keep_to_the_interface() -> None:
    seen = _check_conversations(0, CASES)
    assert {"beddel_run 0", "beddel_run 6", "beddel_module 0", "beddel_module 6"} <= set(seen)
    assert {"beddel_run None", "beddel_alloc 0"} <= set(seen)


def test_a_block_of_four_gib_is_refused() -> None:
    talk = Conversation(8 << 20, 10**9, 0, 0, [("beddel_alloc", [2**32 - 1])])
    assert converse([talk])[0][0].result == 0


@pytest.mark.slow
def test_any_calls_keep_to_the_interface_for_long() -> None:
    _check_conversations(CASES, SLOW_CASES // 2)
