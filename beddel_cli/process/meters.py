"""What a running tree uses, by the best source there is for each figure, and when to look again.

A cgroup leaf is asked where it holds the controller; /proc is walked where it does not. Looking
costs time, so each look is put off as long as no limit can have been reached: a tree cannot spend
more CPU time than there are CPUs.
"""

from __future__ import annotations

import os
from time import monotonic_ns

from beddel_cli.process.program import TreeUsage
from beddel_cli.process.tree import resident
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import resource

    from beddel_cli.process.cgroup import Leaf, LeafUsage
    from beddel_cli.process.scratch import ScratchMeter
    from beddel_cli.process.sockets import Sockets
    from beddel_cli.process.tree import Tree

_MS = 1_000_000
_CPU_SOONEST_NS = 2 * _MS
_TREE_NS = 20 * _MS
# A tree of many processes takes long to walk. Up to here the walk may be put off, so that it takes
# no more than a hundredth of the time; limits come first beyond that.
_TREE_LATEST_NS = 100 * _MS
_TREE_SHARE = 100
# A tree that has done nothing lately is looked at less often.
_TREE_IDLE_NS = 60 * _MS
_SAMPLE_FIRST_NS = 4 * _MS
# What no cgroup counts can grow by this much time's worth beyond the limit.
_SAMPLE_LATEST_NS = 100 * _MS
# Reading the peak of each process is only worth it while they are few.
_LOOKED_AT = 16
# What the init may have grown by until it forked.
_FLOOR_MARGIN_BYTES = 4 << 20
_NEVER = 1 << 62


@record
class ProgramLimits:
    """What a program's whole tree may use.

    Attributes:
        wall_ns: from the start of the program to the end of its output.
        cpus_milli: thousandths of a CPU; None without such a limit. Where no cgroup slows the tree
            down to it, the tree has that share of `wall_ns` as CPU time.
        output_bytes: standard output and standard error together.
    """

    wall_ns: int
    cpu_ns: int
    cpus_milli: int | None
    memory_bytes: int
    processes: int
    output_bytes: int


