"""Every ending of an isolate: its exit code, its reason, and a receipt that says the same."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from beddel_cli.outcome import REASONS
from tests.support import drop_capabilities, processes
from tests.support.capabilities import give_up, require
from tests.support.cli import COMMAND, Home, Result, has_traceback

LOOP = "for (;;) ;"
FAST = ("--timeout", "300ms")


@dataclass(frozen=True, slots=True)
class Case:
    """A job and its ending."""

    code: str
    flags: tuple[str, ...]
    exit_code: int
    status: str
    limit: str | None = None
    ended_by: str | None = None


CASES = {
    "ok": Case("return 42", (), 0, "success"),
    "thrown": Case("throw new Error('no')", (), 1, "failure"),
    "syntax": Case("return (", (), 1, "failure"),
    "stack": Case("const f = () => f() + 1\nreturn f()", (), 1, "failure"),
    "not-json": Case("return () => 1", (), 1, "failure"),
    "unhandled": Case("Promise.reject(new Error('lost')); return 1", (), 1, "failure"),
    "unsettled": Case("await new Promise(() => {})", (), 1, "failure"),
    "wall": Case(LOOP, FAST, 124, "limit", "timeout", "engine"),
    "fuel": Case(LOOP, ("--fuel", "100000"), 124, "limit", "fuel", "engine"),
    "output": Case(
        "return 'x'.repeat(99)", ("--max-output", "64B"), 124, "limit", "max_output", "engine"
    ),
    "memory": Case("const a = []\nfor (;;) a.push({})", (), 137, "limit", "memory", "engine"),
    "limits": Case("return 42", ("--memory", "3MiB"), 126, "refused"),
}
# What the other files of this folder end with.
ELSEWHERE = {"protection", "files", "worker-fault", "trap", "interrupted", "terminated"}
# Endings of programs; test_program_outcome.py and test_program_runs.py have these.
OF_PROGRAMS = {
    *("exit", "signal", "not-executable", "not-found", "cpu", "processes", "disk", "inodes"),
    "sandbox-fault",
}


def test_no_reason_is_forgotten() -> None:
    assert set(CASES) | ELSEWHERE | OF_PROGRAMS == set(REASONS)


@pytest.mark.parametrize("reason", CASES)
def test_ending_of_a_job(home: Home, reason: str) -> None:
    case = CASES[reason]
    result = home.run("run", home.job(case.code), "--json", *case.flags)
    assert result.returncode == case.exit_code, result.message
    outcome = result.json["outcome"]
    assert outcome == {
        "status": case.status,
        "reason": reason,
        "exit_code": case.exit_code,
        "signal": None,
        "limit": case.limit,
        "program_exit_code": None,
        "reached": [],
    }
    assert (result.json["error"] is None) == (case.status == "success")
    assert (result.json["output"] is None) == (case.status != "success")
    said = home.predicate()["outcome"]
    assert (said["status"], said["reason"], said["exitCode"]) == (
        case.status,
        reason,
        case.exit_code,
    )
    assert said["limit"] == case.limit
    # On a machine that is busy enough the supervisor's clock can be the first to act.
    assert said["endedBy"] == case.ended_by or (reason, said["endedBy"]) == ("wall", "supervisor")
    assert (home.predicate()["output"] is None) == (case.status != "success")
    assert not has_traceback(result)


@pytest.mark.parametrize("reason", CASES)
def test_standard_output_is_the_result_alone(home: Home, reason: str) -> None:
    case = CASES[reason]
    result = home.run("run", home.job(case.code), *case.flags)
    assert result.stdout == (b"42\n" if reason == "ok" else b"")
    assert result.message.split()[0] == case.status


# ---- no run came about ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wrong:
    """A command that cannot be carried out, its code word and exit code."""

    arguments: tuple[str, ...]
    code: str
    exit_code: int = 125


WRONG = {
    "no such option": Wrong(("run", "job.yaml", "--no-such-option"), "usage"),
    "no job": Wrong(("run",), "usage"),
    "two jobs": Wrong(("run", "job.yaml", "job.yaml"), "usage"),
    "option without its value": Wrong(("run", "job.yaml", "--timeout"), "usage"),
    "unit": Wrong(("run", "job.yaml", "--memory", "2MB"), "usage"),
    "number": Wrong(("run", "job.yaml", "--fuel", "many"), "usage"),
    "negative": Wrong(("run", "job.yaml", "--fuel=-1"), "usage"),
    "job and input from one stream": Wrong(("run", "-", "--input", "-"), "usage"),
    "tenant": Wrong(("run", "job.yaml", "--tenant", "../other"), "usage"),
    "log format": Wrong(("run", "job.yaml", "--log-format", "xml"), "usage"),
    "no such command": Wrong(("walk", "job.yaml"), "usage", 2),
    "no such job": Wrong(("run", "none.yaml"), "not-found", 127),
    "no such input": Wrong(("run", "job.yaml", "--input", "none.json"), "not-found", 127),
    "no such profile": Wrong(("run", "job.yaml", "--profile", "none"), "not-found", 127),
    "a folder": Wrong(("run", "."), "invalid-input"),
    "a device": Wrong(("run", "/dev/zero"), "invalid-input"),
    "no YAML": Wrong(("run", "broken.yaml"), "invalid-input"),
    "unknown key": Wrong(("run", "unknown.yaml"), "invalid-input"),
    "another runtime": Wrong(("run", "python.yaml"), "invalid-input"),
    "no key allowed": Wrong(("run", "job.yaml", "--require-key"), "key"),
    "no such key": Wrong(("run", "job.yaml", "--signing-key", "none.pem"), "key"),
    "a key that is none": Wrong(("run", "job.yaml", "--signing-key", "job.yaml"), "key"),
}


@pytest.mark.parametrize("name", WRONG)
def test_no_run_came_about(home: Home, name: str) -> None:
    home.job("return 42")
    home.job("return 42", name="unknown", more=1)
    (home.work / "broken.yaml").write_text("a: [", encoding="ascii")
    (home.work / "python.yaml").write_text(
        "beddel: 1\nid: a\nruntime: python\ncode: x\n", encoding="ascii"
    )
    wrong = WRONG[name]
    result = home.run(*wrong.arguments)
    assert result.returncode == wrong.exit_code, result.message
    assert result.stdout == b""
    assert result.stderr
    assert not has_traceback(result)
    # Nothing ran, so there is nothing to sign; and no key was made for nothing.
    assert not list((home.home).glob("receipts/*"))


@pytest.mark.parametrize("name", [name for name in WRONG if WRONG[name].code != "usage"])
def test_the_same_as_json(home: Home, name: str) -> None:
    home.job("return 42")
    home.job("return 42", name="unknown", more=1)
    (home.work / "broken.yaml").write_text("a: [", encoding="ascii")
    (home.work / "python.yaml").write_text(
        "beddel: 1\nid: a\nruntime: python\ncode: x\n", encoding="ascii"
    )
    wrong = WRONG[name]
    result = home.run(*wrong.arguments, "--json")
    assert result.returncode == wrong.exit_code, result.message
    assert result.json["outcome"]["status"] == "error"
    assert result.json["outcome"]["exit_code"] == wrong.exit_code
    assert result.json["error"]["code"] == wrong.code
    assert result.json["error"]["message"]
    assert result.json["receipt"] is None


# ---- signals --------------------------------------------------------------------------------

SIGNALS = {
    signal.SIGINT: ("interrupted", 130),
    signal.SIGTERM: ("terminated", 143),
    signal.SIGHUP: ("terminated", 143),
}


def _ended(run: subprocess.Popen[bytes], seconds: float = 20) -> Result:
    stdout, stderr = run.communicate(timeout=seconds)
    return Result(run.returncode, stdout, stderr)


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_during_the_run(home: Home, number: signal.Signals) -> None:
    reason, exit_code = SIGNALS[number]
    run = home.start("run", home.job(LOOP), "--json")
    worker = processes.wait_for(lambda: processes.busy_worker(run.pid), what="a busy worker")
    run.send_signal(number)
    result = _ended(run)
    assert result.returncode == exit_code, result.message
    assert result.json["outcome"]["reason"] == reason
    predicate = home.predicate()
    assert predicate["outcome"]["status"] == "interrupted"
    assert predicate["outcome"]["reason"] == reason
    assert predicate["outcome"]["exitCode"] == exit_code
    # The plan was carried out; of what the job did, nothing is known.
    assert predicate["plan"] is not None
    assert predicate["output"] is None
    assert predicate["usage"]["fuel"] is None
    assert not has_traceback(result)
    assert not processes.is_alive(worker)


def test_control_c_reaches_the_whole_group(home: Home) -> None:
    run = home.start("run", home.job(LOOP), "--json", start_new_session=True)
    worker = processes.wait_for(lambda: processes.busy_worker(run.pid), what="a busy worker")
    os.killpg(run.pid, signal.SIGINT)
    result = _ended(run)
    assert (result.returncode, result.json["outcome"]["reason"]) == (130, "interrupted")
    assert not processes.is_alive(worker)


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_twice(home: Home, number: signal.Signals) -> None:
    run = home.start("run", home.job(LOOP), "--json")
    processes.wait_for(lambda: processes.busy_worker(run.pid), what="a busy worker")
    for _ in range(3):
        run.send_signal(number)
    result = _ended(run)
    assert result.returncode == SIGNALS[number][1]
    assert not has_traceback(result)


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_before_the_job_is_known(home: Home, number: signal.Signals) -> None:
    run = home.start("run", "-", "--json", stdin=subprocess.PIPE)
    worker = processes.wait_for(lambda: processes.confined_child(run.pid), what="a worker")
    # Until it has its own handler, the signal simply ends it.
    processes.wait_for(lambda: _catches(run.pid, number), what="its handler")
    run.send_signal(number)
    result = _ended(run)
    assert result.returncode == SIGNALS[number][1], result.message
    assert "before the job started" in result.message
    assert not has_traceback(result)
    assert not home.receipts()
    assert not processes.is_alive(worker)


def _catches(pid: int, number: signal.Signals) -> bool:
    """Tell whether a process has a handler for a signal: SigCgt in /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) & 1 << (number - 1))
    return False


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_at_any_time(home: Home, number: signal.Signals) -> None:
    # The first run makes the key, and shows how long a run takes.
    job = home.job("return 42")
    started = time.monotonic()
    assert home.run("run", job).returncode == 0
    whole = time.monotonic() - started
    endings = set()
    for step in range(12):
        before = len(home.receipts())
        run = home.start("run", job)
        # Not before Python itself is up: until then the signal is not ours to answer.
        processes.wait_for(partial(_has_child, run), what="a forked worker")
        time.sleep(whole * step / 12)
        run.send_signal(number)
        result = _ended(run)
        endings.add(result.returncode)
        # Until the handler of SIGTERM stands, the system itself ends the process.
        allowed = (0, SIGNALS[number][1], -number)
        assert result.returncode in allowed, result.message
        assert not has_traceback(result), (step, result.message)
        if result.returncode == 0:
            assert len(home.receipts()) == before + 1
            assert home.predicate()["outcome"]["reason"] == "ok"
        elif len(home.receipts()) > before:
            # While the summary is printed, the system ends the process; the receipt stands by then.
            allowed_reasons = {SIGNALS[number][0], *(["ok"] if result.returncode < 0 else [])}
            assert home.predicate()["outcome"]["reason"] in allowed_reasons
    assert len(endings) > 1
    assert not [path for path in home.files() if path.endswith((".tmp", "~"))]
    endings_of_names = (".dsse.json", ".dsse.json.tlog-proof")
    assert all(path.name.endswith(endings_of_names) for path in (home.home / "receipts").iterdir())


