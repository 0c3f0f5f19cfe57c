"""Random programs in the guest and in the same engine run natively: the same answer, always.

The native engine is the quickjs-ng that the guest is made of, as its authors compile it: for 64
bits, with another C library, allocator and stack, and without our glue. What the two answer is
compared as text, with nothing left out. What differs for a reason stands in DIFFERENCES and is kept
out of the programs.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TypeVar

import pytest

from beddel_cli.guests import javascript_facts
from beddel_cli.isolate.frames import SETTLED, TRAPPED, Report, Request
from beddel_cli.isolate.wasm import TRAP_OUT_OF_FUEL, TRAP_STACK_OVERFLOW
from beddel_cli.outcome import FAULT
from tests.fuzz import program_grammar
from tests.fuzz.engines import EngineProcessError, Native, read_surface, run_guest, run_native
from tests.fuzz.judgement import judge_report
from tests.fuzz.program_grammar import Program, make_program, smaller_programs
from tests.support.capabilities import give_up
from tests.support.native import has_quickjs

_In = TypeVar("_In")
_Out = TypeVar("_Out")

BATCHES, BATCH_PROGRAMS = 3, 100
SLOW_BATCHES, SLOW_BATCH_PROGRAMS = 40, 250
# The seeds of the long run follow on those of the short one.
SLOW_SEEDS = BATCHES * BATCH_PROGRAMS

# Programs may end at a limit of the guest that the native engine does not have; so many at most.
LIMITED_PER_CENT = 2
OUT_OF_MEMORY, STACK_OVERFLOW, SYNTAX_ERROR, UNHANDLED = 2, 3, 6, 8
STATUSES_SEEN = {0: "success", 1: "an error", 4: "never settles", 5: "not JSON", 6: "syntax error"}


@dataclass(frozen=True, slots=True)
class Difference:
    """Something the two do not have in common.

    Attributes:
        reason: why that is no fault of either.
        shown_by: a body whose answers differ.
        kept_out: what no production of the grammar may contain, as a regular expression.
        everywhere: whether it differs on every machine, or with some C libraries only.
    """

    reason: str
    shown_by: str
    kept_out: str = r"(?!)"
    everywhere: bool = True


_ROUNDED = (
    "sin|cos|tan|asin|acos|atan|sinh|cosh|tanh|asinh|acosh|atanh|exp|expm1|log|log1p|log2|log10|cbrt"
    "|atan2|hypot|pow"
)
DIFFERENCES = {
    "last digits of Math functions": Difference(
        "the C libraries round differently where the standard leaves it open; programs look at 8"
        " digits of these results (`approx`), and at powers of small integers",
        "let all = ''\nfor (let x = 0; x < 999; x++) all += [Math.tan(x), Math.cbrt(x / 7),"
        " Math.tanh(x / 99), Math.sinh(x / 9), Math.log10(x), Math.acosh(x)]\nreturn all",
        rf"(?<!approx\()Math\.(?:{_ROUNDED})\(|(?<!approx\()@number \*\*|@set_number \*\*",
        everywhere=False,
    ),
    "bits of NaN": Difference(
        "the guest's NaN has one form, a processor's several, and a float array shows them to who"
        " looks at its bytes; programs store numbers as bytes through `plain`",
        "const zero = Number('0'), one = new Float64Array([zero / zero])\n"
        "return [...new Uint8Array(one.buffer)]",
        r"\.setFloat\d+\(@small, (?!plain)|Float\d+Array\([^)]*\)\.buffer|@typed\.buffer",
        everywhere=False,
    ),
    "eval": Difference(
        "the guest makes no code from text but by Function's family, and that where allowed",
        "return eval('1')",
        r"(?<![\w.])eval\(",
    ),
    "clock": Difference(
        "the guest's clock is a number the host gives",
        "return Date.now()",
        r"Date\.now|new Date\(\)|performance|(?<!new )\bDate\(\)",
    ),
    "chance": Difference(
        "the guest's chance comes of the host's seed", "return Math.random()", r"Math\.random"
    ),
    "Atomics": Difference(
        "the guest is compiled without threads", "return typeof Atomics", r"Atomics"
    ),
    "console": Difference(
        "the native engine has none; it gets a log that takes one text, by which the prelude tells"
        " what a program sees",
        "return Object.keys(console).length",
        r"\bconsole\b",
    ),
    "rejections that nobody handles": Difference(
        "the guest ends with a status of its own where the body's promise is fulfilled, and the"
        " native engine's interface cannot ask; then only what was seen until the end is compared",
        "Promise.reject(1)\nreturn 2",
    ),
    "memory": Difference(
        "the guest's is limited to what the host gives; programs ask for little at a time",
        "return new Uint8Array(20_000_000).length",
        r"\b(?:repeat|padStart|padEnd|Array|ArrayBuffer)\(@(?:number|any|bigint)\b",
    ),
    "depth of recursion": Difference(
        "the guest's stack is smaller; programs recurse a few times, or through `tick`",
        "let n = 0\nconst f = () => { n++; f() }\ntry { f() } catch {}\nreturn n",
    ),
    "stack traces": Difference(
        "the guest counts lines from the body's first, in a file it calls job.js",
        "return new Error('').stack",
        r"\.stack\b|captureStackTrace",
    ),
    "end of the body": Difference(
        "the guest reads a body to its end and says so; for the native engine a wrapper stands"
        " behind it, whose brace is what it did not expect",
        "return (1 +",
        r"^\}",
    ),
    "closing the wrapper": Difference(
        "`}` closes nothing in the guest, and the native engine's wrapper",
        "return 1 }); (async () => {",
        r"^\}",
    ),
}

# What one of the two has and the other has not, or has with another value.
SURFACE = {
    "globalThis.Atomics": "Atomics",
    "globalThis.console": "console",
    "globalThis.performance.timeOrigin": "clock",
}
# Functions that no program calls.
UNTRIED = {
    "eval": "differs: eval",
    "random": "differs: chance",
    "now": "differs: clock",
    "captureStackTrace": "differs: stack traces",
}

# Wrong on purpose: each is a change of the native engine that the comparison must find.
SABOTAGE = {
    "integers": "Math.imul = (a, b) => Math.trunc(a * b) | 0",
    "big integers": "BigInt.asIntN = (bits, x) => x",
    "text": "String.prototype.toUpperCase = String.prototype.toLowerCase",
    "numbers to text": "const f = Number.prototype.toString\n"
    "Number.prototype.toString = function (r) { return f.call(this, r > 30 ? r - 1 : r) }",
    "sorting": "const f = Array.prototype.toSorted\n"
    "Array.prototype.toSorted = function (c) { return f.call(this, c).reverse() }",
    "order of reactions": "const f = Promise.prototype.then\n"
    "Promise.prototype.then = function (a, b) { return f.call(f.call(this), a, b) }",
    "regular expressions": "const f = RegExp.prototype.exec\n"
    "RegExp.prototype.exec = function (s) {"
    " const m = f.call(this, s); if (m) m.index++; return m }",
    "messages": "const f = TypeError\n"
    "globalThis.TypeError = function (m) { return new f(m + '!') }",
    "dates": "const f = Date.UTC\nDate.UTC = (...all) => f(...all) + 1",
}


@pytest.fixture(scope="module", autouse=True)
def _same_engine() -> None:
    """The two can only be compared where the native module is the guest's own version."""
    if not has_quickjs():
        give_up("native-engine: pip install quickjs-ng")
    installed, built = importlib.metadata.version("quickjs-ng"), javascript_facts()["quickjs_ng"]
    if installed != built:
        give_up(f"native-engine: quickjs-ng {installed} is installed, the guest is {built}")


