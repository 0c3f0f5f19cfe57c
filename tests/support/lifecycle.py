"""Runs of the command that are stopped somewhere, and what must be true of each afterwards."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import block_syscalls
from tests.support.callers import Caller
from tests.support.cli import COMMAND
from tests.support.stopped_at import (
    Action,
    ControlC,
    Failure,
    HangUp,
    Point,
    Signal,
    Traced,
    trace,
)

OUTPUT = 20_000
# Numbers of x86-64: mmap, mprotect, brk, mremap, clone, fork, vfork, clone3, memfd_create.
MEMORY_CALLS = frozenset((9, 10, 12, 25, 56, 57, 58, 319, 435))
# open, openat, pipe, pipe2, socketpair, sendmsg, poll, mkdir, mkdirat, openat2, pidfd_open: a
# kernel that is out of memory fails these too.
KERNEL_CALLS = frozenset((2, 7, 22, 46, 53, 83, 257, 258, 293, 434, 437))
# write, pwrite64, fsync, ftruncate, rename, renameat, linkat, renameat2: of a disk that breaks.
DISK_CALLS = frozenset((1, 18, 74, 77, 82, 264, 265, 316))


@dataclass(frozen=True, slots=True)
class Case:
    """A run, and how it ends when nobody disturbs it.

    Attributes:
        arguments: of the command line; {work} is the caller's folder.
        program: what the program is executed as; empty for a guest.
        ending: the program's own exit code, where it comes to its end undisturbed.
        exit_code, reason: of the run.
        stdout: all of it, of an undisturbed run.
        collects: what of files appears in `results`, by name.
        first: whether no run came before, so that there is no key yet.
        before: what starts the command line.
    """

    arguments: tuple[str, ...]
    program: bytes = b""
    ending: int | None = 0
    exit_code: int = 0
    reason: str = "ok"
    stdout: bytes = b""
    collects: dict[str, bytes] = field(default_factory=dict)
    first: bool = False
    before: tuple[str, ...] = ()


_WRITES = f"head -c {OUTPUT} /dev/zero; mkdir -p d; echo one >d/one; echo two >two"
_RESULTS = {"d/one": b"one\n", "two": b"two\n"}
_JOB = '{{"beddel":1,"id":"x","runtime":"{runtime}",{what}}}'
_SHOWN = ("--workspace", "{work}/space")
_NO_UNNAMED_FILES = (sys.executable, "-P", block_syscalls.__file__, "unnamed-files-missing")
_STAYS = "echo x >d-new; sleep 60"
CASES = {
    "guest": Case(("run", "guest.yaml"), stdout=b"42\n"),
    "first guest": Case(("exec", "--runtime", "javascript", "x.js"), stdout=b"42\n", first=True),
    "guest at its limit": Case(
        ("run", "endless.yaml", "--timeout", "100ms", "--heap-snapshot", "heap", "--bundle", "b"),
        exit_code=124,
        reason="wall",
    ),
    "program": Case(
        ("exec", *_SHOWN, "--results", "{work}/results", "--", "sh", "-c", _WRITES),
        program=b"sh",
        stdout=bytes(OUTPUT),
        collects=_RESULTS,
    ),
    "program of a job": Case(
        ("run", "program.yaml", "--receipt", "r.json"), program=b"/bin/echo", stdout=b"hello\n"
    ),
    "program at its limit": Case(
        ("exec", "--timeout", "100ms", *_SHOWN, "--write-back", "--", "sh", "-c", _STAYS),
        program=b"sh",
        ending=None,
        exit_code=124,
        reason="wall",
    ),
    "program, no unnamed files": Case(
        ("exec", *_SHOWN, "--write-back", "--", "sh", "-c", "echo x >d-new"),
        program=b"sh",
        before=_NO_UNNAMED_FILES,
    ),
    "guest, no unnamed files": Case(
        ("run", "guest.yaml"), stdout=b"42\n", before=_NO_UNNAMED_FILES
    ),
}


def prepare(caller: Caller) -> None:
    """Put the files of every case where the caller works."""
    work = caller.work
    guest, endless = '"code":"return 42"', '"code":"for(;;);"'
    program = '"command":["/bin/echo","hello"]'
    for name, runtime, what in (
        ("guest", "javascript", guest),
        ("endless", "javascript", endless),
        ("program", "process", program),
    ):
        (work / f"{name}.yaml").write_text(_JOB.format(runtime=runtime, what=what))
    (work / "x.js").write_text("return 42")
    (work / "space").mkdir()
    (work / "space" / "old").write_text("old")
    caller.own(work)
    assert caller.cli("run", "guest.yaml").returncode == 0, "there is a key from here on"


def command(caller: Caller, case: Case) -> list[str]:
    """Give the whole command line of a case."""
    first, *rest = (each.replace("{work}", str(caller.work)) for each in case.arguments)
    runs_program = bool(case.program)
    profile = ("--profile", caller.profile) if runs_program else ()
    return [*case.before, *COMMAND, first, *profile, *rest]


def attempt(caller: Caller, case: Case, point: Point | None, **more: Any) -> Traced:
    """Run a case with whatever is asked to happen at a point."""
    clean(caller, case)
    return trace(
        command(caller, case),
        point,
        env=caller.environment(),
        cwd=caller.work,
        user=caller.user,
        **more,
    )


def clean(caller: Caller, case: Case) -> None:
    """Take away what an earlier attempt made."""
    for path in receipts(caller):
        path.unlink()
    for name in ("results", "home-of-first"):
        shutil.rmtree(caller.work / name, ignore_errors=True)
    for name in ("heap", "b", "r.json", "space/d-new"):
        (caller.work / name).unlink(missing_ok=True)
    if case.first:
        shutil.rmtree(caller.home.home, ignore_errors=True)


def receipts(caller: Caller) -> list[Path]:
    """Give every receipt there is."""
    named = caller.work / "r.json"
    return [*caller.home.receipts(), *([named] if named.exists() else [])]


def half_files(caller: Caller) -> list[Path]:
    """Give every temporary file or folder of ours that is still there."""
    return sorted(
        path
        for root in (caller.work, caller.home.home, caller.home.cache)
        for path in root.rglob(".beddel-*")
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one attempt.

    Attributes:
        problems: what must not be; empty for a good one.
        left: temporary names that the next run has to remove.
        ending: in a word, for counting.
    """

    problems: list[str]
    left: list[str]
    ending: str