def _has_child(run: subprocess.Popen[bytes]) -> bool | None:
    return True if processes.children(run.pid) or run.poll() is not None else None


REAPED = """
import os, signal
from beddel_cli.isolate.supervisor import Worker
from beddel_cli.process.launch import Launcher
held = []
real = os.wait4
def wait4(pid, options):
    held.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    return real(pid, options)
os.wait4 = wait4
launcher = Launcher.start()
launcher._learn_of_init()
launcher.finish()
Worker.start().finish()
print([sorted(int(each) for each in mask) for mask in held])
"""


def test_no_signal_comes_between_reaping_and_remembering_it() -> None:
    """Else the second `finish` would kill whoever has the process id by then."""
    require("user-namespaces")
    done = subprocess.run(
        [sys.executable, "-P", "-c", REAPED], capture_output=True, check=True, text=True
    )
    wanted = sorted(int(number) for number in SIGNALS)
    assert done.stdout == f"{[wanted, wanted]}\n", done.stderr


def test_the_worker_dies_with_its_supervisor(home: Home) -> None:
    run = home.start("run", home.job(LOOP))
    worker = processes.wait_for(lambda: processes.busy_worker(run.pid), what="a busy worker")
    run.kill()
    run.communicate(timeout=20)
    processes.wait_for(
        lambda: None if processes.is_alive(worker) else True, 1, what="the worker to die"
    )


