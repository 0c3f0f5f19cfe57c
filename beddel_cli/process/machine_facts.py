"""Read the settings of this machine that decide whether walls can be built.

Sources: proc_sys_user(5), namespaces(7), proc_pid_attr(5), proc_pid_status(5).
"""

from __future__ import annotations

import os
import resource

from beddel_cli.process.failures import Caller
from beddel_cli.process.remedies import Facts

_KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
_CONTAINER_FILES = {"/.dockerenv": "Docker", "/run/.containerenv": "Podman"}
# What container managers tell those inside, who may have no /run to be told in.
_CONTAINER_VARIABLE = "container"
_CONTAINER_NAMES = {"docker": "Docker", "podman": "Podman"}


def read_facts() -> Facts:
    """Give the settings; what cannot be read counts as not being there."""
    limits = {kind: _number(f"/proc/sys/user/max_{kind}_namespaces") for kind in _KINDS}
    found = [name for path, name in _CONTAINER_FILES.items() if os.path.exists(path)]
    return Facts(
        namespace_limits={kind: limit for kind, limit in limits.items() if limit is not None},
        unprivileged_clone=_number("/proc/sys/kernel/unprivileged_userns_clone"),
        apparmor_restricts=_number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        apparmor_label=_text("/proc/self/attr/apparmor/current"),
        seccomp_filters=_filters(),
        container=found[0] if found else _told_container(),
        root=os.geteuid() == 0,
    )


def read_caller() -> Caller:
    """Give what this process may have of files and processes."""
    return Caller(
        resource.getrlimit(resource.RLIMIT_NOFILE)[0], resource.getrlimit(resource.RLIMIT_NPROC)[0]
    )


def _told_container() -> str | None:
    """Give the kind of container that its manager told, where it is one we know a remedy for."""
    return _CONTAINER_NAMES.get(os.environ.get(_CONTAINER_VARIABLE, ""))


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(4096).strip()
    except OSError:
        return None


def _number(path: str) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.isdigit() else None


def _filters() -> int:
    for line in (_text("/proc/self/status") or "").splitlines():
        name, _, value = line.partition(":")
        if name == "Seccomp_filters" and value.strip().isdigit():
            return int(value)
    return 0
