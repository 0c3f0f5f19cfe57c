"""A program from its empty walls to the judged ending and what it left."""

from __future__ import annotations

import gc
import os
import stat

from beddel_cli.errors import bug
from beddel_cli.execution import Execution
from beddel_cli.process.launch import Launcher
from beddel_cli.program_request import (
    check_terminal,
    leaf_limits,
    make_program,
    program_limits,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from beddel_cli.errors import ReceiptWriteError
    from beddel_cli.execution import Asked
    from beddel_cli.host import Host
    from beddel_cli.job import Job
    from beddel_cli.limits import Limits
    from beddel_cli.outcome import Outcome
    from beddel_cli.plan import Plan
    from beddel_cli.process.cgroup import Leaf
    from beddel_cli.process.collect import Collection, ResultsPlace
    from beddel_cli.process.landlock_rung import GuardedLauncher
    from beddel_cli.process.mount_sources import Opened
    from beddel_cli.process.outer_terminal import OuterTerminal
    from beddel_cli.process.program import Mount, Program, Walls
    from beddel_cli.process.streams import Pipes, Sink, Streams
    from beddel_cli.receipt import Sandbox, Shown

_DIGEST_AT_MOST_BYTES = 64 << 20


class ProgramRun:
    """The walls of one program, good for one run."""

    name = "process"

    def __init__(self) -> None:
        self._launcher = Launcher.start()
        self._guarded: GuardedLauncher | None = None
        self._walls: Walls | None = None
        self._fallen_from: Walls | None = None
        self._opened: Opened | None = None
        self._shown: tuple[Shown, ...] = ()
        self._leaf: Leaf | None = None
        self._cgroup = "not asked for"
        self._pipes: Pipes | None = None
        self._results: ResultsPlace | None = None

    def look(self, job: Job, limits: Limits, asked: Asked, rungs: tuple[str, ...]) -> Host:
        """Open what the program will see, let the init finish the walls, and look at them.

        Where namespaces are refused and the plan would do without, the weaker rung is built.

        Raises:
            RefusedError: something of the host may not be shown to it.
            NotFoundError, JobError, UsageError: something of it is not there, or cannot be opened.
            GuestError: the init said something that cannot be.
        """
        from beddel_cli.process.cgroup import make_leaf, read_hierarchies, sweep
        from beddel_cli.process.streams import Pipes
        from beddel_cli.program_host import describe_program_host

        check_terminal(asked)
        self._opened = _open_shown(job, asked)
        _check_outputs(self._opened, asked)
        if asked.results is not None:
            from beddel_cli.process.collect import open_results

            self._results = open_results(asked.results)
        hierarchies = read_hierarchies()
        sweep(hierarchies)
        self._leaf, problems = make_leaf(leaf_limits(limits), hierarchies)
        self._shown = _describe_shown(self._opened, asked)
        held = self._leaf.held if self._leaf is not None else {}
        files = self._leaf.open_procs() if self._leaf is not None else ()
        try:
            self._pipes = None if asked.terminal else Pipes()
            stdio = (0, 1, 2)
            if self._pipes is not None:
                stdio = self._pipes.program_ends
            program = make_program(job, limits, asked, self._opened)
            self._walls = _prepare(self._launcher, program, stdio, files, held)
            if _may_fall_back(self._walls, rungs):
                self._fallen_from = self._walls
                self._walls = _prepare(self._fall_back(program), program, stdio, files, held)
        finally:
            for descriptor in files:
                os.close(descriptor)
        if self._walls.failed_step is not None:
            _raise_other_cause(self._walls, job, self._opened)
        self._cgroup = _cgroup_words(held)
        return describe_program_host(
            self._walls, self._launcher.observe(), held, problems, fallen_from=self._fallen_from
        )

    def _fall_back(self, program: Program) -> Launcher:
        """End what could not be built, and start what does without namespaces."""
        from beddel_cli.process.landlock_rung import GuardedLauncher, check_shown

        self._launcher.finish()
        self._launcher.close()
        check_shown(program)
        self._launcher = self._guarded = GuardedLauncher.start()
        return self._launcher

    def execute(self, job: Job, plan: Plan, asked: Asked) -> Execution:
        """Start the program, see it to its end, take what it left, and judge."""
        from beddel_cli.job import given_input
        from beddel_cli.process.signals import SignalInbox
        from beddel_cli.process.supervise import supervise

        given = given_input(job)
        streams = _streams(given, plan, asked)
        # A program may run for hours; what exists by now stays to the end.
        gc.freeze()
        gc.enable()
        # Kept open until the end of this process: a late signal must not cost the answer.
        inbox = SignalInbox(terminal=asked.terminal)
        try:
            # Closed there, however it ends.
            pipes, self._pipes = self._pipes, None
            answer = supervise(
                self._launcher,
                pipes,
                streams,
                program_limits(plan.limits),
                self._leaf,
                inbox,
                outer=_outer_terminal(asked),
                meanwhile=_load_what_comes_after,
            )
            from beddel_cli.program_outcome import judge_program

            setup_ns = self._known_walls().setup_ns
            outcome = judge_program(plan, job.command[0], setup_ns, answer)
            collected, problem = self._collect(plan, asked, outcome)
            return Execution(outcome, given, collected=collected, problem=problem)
        except BaseException:
            inbox.release()
            raise

    def _collect(
        self, plan: Plan, asked: Asked, outcome: Outcome
    ) -> tuple[Collection | None, ReceiptWriteError | None]:
        """Take what the program left in its workspace, whatever its ending was.

        The program has run: where its files cannot be written, it has its receipt all the same.
        """
        from beddel_cli.errors import ReceiptWriteError

        if self._results is None and not asked.write_back:
            return None, None
        from beddel_cli.process.collect import NotAllWrittenError

        try:
            return self._take(plan, asked, outcome), None
        except NotAllWrittenError as error:
            return error.collection, error
        except ReceiptWriteError as error:
            return None, error

    def _take(self, plan: Plan, asked: Asked, outcome: Outcome) -> Collection | None:
        upper, workspace = self._launcher.upper, None
        if self._opened is not None and self._opened.workspace is not None:
            workspace = self._opened.workspace
        if upper is None or outcome.program is None or outcome.program.fault is not None:
            return None
        from beddel_cli.process.collect import collect_results, write_back
        from beddel_cli.process.collect_rules import Caps

        caps = Caps(plan.limits.disk_bytes or 0, plan.limits.inodes or 0)
        before = None if self._guarded is None else self._guarded.copied
        if self._results is not None:
            overlay = workspace is not None and self._guarded is None
            lower = workspace.descriptor if workspace is not None and overlay else None
            return collect_results(self._results, upper, lower, caps, before)
        if asked.write_back and workspace is not None:
            return write_back(workspace.descriptor, workspace.source, upper, caps, before)
        return None

    def describe(self) -> Sandbox | None:
        """Give what held the program, for the receipt; None when it did not get that far."""
        from beddel_cli.receipt import Sandbox

        walls = self._walls
        if walls is None or walls.failed_step is not None:
            return None
        rung = "namespaces" if self._fallen_from is None else "landlock"
        return Sandbox(rung, walls.identity, walls.proc, self._cgroup)

    def shown(self) -> tuple[Shown, ...]:
        """Give what of the host the program could see, for the receipt."""
        return self._shown

    def warnings(self) -> tuple[str, ...]:
        """Say what a person should know of how the walls came about."""
        walls = self._walls
        if walls is not None and walls.proc == "empty":
            return ("this machine refuses a /proc of its own; the program finds an empty one",)
        if self._guarded is not None and walls is not None and walls.failed_step is None:
            return self._guarded.warnings()
        return ()

    def finish(self) -> None:
        """End and reap every process, and remove what was made for this run."""
        self._launcher.finish()
        self._launcher.close()
        if self._pipes is not None:
            self._pipes.close_program_ends()
            self._pipes.close()
            self._pipes = None
        if self._leaf is not None:
            self._leaf.remove()
            self._leaf = None
        for held in (self._opened, self._results):
            if held is not None:
                held.__exit__(None, None, None)
        self._opened = self._results = None

    def _known_walls(self) -> Walls:
        if self._walls is None:
            raise bug("a program was started before its walls were looked at")
        return self._walls


def _prepare(
    launcher: Launcher,
    program: Program,
    stdio: tuple[int, int, int],
    files: tuple[int, ...],
    held: Mapping[str, int],
) -> Walls:
    return launcher.prepare(
        program,
        stdio,
        files,
        counts_memory="memory" in held,
        counts_processes="pids" in held,
    )


def _raise_other_cause(walls: Walls, job: Job, opened: Opened | None) -> None:
    """Raise what is to be said of walls that failed, unless this machine refuses them."""
    from beddel_cli.process.failures import other_cause
    from beddel_cli.process.machine_facts import read_caller

    shown = []
    if opened is not None:
        shown = list(zip(job.mounts, opened.mounts, strict=True))
        if job.workspace is not None and opened.workspace is not None:
            shown.append((job.workspace, opened.workspace))
    error = other_cause(walls, read_caller(), shown)
    if error is not None:
        raise error


def _may_fall_back(walls: Walls, rungs: tuple[str, ...]) -> bool:
    """Tell whether the weaker rung is to be tried: namespaces refused, and the plan content."""
    if walls.failed_step is None or "landlock" not in rungs:
        return False
    from beddel_cli.process.landlock_terms import is_refused_by_machine

    return is_refused_by_machine(walls.failed_step, walls.failed_errno)


def _load_what_comes_after() -> None:
    """Import what tells of a run, while the program is being started."""
    from beddel_cli.trust import dsse  # noqa: F401


def _outer_terminal(asked: Asked) -> OuterTerminal | None:
    if not asked.terminal:
        return None
    from beddel_cli.process.outer_terminal import OuterTerminal

    return OuterTerminal(0)


def _open_shown(job: Job, asked: Asked) -> Opened | None:
    """Open what of the host the program is to see; None where that is nothing."""
    if job.workspace is None and not job.mounts:
        return None
    from beddel_cli.files import open_reach
    from beddel_cli.home import locate
    from beddel_cli.process.mount_sources import open_sources, protected_folders

    from_file = not asked.command and asked.job != "-"
    with open_reach(asked.job if from_file else None, asked.allow_paths) as reach:
        return open_sources(
            job.workspace,
            job.mounts,
            protected_folders(locate(os.environ), os.environ, asked.signing_key),
            reach,
            write_back=asked.write_back,
        )


def _check_outputs(opened: Opened | None, asked: Asked) -> None:
    """Refuse outputs where the program, or what it left, could take their place."""
    if opened is None:
        return
    if not asked.write_back and not any(mount.writable for mount in opened.mounts):
        return
    from beddel_cli.process.mount_sources import check_outputs_apart

    outputs = (
        ("--receipt", asked.receipt),
        ("--receipt (its proof)", asked.proof),
        ("--bundle", asked.bundle),
        ("--predicate", asked.predicate),
        ("--capture", asked.receipt if asked.capture else None),
        ("--salt", asked.salt),
    )
    named = [(flag, path) for flag, path in outputs if path is not None]
    check_outputs_apart(opened, named, write_back=asked.write_back)


def _describe_shown(opened: Opened | None, asked: Asked) -> tuple[Shown, ...]:
    if opened is None:
        return ()
    from beddel_cli.receipt import Shown

    found = [
        Shown(mount.target, "rw" if mount.writable else "ro", _digest(mount))
        for mount in opened.mounts
    ]
    if opened.workspace is not None:
        mode = "overlay" if opened.workspace.writable else "ro"
        found.insert(0, Shown(opened.workspace.target, mode, None))
    return tuple(found)


def _digest(mount: Mount) -> str | None:
    """Give the digest of a file that is shown; None for a folder or a very large file."""
    if mount.folder:
        return None
    from hashlib import file_digest

    with open(f"/proc/self/fd/{mount.descriptor}", "rb") as file:
        if os.fstat(file.fileno()).st_size > _DIGEST_AT_MOST_BYTES:
            return None
        return file_digest(file, "sha256").hexdigest()


def _streams(given: bytes | None, plan: Plan, asked: Asked) -> Streams:
    from beddel_cli.process.streams import Streams

    passes_stdin = given is None and (bool(asked.command) or asked.terminal)
    stdin = 0 if passes_stdin else given
    kept = plan.limits.output_bytes or 0
    if asked.keep_output:
        return Streams(stdin, None, None, kept)
    return Streams(
        stdin,
        _sink(1, escape=asked.escape_stdout, step_log=asked.step_log),
        _sink(2, escape=asked.escape_stderr, step_log=asked.step_log),
        kept if asked.capture else 0,
    )


def _sink(descriptor: int, *, escape: bool, step_log: bool) -> Sink:
    """Give where one stream goes: byte for byte, or made harmless for who reads it there."""
    from beddel_cli.process.streams import DescriptorSink

    sink = DescriptorSink(descriptor)
    in_log = step_log and not stat.S_ISREG(os.fstat(descriptor).st_mode)
    if not escape and not in_log:
        return sink
    from beddel_cli.process.visible_sink import VisibleSink

    return VisibleSink(sink, step_log=in_log)


def _cgroup_words(held: Mapping[str, int]) -> str:
    """Say which controllers hold a program, such as `memory v1, pids v1`."""
    return ", ".join(f"{name} v{version}" for name, version in sorted(held.items())) or "none"