def test_an_idle_worker_dies_with_its_supervisor(home: Home) -> None:
    run = home.start("run", "-", stdin=subprocess.PIPE)
    worker = processes.wait_for(lambda: processes.confined_child(run.pid), what="a worker")
    run.kill()
    run.communicate(timeout=20)
    processes.wait_for(
        lambda: None if processes.is_alive(worker) else True, 1, what="the worker to die"
    )


def test_a_killed_worker_is_a_fault(home: Home) -> None:
    run = home.start("run", home.job(LOOP), "--json")
    worker = processes.wait_for(lambda: processes.busy_worker(run.pid), what="a busy worker")
    os.kill(worker, signal.SIGKILL)
    result = _ended(run)
    assert (result.returncode, result.json["outcome"]["reason"]) == (125, "worker-fault")
    assert result.json["outcome"]["signal"] == signal.SIGKILL
    assert home.predicate()["outcome"]["signal"] == signal.SIGKILL


def test_a_stopped_worker_is_ended_by_the_supervisor(home: Home) -> None:
    run = home.start("run", home.job(LOOP), "--json", "--timeout", "2s")
    worker = processes.wait_for(lambda: processes.busy_worker(run.pid), what="a busy worker")
    os.kill(worker, signal.SIGSTOP)
    result = _ended(run)
    assert (result.returncode, result.json["outcome"]["reason"]) == (124, "wall")
    assert home.predicate()["outcome"]["endedBy"] == "supervisor"


