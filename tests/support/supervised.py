"""Run a program through `supervise` on the fake launcher, with a cgroup leaf or without."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from beddel_cli.process.cgroup import Asked, Leaf, make_leaf
from beddel_cli.process.meters import ProgramLimits
from beddel_cli.process.outer_terminal import OuterTerminal
from beddel_cli.process.program import ProgramAnswer
from beddel_cli.process.signals import SignalInbox
from beddel_cli.process.streams import DescriptorSink, Pipes, Streams
from beddel_cli.process.supervise import supervise
from tests.support.fake_launcher import FakeLauncher

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
    return [sys.executable, "-I", "-S", "-c", code]


@dataclass
class Supervised:
    """How to run; `run` gives the answer and leaves the launcher and its leaf gone."""

    leaf: bool = False
    limits: ProgramLimits = LIMITS
    stdin: int | bytes | None = None
    stdout: int | None = None
    stderr: int | None = None
    head_bytes: int = 1 << 16
    upper: int | None = None
    terminal: int | None = None
    silent: bool = False
    while_ready: Callable[[FakeLauncher], None] | None = None
    launcher: FakeLauncher | None = None
    made: Leaf | None = None

    def run(self, command: Sequence[str]) -> ProgramAnswer:
        """Run a command to its end; fails the test when something of it is left."""
        if self.leaf:
            self.made, problems = make_leaf(_asked(self.limits))
            assert self.made is not None, problems
        joins = self.made.open_procs() if self.made else ()
        pipes = Pipes() if self.terminal is None else None
        launcher = self.launcher = FakeLauncher(
            command,
            pipes.program_ends if pipes else (),
            cgroup_files=joins,
            upper=self.upper,
            terminal=self.terminal is not None,
            silent=self.silent,
            processes=self.limits.processes,
        )
        for descriptor in joins:
            os.close(descriptor)
        if self.while_ready is not None:
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

    def _outputs(self) -> tuple[int | None, int | None]:
        return self.stdout, self.stderr


def _asked(limits: ProgramLimits) -> Asked:
    return Asked(limits.memory_bytes, limits.processes, limits.cpus_milli)
