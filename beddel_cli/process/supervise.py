"""From the start of a program to its ending: one loop over its streams, its limits and our signals.

Everything here waits in one place, a poll that never outlasts the next thing to do. Nothing the
program does can hold the loop up: streams are relayed without blocking, its death is told by a
descriptor, and whatever of its tree is still there then dies with the init, orphans that hold
stdout included.

An ending has one cause, the first. Then all get SIGTERM, and SIGKILL 800 ms later; memory that has
run out ends in SIGKILL at once, since the kernel has begun to kill already.

Sources: poll(2), pidfd_open(2), signal(7).
"""

from __future__ import annotations

import os
import select
from time import monotonic_ns

from beddel_cli.errors import GuestError
from beddel_cli.process.launch import ENDED, FAULT, NOT_STARTED, STARTED
from beddel_cli.process.meters import Meters, ProgramLimits
from beddel_cli.process.program import ProgramAnswer, TreeUsage
from beddel_cli.process.signals import STOPPING
from beddel_cli.process.sockets import Sockets
from beddel_cli.process.streams import Inlet, Outlet, Pipes, Streams
from beddel_cli.process.tree import Tree, own_cpu_ns, resident

TYPE_CHECKING = False
if TYPE_CHECKING:
    import resource
    from collections.abc import Callable
    from typing import Protocol

    from beddel_cli.process.cgroup import Leaf
    from beddel_cli.process.messages import Event
    from beddel_cli.process.outer_terminal import OuterTerminal
    from beddel_cli.process.scratch import ScratchMeter
    from beddel_cli.process.signals import SignalInbox

    class Running(Protocol):
        """What this module needs of a launcher; `launch.Launcher` says what each means."""

        @property
        def pid(self) -> int | None: ...
        @property
        def pidfd(self) -> int | None: ...
        @property
        def events(self) -> int: ...
        @property
        def upper(self) -> int | None: ...
        @property
        def sockets(self) -> int | None: ...
        @property
        def terminal(self) -> int | None: ...
        @property
        def works_for_program(self) -> bool: ...
        @property
        def held_by(self) -> str: ...
        @property
        def setup_cpu_ns(self) -> int: ...
        @property
        def meter(self) -> ScratchMeter | None: ...
        def go(self) -> None: ...
        def next_event(self) -> Event | None: ...
        def terminate(self) -> None: ...
        def kill(self) -> None: ...
        def finish(self) -> resource.struct_rusage | None: ...


_MS = 1_000_000
GRACE_NS = 800 * _MS
# After its CPU limit a program gets this much more to end by itself.
_CPU_GRACE_NS = 100 * _MS
# A caller who reads gets what is left; one who does not is not waited for any longer.
_DRAIN_NS = 200 * _MS
# The init exits at once when the program has ended; this is for a machine that is very busy.
_INIT_EXIT_NS = 2000 * _MS
# The kernel announces that memory ran out before it has chosen whom to kill.
_OOM_LOOK_NS = 2 * _MS
_OOM_PATIENCE_NS = 200 * _MS
# A terminal whose foreground another job has is looked at again after this.
_LONGEST_WAIT_MS = 1000
_NEVER = 1 << 62