def judge(caller: Caller, case: Case, action: Action | None, told: Traced) -> Verdict:
    """Hold what a stopped run left and said against what really happened."""
    problems = [f"outlives it: {each}" for each in told.survivors]
    found = receipts(caller)
    if len(found) > 1:
        problems.append(f"{len(found)} receipts")
    said = None
    if found:
        try:
            said = caller.home.predicate(found[-1])
        except Exception as error:  # noqa: BLE001
            problems.append(f"a receipt that does not verify: {error}")
    problems += _check_exit(case, action, told, said)
    if said is not None:
        problems += _check_truth(case, action, told, said)
    problems += _check_results(caller, case, told, said)
    if b"Traceback" in told.stderr and b'beddel_cli/__main__.py", line' in told.stderr:
        problems.append("a traceback: " + told.stderr.decode("utf-8", "replace")[-300:])
    if b"Bad file descriptor" in told.stderr:
        problems.append("something was closed twice")
    left = [str(path) for path in half_files(caller)]
    reason = "none" if said is None else said["outcome"]["reason"]
    return Verdict(problems, left, f"{told.status} {reason}")


def _check_exit(
    case: Case, action: Action | None, told: Traced, said: dict[str, Any] | None
) -> Iterator[str]:
    status = told.status
    outcome = None if said is None else said["outcome"]
    if outcome is None:
        if status == 0:
            yield "exit 0 without a receipt"
        if status not in _without_receipt(action):
            yield f"exit {status} without a receipt: {told.stderr[-300:]!r}"
        return
    if status == 0 and outcome["status"] != "success":
        yield f"exit 0 for {outcome}"
    if status == 0 and not case.program and _heard(case, action, told) != case.stdout:
        yield f"exit 0, and only {told.unread} bytes of the output were there"
    number = _sent_to_command(action)
    # The signal may end the command while it prints, when the receipt is written.
    allowed = {outcome["exitCode"], 125 if number is None else -number}
    if status not in allowed:
        yield f"exit {status} for {outcome}: {told.stderr[-300:]!r}"
    if outcome["reason"] not in _reasons(case, action, told):
        yield f"the receipt says {outcome}"


