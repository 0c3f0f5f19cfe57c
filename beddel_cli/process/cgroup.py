"""A cgroup leaf of its own for a program's tree: limits, accounting and a kill that miss nobody.

A leaf is a fresh cgroup below the one this command runs in, so that every limit set above still
holds. Only the program joins it, by writing to descriptors that the supervisor opened: the kernel
judges such a write by the credentials of the opener. Version 2 is used for what version 1 does not
carry; on most machines only one of them has controllers at all.

A leaf is named `beddel-NAMESPACE-PID-START-RANDOM` after the supervisor that made it: the inode of
its process-id namespace, its process id there and its start time. That is enough for a later run to
tell that nobody is left who would remove it.

Sources: cgroups(7); Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of the kernel;
proc_pid_mountinfo(5).
"""

from __future__ import annotations

import errno
import os
import select
from time import sleep

from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_PREFIX = "beddel-"
_PERIOD_US = 100_000
# The kernel takes no quota below this, so small shares are counted over a longer period.
_SMALLEST_QUOTA_US = 1000
_LONGEST_PERIOD_US = 1_000_000
_SOCKETS_LIMIT = "memory.kmem.tcp.limit_in_bytes"
# Beside the memory limit, this part of it for the buffers of internet sockets, where version 1
# counts them apart.
_SOCKETS_PART = 8
_READ_BYTES = 16384
_SIGKILL = 9
# A cgroup whose last process was just reaped can still be busy for a moment.
_REMOVE_WAITS_S = (0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)


@record
class Problem:
    """Something that cgroups could not give: what, the file or cause, and the errno (0: none)."""

    what: str
    detail: str
    errno: int


@record
class CgroupMount:
    """One mounted cgroup hierarchy, as /proc/self/mountinfo shows it; `root` is what it shows."""

    version: int
    controllers: frozenset[str]
    root: str
    point: str
    writable: bool


@record
class Hierarchy:
    """Where this process is in one hierarchy: its own folder, and the top of what is mounted."""

    version: int
    controllers: frozenset[str]
    folder: str
    top: str


@record
class Asked:
    """What a leaf shall limit. `cpus_milli`: thousandths of a CPU, None without such a limit."""

    memory_bytes: int
    processes: int
    cpus_milli: int | None


@record
class LeafUsage:
    """What the kernel charged to a leaf. None: its controller is not held, or too old to say."""

    cpu_ns: int | None
    memory_peak_bytes: int | None
    anonymous_bytes: int | None
    processes_peak: int | None
    processes_refused: int | None
    oom_kills: int | None


def parse_mounts(mountinfo: str) -> tuple[CgroupMount, ...]:
    """Read the cgroup hierarchies out of a mountinfo, the last mount on a point winning."""
    found: dict[str, CgroupMount] = {}
    for line in mountinfo.splitlines():
        if "cgroup" not in line:
            continue  # a machine can have hundreds of mounts
        before, separator, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if not separator or len(fields) < 6 or len(kinds) < 3:
            continue
        point = _unescape(fields[4])
        found.pop(point, None)
        if kinds[0] not in ("cgroup", "cgroup2"):
            continue
        version = 2 if kinds[0] == "cgroup2" else 1
        options = kinds[2].split(",")
        found[point] = CgroupMount(
            version=version,
            controllers=frozenset(options) - {"ro", "rw"} if version == 1 else frozenset(),
            root=_unescape(fields[3]),
            point=point,
            writable="ro" not in options and "ro" not in fields[5].split(","),
        )
    return tuple(found.values())


def _unescape(text: str) -> str:
    """Undo the octal escapes of mountinfo."""
    for escaped, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escaped, plain)
    return text


def parse_membership(cgroup: str) -> dict[str, str]:
    """Read /proc/self/cgroup: the own path by controller, that of version 2 under the name ''."""
    paths = {}
    for line in cgroup.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(","):
                paths[controller] = parts[2]
    return paths


