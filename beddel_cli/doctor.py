"""What of the walls this machine can build, found out by building them.

For each runtime the very start of a run is made, up to where the job would be sent: a worker that
confines itself, or an init behind walls that then runs one harmless program. Nothing is concluded
from versions or settings; those only explain what failed.
"""

from __future__ import annotations

import hashlib
import os
import sys

from beddel_cli.errors import BeddelError, GuestError, RefusedError, UsageError
from beddel_cli.host import Finding, Host
from beddel_cli.limits import PROGRAM, Limits
from beddel_cli.plan import in_force, rung_of
from beddel_cli.profile import BUILT_IN, load_profile
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from beddel_cli.job import Job
    from beddel_cli.process.launch import Launcher
    from beddel_cli.process.program import Program, Walls
    from beddel_cli.profile import Profile

JSON_SCHEMA = "beddel-cli/doctor/v1"
RUNTIMES = ("javascript", "process")
_HARMLESS = ("true",)


@record
class Examined:
    """One runtime as it was tried here.

    Attributes:
        host: what was found; None where it did not come that far. For programs also the weaker
            rung is tried where namespaces are refused, whatever the profile.
        problem, fix: why it cannot run whatever the profile; None when it can.
    """

    runtime: str
    host: Host | None
    problem: str | None = None
    fix: str | None = None


@record
class Verdict:
    """Whether a runtime can run under a profile here, and what it lacks."""

    profile: str
    runtime: str
    can_run: bool
    lacks: tuple[str, ...]


@record
class Code:
    """A file of code that ships: the digest its build wrote down, and that of its bytes now."""

    path: str
    expected: str | None
    found: str | None

    @property
    def matches(self) -> bool:
        """Whether the digests are known and equal."""
        return self.found is not None and self.found == self.expected


@record
class Report:
    """All that was found. `refusal` is of the job that was asked about, None when it could run."""

    examined: tuple[Examined, ...]
    code: tuple[Code, ...]
    verdicts: tuple[Verdict, ...]
    asked: Verdict
    refusal: RefusedError | None


def examine(
    profile: str, runtime: str | None, job_file: str | None, allowed: Sequence[str] = ()
) -> Report:
    """Try every runtime, and answer one question: can this runtime, or this job, run here?

    Call it before anything that starts a thread: workers are forked.

    Args:
        allowed: the folders of `--allow-path`, in which the job may name files.

    Raises:
        BeddelError: no such profile or job, or not a valid one.
    """
    named = load_profile(profile)
    examined = tuple(_examine(each, named) for each in RUNTIMES)
    asked_for = runtime
    refusal, runtime = _refusal(job_file, allowed, named, runtime or RUNTIMES[0], examined)
    if asked_for not in (None, runtime):
        raise UsageError(
            f"--runtime {asked_for} beside a job of the runtime {runtime}",
            hint="leave it out: the job says which it is",
        )
    code = installed_code()
    others = [load_profile(name) for name in BUILT_IN if name != named.name]
    verdicts = [judge(each, tried, code) for each in (named, *others) for tried in examined]
    asked = next(item for item in verdicts if (item.profile, item.runtime) == (named.name, runtime))
    return Report(examined, code, tuple(verdicts), asked, refusal)


def judge(profile: Profile, tried: Examined, code: tuple[Code, ...]) -> Verdict:
    """Say whether a runtime as it was tried has all that a profile requires. Pure."""
    if tried.host is None:
        return Verdict(profile.name, tried.runtime, False, (tried.problem or "it did not start",))
    grants = profile.grants(PROGRAM if tried.runtime == "process" else "")
    if grants is None:
        return Verdict(profile.name, tried.runtime, False, ("anything in the profile",))
    lacks = [name for name in sorted(grants.required) if not in_force(name, tried.host)]
    if tried.problem is not None:
        lacks.append(tried.problem)
    if tried.runtime == "javascript":
        lacks += [f"{os.path.basename(each.path)} as built" for each in code if not each.matches]
    return Verdict(profile.name, tried.runtime, not lacks, tuple(lacks))


def _refusal(
    job_file: str | None,
    allowed: Sequence[str],
    profile: Profile,
    runtime: str,
    examined: tuple[Examined, ...],
) -> tuple[RefusedError | None, str]:
    """Plan the job on this machine as `run` would; gives its refusal, and its runtime."""
    if job_file is None:
        return None, runtime
    from beddel_cli.job import read_job
    from beddel_cli.plan import LANDLOCK, Wishes, refusals
    from beddel_cli.process.landlock_terms import beyond_this_rung

    job, refused_file = read_job(job_file, allowed)
    if refused_file is not None:
        return refused_file, job.runtime
    host = next((each.host for each in examined if each.runtime == job.runtime), None)
    if host is not None:
        for refusal in refusals(job, profile, host, Wishes()):
            return refusal, job.runtime
        if job.runtime == "process" and rung_of(host) == LANDLOCK:
            beyond = beyond_this_rung(job.workspace, job.mounts)
            if beyond is not None:
                return beyond, job.runtime
    return _refused_mount(job, job_file, allowed), job.runtime


