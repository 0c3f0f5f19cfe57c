"""What holds a program on this machine, found out by building its walls.

The init says how each step went, the supervisor looks at it from outside through /proc, and the
cgroup leaf is there or not: a protection counts only where what was said and what was seen agree.
All of it is settled before the program exists, in the very process it will be forked from.
"""

from __future__ import annotations

import errno
import os

from beddel_cli.host import Finding, Host, errno_words, missing, missing_landlock, seccomp_fix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from beddel_cli.process.cgroup import Problem
    from beddel_cli.process.launch import Observed
    from beddel_cli.process.program import Walls
    from beddel_cli.process.remedies import Facts

_FILTER_MODE = 2
# Without these no limit of the whole tree is exact; `cpu` counts where it was asked for.
_CONTROLLERS = ("memory", "pids", "cpuacct")
_PROC_FIX = "mount /proc so that it shows your own processes"
# What the filters of either rung refuse, and what Landlock lets through there.
_FILTERS = {
    1: "seccomp filter with argument checks; unknown calls get ENOSYS",
    2: "two seccomp filters with argument checks; no sockets, no queues, no file changed by name",
}
_COUNTS = {1: "one filter", 2: "two filters"}
_WRITING = "writing beneath the workspace, /tmp and /dev/shm"
_ONLY_SCRATCH = "reading of system folders, writing beneath the scratch folder"
_NAMESPACES = "user, mount, PID, network, IPC, UTS and cgroup namespaces, an empty root"


def describe_program_host(
    walls: Walls,
    observed: Observed,
    held: Mapping[str, int],
    problems: tuple[Problem, ...],
    facts: Facts | None = None,
    fallen_from: Walls | None = None,
) -> Host:
    """Combine the init's word with what the supervisor saw from outside.

    Args:
        fallen_from: where these are the walls of the landlock rung, those with namespaces that
            could not be built.
        held: the cgroup controllers of the leaf, by version.
        problems: what cgroups could not give.
        facts: settings of the machine, read here when a step failed and none are given.
    """
    system = os.uname()
    failed = walls.failed_step is not None or not _all_held(held, problems)
    known = _read_facts() if facts is None and failed else facts
    who = "the init"
    apart: tuple[Finding, ...]
    if fallen_from is None:
        apart = (_namespaces(walls, observed, known),)
    else:
        who = "what the program will be"
        apart = (_namespaces(fallen_from, observed, known), _guardian(walls, observed))
    return Host(
        system=system.sysname,
        machine=system.machine,
        kernel=system.release,
        isolate_bytes=0,
        findings=(
            *apart,
            _no_new_privs(walls, observed, who),
            _capabilities(walls, observed, who, bounding=fallen_from is None),
            _seccomp(walls, observed, who, 1 if fallen_from is None else 2),
            _landlock(walls, _WRITING if fallen_from is None else _ONLY_SCRATCH),
            _rlimits(walls, observed, who),
            _cgroup(held, problems, known),
        ),
    )


def _read_facts() -> Facts:
    from beddel_cli.process.machine_facts import read_facts

    return read_facts()


def _namespaces(walls: Walls, observed: Observed, facts: Facts | None) -> Finding:
    if walls.failed_step is not None:
        from beddel_cli.process.remedies import explain_step

        known = facts or _read_facts()
        remedy = explain_step(walls.failed_step, walls.failed_errno, walls.failed_detail, known)
        return missing("namespaces", remedy.found, remedy.fix)
    ids = observed.user_ids
    if ids is None or len(set(ids)) != 1:
        return missing("namespaces", f"/proc/PID/status of the init shows Uid {ids}", _PROC_FIX)
    if walls.identity.startswith("throw-away") and str(ids[0]) not in walls.identity.split():
        return missing(
            "namespaces", f"the init runs as user {ids[0]}, not as {walls.identity}", "report this"
        )
    proc = "its own /proc" if walls.proc == "own" else "an empty /proc"
    return Finding(
        "namespaces",
        True,
        f"{_NAMESPACES}, {proc}, {walls.identity}",
        f"each step of the init before the program; /proc/PID/status of it: Uid {ids[0]}",
    )


def _guardian(walls: Walls, observed: Observed) -> Finding:
    """Say who sees to it that nothing of the program outlives it, where no namespace does."""
    if walls.failed_step is not None:
        found = f"{walls.failed_step} failed with {errno_words(walls.failed_errno)}"
        if walls.failed_detail:
            found += f" ({walls.failed_detail})"
        return missing("guardian", found, "allow user namespaces")
    ids = observed.user_ids
    if ids is None or len(set(ids)) != 1:
        return missing("guardian", f"/proc/PID/status shows Uid {ids}", _PROC_FIX)
    if walls.identity.startswith("throw-away") and str(ids[0]) not in walls.identity.split():
        found = f"the program would be user {ids[0]}, not {walls.identity}"
        return missing("guardian", found, "report this")
    return Finding(
        "guardian",
        True,
        f"a subreaper that kills until it has no child left, {walls.identity}",
        "signals from it to beddel-cli, and from the program's place to it, failed with EPERM; "
        f"/proc/PID/status: Uid {ids[0]}",
    )


def _not_tried(name: str) -> Finding:
    return missing(
        name, "not tried: a step before it failed", "see what is said of namespaces first"
    )


def _said(number: int, call: str) -> str:
    return f"{call} failed with {errno_words(number)}"


