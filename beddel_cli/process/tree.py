"""What a program's tree uses, read from /proc, where no cgroup counts it.

The walk starts at the init of the sandbox, which adopts every orphan in it, so that nobody leaves
the tree. All figures are lower bounds: a process that lives and dies between two readings shows
only through its parent, and not even there when the parent refuses to hear of dead children.

Sources: proc_pid_stat(5), proc_pid_status(5), proc_pid_smaps(5), proc_tid_children(5).
"""

from __future__ import annotations

import os
from time import monotonic_ns

from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
# Adding up shared pages by their share means that the kernel walks page tables; it may take this
# part of the time, except where the cheap figure is above the limit and only the exact one decides.
_EXACT_EVERY = 20
_READ_BYTES = 8192
_SHORT_BYTES = 2048


@record
class ProcessStat:
    """One line of /proc/PID/stat: ticks of itself, ticks of children it has waited for."""

    pid: int
    parent: int
    own_ticks: int
    children_ticks: int
    threads: int
    start: int


@record
class Resident:
    """Memory lines of /proc/PID/status in bytes; `peak` is all that was resident at once.

    `tables` are page tables: reading one byte in every two megabytes costs nothing else.
    """

    anonymous: int
    shared: int
    peak: int
    tables: int


@record
class Reading:
    """One look at the tree; the init is not in it.

    Attributes:
        cpu_ns: spent so far, never less than in an earlier reading.
        memory_bytes: anonymous and shared memory and page tables; shared pages counted once if
            `exact`, else once for each process that has them.
        largest_bytes: resident peak of the largest process.
    """

    cpu_ns: int
    memory_bytes: int
    exact: bool
    processes: int
    threads: int
    largest_bytes: int


def parse_stat(text: str) -> ProcessStat:
    """Read /proc/PID/stat, whose second field is chosen by the program.

    Raises:
        ValueError, IndexError: the text is not such a line.
    """
    pid, _, rest = text.partition(" ")
    fields = rest.rpartition(")")[2].split()
    return ProcessStat(
        pid=int(pid),
        parent=int(fields[1]),
        own_ticks=int(fields[11]) + int(fields[12]),
        children_ticks=int(fields[13]) + int(fields[14]),
        threads=int(fields[17]),
        start=int(fields[19]),
    )


def parse_resident(status: str) -> Resident:
    """Read the memory lines of /proc/PID/status; a process without memory (a zombie) has none.

    The name in it is the program's choice, and may hold all that separates lines but a line feed.
    """
    found = {"RssAnon": 0, "RssShmem": 0, "VmHWM": 0, "VmPTE": 0}
    for line in status.split("\n"):
        name, _, value = line.partition(":")
        if name in found:
            found[name] = int(value.split()[0]) * 1024
    return Resident(found["RssAnon"], found["RssShmem"], found["VmHWM"], found["VmPTE"])


def parse_share(rollup: str) -> tuple[int, int] | None:
    """Read the proportional anonymous and shared memory of a smaps_rollup, in bytes."""
    found = {}
    for line in rollup.splitlines():
        name, _, value = line.partition(":")
        if name in ("Pss_Anon", "Pss_Shmem"):
            found[name] = int(value.split()[0]) * 1024
    if len(found) != 2:
        return None
    return found["Pss_Anon"], found["Pss_Shmem"]


def own_cpu_ns(pid: int) -> int:
    """Give the CPU time of a process with one thread, without that of its children.

    Works until it is reaped.

    Raises:
        OSError, ValueError, IndexError: /proc does not show it.
    """
    try:
        # Nanoseconds, where the kernel keeps them (CONFIG_SCHED_INFO); ticks round down.
        return int(_read(f"/proc/{pid}/schedstat").split()[0])
    except FileNotFoundError:
        return parse_stat(_read(f"/proc/{pid}/stat")).own_ticks * _TICK_NS


