"""What a program's walls are told, and what a command line adds to a job."""

from __future__ import annotations

from typing import Any

import pytest

from beddel_cli.errors import UsageError
from beddel_cli.execution import Asked
from beddel_cli.job import command_job, parse_job
from beddel_cli.limits import Limits
from beddel_cli.process.mount_rules import MountRequest
from beddel_cli.process.mount_sources import Opened
from beddel_cli.process.program import Mount
from beddel_cli.program_request import (
    check_terminal,
    leaf_limits,
    make_program,
    program_limits,
    with_command_line,
)
from beddel_cli.record import changed

LIMITS = Limits(
    memory_bytes=1,
    wall_ns=2,
    output_bytes=3,
    cpu_ns=4,
    milli_cpus=5,
    processes=6,
    disk_bytes=7,
    inodes=8,
    open_files=9,
)
JOB = command_job(("tool", "word"))


def asked(**more: Any) -> Asked:
    return Asked(job="tool", profile="ultra-secure", limits=Limits(), command=("tool",), **more)


@pytest.mark.parametrize(
    ("settings", "environ", "found"),
    [
        ((), {"A": "outside"}, {}),
        (("A=1",), {"A": "outside"}, {"A": "1"}),
        (("A",), {"A": "outside"}, {"A": "outside"}),
        (("A=",), {}, {"A": ""}),
        (("A=1=2",), {}, {"A": "1=2"}),
        (("A=1", "A=2"), {}, {"A": "2"}),
    ],
)
def test_environment(
    settings: tuple[str, ...], environ: dict[str, str], found: dict[str, str]
) -> None:
    job = with_command_line(JOB, asked(environment=settings), environ)
    assert dict(job.environment) == found


def test_the_command_line_comes_after_the_job() -> None:
    job = changed(JOB, environment=(("A", "job"), ("B", "job")))
    job = with_command_line(job, asked(environment=("A=mine",)), {})
    assert dict(job.environment) == {"A": "mine", "B": "job"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"environment": ("GONE",)}, "--env GONE: there is no such variable to pass on"),
        ({"environment": ("=x",)}, "--env '=x' names no variable"),
        ({"environment": ("",)}, "--env '' names no variable"),
        ({"write_back": True}, "--write-back needs a workspace to write to"),
        (
            {"write_back": True, "results": "r", "workspace": "."},
            "--write-back and --results are two places for the same files",
        ),
        (
            {"write_back": True, "workspace": ".:/w:ro"},
            "--write-back needs a workspace that the program may write to, and this one is ro",
        ),
        ({"environment": ("A\udcff=1",)}, "not valid UTF-8 in --env: 'A\\udcff=1'"),
        ({"mounts": ("x",)}, "--mount 'x' does not say where the program sees it"),
        ({"workspace": ""}, "an empty source names no folder"),
    ],
)
def test_mistakes(more: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        with_command_line(JOB, asked(**more), {})
    assert caught.value.message == message


def test_a_workspace_replaces_the_jobs_and_mounts_come_beside_them() -> None:
    own = MountRequest("job", "/job", writable=False)
    job = changed(JOB, workspace=MountRequest("old", "/old", writable=True), mounts=(own,))
    job = with_command_line(job, asked(workspace="new:/new:ro", mounts=("a:/a:rw",)), {})
    assert job.workspace == MountRequest("new", "/new", writable=False)
    assert job.mounts == (own, MountRequest("a", "/a", writable=True))
    assert with_command_line(job, asked(), {}).workspace == job.workspace


def test_what_the_init_is_sent() -> None:
    program = make_program(
        changed(JOB, environment=(("LANG", "C"), ("A", "1"))), LIMITS, asked(), Opened(None, ())
    )
    assert program.arguments == ("tool", "word")
    assert dict(program.environment) == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "USER": "sandbox",
        "LANG": "C",
        "A": "1",
    }
    assert (program.workspace, program.workspace_target) == (None, "/workspace")
    assert program.workspace_writable
    assert program.terminal is None
    assert (program.memory_bytes, program.cpu_ns, program.processes) == (1, 4, 6)
    assert (program.disk_bytes, program.inodes, program.open_files) == (7, 8, 9)


def test_a_workspace_is_where_it_was_asked_for() -> None:
    shown = Mount("/srv/x", 5, "/code", writable=False, folder=True)
    program = make_program(JOB, LIMITS, asked(), Opened(shown, (shown,)))
    assert (program.workspace, program.workspace_target) == (shown, "/code")
    assert not program.workspace_writable
    assert program.mounts == (shown,)


def test_limits_of_the_leaf_and_of_the_supervisor() -> None:
    leaf = leaf_limits(LIMITS)
    assert (leaf.memory_bytes, leaf.processes, leaf.cpus_milli) == (1, 6, 5)
    tree = program_limits(LIMITS)
    assert (tree.wall_ns, tree.cpu_ns, tree.cpus_milli) == (2, 4, 5)
    assert (tree.memory_bytes, tree.processes, tree.output_bytes) == (1, 6, 3)


def test_a_limit_that_nobody_set_is_a_bug_and_not_infinity() -> None:
    with pytest.raises(Exception, match="a plan without one of its limits"):
        program_limits(changed(LIMITS, memory_bytes=None))


def test_a_terminal_needs_one() -> None:
    check_terminal(asked())
    with pytest.raises(UsageError, match="--tty and --json cannot go together"):
        check_terminal(asked(terminal=True, keep_output=True))


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("/usr/bin/python3", "-c", "1"), "python3"),
        (("./My Tool.sh",), "my-tool-sh"),
        (("é",), "program"),
        (("x" * 100,), "x" * 63),
    ],
)
def test_the_job_of_a_command_is_a_job(command: tuple[str, ...], name: str) -> None:
    job = command_job(command)
    read = parse_job(job.source, "job.yaml")
    assert (job.id, job.command) == (name, command)
    assert (read.id, read.command, read.runtime) == (name, command, "process")