# ---- where the output goes ------------------------------------------------------------------

SHELL = ("/bin/sh", "-c")


def _through_shell(home: Home, redirection: str, *arguments: str, **more: Any) -> Result:
    command = (*SHELL, f'exec "$@" {redirection}', "sh", *COMMAND)
    return home.run("run", home.job("return 42"), *arguments, command=command, **more)


def test_a_shell_between_changes_nothing(home: Home) -> None:
    result = _through_shell(home, "")
    assert (result.returncode, result.stdout) == (0, b"42\n")


def test_closed_standard_output(home: Home) -> None:
    result = _through_shell(home, ">&-")
    assert result.returncode == 125
    assert "standard output is closed or full; the receipt is written" in result.message
    assert home.predicate()["outcome"]["reason"] == "ok"
    assert not has_traceback(result)


def test_standard_output_that_nobody_reads(home: Home) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = home.run("run", home.job("return 42"), stdout=writing)
    os.close(writing)
    assert result.returncode == 125
    assert "standard output is closed" in result.message
    assert home.predicate()["outcome"]["reason"] == "ok"
    assert not has_traceback(result)


def test_standard_output_without_room(home: Home) -> None:
    require("full-device")
    result = _through_shell(home, ">/dev/full")
    assert result.returncode == 125
    assert home.predicate()["outcome"]["reason"] == "ok"
    assert not has_traceback(result)


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "</dev/null 2>&-", "<&-"])
def test_standard_error_is_not_needed(home: Home, redirection: str) -> None:
    require("full-device")
    result = _through_shell(home, redirection)
    assert (result.returncode, result.stdout) == (0, b"42\n")
    assert home.predicate()["outcome"]["reason"] == "ok"