def supervise(
    launcher: Running,
    pipes: Pipes | None,
    streams: Streams,
    limits: ProgramLimits,
    leaf: Leaf | None,
    inbox: SignalInbox,
    *,
    outer: OuterTerminal | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> ProgramAnswer:
    """Start the prepared program and see it to its end; afterwards none of its tree is alive.

    The launcher is finished, not closed, and the leaf is left to the caller to remove. `inbox` is
    open before and stays so.

    Args:
        pipes: whose inner ends were given to `prepare`; closed on return. None with a terminal.
        outer: the caller's terminal, to be made raw while the program has one of its own.
        meanwhile: called once the program was told to start, which takes it some milliseconds.
    """
    run: _Run | None = None
    try:
        if pipes is not None:
            pipes.close_program_ends()
        run = _Run(launcher, pipes, streams, limits, leaf, inbox)
        run.outer = outer
        if outer is not None:
            outer.enter()
            if launcher.terminal is not None:
                outer.copy_size(launcher.terminal)
        run.start()
        if meanwhile is not None:
            meanwhile()
        run.until_dead()
        run.drain()
        return run.answer()
    finally:
        launcher.finish()
        if run is not None:
            run.close()
        elif pipes is not None:
            pipes.close()
        if outer is not None:
            outer.leave(spoken_to=run is not None and run.outlets[0].spoke_to_terminal)


class _Run:
    """One program that runs, and what is known of its ending so far."""

    def __init__(
        self,
        launcher: Running,
        pipes: Pipes | None,
        streams: Streams,
        limits: ProgramLimits,
        leaf: Leaf | None,
        inbox: SignalInbox,
    ) -> None:
        self._launcher = launcher
        self._limits = limits
        self._inbox = inbox
        self.outer: OuterTerminal | None = None
        self.outlets, self._inlet = _connect(launcher, pipes, streams)
        self._room = limits.output_bytes
        self._limit: str | None = None
        self._stopped: str | None = None
        self._fault: str | None = None
        self._start_errno: int | None = None
        self._status: int | None = None
        self._maxrss = 0
        self._killed = False
        self._ending = False
        self._dead = launcher.pid is None
        self._hears = True
        self._kill_ns = _NEVER
        self._oom_look_ns = self._oom_until_ns = _NEVER
        self._started_ns = self._ended_ns = 0
        self._wall_ns = _NEVER
        self._poller = select.poll()
        self._polled: dict[int, int] = {}
        tree, self._init_ns, self._floor = self._look_at_init(leaf)
        self._meters = Meters(limits, leaf, tree, launcher.upper, self._lists(leaf), launcher.meter)

    def _look_at_init(self, leaf: Leaf | None) -> tuple[Tree | None, int, int]:
        """Give a reader of the tree where it is needed, and what the init has spent already."""
        held = {} if leaf is None else leaf.held
        pid = self._launcher.pid
        if pid is None:
            self._fault = "the walls were never ready"
            return None, 0, 0
        try:
            spent_ns = own_cpu_ns(pid)
            peak = max((each.peak for each in resident(pid)), default=0)
            counts = self._launcher.works_for_program
            tree = None if {"memory", "cpuacct", "pids"} <= held.keys() else Tree(pid, counts)
        except (OSError, ValueError, IndexError) as error:
            if {"memory", "cpuacct"} <= held.keys():
                return None, 0, 0
            # Without either source two limits would hold nobody: refuse to start.
            self._fault = f"the program's tree cannot be watched: {error}"
            return None, 0, 0
        return tree, spent_ns, peak

    def _lists(self, leaf: Leaf | None) -> Sockets | None:
        """Give a reader of what the program's sockets hold."""
        pid, descriptor = self._launcher.pid, self._launcher.sockets
        if pid is None or descriptor is None:
            return None
        return Sockets(pid, descriptor, counted=leaf is not None and "memory" in leaf.held)

    def start(self) -> None:
        """Tell the init to start the program, or end it where it cannot be watched."""
        if self._fault is not None:
            self._kill()
        self._started_ns = monotonic_ns()
        self._wall_ns = self._started_ns + self._limits.wall_ns
        if self._fault is None:
            self._launcher.go()

    def until_dead(self) -> None:
        """Relay, watch and end the program until the init is dead."""
        while not self._dead:
            self._turn()
        self._read_events()
        self._ended_ns = self._ended_ns or monotonic_ns()
        if self._launcher.pid is not None:
            if not self._launcher.works_for_program:
                self._init_ns = _spent_by(self._launcher.pid, self._init_ns)
            self._init_ns += self._launcher.setup_cpu_ns
        if self._meters.ran_out_of_memory():
            self._end(limit="memory")
        if self._status is None and self._start_errno is None and not self._ending:
            held_by = self._launcher.held_by
            self._end(fault=f"{held_by} died before it could say how the program did")

    def _turn(self) -> None:
        for descriptor, mask in self._wait(self._due_ms()):
            if descriptor == self._launcher.pidfd:
                self._dead = True
            elif descriptor == self._launcher.events:
                self._read_events()
                self._hears = not mask & (select.POLLHUP | select.POLLERR)
            elif descriptor == self._inbox.descriptor:
                self._read_signals()
            elif self._meters.watched is not None and descriptor == self._meters.watched[0]:
                self._look_for_oom()
            else:
                self._relay(descriptor, mask)
        self._watch_clocks(monotonic_ns())

    def _wait(self, most_ms: int) -> list[tuple[int, int]]:
        """Wait for whatever comes first."""
        wanted = {self._inbox.descriptor: select.POLLIN}
        if not self._dead and self._launcher.pidfd is not None:
            wanted[self._launcher.pidfd] = select.POLLIN
            if self._hears:
                wanted[self._launcher.events] = select.POLLIN
            if self._meters.watched is not None and self._oom_look_ns == _NEVER:
                descriptor, mask = self._meters.watched
                wanted[descriptor] = mask
        for part in (*self.outlets, self._inlet):
            for descriptor, mask in part.interests():
                wanted[descriptor] = wanted.get(descriptor, 0) | mask
        self._register(wanted)
        return self._poller.poll(most_ms)

    def _due_ms(self) -> int:
        """Give when there is something to do even if nothing comes."""
        due = self._kill_ns
        if not self._ended_ns:
            due = min(due, self._wall_due(), self._meters.next_ns, self._oom_look_ns)
        return min(max(0, -(-(due - monotonic_ns()) // _MS)), _LONGEST_WAIT_MS)

    def _wall_due(self) -> int:
        return _NEVER if self._ending else self._wall_ns

    def _register(self, wanted: dict[int, int]) -> None:
        for descriptor in self._polled.keys() - wanted.keys():
            self._poller.unregister(descriptor)
        for descriptor, mask in wanted.items():
            if self._polled.get(descriptor) != mask:
                self._poller.register(descriptor, mask)
        self._polled = wanted

    def _relay(self, descriptor: int, mask: int) -> None:
        for outlet in self.outlets:
            if any(descriptor == wanted for wanted, _ in outlet.interests()):
                self._pass_on(outlet)
        if self._inlet.owns(descriptor):
            self._inlet.relay(descriptor, mask)

    def _pass_on(self, outlet: Outlet) -> None:
        before = outlet.total_bytes
        over = outlet.relay(self._room)
        self._room -= outlet.total_bytes - before - over
        if over:
            for each in self.outlets:
                each.pause()
            self._end(limit="max_output")
        if outlet.failure is not None:
            name = "standard output" if outlet is self.outlets[0] else "standard error"
            self._end(fault=f"{name} could not be written: {os.strerror(outlet.failure)}")

    def _read_events(self) -> None:
        try:
            while (event := self._launcher.next_event()) is not None:
                self._note_event(event)
        except GuestError as error:
            self._end(fault=error.message)
            self._kill()

    def _note_event(self, event: Event) -> None:
        if event.kind == STARTED:
            # Not before: until execve the program is a copy of the init.
            self._meters.begin(monotonic_ns())
            return
        if event.kind == ENDED:
            self._status = event.status
            self._maxrss = event.maxrss_bytes
        elif event.kind == NOT_STARTED:
            self._start_errno = event.errno
        elif event.kind == FAULT:
            cause = os.strerror(event.errno)
            self._end(fault=f"the program could not be started: {event.detail}: {cause}")
        self._ended_ns = monotonic_ns()
        self._kill_ns = min(self._kill_ns, self._ended_ns + _INIT_EXIT_NS)

    def _read_signals(self) -> None:
        for number in self._inbox.take():
            why = STOPPING.get(number)
            if why is None:
                self._follow_terminal()
            elif self._ending:
                self._kill()
            else:
                self._end(stopped=why)

    def _follow_terminal(self) -> None:
        """Take over a new size, and make the terminal raw again after a pause (SIGCONT)."""
        if self.outer is not None and self._launcher.terminal is not None:
            self.outer.copy_size(self._launcher.terminal)
            self.outer.enter()

    def _look_for_oom(self) -> None:
        """Memory ran out. Look now, and again for a while, until somebody was killed for it."""
        now = monotonic_ns()
        if self._meters.ran_out_of_memory():
            self._oom_look_ns = _NEVER
            self._end(limit="memory")
            return
        if self._oom_look_ns == _NEVER:
            self._oom_until_ns = now + _OOM_PATIENCE_NS
        self._oom_look_ns = now + _OOM_LOOK_NS if now < self._oom_until_ns else _NEVER

    def _watch_clocks(self, now_ns: int) -> None:
        if self._dead or self._ended_ns:
            if now_ns >= self._kill_ns and not self._dead:
                self._kill()
            return
        if now_ns >= self._oom_look_ns:
            self._look_for_oom()
        if now_ns >= self._meters.next_ns:
            over = self._meters.check(now_ns)
            if over is not None:
                self._end(limit=over)
            if over == "memory" or self._meters.overspent_ns() > _CPU_GRACE_NS:
                self._kill()
        if now_ns >= self._wall_due():
            self._end(limit="timeout")
        if now_ns >= self._kill_ns:
            self._kill()

    def _end(
        self, *, limit: str | None = None, stopped: str | None = None, fault: str | None = None
    ) -> None:
        """End the program; the first cause is the one that is told."""
        if self._ending:
            return
        self._ending = True
        self._limit, self._stopped, self._fault = limit, stopped, fault
        if self._dead:
            return
        if limit == "memory":
            self._kill()
        else:
            self._launcher.terminate()
            self._kill_ns = min(self._kill_ns, monotonic_ns() + GRACE_NS)

    def _kill(self) -> None:
        self._ending = True
        self._killed = self._killed or self._status is None
        self._kill_ns = _NEVER
        self._launcher.kill()

    def drain(self) -> None:
        """Pass on what the dead have left in the pipes, as long as the caller takes it.

        Within the wall limit a slow reader gets his time. What he has not taken by then is not
        passed on, and a run that was good until here has met its time limit.
        """
        self._inlet.close()
        while any(outlet.interests() for outlet in self.outlets):
            until = self._ended_ns + _DRAIN_NS
            if not self._ending:
                until = max(until, self._wall_ns)
            left_ms = -(-(until - monotonic_ns()) // _MS)
            if left_ms <= 0:
                self._end(limit="timeout")
                return
            for descriptor, mask in self._wait(left_ms):
                if descriptor == self._inbox.descriptor:
                    self._read_signals()
                else:
                    self._relay(descriptor, mask)

    def answer(self) -> ProgramAnswer:
        """Give how it ended."""
        usage = self._launcher.finish()
        figures, reached = self._finish_meters(usage)
        code = None if self._status is None else os.waitstatus_to_exitcode(self._status)
        signal = None if code is None or code >= 0 else -code
        if self._killed and code is None and self._start_errno is None and self._fault is None:
            signal = 9
        stdout, stderr = (outlet.result() for outlet in self.outlets)
        return ProgramAnswer(
            exit_code=None if code is None or code < 0 else code,
            signal=signal,
            start_errno=self._start_errno,
            limit=self._limit,
            reached=reached,
            stopped=self._stopped,
            fault=self._fault,
            killed=self._killed,
            by_kernel=self._limit == "memory" and self._meters.ran_out_of_memory() is not None,
            wall_ns=self._ended_ns - self._started_ns,
            usage=figures,
            stdout=stdout,
            stderr=stderr,
            exceeded=self._meters.exceeded,
        )

    def _finish_meters(
        self, usage: resource.struct_rusage | None
    ) -> tuple[TreeUsage, tuple[str, ...]]:
        return self._meters.finish(usage, self._init_ns, self._maxrss, self._floor)

    def close(self) -> None:
        """Close our ends of the streams."""
        self._inlet.close()
        for outlet in self.outlets:
            outlet.close()


def _spent_by(dead: int, before_ns: int) -> int:
    """Give what the init spent itself, known once it is dead and as long as it is not reaped."""
    try:
        return own_cpu_ns(dead)
    except (OSError, ValueError, IndexError):
        return before_ns


def _connect(
    launcher: Running, pipes: Pipes | None, streams: Streams
) -> tuple[tuple[Outlet, Outlet], Inlet]:
    """Join the program's streams, or its terminal, to the caller's."""
    head = streams.head_bytes
    if pipes is not None:
        stdout = Outlet(pipes.stdout, streams.stdout, head)
        stderr = Outlet(pipes.stderr, streams.stderr, head)
        return (stdout, stderr), Inlet(streams.stdin, pipes.stdin)
    if launcher.terminal is None:
        raise AssertionError("a program with neither pipes nor a terminal")
    os.set_blocking(launcher.terminal, False)
    screen = Outlet(os.dup(launcher.terminal), streams.stdout, head, terminal=True)
    keyboard = Inlet(streams.stdin, launcher.terminal, terminal=True)
    return (screen, Outlet(None, None, 0)), keyboard