class Tree:
    """The processes below one init. Made before the program starts: only later figures count.

    Args:
        counts_init: whether what the init itself spends from now on is the tree's.

    Raises:
        OSError: /proc does not show the init, so nothing could be counted.
    """

    def __init__(self, init: int, counts_init: bool = False) -> None:
        self._init = init
        self._counts_init = counts_init
        self._lists_children = os.path.exists(f"/proc/{init}/task/{init}/children")
        stat = parse_stat(_read(f"/proc/{init}/stat"))
        # What is there already will be the program; what it has spent so far was ours.
        before = sum(each.own_ticks for each in self._walk(1))
        self._base_ticks = self._init_ticks(stat) + before
        self._before_ticks = before
        self._seen: dict[tuple[int, int], int] = {}
        self._gone_ticks = 0
        self._cpu_ticks = 0
        self._exact_ns = 0
        self._exact_at = 0

    def read(self, limit_bytes: int, most_processes: int, elsewhere_bytes: int = 0) -> Reading:
        """Look at every process once.

        Args:
            most_processes: look at no more; a fork bomb must not keep its watcher busy.
            limit_bytes: where the memory limit is; near it the exact figure is taken.
            elsewhere_bytes: memory of the tree's own file systems, in no process or in several.
        """
        stats = self._walk(most_processes)
        self._count_cpu(stats)
        residents = [found for stat in stats for found in resident(stat.pid)]
        tables = sum(each.tables for each in residents)
        anonymous = sum(each.anonymous for each in residents)
        shared = sum(each.shared for each in residents)
        exact = len(residents) <= 1
        rough = tables + anonymous + max(shared, elsewhere_bytes)
        if not exact and self._may_be_exact(rough, limit_bytes):
            anonymous, shared = self._shares([stat.pid for stat in stats])
            exact = True
        return Reading(
            cpu_ns=self._cpu_ticks * _TICK_NS,
            # What is mapped of those file systems is in both figures; the larger holds anyway.
            memory_bytes=tables + anonymous + max(shared, elsewhere_bytes),
            exact=exact,
            processes=len(stats),
            threads=sum(stat.threads for stat in stats),
            largest_bytes=max((each.peak for each in residents), default=0),
        )

    def _may_be_exact(self, rough_bytes: int, limit_bytes: int) -> bool:
        if rough_bytes > limit_bytes:
            return True
        return monotonic_ns() - self._exact_at > self._exact_ns * _EXACT_EVERY

    def _shares(self, pids: list[int]) -> tuple[int, int]:
        """Give anonymous and shared memory of all, each page counted once."""
        started = monotonic_ns()
        anonymous = shared = 0
        for pid in pids:
            try:
                share = parse_share(_read(f"/proc/{pid}/smaps_rollup"))
            except OSError:
                share = None
            if share is None:
                # One that has made itself unreadable is charged in full.
                share = next(((r.anonymous, r.shared) for r in resident(pid)), (0, 0))
            anonymous += share[0]
            shared += share[1]
        self._exact_at = monotonic_ns()
        self._exact_ns = self._exact_at - started
        return anonymous, shared

    def _count_cpu(self, stats: list[ProcessStat]) -> None:
        """Raise the CPU figure to the better of two lower bounds.

        One adds up what parents were told of dead children. The other adds up what each process
        was last seen to have spent, and so holds where a parent does not want to be told.
        """
        try:
            adopted = self._init_ticks(parse_stat(_read(f"/proc/{self._init}/stat")))
        except (OSError, ValueError, IndexError):
            adopted = self._base_ticks  # the init is gone; earlier readings stand
        told = sum(stat.own_ticks + stat.children_ticks for stat in stats)
        now = {(stat.pid, stat.start): stat.own_ticks for stat in stats}
        self._gone_ticks += sum(ticks for who, ticks in self._seen.items() if who not in now)
        self._seen = now
        seen = self._gone_ticks + sum(now.values()) - self._before_ticks
        self._cpu_ticks = max(self._cpu_ticks, told + adopted - self._base_ticks, seen)

    def _init_ticks(self, stat: ProcessStat) -> int:
        return stat.children_ticks + (stat.own_ticks if self._counts_init else 0)

    def _walk(self, most: int) -> list[ProcessStat]:
        children = self._children if self._lists_children else _scan()
        found: dict[int, ProcessStat] = {}
        waiting = list(children(self._init, 1))
        while waiting and len(found) < most:
            pid = waiting.pop()
            if pid in found:
                continue
            try:
                stat = parse_stat(_read(f"/proc/{pid}/stat"))
            except (OSError, ValueError, IndexError):
                continue  # gone meanwhile
            found[pid] = stat
            waiting += children(pid, stat.threads)
        return list(found.values())

    def _children(self, pid: int, threads: int) -> list[int]:
        """Give the children of all threads of a process."""
        listed = []
        try:
            tasks = [str(pid)] if threads == 1 else os.listdir(f"/proc/{pid}/task")
        except OSError:
            return []
        for task in tasks:
            try:
                listed += [int(word) for word in _read(f"/proc/{pid}/task/{task}/children").split()]
            except OSError:
                continue  # gone meanwhile
        return listed


def _scan() -> Callable[[int, int], list[int]]:
    """Give a function that lists children, for a kernel that does not (CONFIG_PROC_CHILDREN)."""
    by_parent: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = parse_stat(_read(f"/proc/{name}/stat"))
            except (OSError, ValueError, IndexError):
                continue  # gone meanwhile
            by_parent.setdefault(stat.parent, []).append(stat.pid)
    return lambda pid, threads: by_parent.get(pid, [])


def resident(pid: int) -> tuple[Resident, ...]:
    """Give the memory of a process, nothing if it is gone."""
    try:
        found = parse_resident(_read(f"/proc/{pid}/status"))
        if not found.peak:
            # Its first thread may have ended, and has no memory then; the others still hold it.
            tasks = (_task(pid, name) for name in os.listdir(f"/proc/{pid}/task"))
            found = max(tasks, key=lambda each: each.peak, default=found)
    except (OSError, ValueError, IndexError):
        return ()
    return (found,)


def _task(pid: int, task: str) -> Resident:
    try:
        return parse_resident(_read(f"/proc/{pid}/task/{task}/status"))
    except OSError:
        return Resident(0, 0, 0, 0)


def _read(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(descriptor, _READ_BYTES)
        # The kernel gives these files by pages at most, so less than half a page is all there is;
        # a list of children is as long as a fork bomb made it.
        more = data
        while len(more) >= _SHORT_BYTES and (more := os.read(descriptor, _READ_BYTES)):
            data += more
    finally:
        os.close(descriptor)
    return data.decode("utf-8", "surrogateescape")