@pytest.mark.parametrize("json", [(), ("--json",)])
def test_everything_closed(home: Home, json: tuple[str, ...]) -> None:
    result = _through_shell(home, "<&- >&- 2>&-", *json)
    assert (result.returncode, result.stdout, result.stderr) == (125, b"", b"")
    # No file took the place of a closed stream: receipt and key are whole.
    assert home.predicate()["outcome"]["reason"] == "ok"


# ---- where the receipt goes -----------------------------------------------------------------


# Root may write where a folder's mode forbids it, unless it has no capabilities.
ORDINARY = (sys.executable, "-P", str(Path(drop_capabilities.__file__)), *COMMAND)


@pytest.fixture
def foreign() -> Iterator[tuple[Home, dict[str, Any]]]:
    """A home of another user, and how to become that user."""
    require("root")
    folder = Path(tempfile.mkdtemp(prefix="beddel-tests-"))
    work = folder / "work"
    work.mkdir()
    become: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []}
    try:
        for path in (folder, work):
            os.chown(path, 65534, 65534)
        _require_readable_by(become, work)
        yield Home(folder / "home", folder / "cache", work), become
    finally:
        shutil.rmtree(folder)


def _require_readable_by(become: dict[str, Any], folder: Path) -> None:
    command = [sys.executable, "-c", "import beddel_cli.isolate.wasm, cryptography"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False, **become)
    except PermissionError:
        give_up("root: another user cannot start this Python")
    if done.returncode:
        give_up("root: another user cannot read this Python or the package")


def test_another_user_can_run(foreign: tuple[Home, dict[str, Any]]) -> None:
    home, become = foreign
    result = home.run("run", home.job("return 42"), "--json", **become)
    assert (result.returncode, result.json["output"]) == (0, 42), result.message
    assert all(each["enforced"] for each in home.predicate()["controls"])


def test_no_capability_is_needed(home: Home) -> None:
    result = home.run("run", home.job("return 42"), "--json", command=ORDINARY)
    assert (result.returncode, result.json["output"]) == (0, 42), result.message
    assert all(each["enforced"] for each in home.predicate()["controls"])


def _assert_not_written(result: Result, home: Home) -> None:
    assert result.returncode == 125, result.message
    assert result.stdout == b"" or result.json["error"]["code"] in ("write", "home")
    assert not has_traceback(result)
    assert [path.name for path in home.work.iterdir() if "receipt" in path.name.lower()] in (
        [],
        ["receipts"],
    )


def test_read_only_receipt_folder(home: Home) -> None:
    folder = home.work / "receipts"
    folder.mkdir()
    folder.chmod(0o555)
    job = home.job("return 42")
    flags = ("--json", "--receipt", str(folder / "r.json"))
    result = home.run("run", job, *flags, command=ORDINARY)
    _assert_not_written(result, home)
    assert result.json["error"]["code"] == "write"
    assert list(folder.iterdir()) == []
    folder.chmod(0o777)
    result = home.run("run", job, *flags, command=ORDINARY)
    assert result.returncode == 0, result.message


def test_read_only_receipts_of_the_home(home: Home) -> None:
    job = home.job("return 42")
    assert home.run("run", job, command=ORDINARY).returncode == 0
    (home.home / "receipts").chmod(0o500)
    result = home.run("run", job, "--json", command=ORDINARY)
    _assert_not_written(result, home)
    assert len(home.receipts()) == 1
    (home.home / "receipts").chmod(0o700)
    assert home.run("run", job, command=ORDINARY).returncode == 0


@pytest.mark.parametrize("flag", ["--receipt", "--bundle", "--heap-snapshot"])
@pytest.mark.parametrize("place", ["none/r.json", ".", "link.json", "/dev/full", "fifo"])
def test_places_where_no_file_goes(home: Home, flag: str, place: str) -> None:
    victim = home.work / "victim"
    victim.write_text("mine", encoding="ascii")
    (home.work / "link.json").symlink_to(victim)
    os.mkfifo(home.work / "fifo")
    before = sorted(path.name for path in home.work.iterdir())
    job = home.job("return 42")
    result = home.run("run", job, "--json", flag, place)
    assert result.returncode == 125, result.message
    assert result.json["error"]["code"] == "write"
    assert victim.read_text(encoding="ascii") == "mine"
    # A run that has its receipt keeps it, though what comes after it has no place.
    assert len(list(home.home.glob("receipts/*"))) == (0 if flag == "--receipt" else 2)
    assert sorted(path.name for path in home.work.iterdir()) == sorted([*before, "job.yaml"])