def request_of(source: str) -> Request:
    """Give the guest's limits for one program: plenty, but for the fuel that ends what loops."""
    return Request(
        wall_ns=120_000_000_000,
        fuel=2_000_000_000,
        memory_bytes=8 << 20,
        clock_us=0,
        seed=1,
        output_bytes=1 << 20,
        console_bytes=1 << 20,
        allow_function=True,
        want_snapshot=False,
        code=source.encode("utf-8", "surrogatepass"),
        input=b"",
    )


def run_all(run: Callable[[Sequence[_In]], list[_Out]], items: Sequence[_In]) -> list[_Out | str]:
    """Run in a child process; in place of an item's answer stands how the process died of it."""
    try:
        return list(run(items))
    except EngineProcessError as death:
        at = len(death.answers)
        if at == len(items):
            raise
        before: list[_Out | str] = list(run(items[:at]))
        return [*before, str(death), *run_all(run, items[at + 1 :])]


@dataclass(frozen=True, slots=True)
class Pair:
    """One program's two answers; text in place of one says that its process died."""

    program: Program
    guest: Report | str
    native: Native | str

    @property
    def limit(self) -> str:
        """The documented limit of the guest that ended the program, or nothing."""
        if isinstance(self.guest, str):
            return ""
        if self.guest.ending == TRAPPED:
            # 2 is the guest's word that it had no memory before the engine gave up.
            traps = {TRAP_OUT_OF_FUEL: "fuel", TRAP_STACK_OVERFLOW: "stack"}
            memory = "memory" if self.guest.status == OUT_OF_MEMORY else ""
            return traps.get(self.guest.trap_code, memory)
        return {OUT_OF_MEMORY: "memory", STACK_OVERFLOW: "stack"}.get(self.guest.status, "")

    @property
    def difference(self) -> str:
        """What the two do not agree on, or nothing."""
        if isinstance(self.native, str):
            return self.native
        if isinstance(self.guest, str):
            return self.guest
        if self.limit:
            return ""
        if self.guest.ending != SETTLED:
            return f"the guest ended with trap {self.guest.trap_code}, status {self.guest.status}"
        said = _as_native(self.guest, self.native)
        return "" if said == self.native else f"guest  {said}\nnative {self.native}"