class Meters:
    """Checks limits while a program runs, and gives its figures when it has ended.

    Attributes:
        next_ns: when to call `check` next, on the monotonic clock.
        watched: a descriptor that polls ready when memory ran out, and what to poll it for.
        exceeded: `disk` or `inodes` where the last look at a scratch folder found too much.
    """

    def __init__(
        self,
        limits: ProgramLimits,
        leaf: Leaf | None,
        tree: Tree | None,
        upper: int | None,
        sockets: Sockets | None = None,
        scratch: ScratchMeter | None = None,
    ) -> None:
        held = {} if leaf is None else leaf.held
        self._limits = limits
        self._leaf = leaf
        self._tree = tree
        # A scratch folder lies on a file system of the host's, which says nothing of the program.
        self._scratch = scratch
        self._upper = upper if scratch is None else None
        self._sockets = sockets
        self._saw_sockets = False
        self._cpu_by_leaf = "cpuacct" in held
        self._memory_by_leaf = "memory" in held
        self._processes_by_leaf = "pids" in held
        self._budget_ns, self._budget_key = _cpu_budget(limits, slowed="cpu" in held)
        self._cpus = os.cpu_count() or 1
        self._cpu_ns = 0
        self._anonymous = self._largest = self._threads = self._samples = 0
        self._exact = True
        self._reached: set[str] = set()
        self._disk_before = _used(self._upper)
        self._next_cpu_ns = self._next_tree_ns = self._next_sample_ns = _NEVER
        self._sample_every_ns = _SAMPLE_FIRST_NS
        self._tree_every_ns = _TREE_NS
        self._tree_cpu_ns = 0
        self._over_ns = 0
        self.exceeded: str | None = None
        self.next_ns = _NEVER
        self.watched = None if leaf is None or not self._memory_by_leaf else leaf.watch_oom()
        self._asks_for_oom = self._memory_by_leaf and self.watched is None

    def begin(self, now_ns: int) -> None:
        """The program starts now."""
        if self._cpu_by_leaf:
            self._next_cpu_ns = now_ns + self._budget_ns // self._cpus
        if self._tree is not None:
            self._next_tree_ns = now_ns + _SAMPLE_FIRST_NS
        self._next_sample_ns = now_ns + _SAMPLE_FIRST_NS
        if self._scratch is not None:
            self._scratch.next_ns = now_ns + _SAMPLE_FIRST_NS
        self._plan_next()

    def _plan_next(self) -> None:
        self.next_ns = min(self._next_cpu_ns, self._next_tree_ns, self._next_sample_ns)
        if self._scratch is not None:
            self.next_ns = min(self.next_ns, self._scratch.next_ns)

    def check(self, now_ns: int) -> str | None:
        """Look at what is due; gives the key of a limit that was exceeded."""
        over = None
        if now_ns >= self._next_sample_ns:
            over = self._sample()
            self._sample_every_ns = min(self._sample_every_ns * 3 // 2, _SAMPLE_LATEST_NS)
            self._next_sample_ns = now_ns + self._sample_every_ns
            if self._asks_for_oom:
                over = self.ran_out_of_memory() or over
                self._next_sample_ns = min(self._next_sample_ns, now_ns + _TREE_NS)
        if now_ns >= self._next_tree_ns:
            over = self._look_at_tree() or over
        if now_ns >= self._next_cpu_ns:
            over = self._look_at_cpu(now_ns) or over
        if self._scratch is not None and now_ns >= self._scratch.next_ns:
            over = self._look_at_scratch(self._scratch) or over
        self._plan_next()
        return over

    def ran_out_of_memory(self) -> str | None:
        """Tell whether the kernel killed a process of the leaf for memory."""
        if self._leaf is None or not self._memory_by_leaf:
            return None
        return "memory" if self._leaf.oom_kills() else None

    def overspent_ns(self) -> int:
        """Give by how much the CPU budget is exceeded."""
        return self._over_ns

    def _look_at_cpu(self, now_ns: int) -> str | None:
        used = None if self._leaf is None else self._leaf.cpu_ns()
        if used is not None:
            self._cpu_ns = max(self._cpu_ns, used)
        left = self._budget_ns - self._cpu_ns
        self._next_cpu_ns = now_ns + max(left // self._cpus, _CPU_SOONEST_NS)
        return self._cpu_verdict()

    def _cpu_verdict(self) -> str | None:
        self._over_ns = max(0, self._cpu_ns - self._budget_ns)
        return self._budget_key if self._over_ns else None

    def _look_at_tree(self) -> str | None:
        if self._tree is None:
            return None
        started = monotonic_ns()
        disk = max(0, _used(self._upper)[0] - self._disk_before[0])
        processes = self._limits.processes
        held = 0 if self._memory_by_leaf else self._held_by_sockets()
        # What sockets hold takes from the room, so that near the limit the rest is counted exactly.
        reading = self._tree.read(self._limits.memory_bytes - held, processes + 1, disk)
        ended = monotonic_ns()
        idle = reading.cpu_ns == self._tree_cpu_ns
        self._tree_cpu_ns = reading.cpu_ns
        self._tree_every_ns = min(self._tree_every_ns * 3 // 2, _TREE_IDLE_NS) if idle else _TREE_NS
        pause = min((ended - started) * _TREE_SHARE, _TREE_LATEST_NS)
        self._next_tree_ns = ended + max(self._tree_every_ns, pause)
        self._threads = max(self._threads, reading.threads)
        self._largest = max(self._largest, reading.largest_bytes)
        over = None
        if not self._memory_by_leaf:
            self._samples += 1
            if reading.exact:
                self._anonymous = max(self._anonymous, reading.memory_bytes + held)
            if reading.memory_bytes + held > self._limits.memory_bytes:
                over = "memory"
        if not self._cpu_by_leaf:
            self._cpu_ns = max(self._cpu_ns, reading.cpu_ns)
            over = over or self._cpu_verdict()
        if not self._processes_by_leaf and reading.threads >= processes:
            self._reached.add("processes")
            if reading.threads > processes:
                # The rlimit that should hold here does not.
                over = over or "processes"
        return over

    def _held_by_sockets(self) -> int:
        """Give what sockets hold beyond what the leaf counts."""
        held = 0 if self._sockets is None else self._sockets.held_bytes()
        self._saw_sockets = self._saw_sockets or held > 0
        return held

    def _sample(self) -> str | None:
        """Take the figures that the kernel holds to their limits, and what it does not count."""
        over = None
        if self._leaf is not None and self._memory_by_leaf:
            anonymous = self._leaf.anonymous_bytes()
            held = self._held_by_sockets()
            if anonymous is not None:
                self._samples += 1
                self._anonymous = max(self._anonymous, anonymous + held)
            if held and (anonymous or 0) + held > self._limits.memory_bytes:
                over = "memory"
            for pid in self._leaf.processes()[:_LOOKED_AT]:
                self._largest = max(self._largest, _resident_peak(pid))
        self._look_at_disk()
        return over

    def _look_at_scratch(self, scratch: ScratchMeter) -> str | None:
        over = scratch.look()
        if over is not None:
            self._reached.add(over)
        return over

    def _look_at_disk(self) -> None:
        if self._upper is None:
            return
        found = os.fstatvfs(self._upper)
        if found.f_blocks and found.f_bavail == 0:
            self._reached.add("disk")
        if found.f_files and found.f_ffree == 0:
            self._reached.add("inodes")

    def finish(
        self,
        usage: resource.struct_rusage | None,
        init_ns: int,
        maxrss_bytes: int,
        floor_bytes: int,
    ) -> tuple[TreeUsage, tuple[str, ...]]:
        """Give the final figures and the limits that were reached; the tree is dead.

        Args:
            usage: of the init and all it reaped; `init_ns` of its CPU time was spent before.
            maxrss_bytes: resident peak of the program and those it waited for, which says nothing
                below `floor_bytes`: what the init had when it forked.
        """
        charged = None if self._leaf is None else self._leaf.usage()
        self._look_at_disk()
        if self._scratch is not None:
            self.exceeded = self._look_at_scratch(self._scratch)
        # The rlimit behind the controller may refuse first, and then only the peak tells.
        if charged is not None and (
            charged.processes_refused or (charged.processes_peak or 0) >= self._limits.processes
        ):
            self._reached.add("processes")
        cpu_ns, cpu_source = self._cpu_ns, "init rusage and /proc tree, sampled"
        if self._cpu_by_leaf and charged is not None and charged.cpu_ns is not None:
            cpu_ns, cpu_source = charged.cpu_ns, _file(self._leaf, "cpuacct")
        elif usage is not None:
            cpu_ns = max(cpu_ns, round((usage.ru_utime + usage.ru_stime) * 1e9) - init_ns)
        peak = None if charged is None else charged.memory_peak_bytes
        largest, largest_source = self._largest_of(maxrss_bytes, floor_bytes)
        processes, processes_source = self._processes_of(charged)
        blocks, inodes, disk_source = self._disk_of()
        return (
            TreeUsage(
                cpu_ns=cpu_ns,
                cpu_source=cpu_source,
                cpu_exact=self._cpu_by_leaf,
                memory_peak_bytes=peak,
                memory_peak_source=self._peak_source(peak),
                anonymous_peak_bytes=self._anonymous if self._samples else None,
                anonymous_peak_source=self._anonymous_source(),
                samples=self._samples,
                largest_process_bytes=largest,
                largest_process_source=largest_source,
                processes_peak=processes,
                processes_peak_source=processes_source,
                disk_bytes=blocks,
                inodes=inodes,
                disk_source=disk_source,
            ),
            tuple(sorted(self._reached)),
        )

    def _disk_of(self) -> tuple[int | None, int | None, str]:
        if self._scratch is not None:
            found = self._scratch
            return found.used_bytes, found.used_inodes, "scratch folder, looked through at the end"
        if self._upper is None:
            return None, None, ""
        blocks, inodes = _used(self._upper)
        before = self._disk_before
        return max(0, blocks - before[0]), max(0, inodes - before[1]), "kernel, statvfs at the end"

    def _anonymous_source(self) -> str:
        if not self._samples:
            return ""
        where = _file(self._leaf, "memory now") if self._memory_by_leaf else "/proc tree"
        if self._saw_sockets:
            where += " and sock_diag"
        return f"{where}, largest sample, a lower bound"

    def _peak_source(self, peak: int | None) -> str:
        return "" if peak is None else f"{_file(self._leaf, 'memory')}, exact, page cache included"

    def _largest_of(self, maxrss_bytes: int, floor_bytes: int) -> tuple[int | None, str]:
        if maxrss_bytes > max(floor_bytes + _FLOOR_MARGIN_BYTES, self._largest):
            return maxrss_bytes, "kernel, wait4 of the program, exact"
        return (
            (self._largest, "VmHWM of /proc, largest sample, a lower bound")
            if self._largest
            else (None, "")
        )

    def _processes_of(self, charged: LeafUsage | None) -> tuple[int | None, str]:
        if charged is not None and charged.processes_peak is not None:
            return charged.processes_peak, _file(self._leaf, "pids")
        return (
            (self._threads, "/proc tree, largest sample, a lower bound")
            if self._threads
            else (None, "")
        )


def _cpu_budget(limits: ProgramLimits, *, slowed: bool) -> tuple[int, str]:
    """Give the CPU time that ends a run, and the key of the limit that it stands for."""
    if limits.cpus_milli is not None and not slowed:
        share = limits.wall_ns * limits.cpus_milli // 1000
        if share < limits.cpu_ns:
            return share, "cpus"
    return limits.cpu_ns, "cpu_time"


# Where a leaf's figures come from, by controller and version of cgroups.
_FILES = {
    "cpuacct": {1: "cpuacct.usage", 2: "cpu.stat"},
    "memory": {1: "memory.max_usage_in_bytes", 2: "memory.peak"},
    "memory now": {1: "memory.stat", 2: "memory.stat"},
    "pids": {1: "pids.peak", 2: "pids.peak"},
}


def _file(leaf: Leaf | None, what: str) -> str:
    if leaf is None:
        return ""
    version = leaf.held[what.partition(" ")[0]]
    return f"cgroup v{version} {_FILES[what][version]}"


def _used(folder: int | None) -> tuple[int, int]:
    """Give bytes and inodes in use on a file system of the program's own."""
    if folder is None:
        return 0, 0
    found = os.fstatvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize, found.f_files - found.f_ffree


def _resident_peak(pid: int) -> int:
    return max((each.peak for each in resident(pid)), default=0)