def test_a_full_disk_leaves_nothing_behind(home: Home) -> None:
    job = home.job("return 42")
    assert home.run("run", job).returncode == 0
    # No file may grow beyond 1 KiB: the log takes nothing more, so nothing runs.
    command = (*SHELL, 'ulimit -f 2; exec "$@"', "sh", *COMMAND)
    result = home.run("run", job, "--json", "--receipt", "r.json", command=command)
    assert result.returncode == 125, result.message
    assert result.json["error"]["code"] == "log"
    assert sorted(path.name for path in home.work.iterdir()) == ["job.yaml"]
    result = home.run("run", job, "--json", command=command)
    assert result.returncode == 125
    assert len(home.receipts()) == 1


def test_home_that_cannot_be_made(home: Home) -> None:
    job = home.job("return 42")
    for place in ("/proc/beddel", "/dev/null", str(job)):
        result = home.run("run", job, "--json", env=home.environment(BEDDEL_HOME=place))
        assert result.returncode == 125, result.message
        assert result.json["error"]["code"] == "home"
        assert not has_traceback(result)
    assert job.read_bytes().startswith(b'{"beddel"')


def _without(home: Home, *names: str, **more: str) -> dict[str, str]:
    kept = home.environment()
    return {name: value for name, value in kept.items() if name not in names} | more


HOMES = ("HOME", "BEDDEL_HOME", "BEDDEL_CACHE_DIR", "XDG_DATA_HOME", "XDG_CACHE_HOME")


def test_missing_home_variable(home: Home) -> None:
    env = _without(home, "HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")
    result = home.run("run", home.job("return 42"), env=env)
    assert (result.returncode, result.stdout) == (0, b"42\n"), result.message
    # Without beddel's own variables the XDG folders serve.
    data, cache = home.work / "data", home.work / "cache"
    env = _without(home, *HOMES, XDG_DATA_HOME=str(data), XDG_CACHE_HOME=str(cache))
    result = home.run("run", home.job("return 42"), "--json", env=env)
    assert result.returncode == 0, result.message
    assert result.json["receipt"]["path"].startswith(str(data))


def test_a_user_without_any_home(foreign: tuple[Home, dict[str, Any]]) -> None:
    home, _ = foreign
    become: dict[str, Any] = {"user": 54321, "group": 54321, "extra_groups": []}
    job = home.job("return 42")
    for path in (home.work.parent, home.work):
        path.chmod(0o755)
    job.chmod(0o644)
    result = home.run("run", job, "--json", env=_without(home, *HOMES), **become)
    assert result.returncode == 125, result.message
    assert result.json["error"]["code"] == "home"
    assert not has_traceback(result)


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_modes_whatever_the_umask(home: Home, umask: int) -> None:
    job = home.job("return 42")
    files = {
        "--receipt": home.work / "r.json",
        "--bundle": home.work / "b.json",
        "--heap-snapshot": home.work / "h.bin",
    }
    flags = [str(word) for pair in files.items() for word in pair]
    # The umask is the run's alone: this process has its own.
    first = home.run("run", job, umask=umask)
    assert first.returncode == 0, first.message
    result = home.run("run", job, *flags, umask=umask)
    assert result.returncode == 0, result.message
    paths = [*files.values(), *home.home.rglob("*"), home.home]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in paths}
    assert len(modes) >= 3 + 6
    for path, mode in modes.items():
        if path.name in ("signing.pub.pem", "log.pub.pem"):
            assert mode == 0o644
        else:
            assert mode == (0o700 if path.is_dir() else 0o600), path


def test_the_umask_matters_elsewhere(home: Home) -> None:
    # The control: the same umask makes an ordinary file readable by all.
    subprocess.run(
        [sys.executable, "-c", "open('plain', 'w').close()"],
        cwd=home.work,
        umask=0,
        check=True,
    )
    assert stat.S_IMODE((home.work / "plain").stat().st_mode) == 0o666