def find_hierarchies(
    mounts: Iterable[CgroupMount], membership: dict[str, str]
) -> tuple[Hierarchy, ...]:
    """Give the hierarchies in which this process's own cgroup can be reached, each once.

    One that is mounted several times is taken where it can be written. A path that does not lie
    below a mount's root (another container's mount, a foreign cgroup namespace) is out of reach.
    """
    found: dict[tuple[int, frozenset[str]], Hierarchy] = {}
    for mount in sorted(mounts, key=lambda mount: not mount.writable):
        key = (mount.version, mount.controllers)
        # A mount of version 1 lists other options among its controllers; membership knows none.
        names = ("",) if mount.version == 2 else sorted(mount.controllers)
        own = next((membership[name] for name in names if name in membership), None)
        inside = None if own is None else _below(own, mount.root)
        if inside is not None and key not in found:
            folder = mount.point.rstrip("/") + inside
            found[key] = Hierarchy(mount.version, mount.controllers, folder, mount.point)
    return tuple(found.values())


def _below(path: str, root: str) -> str | None:
    """Give a path relative to a root, '' for the root itself, None where it is not below."""
    if ".." in path.split("/") or ".." in root.split("/"):
        return None
    root, path = root.rstrip("/"), path.rstrip("/")
    if path == root or path.startswith(root + "/"):
        return path[len(root) :]
    return None


def read_hierarchies() -> tuple[Hierarchy, ...]:
    """Give the hierarchies of this process. Without /proc or cgroups there are none."""
    mounts, membership = _read("/proc/self/mountinfo"), _read("/proc/self/cgroup")
    if mounts is None or membership is None:
        return ()
    return find_hierarchies(parse_mounts(mounts), parse_membership(membership))


def own_procs(hierarchies: tuple[Hierarchy, ...]) -> str | None:
    """Give the cgroup.procs of a cgroup that this process is in and could join anew."""
    files = (f"{place.folder}/cgroup.procs" for place in hierarchies)
    return next((file for file in files if os.access(file, os.W_OK)), None)