def _refused_mount(job: Job, job_file: str, allowed: Sequence[str]) -> RefusedError | None:
    """Open what the job's program would be shown, as `run` does; that touches nothing."""
    if job.workspace is None and not job.mounts:
        return None
    from beddel_cli.files import open_reach
    from beddel_cli.home import locate
    from beddel_cli.process.mount_sources import open_sources, protected_folders

    protected = protected_folders(locate(os.environ), os.environ)
    try:
        with (
            open_reach(None if job_file == "-" else job_file, allowed) as reach,
            open_sources(job.workspace, job.mounts, protected, reach),
        ):
            return None
    except RefusedError as refusal:
        return refusal


def _examine(runtime: str, profile: Profile) -> Examined:
    try:
        return _examine_process(profile) if runtime == "process" else _examine_javascript()
    except BeddelError as error:
        return Examined(runtime, None, error.message, error.hint)


def _examine_javascript() -> Examined:
    from beddel_cli.host import describe_host
    from beddel_cli.isolate.supervisor import Worker

    worker = Worker.start()
    try:
        ready = worker.wait_ready()
        return Examined("javascript", describe_host(ready, worker.observe()))
    finally:
        worker.finish()


def _examine_process(profile: Profile) -> Examined:
    """Build the walls, look at them, and run one harmless program behind them."""
    from beddel_cli.process.cgroup import Asked, make_leaf, sweep
    from beddel_cli.process.landlock_terms import is_refused_by_machine
    from beddel_cli.process.launch import Launcher
    from beddel_cli.program_host import describe_program_host

    granted = profile.grants(PROGRAM)
    if granted is None:
        return Examined("process", None, f"{profile.name} grants nothing to programs")
    limits = granted.limits
    launcher = Launcher.start()
    leaf = None
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    files: tuple[int, ...] = ()
    try:
        sweep()
        leaf, problems = make_leaf(
            Asked(limits.memory_bytes or 0, limits.processes or 0, limits.milli_cpus)
        )
        held = leaf.held if leaf is not None else {}
        files = leaf.open_procs() if leaf is not None else ()
        walls = _prepare(launcher, limits, nowhere, files, held)
        fallen_from = None
        if is_refused_by_machine(walls.failed_step, walls.failed_errno):
            fallen_from, launcher = walls, _fall_back(launcher)
            walls = _prepare(launcher, limits, nowhere, files, held)
        _raise_other_cause(walls)
        host = describe_program_host(
            walls, launcher.observe(), held, problems, fallen_from=fallen_from
        )
        if walls.failed_step is not None:
            return Examined("process", host)
        launcher.go()
        problem = _watch(launcher)
        return Examined("process", host, problem, None if problem is None else "report this")
    finally:
        for descriptor in (nowhere, *files):
            os.close(descriptor)
        launcher.finish()
        launcher.close()
        if leaf is not None:
            leaf.remove()


def _prepare(
    launcher: Launcher,
    limits: Limits,
    nowhere: int,
    files: tuple[int, ...],
    held: Mapping[str, int],
) -> Walls:
    return launcher.prepare(
        _harmless_program(limits),
        (nowhere,) * 3,
        files,
        counts_memory="memory" in held,
        counts_processes="pids" in held,
    )


def _raise_other_cause(walls: Walls) -> None:
    if walls.failed_step is None:
        return
    from beddel_cli.process.failures import other_cause
    from beddel_cli.process.machine_facts import read_caller

    error = other_cause(walls, read_caller())
    if error is not None:
        raise error


def _fall_back(launcher: Launcher) -> Launcher:
    from beddel_cli.process.landlock_rung import GuardedLauncher

    launcher.finish()
    launcher.close()
    return GuardedLauncher.start()


def _harmless_program(limits: Limits) -> Program:
    from beddel_cli.process.program import Program

    return Program(
        arguments=_HARMLESS,
        environment=(("PATH", "/usr/bin:/bin"),),
        workspace=None,
        workspace_target="/workspace",
        workspace_writable=True,
        mounts=(),
        terminal=None,
        memory_bytes=limits.memory_bytes or 0,
        cpu_ns=limits.cpu_ns or 0,
        processes=limits.processes or 0,
        disk_bytes=limits.disk_bytes or 0,
        inodes=limits.inodes or 0,
        open_files=limits.open_files or 0,
    )


def _watch(launcher: Launcher) -> str | None:
    """Wait for the harmless program's end; gives what was wrong with it."""
    import select

    from beddel_cli.process.launch import ENDED, STARTED

    poller = select.poll()
    poller.register(launcher.events, select.POLLIN)
    if launcher.pidfd is not None:
        poller.register(launcher.pidfd, select.POLLIN)
    for _ in range(4):
        if not poller.poll(10_000):
            return "a program that does nothing did not end within 10 s"
        event = launcher.next_event()
        if event is None:
            return "the init died before its program had ended"
        if event.kind == ENDED:
            code = os.waitstatus_to_exitcode(event.status)
            return None if code == 0 else f"a program that does nothing ended with {code}"
        if event.kind != STARTED:
            return f"a program could not be started: {event.detail or os.strerror(event.errno)}"
    return "the init said more than it has to say"


