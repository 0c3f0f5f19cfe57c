"""What a program's walls are told: command, environment and limits, from job, plan and options."""

from __future__ import annotations

import os

from beddel_cli.errors import UsageError, bug
from beddel_cli.record import changed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from beddel_cli.execution import Asked
    from beddel_cli.job import Job
    from beddel_cli.limits import Limits
    from beddel_cli.process.cgroup import Asked as LeafLimits
    from beddel_cli.process.meters import ProgramLimits
    from beddel_cli.process.mount_sources import Opened
    from beddel_cli.process.program import Program

# All that a program has of an environment unless it is given more.
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp",  # noqa: S108
    "TMPDIR": "/tmp",  # noqa: S108
    "USER": "sandbox",
    "LANG": "C.UTF-8",
}


def with_command_line(job: Job, asked: Asked, environ: Mapping[str, str]) -> Job:
    """Give the job with the workspace, mounts and variables that the command line adds.

    Raises:
        UsageError: one of them is not of its form, or a variable to pass on is not set.
    """
    workspace, mounts = job.workspace, job.mounts
    if asked.workspace is not None:
        from beddel_cli.process.mount_rules import parse_workspace

        workspace = parse_workspace(asked.workspace)
    if asked.write_back and workspace is None:
        raise UsageError("--write-back needs a workspace to write to", hint="--workspace DIR")
    if asked.write_back and workspace is not None and not workspace.writable:
        raise UsageError(
            "--write-back needs a workspace that the program may write to, and this one is ro"
        )
    if asked.write_back and asked.results is not None:
        raise UsageError("--write-back and --results are two places for the same files")
    if asked.mounts:
        from beddel_cli.process.mount_rules import parse_mount

        mounts = (*mounts, *map(parse_mount, asked.mounts))
    return changed(
        job,
        workspace=workspace,
        mounts=mounts,
        environment=_environment(job, asked.environment, environ),
    )


def _environment(
    job: Job, settings: tuple[str, ...], environ: Mapping[str, str]
) -> tuple[tuple[str, str], ...]:
    found = dict(job.environment)
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not name:
            raise UsageError(f"--env {setting!r} names no variable", expected="NAME=VALUE or NAME")
        if not equals:
            if name not in environ:
                raise UsageError(
                    f"--env {name}: there is no such variable to pass on",
                    hint=f"--env {name}=VALUE sets one",
                )
            value = environ[name]
        try:
            f"{name}={value}".encode()
        except UnicodeEncodeError:
            # A receipt tells names, and no reader of JSON takes one that is no text.
            raise UsageError(f"not valid UTF-8 in --env: {f'{name}={value}'!r}") from None
        found[name] = value
    return tuple(found.items())


def make_program(job: Job, limits: Limits, asked: Asked, opened: Opened | None) -> Program:
    """Give what the init is sent; `limits` are those of the plan to come."""
    from beddel_cli.process.program import DEFAULT_WORKSPACE, Program

    workspace = None if opened is None else opened.workspace
    return Program(
        arguments=job.command,
        environment=tuple({**_ENVIRONMENT, **dict(job.environment)}.items()),
        workspace=workspace,
        workspace_target=DEFAULT_WORKSPACE if workspace is None else workspace.target,
        workspace_writable=workspace is None or workspace.writable,
        mounts=() if opened is None else opened.mounts,
        terminal=_size_of_terminal() if asked.terminal else None,
        memory_bytes=_set(limits.memory_bytes),
        cpu_ns=_set(limits.cpu_ns),
        processes=_set(limits.processes),
        disk_bytes=_set(limits.disk_bytes),
        inodes=_set(limits.inodes),
        open_files=_set(limits.open_files),
    )


def check_terminal(asked: Asked) -> None:
    """Let a program have a terminal only where the caller has one.

    Raises:
        UsageError: he has none, or wants the output as JSON.
    """
    if not asked.terminal:
        return
    if asked.keep_output:
        raise UsageError("--tty and --json cannot go together")
    if not (os.isatty(0) and os.isatty(1)):
        raise UsageError("--tty needs standard input and output to be a terminal")


def _size_of_terminal() -> tuple[int, int]:
    size = os.get_terminal_size(0)
    return size.lines, size.columns


def leaf_limits(limits: Limits) -> LeafLimits:
    """Give what the program's cgroup shall limit."""
    from beddel_cli.process.cgroup import Asked as LeafLimits

    return LeafLimits(_set(limits.memory_bytes), _set(limits.processes), limits.milli_cpus)


def program_limits(limits: Limits) -> ProgramLimits:
    """Give what the supervisor holds the whole tree to."""
    from beddel_cli.process.meters import ProgramLimits

    return ProgramLimits(
        wall_ns=_set(limits.wall_ns),
        cpu_ns=_set(limits.cpu_ns),
        cpus_milli=limits.milli_cpus,
        memory_bytes=_set(limits.memory_bytes),
        processes=_set(limits.processes),
        output_bytes=_set(limits.output_bytes),
    )


def _set(limit: int | None) -> int:
    if limit is None:
        raise bug("a plan without one of its limits")
    return limit