def cpu_quota(cpus_milli: int) -> tuple[int, int]:
    """Give quota and period in microseconds for a share in thousandths of a CPU."""
    period = _PERIOD_US
    if cpus_milli * period // 1000 < _SMALLEST_QUOTA_US:
        period = _LONGEST_PERIOD_US
    return max(cpus_milli * period // 1000, _SMALLEST_QUOTA_US), period


def settings(version: int, controller: str, asked: Asked) -> tuple[tuple[str, str], ...]:
    """Give the files to write, in order, for one controller. Swap and extras are not among them."""
    if controller == "memory":
        name = "memory.max" if version == 2 else "memory.limit_in_bytes"
        return ((name, str(asked.memory_bytes)),)
    if controller == "pids":
        return (("pids.max", str(asked.processes)),)
    if controller == "cpu" and asked.cpus_milli is not None:
        quota, period = cpu_quota(asked.cpus_milli)
        if version == 2:
            return (("cpu.max", f"{quota} {period}"),)
        return (("cpu.cfs_period_us", str(period)), ("cpu.cfs_quota_us", str(quota)))
    return ()


def parse_flat(text: str) -> dict[str, int]:
    """Read a file of `name number` lines (memory.stat, cpu.stat, memory.events, oom_control)."""
    numbers = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.isascii() and value.isdigit():
            numbers[name] = int(value)
    return numbers


class Leaf:
    """One cgroup of one run, in every hierarchy it takes. Made by `make_leaf`.

    Attributes:
        held: which of `memory`, `pids`, `cpu`, `cpuacct` this leaf limits or counts, and by which
            version of cgroups.
        folders: its folders.
    """

    def __init__(self, held: dict[str, tuple[int, str]]) -> None:
        self.held = {name: version for name, (version, _) in held.items()}
        self.folders = tuple(dict.fromkeys(folder for _, folder in held.values()))
        self._where = held
        self._files: dict[str, int | None] = {}
        self._watch: tuple[int, ...] = ()

    def open_procs(self) -> tuple[int, ...]:
        """Open what a process writes `0` to in order to join; the caller closes them.

        Raises:
            OSError: a cgroup.procs cannot be opened for writing.
        """
        opened: list[int] = []
        try:
            for folder in self.folders:
                opened.append(os.open(f"{folder}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))
        except OSError:
            for descriptor in opened:
                os.close(descriptor)
            raise
        return tuple(opened)

    def cpu_ns(self) -> int | None:
        """Give the CPU time of all that ever ran in it, dead processes included."""
        if self.held.get("cpuacct") == 1:
            usage = self._text("cpuacct", "cpuacct.usage")
            return None if usage is None else int(usage)
        microseconds = parse_flat(self._text("cpuacct", "cpu.stat") or "").get("usage_usec")
        return None if microseconds is None else microseconds * 1000

    def oom_kills(self) -> int | None:
        """Give how many of its processes the kernel killed for memory."""
        name = "memory.events" if self.held.get("memory") == 2 else "memory.oom_control"
        if self._watch:
            _read_event(self._watch[0])
        return parse_flat(self._text("memory", name) or "").get("oom_kill")

    def anonymous_bytes(self) -> int | None:
        """Give its anonymous and shared memory of this moment, without page cache."""
        numbers = parse_flat(self._text("memory", "memory.stat") or "")
        private = numbers.get("anon" if self.held.get("memory") == 2 else "rss")
        shared = numbers.get("shmem")
        return None if private is None or shared is None else private + shared

    def processes_refused(self) -> int | None:
        """Give how often a new process or thread was refused by the limit."""
        return parse_flat(self._text("pids", "pids.events") or "").get("max")

    def usage(self) -> LeafUsage:
        """Give all that the kernel counted."""
        peak = "memory.peak" if self.held.get("memory") == 2 else "memory.max_usage_in_bytes"
        return LeafUsage(
            cpu_ns=self.cpu_ns(),
            memory_peak_bytes=_number(self._text("memory", peak)),
            anonymous_bytes=self.anonymous_bytes(),
            processes_peak=_number(self._text("pids", "pids.peak")),
            processes_refused=self.processes_refused(),
            oom_kills=self.oom_kills(),
        )

    def watch_oom(self) -> tuple[int, int] | None:
        """Give a descriptor that polls ready when memory ran out, and what to poll it for.

        None where there is none. Ready is a hint to ask `oom_kills`, which makes it unready again.
        """
        if "memory" not in self.held:
            return None
        folder = self._where["memory"][1]
        if self.held["memory"] == 2:
            self._text("memory", "memory.events")  # the first reading arms it
            events = self._files.get("memory.events")
            return None if events is None else (events, select.POLLPRI)
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        control = None
        try:
            control = os.open(f"{folder}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            _write(f"{folder}/cgroup.event_control", f"{event} {control}")
        except OSError:
            os.close(event)
            if control is not None:
                os.close(control)
            return None
        self._watch = (event, control)
        return event, select.POLLIN

    def processes(self) -> tuple[int, ...]:
        """Give the processes in it, by the ids of this process's namespace."""
        listed: set[int] = set()
        for folder in self.folders:
            text = _read(f"{folder}/cgroup.procs") or ""
            listed.update(int(word) for word in text.split())
        return tuple(sorted(listed - {0}))

    def kill(self) -> None:
        """Kill every process in it, those that are just being forked too."""
        for folder in self.folders:
            try:
                _write(f"{folder}/cgroup.kill", "1")
            except OSError:
                continue  # version 1, or a kernel before 5.14: one by one
            else:
                return
        # Each round outruns forks by killing their parents; what was forked meanwhile is next.
        for _ in range(100):
            if not _kill_all(self):
                return

    def remove(self) -> tuple[Problem, ...]:
        """Remove it; gives what could not be removed because something is still in it.

        Call it once nothing runs in it any more. What stays is taken by a later `sweep`.
        """
        for descriptor in (*self._files.values(), *self._watch):
            if descriptor is not None:
                os.close(descriptor)
        self._files, self._watch = {}, ()
        problems = (_remove(folder, _REMOVE_WAITS_S) for folder in self.folders)
        return tuple(problem for problem in problems if problem is not None)

    def _text(self, controller: str, name: str) -> str | None:
        """Read a file of the leaf, which stays open: a poll then costs one call."""
        if name not in self._files:
            self._files[name] = None
            if controller in self._where:
                path = f"{self._where[controller][1]}/{name}"
                try:
                    self._files[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                except OSError:
                    return None  # a kernel too old for this figure
        descriptor = self._files[name]
        if descriptor is None:
            return None
        try:
            return os.pread(descriptor, _READ_BYTES, 0).decode("utf-8", "replace")
        except OSError:
            return None


def _read_event(descriptor: int) -> None:
    """Make an eventfd unready, if it was ready."""
    try:
        os.eventfd_read(descriptor)
    except BlockingIOError:
        return


def _kill_all(leaf: Leaf) -> bool:
    """Send SIGKILL to all in a leaf; tells whether there was anybody."""
    from _signal import pidfd_send_signal  # type: ignore[import-not-found]

    opened = {}
    for pid in leaf.processes():
        try:
            opened[pid] = os.pidfd_open(pid)
        except OSError:
            continue  # gone
    # A number listed again while its descriptor is open means that very process or a dead one,
    # never a stranger who was given the number meanwhile.
    still = set(leaf.processes())
    for pid, descriptor in opened.items():
        try:
            if pid in still:
                pidfd_send_signal(descriptor, _SIGKILL)
        except OSError:
            continue  # gone
        finally:
            os.close(descriptor)
    return bool(opened)


def make_leaf(
    asked: Asked, hierarchies: tuple[Hierarchy, ...] | None = None
) -> tuple[Leaf | None, tuple[Problem, ...]]:
    """Make a leaf that limits as much as it can, and say what it cannot.

    Gives no leaf where none can be made. A controller that is missing from `Leaf.held` has its
    reason among the problems.
    """
    if hierarchies is None:
        hierarchies = read_hierarchies()
    if not hierarchies:
        return None, (Problem("cgroups", "none is mounted where this process is", errno.ENOENT),)
    name = run_name()
    wanted = {"memory", "pids", "cpuacct"} | ({"cpu"} if asked.cpus_milli is not None else set())
    held: dict[str, tuple[int, str]] = {}
    problems: list[Problem] = []
    for place in hierarchies:
        if place.version == 1 and place.controllers & wanted:
            _make_in(place, place.folder, name, place.controllers & wanted, asked, held, problems)
            wanted -= place.controllers
    unified = [place for place in hierarchies if place.version == 2]
    if wanted and unified:
        _make_unified(unified[0], name, wanted, asked, held, problems)
    elif wanted:
        problems += [Problem(name, "not mounted", errno.ENOENT) for name in sorted(wanted)]
    return (Leaf(held) if held else None), tuple(problems)


def _make_unified(
    place: Hierarchy,
    name: str,
    wanted: set[str],
    asked: Asked,
    held: dict[str, tuple[int, str]],
    problems: list[Problem],
) -> None:
    """Make the part of a leaf that version 2 carries."""
    # Version 2 counts CPU time in every cgroup; there is no controller to enable for it.
    enable = wanted - {"cpuacct"}
    parent, given = _delegated_parent(place, enable, problems)
    if parent is None:
        return
    # The accounting alone would make a leaf which limits nothing.
    if given:
        _make_in(place, parent, name, given | (wanted & {"cpuacct"}), asked, held, problems)


def _delegated_parent(
    place: Hierarchy, enable: set[str], problems: list[Problem]
) -> tuple[str | None, set[str]]:
    """Find the nearest folder from the own one upwards in which a leaf may be made and joined.

    Processes may not live in a cgroup that passes controllers on (except in the real root), so the
    own folder rarely serves. Joining takes write access to the cgroup.procs of the folder above
    both, which is the one returned.
    """
    attempts: list[Problem] = []
    for folder in _upwards(place.folder, place.top):
        try:
            os.close(os.open(f"{folder}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))
        except OSError as error:
            attempts.append(Problem("cgroup v2", f"{folder}/cgroup.procs", error.errno or 0))
            break  # what is above belongs to someone else even more
        available = set((_read(f"{folder}/cgroup.controllers") or "").split())
        for controller in sorted(enable & available):
            problem = _pass_on(folder, controller)
            if problem is not None:
                attempts.append(problem)
        given = set((_read(f"{folder}/cgroup.subtree_control") or "").split()) & enable
        if {"memory", "pids"} & enable <= given:
            for name in sorted(enable - given):
                tried = [attempt for attempt in attempts if attempt.what == name]
                problems.append(tried[-1] if tried else Problem(name, f"not in {folder}", 0))
            return folder, given
        if not enable & available:
            attempts.append(Problem("cgroup v2", f"{folder} has no such controllers", 0))
    problems += attempts
    return None, set()


def _upwards(folder: str, top: str) -> Iterator[str]:
    yield folder
    while folder != top and folder.startswith(top.rstrip("/") + "/"):
        folder = os.path.dirname(folder)
        yield folder


def _pass_on(folder: str, controller: str) -> Problem | None:
    """Let the cgroups below a folder have a controller, unless they have it already."""
    path = f"{folder}/cgroup.subtree_control"
    if controller in (_read(path) or "").split():
        return None
    try:
        _write(path, f"+{controller}")
    except OSError as error:
        return Problem(controller, path, error.errno or 0)
    return None


def _make_in(
    place: Hierarchy,
    parent: str,
    name: str,
    controllers: Iterable[str],
    asked: Asked,
    held: dict[str, tuple[int, str]],
    problems: list[Problem],
) -> None:
    """Make a leaf in one hierarchy and set its limits; what worked is added to `held`."""
    folder = f"{parent}/{name}"
    try:
        _make_folder(folder)
    except OSError as error:
        problems += [Problem(each, folder, error.errno or 0) for each in sorted(controllers)]
        return
    worked = False
    for controller in sorted(controllers):
        path = folder
        try:
            for file, value in settings(place.version, controller, asked):
                path = f"{folder}/{file}"
                _write(path, value)
        except OSError as error:
            problems.append(Problem(controller, path, error.errno or 0))
            continue
        if controller == "memory":
            problems += _limit_extras(place.version, folder, asked)
        held[controller] = (place.version, folder)
        worked = True
    if not worked:
        _remove(folder, (0,))


def _make_folder(path: str) -> None:
    # The caller's umask may deny us what we make ourselves.
    before = os.umask(0o022)
    try:
        os.mkdir(path, 0o755)
    finally:
        os.umask(before)


def _limit_extras(version: int, folder: str, asked: Asked) -> Iterator[Problem]:
    """Allow no swap on top of memory, bound sockets, and let memory that runs out end the tree."""
    # Version 1 counts memory and swap together; without memsw only the liking for swap is left.
    swap = ("memory.swap.max", "0")
    if version == 1:
        swap = ("memory.memsw.limit_in_bytes", str(asked.memory_bytes))
    try:
        _write(f"{folder}/{swap[0]}", swap[1])
    except OSError as error:
        machine = "this machine has swap" if _has_swap() else "this machine has no swap now"
        yield Problem("swap", f"{folder}/{swap[0]}: not limited; {machine}", error.errno or 0)
        if version == 1:
            _write_if_there(f"{folder}/memory.swappiness", "0")
    # Version 1 counts what sockets hold apart from memory, and not at all without this.
    sockets = asked.memory_bytes // _SOCKETS_PART
    if version == 1 and not _write_if_there(f"{folder}/{_SOCKETS_LIMIT}", str(sockets)):
        yield Problem("sockets", f"{folder}/{_SOCKETS_LIMIT}: not limited", errno.ENOENT)
    if version == 2 and not _write_if_there(f"{folder}/memory.oom.group", "1"):
        yield Problem("oom group", f"{folder}/memory.oom.group", errno.ENOENT)


def _has_swap() -> bool:
    return len((_read("/proc/swaps") or "").splitlines()) > 1


def run_name() -> str:
    """Give a name for something of this run that a later one may find and judge by `is_stale`."""
    pid = os.getpid()
    start = _start_time(pid)
    namespace = own_namespace()
    if start is None or namespace is None:
        # Without /proc nobody could tell later whether it is stale: such a leaf is never swept.
        return f"{_PREFIX}unknown-{os.urandom(6).hex()}"
    return f"{_PREFIX}{namespace}-{pid}-{start}-{os.urandom(6).hex()}"


def own_namespace() -> int | None:
    """Give the inode of this process-id namespace, in which a stale name must have been made."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return None


def _start_time(pid: int) -> int | None:
    """Give when a process started, in ticks since boot; None where /proc does not say."""
    text = _read(f"/proc/{pid}/stat")
    if text is None:
        return None
    return int(text.rpartition(")")[2].split()[19])


def sweep(hierarchies: tuple[Hierarchy, ...] | None = None) -> tuple[str, ...]:
    """Remove leaves of our own user whose supervisor is dead; gives what was removed.

    A leaf is only ever removed empty: the kernel refuses while a process is in it.
    """
    if hierarchies is None:
        hierarchies = read_hierarchies()
    namespace = own_namespace()
    removed: list[str] = []
    if namespace is None:
        return ()
    parents = dict.fromkeys(
        parent
        for place in hierarchies
        for parent in (_upwards(place.folder, place.top) if place.version == 2 else (place.folder,))
    )
    for parent in parents:
        try:
            names = [name for name in os.listdir(parent) if name.startswith(_PREFIX)]
        except OSError:
            continue
        for name in names:
            folder = f"{parent}/{name}"
            if is_stale(folder, name, namespace) and _remove(folder, (0,)) is None:
                removed.append(folder)
    return tuple(removed)


def is_stale(folder: str, name: str, namespace: int) -> bool:
    """Tell whether a folder is of our user and its supervisor, by this namespace's ids, is dead."""
    words = name.removeprefix(_PREFIX).split("-")
    if len(words) != 4 or not all(word.isascii() and word.isdigit() for word in words[:3]):
        return False
    made_in, pid, start = (int(word) for word in words[:3])
    if made_in != namespace or not 0 < pid < 1 << 31:
        return False
    try:
        if os.stat(folder).st_uid != os.geteuid():
            return False
        descriptor = os.pidfd_open(pid)
    except OSError as error:
        return error.errno == errno.ESRCH
    os.close(descriptor)
    # Alive, but perhaps somebody else by now. Who cannot be looked at is taken for alive.
    found = _start_time(pid)
    return found is not None and found != start


def _remove(folder: str, waits_s: Iterable[float]) -> Problem | None:
    """Remove an empty cgroup, waiting a little for one that is only just empty."""
    for wait_s in waits_s:
        if wait_s:
            sleep(wait_s)
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            last = error.errno or 0
            if last != errno.EBUSY:
                break
        else:
            return None
    return Problem("leaf", folder, last)


def _number(text: str | None) -> int | None:
    stripped = (text or "").strip()
    return int(stripped) if stripped.isdigit() else None


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return None


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)


def _write_if_there(path: str, text: str) -> bool:
    try:
        _write(path, text)
    except OSError:
        return False
    return True
