"""Why a step of the walls failed on this machine, and one command that helps. Pure.

The same errno has several causes, and the same cause shows as several errnos; which one it is
follows from the settings of the machine, read as `Facts`. Nothing is concluded from a setting
alone, but by `foresee`: the other functions are asked only about a step that was tried and failed.

Sources: user_namespaces(7), namespaces(7), unshare(2) on its errors; apparmor.d(5) on `userns`;
docker-run(1) on `--security-opt`.
"""

from __future__ import annotations

import errno
import os

from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_NESTING_LIMIT = 32
# What lets namespaces be made in a container, and what lets a cgroup, by its kind.
_NAMESPACES_ALLOWED = {
    "Docker": "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined "
    "--security-opt systempaths=unconfined …",
    "Podman": "podman run --security-opt seccomp=unconfined --security-opt apparmor=unconfined "
    "--security-opt unmask=ALL …",
}
_CGROUPS_ALLOWED = {
    "Docker": "docker run --cgroupns private -v /sys/fs/cgroup:/sys/fs/cgroup:rw --privileged …",
    "Podman": "podman run --cgroupns private --security-opt unmask=/sys/fs/cgroup …",
}


@record
class Facts:
    """Settings that decide whether walls can be built. None: the machine has no such setting.

    Attributes:
        namespace_limits: user.max_*_namespaces by kind (`user`, `mnt`, `pid`, …).
        unprivileged_clone: kernel.unprivileged_userns_clone, which Debian's kernels had.
        apparmor_restricts: kernel.apparmor_restrict_unprivileged_userns.
        apparmor_label: the profile this process is under.
        seccomp_filters: how many filters this process is under already.
        container: the kind of container around us, None where none shows.
        root: whether user 0 runs this.
    """

    namespace_limits: Mapping[str, int]
    unprivileged_clone: int | None
    apparmor_restricts: int | None
    apparmor_label: str | None
    seccomp_filters: int
    container: str | None
    root: bool


@record
class Remedy:
    """What was found, with its cause, and one command or change that helps."""

    found: str
    fix: str


def explain_step(step: str, number: int, detail: str, facts: Facts) -> Remedy:
    """Say why a step of the walls failed.

    Args:
        step: as the init names it.
        number: its errno; 0 when it was not the kernel that refused.
    """
    failed = f"{step} failed"
    if number:
        failed += f" with {errno.errorcode.get(number, number)}: {os.strerror(number)}"
    if detail and detail != os.strerror(number):
        failed += f" ({detail})"
    cause = _cause(step, number, facts)
    if cause is not None:
        return Remedy(f"{failed}: {cause.found}", cause.fix)
    return Remedy(failed, "use another machine or container, or `--profile` with fewer demands")


def foresee(facts: Facts, absent: tuple[str, ...], *, takes_ids: bool) -> Remedy | None:
    """Say what settings alone forbid, where nothing may be tried; None where none of them does.

    Args:
        absent: kinds of namespaces that the kernel does not have.
        takes_ids: whether this process may take another id, which only root has to.
    """
    if "user" in absent:
        return _cause("user namespace", errno.EINVAL, facts)
    if absent:
        kinds = " and ".join(absent)
        return Remedy(f"this kernel has no {kinds} namespaces", "use a kernel that has them")
    limits = facts.namespace_limits
    for kind in sorted(limits, key=lambda kind: kind != "user"):
        if limits[kind] == 0:
            step = "user namespace" if kind == "user" else "namespaces"
            return _limit_of_namespaces(step, facts)
    if facts.root:
        return None if takes_ids else _no_throw_away_id(errno.EPERM)
    confined = facts.apparmor_label not in (None, "", "unconfined")
    # A profile of AppArmor may be one that allows them, which only trying shows.
    if facts.unprivileged_clone == 0 or (facts.apparmor_restricts and not confined):
        return _not_permitted("user namespace", facts)
    return None


