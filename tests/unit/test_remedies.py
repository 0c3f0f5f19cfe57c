"""Which cause a failed step has, and the command that fits it."""

from __future__ import annotations

import errno
import os

import pytest

from beddel_cli.process.machine_facts import read_facts
from beddel_cli.process.remedies import Facts, explain_cgroup, explain_step, foresee
from beddel_cli.record import changed

PLAIN = Facts(
    namespace_limits={"user": 1000, "net": 1000, "pid": 1000},
    unprivileged_clone=None,
    apparmor_restricts=None,
    apparmor_label=None,
    seccomp_filters=0,
    container=None,
    root=False,
)
DOCKER = (
    "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined "
    "--security-opt systempaths=unconfined …"
)
PODMAN = (
    "podman run --security-opt seccomp=unconfined --security-opt apparmor=unconfined "
    "--security-opt unmask=ALL …"
)
# step, errno, what is special about the machine: the cause, the fix
CASES = [
    (
        *("user namespace", errno.ENOSPC, {"namespace_limits": {"user": 0}}),
        "user.max_user_namespaces is 0",
        "sudo sysctl -w user.max_user_namespaces=15000",
    ),
    (
        *("user namespace", errno.ENOSPC, {}),
        "all of the 1000 that user.max_user_namespaces allows are taken, or they are nested "
        "32 deep",
        "sudo sysctl -w user.max_user_namespaces=15000",
    ),
    (
        *("namespaces", errno.ENOSPC, {"namespace_limits": {"user": 9, "net": 0}}),
        "user.max_net_namespaces is 0",
        "sudo sysctl -w user.max_net_namespaces=15000",
    ),
    (
        *("user namespace", errno.EPERM, {"unprivileged_clone": 0}),
        "kernel.unprivileged_userns_clone is 0",
        "sudo sysctl -w kernel.unprivileged_userns_clone=1",
    ),
    (
        *("files", errno.EACCES, {"apparmor_restricts": 1}),
        "AppArmor takes the rights in new user namespaces away "
        "(kernel.apparmor_restrict_unprivileged_userns is 1)",
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    (
        *("user namespace", errno.EPERM, {"container": "Docker"}),
        "the Docker container around us forbids it",
        DOCKER,
    ),
    (
        *("user namespace", errno.ENOSYS, {"container": "Podman"}),
        "the Podman container around us forbids the call",
        PODMAN,
    ),
    (
        *("files", errno.ENOSYS, {"seccomp_filters": 1}),
        "a seccomp filter around us forbids the call",
        DOCKER,
    ),
    (
        *("user namespace", errno.EPERM, {"seccomp_filters": 2}),
        "a seccomp filter around us forbids the call",
        DOCKER,
    ),
    (
        *("user namespace", errno.EPERM, {}),
        "in a chroot, or by a security module, no user namespace may be made",
        "run it outside of the chroot",
    ),
    (
        *("user namespace", errno.EINVAL, {}),
        "this kernel has no user namespaces",
        "use a kernel built with CONFIG_USER_NS",
    ),
    (
        *("files", errno.ENOSYS, {}),
        "this kernel is too old",
        "use Linux 5.13 or newer",
    ),
    (
        *("mounts", errno.ENODEV, {}),
        "this kernel lacks a file system that is needed",
        "sudo modprobe overlay",
    ),
    (
        *("throw-away id", errno.EPERM, {"root": True}),
        "root without CAP_SETUID and CAP_SETGID cannot take another id",
        "run it as an ordinary user, or docker run --cap-add SETUID --cap-add SETGID …",
    ),
    (
        *("init", errno.EAGAIN, {}),
        "this user, or the container, has too many processes",
        "ulimit -u unlimited",
    ),
]


@pytest.mark.parametrize(("step", "number", "special", "cause", "fix"), CASES)
def test_a_remedy_fits_its_cause(
    step: str, number: int, special: dict[str, object], cause: str, fix: str
) -> None:
    remedy = explain_step(step, number, os.strerror(number), changed(PLAIN, **special))
    name = errno.errorcode[number]
    assert remedy.found == f"{step} failed with {name}: {os.strerror(number)}: {cause}"
    assert remedy.fix == fix


def test_a_setting_alone_proves_nothing() -> None:
    # Root is not bound by what binds ordinary users, so that is not what failed.
    facts = changed(PLAIN, unprivileged_clone=0, apparmor_restricts=1, root=True)
    assert "chroot" in explain_step("user namespace", errno.EPERM, "", facts).found


LIMIT_0 = "user.max_{}_namespaces is 0"
# What is special about the machine, kinds it lacks, whether another id may be taken: the cause.
FORESEEN = [
    ({}, (), True, None),
    ({}, (), False, None),
    ({}, ("user", "cgroup"), True, "this kernel has no user namespaces"),
    ({}, ("ipc", "uts"), True, "this kernel has no ipc and uts namespaces"),
    ({"namespace_limits": {"net": 0, "user": 0}}, (), True, LIMIT_0.format("user")),
    ({"namespace_limits": {"net": 0, "user": 9}}, (), True, LIMIT_0.format("net")),
    ({"namespace_limits": {"user": 0}, "root": True}, (), True, LIMIT_0.format("user")),
    ({"unprivileged_clone": 0}, (), True, "kernel.unprivileged_userns_clone is 0"),
    ({"unprivileged_clone": 0, "root": True}, (), True, None),
    ({"unprivileged_clone": 1}, (), True, None),
    ({"apparmor_restricts": 1}, (), True, "AppArmor takes the rights"),
    ({"apparmor_restricts": 1, "apparmor_label": "unconfined"}, (), True, "AppArmor takes"),
    # A profile of its own may be what allows them.
    ({"apparmor_restricts": 1, "apparmor_label": "beddel (enforce)"}, (), True, None),
    ({"apparmor_restricts": 1, "root": True}, (), True, None),
    ({"root": True}, (), False, "root without CAP_SETUID and CAP_SETGID"),
]


@pytest.mark.parametrize(("special", "absent", "takes_ids", "cause"), FORESEEN)
def test_what_settings_alone_forbid(
    special: dict[str, object], absent: tuple[str, ...], takes_ids: bool, cause: str | None
) -> None:
    remedy = foresee(changed(PLAIN, **special), absent, takes_ids=takes_ids)
    if cause is None:
        assert remedy is None
    else:
        assert remedy is not None
        assert remedy.found.startswith(cause)
        assert remedy.fix


def test_an_unknown_cause_is_not_made_up() -> None:
    remedy = explain_step("ready", errno.EIO, "/somewhere: it broke", PLAIN)
    assert remedy.found == "ready failed with EIO: Input/output error (/somewhere: it broke)"
    assert explain_step("our own fault", 0, "what", PLAIN).found == "our own fault failed (what)"


@pytest.mark.parametrize(
    ("number", "special", "fix"),
    [
        (errno.EROFS, {}, "docker run --cgroupns"),
        (errno.EPERM, {"root": True, "container": "Docker"}, "docker run --cgroupns"),
        (errno.EACCES, {}, "systemd-run --user --scope -p Delegate=yes"),
        (errno.EACCES, {"container": "Docker"}, "systemd-run --user --scope -p Delegate=yes"),
        (errno.EBUSY, {}, "systemd-run --user --scope -p Delegate=yes"),
        (errno.ENOENT, {}, "sudo mount -t cgroup2"),
        (errno.ENOENT, {"container": "Docker"}, "docker run --cgroupns private -v"),
        (errno.ENOENT, {"container": "Podman"}, "podman run --cgroupns private --security-opt"),
        (errno.EROFS, {"container": "Podman"}, "podman run --cgroupns private --security-opt"),
        (0, {}, "use `--profile high-security`"),
    ],
)
def test_cgroups(number: int, special: dict[str, object], fix: str) -> None:
    remedy = explain_cgroup("memory", "/sys/fs/cgroup/x", number, changed(PLAIN, **special))
    assert remedy.found.startswith("memory: /sys/fs/cgroup/x")
    assert remedy.fix.startswith(fix)


def test_the_facts_of_this_machine() -> None:
    facts = read_facts()
    assert facts.root == (os.geteuid() == 0)
    with open("/proc/sys/user/max_user_namespaces", encoding="ascii") as file:
        assert facts.namespace_limits["user"] == int(file.read())


def test_a_container_that_only_its_manager_tells_of(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"podman": "Podman", "docker": "Docker", "of a kind nobody knows": None}
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    for name, kind in told.items():
        monkeypatch.setenv("container", name)
        assert read_facts().container == kind
    monkeypatch.delenv("container")
    assert read_facts().container is None
