"""Run a program behind real walls without the rest of a run, and give what it left."""

from __future__ import annotations

import os
import select
from dataclasses import dataclass
from pathlib import Path

from beddel_cli.process.cgroup import Asked, make_leaf
from beddel_cli.process.launch import ENDED, STARTED, Launcher
from beddel_cli.process.program import Mount, Program


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended. `upper` is what it left, to be closed by who asked."""

    code: int
    stdout: bytes
    stderr: bytes
    upper: int
    memory_peak_bytes: int | None
    cpu_ns: int | None


def run(
    *arguments: str,
    workspace: Path | None = None,
    environment: dict[str, str] | None = None,
    stdin: bytes = b"",
    memory_bytes: int = 64 << 20,
    processes: int = 16,
    disk_bytes: int = 16 << 20,
    inodes: int = 1000,
) -> Ended:
    """Run it to its end, at most a minute, under the limits of ultra-secure unless told otherwise.

    Raises:
        AssertionError: the walls did not stand, or the program did not start or end.
    """
    launcher = Launcher.start()
    leaf, _ = make_leaf(Asked(memory_bytes, processes, 250))
    files = leaf.open_procs() if leaf is not None else ()
    streams = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
    os.write(streams[0], stdin)
    os.lseek(streams[0], 0, os.SEEK_SET)
    shown = None
    if workspace is not None:
        descriptor = os.open(workspace, os.O_PATH)
        shown = Mount(os.path.realpath(workspace), descriptor, "/workspace", True, True)
    program = Program(
        arguments=arguments,
        environment=tuple(({"PATH": "/usr/bin:/bin"} | (environment or {})).items()),
        workspace=shown,
        workspace_target="/workspace",
        workspace_writable=True,
        mounts=(),
        terminal=None,
        memory_bytes=memory_bytes,
        cpu_ns=10_000_000_000,
        processes=processes,
        disk_bytes=disk_bytes,
        inodes=inodes,
        open_files=64,
    )
    try:
        stdio = (streams[0], streams[1], streams[2])
        walls = launcher.prepare(program, stdio, files, counts_memory=leaf is not None)
        assert walls.failed_step is None, walls
        launcher.go()
        status = _wait(launcher)
        launcher.finish()
        usage = None if leaf is None else leaf.usage()
        assert launcher.upper is not None
        return Ended(
            code=os.waitstatus_to_exitcode(status),
            stdout=_content(streams[1]),
            stderr=_content(streams[2]),
            upper=os.dup(launcher.upper),
            memory_peak_bytes=None if usage is None else usage.memory_peak_bytes,
            cpu_ns=None if usage is None else usage.cpu_ns,
        )
    finally:
        launcher.finish()
        launcher.close()
        if leaf is not None:
            leaf.remove()
        for each in (*streams, *files, *(() if shown is None else (shown.descriptor,))):
            os.close(each)


def _wait(launcher: Launcher) -> int:
    poller = select.poll()
    poller.register(launcher.events, select.POLLIN)
    while True:
        assert poller.poll(60_000), "it did not end within a minute"
        event = launcher.next_event()
        assert event is not None, "the init died"
        if event.kind == ENDED:
            return event.status
        assert event.kind == STARTED, event


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
