"""The same job twice: same output, fuel and memory digest, whatever surrounds the process."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import drop_capabilities
from tests.support.cli import COMMAND, HANG_SECONDS, Home

JOBS = {
    "number": "return 42",
    "nothing": "",
    "input": "return input",
    "random": "return [Math.random(), Math.random()]",
    "many random": "let n = 0\nfor (let i = 0; i < 1000; i++) n += Math.random()\nreturn n",
    "random order": "return [1, 2, 3, 4, 5, 6].sort(() => Math.random() - 0.5)",
    "now": "return [Date.now(), Date.now()]",
    "new date": "return new Date()",
    "date as text": "return [String(new Date()), new Date().toLocaleString()]",
    "date of parts": "return new Date(2024, 5, 15, 12).getTime()",
    "time zone": "return new Date().getTimezoneOffset()",
    "date parsed": "return Date.parse('2024-06-15T12:00')",
    "performance": "return [performance.now(), performance.timeOrigin]",
    "time that passes": "const a = performance.now()\nfor (let i = 0; i < 9999; i++) ;\n"
    "return performance.now() - a",
    "locale numbers": "return [(1234567.891).toLocaleString(), (0.1).toLocaleString('de')]",
    "locale text": "return ['I'.toLocaleLowerCase('tr'), 'a'.localeCompare('B')]",
    "sorted text": "return ['z', 'a', '\\u00e4', 'Z'].sort((a, b) => a.localeCompare(b))",
    "mathematics": "return [Math.sin(1), Math.exp(1), Math.pow(2, 0.5), 1e21 / 3]",
    "not a number": "return [NaN, -NaN, 0 / 0, Infinity - Infinity].map(String)",
    "bits of not a number": "const f = new Float64Array([NaN, 0 / 0, -NaN])\n"
    "return [...new Uint8Array(f.buffer)]",
    "rounding": "return [0.1 + 0.2, (1.005).toFixed(2), 5e-324 / 2, 1e308 * 2].map(String)",
    "keys": "return Object.keys({ b: 1, a: 2, 2: 3, 1: 4 })",
    "map order": "return [...new Map([['b', 1], ['a', 2]]).keys(), ...new Set([3, 1, 2])]",
    "many keys": "const o = {}\nfor (let i = 0; i < 500; i++) o['k' + (i * 7919) % 1009] = i\n"
    "return Object.keys(o).length",
    "symbols": "const o = { [Symbol('b')]: 1, [Symbol('a')]: 2 }\n"
    "return Object.getOwnPropertySymbols(o).map(String)",
    "regular expression": "return 'a1b22c333'.replace(/\\d+/g, m => m.length)",
    "JSON": "return JSON.parse(JSON.stringify({ a: [1, { b: null }], c: 'x' }))",
    "text": "return 'x'.repeat(5000).length + 'y'.padEnd(100).length",
    "unicode": "return ['\\u{1f600}'.length, 'e\\u0301'.normalize('NFC'), '\\ud800']",
    "typed arrays": "return [...new Uint16Array(new Uint8Array([1, 2, 3, 4]).buffer)]",
    "BigInt": "return String(3n ** 500n)",
    "closures": "const f = []\nfor (let i = 0; i < 200; i++) f.push(() => i)\n"
    "return f.map(g => g())",
    "classes": "class A { #x = 1\n get x() { return this.#x } }\nreturn new A().x",
    "generators": "function* g() { for (let i = 0; i < 50; i++) yield i }\nreturn [...g()].length",
    "promises": "return Promise.all([1, Promise.resolve(2), (async () => 3)()])",
    "race": "return Promise.race([new Promise(() => {}), Promise.resolve(1)])",
    "order of microtasks": "const seen = []\nqueueMicrotask(() => seen.push(1))\n"
    "Promise.resolve().then(() => seen.push(2))\nawait 0\nawait 0\nreturn seen",
    "weak references": "const w = new WeakRef({})\nreturn typeof w.deref()",
    "garbage": "for (let i = 0; i < 5000; i++) ({ a: [i] })\nreturn 1",
    "console": "console.log('a', 1)\nconsole.warn({ b: 2 })\nreturn 1",
    "console of time": "console.log(Date.now(), Math.random())",
    "own stack": "return new Error('x').stack",
    "names of globals": "return Object.getOwnPropertyNames(globalThis).length",
    "thrown": "throw new TypeError('no')",
    "thrown at random": "throw new Error(String(Math.random()))",
    "syntax": "return (",
    "too deep": "const f = () => f() + 1\nreturn f()",
    "depth that is reached": "let n = 0\nconst f = () => { n++\n f() }\n"
    "try { f() } catch { return n }",
    "out of memory": "const all = []\nfor (;;) all.push({})",
    "memory that is reached": "const all = []\ntry { for (;;) all.push(new Uint8Array(999)) }"
    " catch { return all.length }",
    "out of fuel": "for (;;) ;",
    "never settles": "await new Promise(() => {})",
    "not JSON": "return () => 1",
    "too much output": "return 'x'.repeat(300_000)",
}
FLAGS = {"out of fuel": ("--fuel", "3000000")}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a process finds around itself."""

    name: str
    environment: tuple[tuple[str, str], ...] = ()
    elsewhere: bool = False
    terminal: bool = False
    command: tuple[str, ...] = COMMAND