def _no_new_privs(walls: Walls, observed: Observed, who: str) -> Finding:
    if walls.no_new_privs is None:
        return _not_tried("no-new-privs")
    if walls.no_new_privs == 0 and observed.no_new_privs == 1:
        return Finding(
            "no-new-privs",
            True,
            "prctl(PR_SET_NO_NEW_PRIVS)",
            f"/proc/PID/status of {who}: NoNewPrivs 1",
        )
    found = (
        _said(walls.no_new_privs, "prctl")
        if walls.no_new_privs
        else f"/proc/PID/status of {who} says NoNewPrivs {observed.no_new_privs}"
    )
    return missing("no-new-privs", found, _PROC_FIX)


def _capabilities(walls: Walls, observed: Observed, who: str, *, bounding: bool) -> Finding:
    if walls.capabilities is None:
        return _not_tried("capabilities")
    sets = {
        "CapInh": observed.inheritable,
        "CapPrm": observed.permitted,
        "CapEff": observed.effective,
        "CapBnd": observed.bounding,
        "CapAmb": observed.ambient,
    }
    if not bounding and observed.bounding and observed.no_new_privs == 1:
        # Who is not root may not empty it; no_new_privs keeps it from ever being drawn on.
        del sets["CapBnd"]
    if walls.capabilities == 0 and set(sets.values()) == {0}:
        kept = "" if "CapBnd" in sets else " (the bounding set out of reach by no_new_privs)"
        return Finding(
            "capabilities",
            True,
            "capset, prctl: no capability in any set" + (kept or ", nor in the bounding set"),
            f"/proc/PID/status of {who}: {', '.join(sets)} 0",
        )
    if walls.capabilities:
        found = _said(walls.capabilities, "capset")
    else:
        left = ", ".join(f"{name} {value}" for name, value in sets.items() if value != 0)
        found = f"/proc/PID/status of {who} says {left}"
    return missing("capabilities", found, _PROC_FIX)


def _seccomp(walls: Walls, observed: Observed, who: str, filters: int) -> Finding:
    if walls.seccomp is None:
        return _not_tried("seccomp")
    if (
        walls.seccomp == 0
        and observed.seccomp_mode == _FILTER_MODE
        and observed.seccomp_filters == filters
        # A filter binds the thread that set it: one more thread would be one without.
        and observed.threads == 1
    ):
        return Finding(
            "seccomp",
            True,
            _FILTERS[filters],
            f"/proc/PID/status of {who}: Seccomp 2, {_COUNTS[filters]} of its own, one thread",
        )
    if walls.seccomp:
        found = _said(walls.seccomp, "prctl(PR_SET_SECCOMP)")
    else:
        found = (
            f"/proc/PID/status of {who} says Seccomp {observed.seccomp_mode}, "
            f"{observed.seccomp_filters} filters of its own, {observed.threads} threads"
        )
    return missing("seccomp", found, seccomp_fix(walls.seccomp))


def _landlock(walls: Walls, allowed: str) -> Finding:
    if walls.landlock is None:
        return _not_tried("landlock")
    if walls.landlock == 0 and walls.landlock_probe == errno.EACCES:
        return Finding(
            "landlock",
            True,
            f"Landlock ABI {walls.landlock_abi}, every right handled; {allowed}",
            "a probe from within: a write that only Landlock forbids failed with EACCES",
        )
    if walls.landlock:
        return missing_landlock(walls.landlock)
    return missing(
        "landlock",
        "a write that only Landlock forbids "
        + (
            "could not be tried"
            if walls.landlock_probe is None
            else f"gave {walls.landlock_probe} instead of EACCES"
        ),
        "report this: Landlock said it was in force",
    )


def _rlimits(walls: Walls, observed: Observed, who: str) -> Finding:
    if walls.rlimits is None:
        return _not_tried("rlimits")
    if walls.rlimits == 0 and observed.core_limit == 0:
        return Finding(
            "rlimits",
            True,
            "setrlimit: no core dumps; bounded files, processes, file size and queues",
            f"/proc/PID/limits of {who}: core file size 0",
        )
    found = (
        _said(walls.rlimits, "setrlimit")
        if walls.rlimits
        else f"/proc/PID/limits of {who} shows a core file size of {observed.core_limit}"
    )
    return missing("rlimits", found, "allow setrlimit and prlimit64 for your own processes")


def _wanted(problems: tuple[Problem, ...]) -> set[str]:
    return {*_CONTROLLERS, *(each.what for each in problems if each.what == "cpu")}


def _all_held(held: Mapping[str, int], problems: tuple[Problem, ...]) -> bool:
    return _wanted(problems) <= set(held)


def _cgroup(held: Mapping[str, int], problems: tuple[Problem, ...], facts: Facts | None) -> Finding:
    if _all_held(held, problems):
        named = ", ".join(f"{name} v{version}" for name, version in sorted(held.items()))
        return Finding(
            "cgroup",
            True,
            f"a cgroup of its own: {named}",
            "the leaf was made and its limits were written before the program",
        )
    lost = sorted(_wanted(problems) - set(held))
    # What is said of a controller says most; else what is said of cgroups as such.
    told = sorted(problems, key=lambda each: each.what not in lost)
    if not told:
        return missing("cgroup", f"no controller for {', '.join(lost)}", "report this")
    from beddel_cli.process.remedies import explain_cgroup

    problem = told[0]
    remedy = explain_cgroup(problem.what, problem.detail, problem.errno, facts or _read_facts())
    return missing("cgroup", remedy.found, remedy.fix)