def _cause(step: str, number: int, facts: Facts) -> Remedy | None:
    if step == "throw-away id":
        return _no_throw_away_id(number)
    if step in ("user namespace", "namespaces") and number in (errno.ENOSPC, errno.EUSERS):
        return _limit_of_namespaces(step, facts)
    if step == "user namespace" and number == errno.EINVAL:
        return Remedy(
            "this kernel has no user namespaces", "use a kernel built with CONFIG_USER_NS"
        )
    if step in ("start", "init") and number == errno.EAGAIN:
        return Remedy("this user, or the container, has too many processes", "ulimit -u unlimited")
    if number in (errno.EPERM, errno.EACCES):
        return _not_permitted(step, facts)
    if number == errno.ENOSYS:
        return _no_such_call(facts)
    if number == errno.ENODEV and step in ("mounts", "files"):
        return Remedy("this kernel lacks a file system that is needed", "sudo modprobe overlay")
    return None


def _no_throw_away_id(number: int) -> Remedy | None:
    if number != errno.EPERM:
        return None
    return Remedy(
        "root without CAP_SETUID and CAP_SETGID cannot take another id",
        "run it as an ordinary user, or docker run --cap-add SETUID --cap-add SETGID …",
    )


def _limit_of_namespaces(step: str, facts: Facts) -> Remedy:
    kinds = ("user",) if step == "user namespace" else tuple(sorted(facts.namespace_limits))
    for kind in kinds:
        if facts.namespace_limits.get(kind) == 0:
            return Remedy(
                f"user.max_{kind}_namespaces is 0",
                f"sudo sysctl -w user.max_{kind}_namespaces=15000",
            )
    limit = facts.namespace_limits.get("user", 0)
    return Remedy(
        f"all of the {limit} that user.max_user_namespaces allows are taken, or they are nested "
        f"{_NESTING_LIMIT} deep",
        f"sudo sysctl -w user.max_user_namespaces={max(limit * 2, 15000)}",
    )


def _not_permitted(step: str, facts: Facts) -> Remedy | None:
    if facts.unprivileged_clone == 0 and not facts.root and step == "user namespace":
        return Remedy(
            "kernel.unprivileged_userns_clone is 0",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        )
    if facts.apparmor_restricts and not facts.root:
        return Remedy(
            "AppArmor takes the rights in new user namespaces away "
            "(kernel.apparmor_restrict_unprivileged_userns is 1)",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        )
    if facts.container is not None:
        return Remedy(
            f"the {facts.container} container around us forbids it",
            _for_container(_NAMESPACES_ALLOWED, facts),
        )
    if facts.apparmor_label not in (None, "", "unconfined"):
        return Remedy(
            f"the AppArmor profile {facts.apparmor_label!r} around us forbids it",
            "sudo aa-complain the profile, or run it outside of that profile",
        )
    if facts.seccomp_filters:
        return _filtered(facts)
    if step == "user namespace":
        return Remedy(
            "in a chroot, or by a security module, no user namespace may be made",
            "run it outside of the chroot",
        )
    return None


def _no_such_call(facts: Facts) -> Remedy:
    if facts.container is not None or facts.seccomp_filters:
        return _filtered(facts)
    return Remedy("this kernel is too old", "use Linux 5.13 or newer")


def _filtered(facts: Facts) -> Remedy:
    where = f"the {facts.container} container" if facts.container else "a seccomp filter"
    return Remedy(f"{where} around us forbids the call", _for_container(_NAMESPACES_ALLOWED, facts))


def _for_container(remedies: Mapping[str, str], facts: Facts) -> str:
    """Give the remedy of this kind of container, Docker's where the kind does not show."""
    return remedies.get(facts.container or "", remedies["Docker"])


def explain_cgroup(what: str, detail: str, number: int, facts: Facts) -> Remedy:
    """Say why a controller of cgroups could not be had."""
    named = f"{what}: {detail}"
    if number:
        named += f" ({errno.errorcode.get(number, number)}: {os.strerror(number)})"
    may_not = number in (errno.EACCES, errno.EPERM)
    inside = facts.container is not None
    # What a container does not show cannot be mounted or made from inside of it either.
    if number == errno.EROFS or (inside and (number == errno.ENOENT or (may_not and facts.root))):
        return Remedy(named, _for_container(_CGROUPS_ALLOWED, facts))
    if may_not or number in (errno.EBUSY, errno.ENOTSUP):
        return Remedy(named, "systemd-run --user --scope -p Delegate=yes beddel-cli …")
    if number == errno.ENOENT:
        return Remedy(named, "sudo mount -t cgroup2 none /sys/fs/cgroup")
    return Remedy(named, "use `--profile high-security`, which does without cgroups")
