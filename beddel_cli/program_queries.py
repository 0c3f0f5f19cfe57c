"""Ask what this machine offers for programs, by questions that change nothing and start nothing.

Nothing is put in force here, so nothing is proved: `run` builds the walls and looks at them from
outside. A container or a security module that lets the questions pass shows only there, and so does
a cgroup that takes no leaf although its files can be written.

Sources: namespaces(7) on /proc/PID/ns; proc_sys_user(5); proc_filesystems(5); cgroups(7), "Moving
processes between cgroups" and "no internal processes".
"""

from __future__ import annotations

import errno
import os

from beddel_cli.isolate.queries import ask_kernel
from beddel_cli.process.cgroup import read_hierarchies
from beddel_cli.process.machine_facts import read_facts
from beddel_cli.program_offer import ProgramOffer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from beddel_cli.process.cgroup import Hierarchy

_KINDS = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
_CAP_SETGID, _CAP_SETUID = 6, 7
# What a leaf limits and counts; version 2 counts CPU time without a controller.
_CONTROLLERS = ("memory", "pids", "cpu", "cpuacct")
_FREE_IN_VERSION_2 = "cpuacct"


def ask_machine_for_programs() -> ProgramOffer:
    """Ask the kernel, /proc and the mounted cgroups what they offer."""
    system = os.uname()
    held, lacks = _ask_cgroups(read_hierarchies())
    return ProgramOffer(
        system=system.sysname,
        machine=system.machine,
        kernel=system.release,
        **ask_kernel(),
        facts=read_facts(),
        absent=tuple(kind for kind in _KINDS if not os.path.exists(f"/proc/self/ns/{kind}")),
        takes_ids=_takes_ids(),
        overlay=_overlay(system.release),
        cgroup=tuple(sorted(held.items())),
        cgroup_lacks=lacks,
    )


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(65536)
    except OSError:
        return ""


def _takes_ids() -> bool:
    for line in _text("/proc/self/status").splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            sets = int(value, 16)
            return bool(sets >> _CAP_SETUID & sets >> _CAP_SETGID & 1)
    return False


def _overlay(release: str) -> str | None:
    if "overlay" in _text("/proc/filesystems").split():
        return "kernel"
    module = f"/lib/modules/{release}/kernel/fs/overlayfs"
    return "module" if os.path.isdir(module) else None


def _ask_cgroups(
    hierarchies: Iterable[Hierarchy],
) -> tuple[dict[str, int], tuple[tuple[str, str, int], ...]]:
    """Give the controllers a leaf could have, and what is in the way of the others."""
    places = tuple(hierarchies)
    if not places:
        return {}, (("cgroups", "none is mounted where this process is", errno.ENOENT),)
    held: dict[str, int] = {}
    lacks: list[tuple[str, str, int]] = []
    for place in places:
        for name in sorted(place.controllers & {*_CONTROLLERS} if place.version == 1 else ()):
            problem = _in_the_way(place.folder, os.W_OK | os.X_OK)
            if problem:
                lacks.append((name, place.folder, problem))
            else:
                held[name] = 1
    known = {*held, *(name for name, _, _ in lacks)}
    wanted = [name for name in _CONTROLLERS if name not in known]
    unified = next((place for place in places if place.version == 2), None)
    given: tuple[str, ...] = ()
    if wanted and unified is not None:
        given, problems = _ask_unified(unified, wanted)
        held.update(dict.fromkeys(given, 2))
        lacks += problems
    elif wanted:
        lacks += [(name, "not mounted", errno.ENOENT) for name in wanted]
    return held, tuple(lacks)


def _ask_unified(
    place: Hierarchy, wanted: list[str]
) -> tuple[tuple[str, ...], list[tuple[str, str, int]]]:
    """Look for the nearest folder upwards of which a leaf could be made."""
    enable = [name for name in wanted if name != _FREE_IN_VERSION_2]
    said: tuple[str, int] = (place.folder, 0)
    for folder in _upwards(place.folder, place.top):
        for path in (f"{folder}/cgroup.procs", folder):
            problem = _in_the_way(path, os.W_OK)
            if problem:
                return (), [(name, path, problem) for name in wanted]
        passed = set(_text(f"{folder}/cgroup.subtree_control").split())
        if _may_pass_on(folder):
            passed |= set(_text(f"{folder}/cgroup.controllers").split())
        if enable and passed >= {*enable}:
            return tuple(wanted), []
        said = (f"{folder} passes no such controllers on", 0)
    return (), [(name, *said) for name in wanted]


def _may_pass_on(folder: str) -> bool:
    """Tell whether controllers could be passed on: not where processes are, but for the root."""
    control = f"{folder}/cgroup.subtree_control"
    is_root = not os.path.exists(f"{folder}/cgroup.type")
    return os.access(control, os.W_OK) and (is_root or not _text(f"{folder}/cgroup.procs"))


def _upwards(folder: str, top: str) -> Iterator[str]:
    yield folder
    while folder != top and folder.startswith(top.rstrip("/") + "/"):
        folder = os.path.dirname(folder)
        yield folder


def _in_the_way(path: str, mode: int) -> int:
    """Give 0 where a path can be written, else the errno that writing would have."""
    try:
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            return errno.EROFS
    except OSError as error:
        return error.errno or errno.EIO
    return 0 if os.access(path, mode, effective_ids=True) else errno.EACCES
