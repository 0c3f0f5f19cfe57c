"""Run a program through `supervise` on the fake launcher, with a cgroup leaf or without."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from beddel_cli.process.cgroup import Asked, Leaf, make_leaf
from beddel_cli.process.launch import Launcher
from beddel_cli.process.meters import ProgramLimits
from beddel_cli.process.outer_terminal import OuterTerminal
from beddel_cli.process.program import ProgramAnswer
from beddel_cli.process.signals import SignalInbox
from beddel_cli.process.streams import DescriptorSink, Pipes, Streams
from beddel_cli.process.supervise import supervise
from tests.support.capabilities import require
from tests.support.fake_launcher import FakeLauncher
from tests.support.walls import program

MIB = 1 << 20
LIMITS = ProgramLimits(
    wall_ns=8_000_000_000,
    cpu_ns=10_000_000_000,
    cpus_milli=None,
    memory_bytes=64 << 20,
    processes=16,
    output_bytes=1 << 20,
)


def python(code: str) -> list[str]:
    """Give the command that runs Python code with nothing but the language."""
    found = "/usr/bin/python3"  # what is elsewhere does not exist behind the walls
    return [found if os.path.exists(found) else sys.executable, "-I", "-S", "-c", code]


@dataclass(frozen=True)
class Setting:
    """With a cgroup leaf or without, behind the real walls or the fake."""

    leaf: bool
    walls: bool


SETTINGS = {
    f"{'leaf' if leaf else 'tree'}, {'walls' if walls else 'fake'}": Setting(leaf, walls)
    for leaf in (True, False)
    for walls in (False, True)
}


def require_setting(setting: Setting) -> None:
    """Go on only where this machine has what a setting needs."""
    require("process-namespace")
    if setting.leaf:
        require("cgroup")
    if setting.walls:
        require("user-namespaces")
        require("system-python")


@dataclass
class Supervised:
    """How to run; `run` gives the answer and leaves the launcher and its leaf gone."""

    leaf: bool = False
    walls: bool = False
    limits: ProgramLimits = LIMITS
    stdin: int | bytes | None = None
    stdout: int | None = None
    stderr: int | None = None
    head_bytes: int = 1 << 16
    upper: int | None = None
    terminal: int | None = None
    silent: bool = False
    held_by: str = "the init of the sandbox"
    while_ready: Callable[[FakeLauncher], None] | None = None
    disk_bytes: int = 256 * MIB
    inodes: int = 1000
    launcher: FakeLauncher | Launcher | None = None
    made: Leaf | None = None

    def run(self, command: Sequence[str]) -> ProgramAnswer:
        """Run a command to its end; fails the test when something of it is left."""
        if self.leaf:
            self.made, problems = make_leaf(_asked(self.limits))
            assert self.made is not None, problems
        started = Launcher.start() if self.walls else None
        joins = self.made.open_procs() if self.made else ()
        pipes = Pipes() if self.terminal is None else None
        ends = pipes.program_ends if pipes else ()
        launcher: FakeLauncher | Launcher
        if started is None:
            launcher = self._fake(command, ends, joins)
        else:
            launcher = self._walled(started, command, ends, joins)
        self.launcher = launcher
        for descriptor in joins:
            os.close(descriptor)
        if self.while_ready is not None and isinstance(launcher, FakeLauncher):
            self.while_ready(launcher)
        inbox = SignalInbox(terminal=self.terminal is not None)
        sinks = [None if each is None else DescriptorSink(each) for each in self._outputs()]
        try:
            return supervise(
                launcher,
                pipes,
                Streams(self.stdin, sinks[0], sinks[1], self.head_bytes),
                self.limits,
                self.made,
                inbox,
                outer=None if self.terminal is None else OuterTerminal(self.terminal),
            )
        finally:
            inbox.release()
            launcher.finish()
            launcher.close()
            for sink in sinks:
                if sink is not None:
                    sink.close()
            if self.made is not None:
                assert self.made.processes() == ()
                assert self.made.remove() == ()

    def _fake(
        self, command: Sequence[str], ends: tuple[int, ...], joins: tuple[int, ...]
    ) -> FakeLauncher:
        fake = FakeLauncher(
            command,
            ends,
            cgroup_files=joins,
            upper=self.upper,
            terminal=self.terminal is not None,
            silent=self.silent,
            processes=self.limits.processes,
        )
        fake.held_by = self.held_by
        return fake

    def _walled(
        self,
        started: Launcher,
        command: Sequence[str],
        ends: tuple[int, ...],
        joins: tuple[int, ...],
    ) -> Launcher:
        described = program(
            command,
            terminal=None if self.terminal is None else (24, 80),
            memory_bytes=self.limits.memory_bytes,
            cpu_ns=self.limits.cpu_ns,
            processes=self.limits.processes,
            disk_bytes=self.disk_bytes,
            inodes=self.inodes,
        )
        given = (ends[0], ends[1], ends[2]) if ends else (0, 1, 2)
        walls = started.prepare(
            described, given, joins, counts_memory=self.leaf, counts_processes=self.leaf
        )
        assert walls.failed_step is None, walls
        return started

    def _outputs(self) -> tuple[int | None, int | None]:
        return self.stdout, self.stderr


def _asked(limits: ProgramLimits) -> Asked:
    return Asked(limits.memory_bytes, limits.processes, limits.cpus_milli)