PLAIN = Surroundings("plain", (("PYTHONHASHSEED", "0"), ("TZ", "UTC"), ("LC_ALL", "C")))
OTHERS = (
    Surroundings("hash seed", (("PYTHONHASHSEED", "4242"),)),
    Surroundings("time zone", (("TZ", "Asia/Kathmandu"),)),
    Surroundings("locale", (("LC_ALL", "tr_TR.UTF-8"), ("LANGUAGE", "tr"), ("LANG", "tr_TR"))),
    Surroundings("folder", elsewhere=True),
    Surroundings("terminal", (("TERM", "xterm-256color"), ("COLUMNS", "40")), terminal=True),
    Surroundings("large environment", tuple((f"FILLER_{i}", "x" * 1000) for i in range(60))),
    Surroundings(
        "no capabilities",
        command=(sys.executable, "-P", str(Path(drop_capabilities.__file__)), *COMMAND),
    ),
    Surroundings(
        "all at once",
        (("PYTHONHASHSEED", "7"), ("TZ", "America/St_Johns"), ("LC_ALL", "de_DE.UTF-8")),
        elsewhere=True,
        terminal=True,
        command=(sys.executable, "-P", str(Path(drop_capabilities.__file__)), *COMMAND),
    ),
)


def _run_on_a_terminal(command: Sequence[str], env: dict[str, str], folder: Path) -> None:
    mine, theirs = pty.openpty()
    run = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=folder)
    os.close(theirs)

    def read() -> None:
        try:
            while os.read(mine, 65536):
                pass
        except OSError:
            return  # the last one has closed the terminal

    reader = threading.Thread(target=read)
    reader.start()
    run.wait(timeout=HANG_SECONDS)
    reader.join(timeout=HANG_SECONDS)
    os.close(mine)


def run_in(home: Home, around: Surroundings, code: str, *flags: str) -> dict[str, Any]:
    """Run a job somewhere; gives what its receipt says of it."""
    folder = home.work
    job = home.job(code, input={"a": [1, 2.5, None, "\u00e4"]})
    if around.elsewhere:
        folder = home.work / "else" / "where"
        folder.mkdir(parents=True, exist_ok=True)
    env = home.environment(**dict(around.environment))
    command = [*around.command, "run", str(job), *flags]
    if around.terminal:
        _run_on_a_terminal(command, env, folder)
    else:
        subprocess.run(
            command, env=env, cwd=folder, capture_output=True, timeout=HANG_SECONDS, check=False
        )
    return home.predicate()


def reproducible(predicate: dict[str, Any]) -> dict[str, Any]:
    """Give the part of a receipt that another run must repeat."""
    usage = predicate["usage"]
    return {
        "outcome": predicate["outcome"],
        "output": predicate["output"],
        "console": predicate["console"],
        "fuel": usage["fuel"],
        "memoryDigest": usage["memoryDigest"],
        "linearMemoryPeak": usage["linearMemoryPeak"],
        "planDigest": predicate["planDigest"],
        "determinism": predicate["determinism"],
    }


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """One home for all of these runs."""
    folder = tmp_path_factory.mktemp("determinism")
    (folder / "work").mkdir()
    return Home(folder / "home", folder / "cache", folder / "work")


def test_there_are_enough_jobs() -> None:
    assert len(JOBS) >= 50


@pytest.mark.parametrize("name", JOBS)
def test_the_same_job_twice(shared: Home, name: str) -> None:
    around = OTHERS[list(JOBS).index(name) % len(OTHERS)]
    flags = FLAGS.get(name, ())
    first = reproducible(run_in(shared, PLAIN, JOBS[name], *flags))
    second = reproducible(run_in(shared, around, JOBS[name], *flags))
    assert first["fuel"] is not None
    assert first["memoryDigest"] is not None
    assert second == first


@pytest.mark.parametrize("around", OTHERS, ids=lambda around: around.name)
def test_whatever_surrounds_it(shared: Home, around: Surroundings) -> None:
    code = (
        "console.log(new Date())\n"
        "return [Math.random(), String(new Date()), performance.now(), input]"
    )
    first = reproducible(run_in(shared, PLAIN, code))
    assert first["outcome"]["reason"] == "ok"
    assert reproducible(run_in(shared, around, code)) == first


def test_the_real_clock_is_not_repeatable(shared: Home) -> None:
    # The control: where clock and random are real, the same comparison finds a difference.
    code = "return [Math.random(), Date.now()]"
    tenant = ("--profile", "tenant-isolated")
    runs = [reproducible(run_in(shared, PLAIN, code, *tenant)) for _ in range(2)]
    assert runs[0]["output"] != runs[1]["output"]
    assert runs[0]["memoryDigest"] != runs[1]["memoryDigest"]


def test_another_input_is_another_digest(shared: Home) -> None:
    code = "return 1"
    first, second = (
        reproducible(run_in(shared, PLAIN, code, "--set", f"input.a={n}")) for n in (1, 2)
    )
    assert first["output"] == second["output"]
    assert first["memoryDigest"] != second["memoryDigest"]


def test_a_tenants_job_may_ask_for_it(home: Home) -> None:
    code = "return [Math.random(), Date.now()]"
    job = home.job(code, deterministic=True)
    runs = []
    for _ in range(2):
        assert home.run("run", job, "--profile", "tenant-isolated").returncode == 0
        runs.append(reproducible(home.predicate()))
    assert runs[0] == runs[1]