def _as_native(report: Report, native: Native) -> Native:
    """Give the guest's report as the native engine's answer would be, had it said the same."""
    texts = (report.output, report.error_name, report.error_message)
    output, name, message = (text.decode("utf-8", "surrogatepass") for text in texts)
    said = replace(
        native,
        console=tuple(text.decode("utf-8", "surrogatepass") for _, text in console_of(report)),
    )
    if report.status == UNHANDLED:
        return replace(said, fulfilled=True)
    # A microtask that threw is told of when the body's promise is fulfilled.
    threw = native.threw and not native.fulfilled
    return replace(
        said,
        status=report.status,
        output=output,
        error_name=name,
        error_message=message,
        threw=threw,
    )


def console_of(report: Report) -> list[tuple[int, bytes]]:
    """Give the level and the text of each console entry."""
    entries = []
    start = 0
    while start < len(report.console):
        (header,) = struct.unpack_from("<I", report.console, start)
        start += 4
        entries.append((header & 7, report.console[start : start + (header >> 3)]))
        start += header >> 3
    assert start == len(report.console)
    return entries


def answer(programs: Sequence[Program], *, before: str = "") -> list[Pair]:
    """Run programs in both engines at the same time.

    Args:
        programs: what to run.
        before: changes each native context.
    """
    sources = [program.source for program in programs]
    with ThreadPoolExecutor(2) as threads:
        natives = threads.submit(run_all, lambda some: run_native(some, before=before), sources)
        guests = threads.submit(run_all, run_guest, [request_of(source) for source in sources])
        return [
            Pair(*each) for each in zip(programs, guests.result(), natives.result(), strict=True)
        ]


def shrink(pair: Pair, *, before: str = "") -> Pair:
    """Drop statements for as long as the two still differ."""
    smaller = smaller_programs(pair.program)
    while some := list(islice(smaller, 16)):
        differing = (each for each in answer(some, before=before) if each.difference)
        found = next(differing, None)
        if found is not None:
            pair = found
            smaller = smaller_programs(pair.program)
    return pair