def _sent_to_command(action: Action | None) -> int | None:
    if isinstance(action, ControlC):
        return signal.SIGINT
    return action.number if isinstance(action, Signal) and action.to_command else None


def _reasons(case: Case, action: Action | None, told: Traced) -> set[str]:
    """Give what a receipt may say of a case at which something happened."""
    interrupting = {int(signal.SIGINT): "interrupted", int(signal.SIGTERM): "terminated"}
    number = _sent_to_command(action)
    if number is not None:
        return {case.reason, interrupting.get(number, "")}
    if action is None:
        return {case.reason}
    found = {case.reason, "worker-fault", "sandbox-fault"}
    killed = -signal.SIGPIPE if isinstance(action, HangUp) else -signal.SIGKILL
    if case.program and told.ending_of(case.program) == killed:
        found.add("signal")
    if not isinstance(action, HangUp):
        # What cannot be set up is not there, whatever stopped it.
        found.add("protection")
    return found


def _without_receipt(action: Action | None) -> set[int]:
    """Give the exit codes of a run that came to no receipt."""
    number = _sent_to_command(action)
    if number is not None:
        words = {int(signal.SIGINT): 130, int(signal.SIGTERM): 143}
        # Python itself answers Ctrl-C with 1 while it starts.
        early = {1} if number == signal.SIGINT else set()
        return {-number, words.get(number, -number)} | early
    if isinstance(action, Failure):
        # The loader and Python, before this command's own code; and an interpreter that crashes.
        return {125, 127, 1, -signal.SIGSEGV}
    return {125}


def _check_truth(
    case: Case, action: Action | None, told: Traced, said: dict[str, Any]
) -> Iterator[str]:
    outcome = said["outcome"]
    if case.program:
        ended = told.ending_of(case.program)
        if outcome["status"] == "success" and ended != 0:
            yield f"success, and the program ended with {ended}"
        if outcome["programExitCode"] not in (None, ended):
            yield f"exit code {outcome['programExitCode']}, and the program ended with {ended}"
    if outcome["status"] == "success" and not case.program and told.processes[1] != 0:
        yield f"success, and the worker ended with {told.processes[1]}"
    heard = _heard(case, action, told)
    expected = {"output": case.stdout.rstrip(b"\n"), "stdout": heard if case.program else b""}
    for name, digest in _digests(said).items():
        if outcome["status"] == "success" and digest != hashlib.sha256(expected[name]).hexdigest():
            yield f"another {name} than the {len(heard)} bytes that were passed on"


def _heard(case: Case, action: Action | None, told: Traced) -> bytes:
    """Give what a reader of the command's output got who did not go away too early."""
    if told.reached and isinstance(action, HangUp) and 1 in action.streams:
        return case.stdout[: told.unread]
    return case.stdout


def _digests(said: dict[str, Any]) -> dict[str, str]:
    found = {}
    if said.get("output"):
        found["output"] = said["output"]["digest"]["sha256"]
    if said.get("streams"):
        found["stdout"] = said["streams"]["stdout"]["digest"]["sha256"]
    return found