def installed_code() -> tuple[Code, ...]:
    """Hash the code that ships, and compare it with what its build wrote down."""
    from beddel_cli.guests import CODE_FILE, WASM_FILE, javascript_facts

    try:
        facts = javascript_facts()
    except GuestError:
        facts = {}
    return tuple(
        Code(path, facts.get(key), _digest(path))
        for path, key in ((WASM_FILE, "wasm_sha256"), (CODE_FILE, "cwasm_sha256"))
    )


def _digest(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def report_json(report: Report) -> dict[str, Any]:
    """Give the report as the JSON object of `doctor --json`."""
    refusal = report.refusal
    return {
        "schema": JSON_SCHEMA,
        "can_run": answer(report),
        "question": _verdict_json(report.asked),
        "refusal": None
        if refusal is None
        else {"needs": refusal.needs, "found": refusal.found, "fix": refusal.fix},
        "machine": machine(),
        "runtimes": {
            each.runtime: {
                "problem": each.problem,
                "fix": each.fix,
                "rung": _rung(each),
                "protections": []
                if each.host is None
                else [_finding_json(item) for item in each.host.findings],
            }
            for each in report.examined
        },
        "code": [
            {
                "path": each.path,
                "expected_sha256": each.expected,
                "sha256": each.found,
                "matches": each.matches,
            }
            for each in report.code
        ],
        "verdicts": [_verdict_json(each) for each in report.verdicts],
        "error": None,
    }


def report_json_of_error(error: BeddelError) -> dict[str, Any]:
    """Give the same object where nothing could be told: the same keys, null but the error."""
    from beddel_cli.render import document_of_error

    keys = ("can_run", "question", "refusal", "machine", "runtimes", "code", "verdicts")
    return document_of_error(JSON_SCHEMA, keys, error)


def answer(report: Report) -> bool:
    """Say yes or no to the question that was asked."""
    return report.asked.can_run and report.refusal is None


def machine() -> dict[str, str]:
    """Give the versions that matter here."""
    from beddel_cli import __version__
    from beddel_cli.isolate.engine_settings import library_folder, library_version

    system = os.uname()
    return {
        "beddel-cli": __version__,
        "system": f"{system.sysname} {system.release} {system.machine}",
        "python": sys.version.split()[0],
        "wasmtime": library_version(library_folder()),
        "user": str(os.geteuid()),
    }


def _verdict_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "profile": verdict.profile,
        "runtime": verdict.runtime,
        "can_run": verdict.can_run,
        "lacks": list(verdict.lacks),
    }


def _finding_json(finding: Finding) -> dict[str, Any]:
    return {
        "name": finding.name,
        "present": finding.present,
        "enforced_by": finding.enforced_by if finding.present else None,
        "tried": finding.verified if finding.present else None,
        "found": finding.found,
        "fix": finding.fix,
    }


def _rung(examined: Examined) -> str | None:
    """Give how a program would be kept apart; None for isolates, and where nothing would."""
    if examined.host is None or examined.runtime != "process":
        return None
    return rung_of(examined.host)


def report_text(report: Report) -> str:
    """Give the report for people."""
    asked = report.asked
    word = "yes" if answer(report) else "NO"
    lines = [f"{word}  {asked.runtime} under {asked.profile}"]
    if report.refusal is not None:
        lines.append(f"  needs  {report.refusal.needs}")
        lines.append(f"  found  {report.refusal.found}")
        lines.append(f"  fix    {report.refusal.fix}")
    lines += [f"  {name:<11} {value}" for name, value in machine().items()]
    for each in report.examined:
        rung = _rung(each)
        lines += ["", each.runtime + ("" if rung is None else f" ({rung} rung)")]
        if each.problem is not None:
            lines.append(f"  NO  {each.problem}")
        if each.fix is not None:
            lines.append(f"      fix: {each.fix}")
        for item in each.host.findings if each.host is not None else ():
            lines += _finding_lines(item)
    lines += ["", "installed code"]
    lines += [
        f"  {'yes' if each.matches else 'NO ':<3} {os.path.basename(each.path)} "
        f"sha256:{(each.found or 'unreadable')[:16]}"
        for each in report.code
    ]
    lines += ["", "what can run"]
    for verdict in report.verdicts:
        lacks = "" if verdict.can_run else f"  lacks {', '.join(verdict.lacks)}"
        word = "yes" if verdict.can_run else "NO "
        lines.append(f"  {word} {verdict.runtime:<11} {verdict.profile}{lacks}")
    return "\n".join(lines) + "\n"


def _finding_lines(item: Finding) -> list[str]:
    if item.present:
        return [f"  yes {item.name:<13} {item.enforced_by}", f"      tried: {item.verified}"]
    return [f"  NO  {item.name:<13} {item.found}", f"      fix: {item.fix}"]