def check(pairs: Sequence[Pair]) -> None:
    """Fail with the smallest program that shows the first difference."""
    differing = [pair for pair in pairs if pair.difference]
    if differing:
        least = shrink(differing[0])
        seeds = ", ".join(str(pair.program.seed) for pair in differing)
        pytest.fail(
            f"{len(differing)} of {len(pairs)} programs, of the seeds {seeds}. The first, with its"
            f" prelude and what is left of it:\n{least.program.body}\n\n{least.difference[:4000]}"
            f"\n\nOf:\n{differing[0].program.body}",
            pytrace=False,
        )
    for pair in pairs:
        if isinstance(pair.guest, Report):
            outcome = judge_report(request_of(pair.program.source), pair.guest)
            assert outcome.status != FAULT, (outcome.message, pair.program.seed)
    limited = Counter(pair.limit for pair in pairs if pair.limit)
    assert limited.total() * 100 <= LIMITED_PER_CENT * len(pairs), limited


@cache
def answers(batch: int) -> list[Pair]:
    """Give the answers to one batch of the short run."""
    first = batch * BATCH_PROGRAMS
    return answer([make_program(seed) for seed in range(first, first + BATCH_PROGRAMS)])


@pytest.mark.parametrize("batch", range(BATCHES))
def test_both_engines_answer_the_same(batch: int) -> None:
    check(answers(batch))


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(SLOW_BATCHES))
def test_both_engines_answer_the_same_for_long(batch: int) -> None:
    first = SLOW_SEEDS + batch * SLOW_BATCH_PROGRAMS
    check(answer([make_program(seed) for seed in range(first, first + SLOW_BATCH_PROGRAMS)]))


def test_the_programs_are_worth_running() -> None:
    """They end in every way, most reach their end, and what they saw on the way is much."""
    natives = [pair.native for batch in range(BATCHES) for pair in answers(batch)]
    ends = Counter(native.status for native in natives if isinstance(native, Native))
    assert set(ends) == set(STATUSES_SEEN)
    assert ends[0] > 0.7 * ends.total()
    seen = sum(len(native.console) for native in natives if isinstance(native, Native))
    assert seen > 20 * len(natives)


def test_what_cannot_be_parsed_is_refused_in_the_same_words() -> None:
    first = make_program(0)
    programs = [
        replace(first, statements=(*first.statements, statement, *first.statements))
        for statement in program_grammar.broken_statements()
    ]
    pairs = answer(programs)
    check(pairs)
    for pair in pairs:
        assert isinstance(pair.native, Native)
        assert pair.native.status == SYNTAX_ERROR, pair.program.body
        assert pair.native.error_name == "SyntaxError"


def test_the_same_program_gives_the_same_fuel_and_memory_again() -> None:
    """In another process, order, time zone, language and hash seed."""
    pairs = answers(0)[::2]
    surroundings = {"TZ": "Asia/Kathmandu", "LC_ALL": "tr_TR.UTF-8", "PYTHONHASHSEED": "99"}
    requests = [request_of(pair.program.source) for pair in reversed(pairs)]
    again = run_guest(requests, environment=surroundings)[::-1]
    figures = []
    for pair, report in zip(pairs, again, strict=True):
        assert isinstance(pair.guest, Report)
        figures.append(_figures(pair.guest))
        assert figures[-1] == _figures(report), pair.program.seed
    # Two programs do not share these by chance.
    assert len(set(figures)) == len(figures)


def _figures(report: Report) -> tuple[object, ...]:
    return (
        report.fuel_used,
        report.memory_digest,
        report.memory_bytes,
        report.heap_used_bytes,
        report.heap_peak_bytes,
        report.output,
        report.console,
    )


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(
            what, marks=[] if what in ("integers", "dates", "messages") else pytest.mark.slow
        )
        for what in SABOTAGE
    ],
)
def test_a_wrong_answer_is_found(what: str) -> None:
    """Red where one of the two is wrong."""
    right = answers(0)
    sources = [pair.program.source for pair in right]
    natives = run_native(sources, before=f"(() => {{ {SABOTAGE[what]} }})()")
    pairs = [replace(pair, native=native) for pair, native in zip(right, natives, strict=True)]
    assert any(pair.difference for pair in pairs)