def _check_results(
    caller: Caller, case: Case, told: Traced, said: dict[str, Any] | None
) -> Iterator[str]:
    folder = caller.work / "results"
    if case.collects and folder.exists():
        there = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        digests = {path: hashlib.sha256(data).hexdigest() for path, data in there.items()}
        signed = {file["path"]: file["digest"]["sha256"] for file in (said or {}).get("files", ())}
        # Without a receipt they are those of a program that had its whole time.
        if digests != signed if said is not None else there != case.collects:
            yield f"half of the results: {sorted(there)}, signed are {sorted(signed)}"
        if said is not None and said["outcome"]["status"] == "success" and there != case.collects:
            yield f"success with other results: {sorted(there)}"
    elif case.collects and told.status == 0:
        yield "no results"
    new = caller.work / "space" / "d-new"
    if new.exists() and new.read_bytes() not in (b"", b"x\n"):
        yield "half a file in the workspace"
    if (caller.work / "space" / "old").read_bytes() != b"old":
        yield "the workspace was changed"


def length(caller: Caller, case: Case, process: int, counted: frozenset[int] | None = None) -> int:
    """Count the system calls of one process of an undisturbed run, which must be a good one."""
    told = attempt(caller, case, None, count=process, counted=counted)
    assert told.status == case.exit_code, told.stderr
    assert judge(caller, case, None, told) == Verdict([], [], f"{case.exit_code} {case.reason}")
    return told.calls[process]


@dataclass(slots=True)
class Sweep:
    """Many attempts at one case, and what came of them.

    Attributes:
        endings: how often each exit code met each reason of a receipt.
        left: at how many points a temporary name or a cgroup stayed for the next run to remove.
    """

    caller: Caller
    case: Case
    endings: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    points: int = 0
    left: int = 0
    _pids: list[int] = field(default_factory=list)

    def go_through(self, points: Iterable[Point]) -> None:
        """Do what each point asks for in a run of its own, and judge it."""
        for point in points:
            told = attempt(self.caller, self.case, point)
            found = judge(self.caller, self.case, point.action, told)
            self.points += 1
            self.endings[found.ending] += 1
            self._pids.append(told.pid)
            self.left += bool(found.left or cgroups((told.pid,)))
            self.problems += [f"{point}: {each}" for each in found.problems]

    def end(self) -> None:
        """Let one more run come to its end, after which nothing may be left of those before."""
        told = attempt(self.caller, self.case, None)
        found = judge(self.caller, self.case, None, told)
        self.problems += found.problems
        self.problems += [f"left for ever: {each}" for each in found.left]
        self.problems += [f"left for ever: {each}" for each in sorted(cgroups(self._pids))]
        self.problems += [f"left for ever: {each}" for each in _elsewhere(self._pids)]


def cgroups(pids: Iterable[int]) -> set[str]:
    """Give every cgroup that a command of one of these process ids made."""
    marks = {f"-{pid}-" for pid in pids}
    return {
        os.path.join(folder, name)
        for folder, folders, _ in os.walk("/sys/fs/cgroup")
        for name in folders
        if name.startswith("beddel-") and any(mark in name for mark in marks)
    }


def _elsewhere(pids: Iterable[int]) -> list[str]:
    """Give what is named after a command of one of these process ids where everybody may write."""
    marks = {f"-{pid}-" for pid in pids}
    return [
        f"{folder}/{name}"
        for folder in ("/tmp", "/dev/shm", "/var/tmp", "/run")
        for name in sorted(os.listdir(folder))
        if name.startswith((".beddel", "beddel")) and any(mark in name for mark in marks)
    ]


def mounts() -> str:
    """Give what is mounted here."""
    return Path("/proc/self/mountinfo").read_text("utf-8")


MEMORY = Failure(errno.ENOMEM, MEMORY_CALLS)
NO_MORE_MEMORY = Failure(errno.ENOMEM, MEMORY_CALLS, from_then_on=True)
KERNEL_MEMORY = Failure(errno.ENOMEM, KERNEL_CALLS)
NO_MORE_KERNEL_MEMORY = Failure(errno.ENOMEM, KERNEL_CALLS, from_then_on=True)
DISK = Failure(errno.EIO, DISK_CALLS)
NO_MORE_DISK = Failure(errno.EIO, DISK_CALLS, from_then_on=True)
