"""Jobs that mean harm: each ends in its one documented way, in time, and leaves nothing behind."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from beddel_cli.outcome import REASONS
from tests.support import processes
from tests.support.cli import LATE_SECONDS, Home, Result, has_traceback
from tests.support.jobs import Hostile, hostile_jobs

_PR_SET_CHILD_SUBREAPER = 36
JOBS = hostile_jobs()
TIMEOUT_SECONDS = 0.1
# Known to end otherwise: a guest that finds no memory for a regular expression says so as a
# SyntaxError.
KEYS = (
    *("schema", "run_id", "job", "profile", "tenant", "runtime", "outcome", "output", "stdout"),
    *("stderr", "console", "time", "memory", "fuel", "limits", "controls", "rung", "files"),
    *("results_path", "receipt"),
    *("warnings", "error"),
)


@pytest.fixture(scope="module", autouse=True)
def _adopt_orphans() -> Iterator[None]:
    """Whatever a run leaves running becomes a child of ours, where it is seen."""
    libc = ctypes.CDLL(None)
    assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    yield
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """One home for all: a hostile job must not spoil it for the next."""
    folder = tmp_path_factory.mktemp("hostile")
    work = folder / "work"
    work.mkdir()
    home = Home(folder / "home", folder / "cache", work)
    assert home.run("run", home.job("return 42")).returncode == 0
    return home


def _flags(job: Hostile) -> tuple[str, ...]:
    # Those that must end by the clock get little of it; the others all that the profile grants.
    if job.reason != "wall":
        return job.flags
    return (*job.flags, "--timeout", f"{TIMEOUT_SECONDS * 1000:.0f}ms")


def run_hostile(home: Home, job: Hostile, *flags: str) -> tuple[Result, dict[str, Any]]:
    """Run a job to its end, and check what holds of every ending."""
    path = home.job(job.code)
    files, work = home.files(), sorted(home.work.iterdir())
    result = home.run("run", path, "--json", "--profile", "ultra-secure", *_flags(job), *flags)
    assert processes.children(os.getpid()) == []
    # The receipt and its proof; what the log takes goes into the files it has.
    receipt, proof = sorted(home.files() - files)
    assert receipt.endswith(".dsse.json")
    assert proof == f"{receipt}.tlog-proof"
    assert sorted(home.work.iterdir()) == work
    predicate = home.predicate()
    assert not has_traceback(result), result.message
    document = result.json
    assert tuple(document) == KEYS
    assert json.loads(json.dumps(document)) == document
    assert not [byte for byte in result.stdout + result.stderr if byte < 32 and byte != 10]
    assert document["outcome"]["reason"] == predicate["outcome"]["reason"]
    assert document["outcome"]["exit_code"] == result.returncode
    # In time, by the supervisor's own clock.
    limit_ns = document["limits"]["wall_ns"]
    assert document["time"]["wall_ns"] <= limit_ns + LATE_SECONDS * 1e9
    return result, predicate


def test_there_are_enough_jobs() -> None:
    assert len([name for name in JOBS if not name.startswith("harmless")]) >= 150


@pytest.mark.parametrize("name", JOBS)
def test_hostile_job(shared: Home, name: str) -> None:
    job = JOBS[name]
    result, predicate = run_hostile(shared, job)
    status, exit_code, limit = REASONS[job.reason]
    outcome = result.json["outcome"]
    assert (outcome["reason"], result.returncode) == (job.reason, exit_code), result.message
    assert (outcome["status"], outcome["limit"], outcome["signal"]) == (status, limit, None)
    if job.reason == "ok":
        assert result.json["error"] is None
        assert result.json["output"] is not None or predicate["output"]["bytes"] == len("null")
        return
    assert result.json["output"] is None
    assert predicate["output"] is None
    error = result.json["error"]
    assert error["message"]
    assert len(error["message"]) < 10_000
    assert job.message in error["message"]
    if job.reason == "wall":
        assert predicate["usage"]["wall"]["ns"] >= TIMEOUT_SECONDS * 1e9
    if status == "limit":
        assert error["hint"]


# ---- what comes out -------------------------------------------------------------------------


def _run(home: Home, code: str, *flags: str, **more: Any) -> Result:
    return home.run("run", home.job(code, **more), "--json", *flags)


def test_console_is_cut_at_its_limit(shared: Home) -> None:
    result = _run(shared, "for (let i = 0; i < 20_000; i++) console.log('line', i)\nreturn 1")
    kept = result.json["console"]
    assert kept[0] == {"level": "log", "text": "line 0"}
    assert sum(len(line["text"]) + 4 for line in kept) <= 16 << 10
    said = shared.predicate()["console"]
    assert said["entries"] == len(kept)
    assert said["droppedBytes"] > 16 << 10
    assert result.json["output"] == 1


def test_lone_surrogates_and_nul_come_through(shared: Home) -> None:
    result = _run(shared, r"return ['\ud800x', '\0', { '\udc00': 1 }]")
    assert result.json["output"] == ["\ud800x", "\0", {"\udc00": 1}]
    result.stdout.decode("ascii")
    plain = shared.run("run", shared.job(r"return ['\ud800x', '\0']"))
    assert json.loads(plain.stdout.decode("utf-8")) == ["\ud800x", "\0"]


def test_errors_point_into_the_authors_file(shared: Home) -> None:
    path = shared.work / "place.yaml"
    path.write_text(
        "beddel: 1\nid: place\nruntime: javascript\n"
        "code: |\n  const a = 1\n  throw new Error('x')\n",
        encoding="ascii",
    )
    error = shared.run("run", path, "--json").json["error"]
    path.unlink()
    assert error["message"] == "Error: x"
    assert (error["file"], error["line"], error["column"]) == (str(path), 6, 13)


@pytest.mark.parametrize(
    ("stack", "reason"),
    [
        ("'    at f (job.js:1:1'", "thrown"),
        ("'job.js:0:0'", "thrown"),
        ("'job.js:-5:-5'", "thrown"),
        ("'job.js:99999999999999999999:1'", "thrown"),
        ("'job.js:' + '9'.repeat(10000)", "thrown"),
        ("'job.js:1:' + '9'.repeat(10000)", "thrown"),
        ("'job.js:\\u0661:\\u0662'", "thrown"),
        ("'job.js:\\n\\n'.repeat(1000)", "thrown"),
        ("'\\x1b]0;x\\x07'", "thrown"),
        ("{}", "thrown"),
        ("[1, 2]", "thrown"),
        ("null", "thrown"),
    ],
)
def test_a_made_up_stack_does_no_harm(shared: Home, stack: str, reason: str) -> None:
    job = Hostile(f"const e = new Error('m')\ne.stack = {stack}\nthrow e", reason, "m")
    result, _ = run_hostile(shared, job)
    assert result.returncode == 1
    line = result.json["error"]["line"]
    assert line is None or -1 <= line < 10**10


# ---- what goes in ---------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [258, 5_000, 500_000])
def test_deep_input_is_refused_before_it_runs(shared: Home, depth: int) -> None:
    text = ("[" * depth + "]" * depth).encode()
    result = shared.run("run", shared.job("return 1"), "--json", "--input", "-", input=text)
    assert result.returncode == 125
    assert result.json["error"]["code"] == "invalid-input"
    assert not has_traceback(result)


def test_input_that_is_just_deep_enough(shared: Home) -> None:
    text = b"[" * 200 + b"]" * 200
    result = shared.run("run", shared.job("return input"), "--json", "--input", "-", input=text)
    assert result.returncode == 0, result.message
    assert json.dumps(result.json["output"]).replace(" ", "").encode() == text


def test_input_that_does_not_fit_is_a_memory_limit(shared: Home) -> None:
    text = json.dumps("x" * 3_000_000).encode()
    result = shared.run("run", shared.job("return 1"), "--json", "--input", "-", input=text)
    assert (result.returncode, result.json["outcome"]["reason"]) == (137, "memory")
    small = json.dumps("x" * 300_000).encode()
    job = shared.job("return input.length")
    assert shared.run("run", job, "--json", "--input", "-", input=small).json["output"] == 300_000


def test_wide_input_is_a_memory_limit(shared: Home) -> None:
    text = b"[" + b"{}," * 100_000 + b"{}]"
    result = shared.run("run", shared.job("return 1"), "--json", "--input", "-", input=text)
    assert (result.returncode, result.json["outcome"]["reason"]) == (137, "memory")


def test_input_cannot_touch_a_prototype(shared: Home) -> None:
    text = b'{"__proto__": {"polluted": 1}, "constructor": 2, "a": {"__proto__": null}}'
    code = "return [({}).polluted ?? null, Object.hasOwn(input, '__proto__'), input.constructor]"
    result = shared.run("run", shared.job(code), "--json", "--input", "-", input=text)
    assert result.json["output"] == [None, True, 2]


@pytest.mark.parametrize("size", [100_000, 1_000_000])
def test_source_that_is_too_much(shared: Home, size: int) -> None:
    result = _run(shared, "1;" * (size // 2))
    assert result.returncode in (0, 125, 137)
    reason = result.json["outcome"]["reason"]
    assert reason in ("ok", "memory", "invalid-input")
    assert not has_traceback(result)


def test_nothing_is_left_of_one_run_for_the_next(shared: Home) -> None:
    code = "const before = globalThis.mark ?? null\nglobalThis.mark = 1\nreturn before"
    assert [_run(shared, code).json["output"] for _ in range(2)] == [None, None]