def test_a_difference_is_shown_by_little() -> None:
    before = f"(() => {{ {SABOTAGE['numbers to text']} }})()"
    pairs = answer([pair.program for pair in answers(0)], before=before)
    first = next(pair for pair in pairs if pair.difference)
    least = shrink(first, before=before)
    assert least.difference
    assert "toString(" in least.program.body
    assert len(least.program.body) * 4 < len(first.program.body)


def test_a_crash_is_blamed_on_its_program() -> None:
    """The process that dies of the third of five items: the other four have their answers."""

    def run(items: Sequence[int]) -> list[int]:
        if 3 in items:
            at = items.index(3)
            raise EngineProcessError("died", [b""] * at)
        return [item * 2 for item in items]

    assert run_all(run, [1, 2, 3, 4, 5]) == [2, 4, "died", 8, 10]


@pytest.mark.parametrize("what", DIFFERENCES)
def test_a_known_difference_is_still_one(what: str) -> None:
    """A row that no longer differs belongs into the grammar instead."""
    program = Program(0, (), DIFFERENCES[what].shown_by)
    pair = answer([program])[0]
    assert isinstance(pair.guest, Report)
    assert isinstance(pair.native, Native)
    differs = pair.difference or pair.limit or pair.guest.status != pair.native.status
    assert differs or not DIFFERENCES[what].everywhere


@pytest.mark.parametrize("what", DIFFERENCES)
def test_a_known_difference_is_kept_out_of_the_grammar(what: str) -> None:
    pattern = re.compile(DIFFERENCES[what].kept_out)
    assert [line for line in program_grammar.productions() if pattern.search(line)] == []


def test_both_engines_have_the_same_properties() -> None:
    guest, native = read_surface(request_of(""))
    assert len(native) > 1500
    different = {
        name for name in guest.keys() | native.keys() if guest.get(name) != native.get(name)
    }
    known = {name: [path for path in different if _is_under(path, name)] for name in SURFACE}
    assert different == {path for paths in known.values() for path in paths}
    assert all(known.values()), "a row of SURFACE that is no difference any more"
    assert set(SURFACE.values()) <= set(DIFFERENCES)


def _is_under(path: str, name: str) -> bool:
    return path == name or path.startswith(f"{name}.")


def test_the_grammar_calls_every_function() -> None:
    """Every function that both engines have is in some production, or in UNTRIED."""
    guest, native = read_surface(request_of(""))
    broken = {statement.render() for statement in program_grammar.broken_statements()}
    lines = program_grammar.productions() - broken
    # Names in texts are not calls.
    code = "\n".join(re.sub("'[^']*'|\"[^\"]*\"", "", line) for line in lines)
    words = set(re.findall(r"\w+", code))
    missing = set()
    for path in guest.keys() & native.keys():
        name = path.rpartition("Symbol(")[2].rstrip(")") if ")" in path else path.split(".")[-1]
        is_function = re.search("[-wec]{3} function", native[path])
        if is_function and not set(name.split(".")) & words:
            missing.add(name)
    assert missing == set(UNTRIED)


def test_a_seed_gives_one_program() -> None:
    """Also in a process that hashes text differently."""
    script = (
        "import json, runpy, sys\n"
        "sys.modules['grammar'] = sys\n"
        "make = runpy.run_path(sys.argv[1], run_name='grammar')['make_program']\n"
        "print(json.dumps([make(seed).source for seed in range(20)]))"
    )
    command = [sys.executable, "-P", "-c", script, str(Path(program_grammar.__file__))]
    texts = [
        subprocess.run(
            command, env={"PYTHONHASHSEED": seed}, capture_output=True, check=True, timeout=60
        ).stdout
        for seed in ("1", "2")
    ]
    assert texts[0] == texts[1]
    assert json.loads(texts[0]) == [make_program(seed).source for seed in range(20)]


@pytest.mark.slow
def test_every_production_is_taken() -> None:
    used: set[str] = set()
    for seed in range(4000):
        make_program(seed, used)
    broken = {statement.render() for statement in program_grammar.broken_statements()}
    assert program_grammar.productions() - used - broken == set()
