"""What a machine offers programs, by its answers: each no is a protection with cause and remedy."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from beddel_cli.offer import NOT_TRIED
from beddel_cli.process.cgroup import Hierarchy
from beddel_cli.profile import EITHER_RUNG, PROGRAM_PROTECTIONS
from beddel_cli.program_offer import ProgramOffer, describe_program_offer
from beddel_cli.program_queries import _ask_cgroups, ask_machine_for_programs
from beddel_cli.record import changed
from tests.support.capabilities import require
from tests.unit.test_remedies import PLAIN

OFFER = ProgramOffer(
    system="Linux",
    machine="x86_64",
    kernel="6.1",
    landlock=0,
    landlock_abi=6,
    seccomp=0,
    no_new_privs=0,
    capabilities=0,
    rlimits=0,
    status_missing=(),
    facts=PLAIN,
    absent=(),
    takes_ids=False,
    overlay="kernel",
    cgroup=(("cpu", 2), ("cpuacct", 2), ("memory", 2), ("pids", 2)),
    cgroup_lacks=(),
)
# An answer -> the one protection that is then not there, words of the cause, and of the remedy.
NOES: list[tuple[dict[str, Any], str, str, str]] = [
    ({"landlock": errno.ENOSYS}, "landlock", "ENOSYS", "CONFIG_SECURITY_LANDLOCK"),
    ({"seccomp": errno.EINVAL}, "seccomp", "EINVAL", "CONFIG_SECCOMP_FILTER"),
    ({"status_missing": ("NoNewPrivs",)}, "no-new-privs", "NoNewPrivs", "mount /proc"),
    ({"capabilities": errno.EPERM}, "capabilities", "EPERM", "capset"),
    ({"rlimits": errno.EPERM}, "rlimits", "EPERM", "setrlimit"),
    ({"absent": ("user",)}, "namespaces", "no user namespaces", "CONFIG_USER_NS"),
    (
        {"facts": changed(PLAIN, namespace_limits={"user": 0})},
        *("namespaces", "user.max_user_namespaces is 0"),
        "sudo sysctl -w user.max_user_namespaces=15000",
    ),
    (
        {"facts": changed(PLAIN, apparmor_restricts=1)},
        *("namespaces", "AppArmor takes the rights"),
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    ({"overlay": None}, "namespaces", "/proc/filesystems has no overlay", "CONFIG_OVERLAY_FS"),
    (
        {"cgroup": (), "cgroup_lacks": (("memory", "/sys/fs/cgroup/x", errno.EACCES),)},
        *("cgroup", "memory: /sys/fs/cgroup/x (EACCES: Permission denied)"),
        "systemd-run --user --scope -p Delegate=yes",
    ),
]


def test_a_machine_that_offers_everything_has_tried_nothing() -> None:
    for overlay in ("kernel", "module"):
        host = describe_program_offer(changed(OFFER, overlay=overlay), shows_folders=True)
        assert {item.name for item in host.findings} == {*PROGRAM_PROTECTIONS} - {EITHER_RUNG}
        for item in host.findings:
            assert (item.present, item.verified) == (True, NOT_TRIED)
            assert (item.found, item.fix) == (None, None)
    assert (host.system, host.machine, host.kernel, host.isolate_bytes) == (
        *("Linux", "x86_64", "6.1"),
        0,
    )


@pytest.mark.parametrize(("answer", "name", "words", "fix"), NOES)
def test_what_is_not_offered_is_missing_with_cause_and_fix(
    answer: dict[str, Any], name: str, words: str, fix: str
) -> None:
    host = describe_program_offer(changed(OFFER, **answer), shows_folders=True)
    (item,) = (each for each in host.findings if not each.present)
    assert (item.name, item.verified) == (name, "not in force")
    assert words in (item.found or "")
    assert fix in (item.fix or "")


def test_an_overlay_is_missed_only_by_a_job_that_shows_folders() -> None:
    host = describe_program_offer(changed(OFFER, overlay=None), shows_folders=False)
    assert all(item.present for item in host.findings)


def test_this_machine_answers_and_is_unchanged() -> None:
    require("user-namespaces")
    before = Path("/proc/self/status").read_text().partition("NoNewPrivs")[2].partition("Cpus")[0]
    offer = ask_machine_for_programs()
    after = Path("/proc/self/status").read_text().partition("NoNewPrivs")[2].partition("Cpus")[0]
    assert before == after
    assert (offer.seccomp, offer.no_new_privs, offer.capabilities, offer.rlimits) == (0, 0, 0, 0)
    assert (offer.absent, offer.status_missing) == ((), ())
    assert offer.takes_ids == (os.geteuid() == 0)


def version_1(folder: Path, names: str, mode: int = 0o755) -> Hierarchy:
    place = folder / names
    place.mkdir(mode=mode)
    return Hierarchy(1, frozenset(names.split(",")), str(place), str(place))


def version_2(
    folder: Path, *, controllers: str = "", passed: str = "", procs: str = "", root: bool = False
) -> str:
    """Lay out one folder of version 2."""
    folder.mkdir(exist_ok=True)
    files = {"cgroup.controllers": controllers, "cgroup.subtree_control": passed}
    for name, text in (files | {"cgroup.procs": procs}).items():
        (folder / name).write_text(text)
    if not root:
        (folder / "cgroup.type").write_text("domain")
    return str(folder)


def test_folders_of_version_1_that_can_be_written_are_offered(tmp_path: Path) -> None:
    one, other = version_1(tmp_path, "memory"), version_1(tmp_path, "cpu,cpuacct")
    held, lacks = _ask_cgroups([one, other])
    assert held == {"memory": 1, "cpu": 1, "cpuacct": 1}
    assert lacks == (("pids", "not mounted", errno.ENOENT),)
    assert _ask_cgroups([one, other, version_1(tmp_path, "pids")])[1] == ()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_in_the_way(tmp_path: Path) -> None:
    place = version_1(tmp_path, "memory", 0o555)
    held, lacks = _ask_cgroups([place])
    assert held == {}
    assert ("memory", place.folder, errno.EACCES) in lacks


def test_without_cgroups_that_is_said() -> None:
    assert _ask_cgroups([]) == (
        {},
        (("cgroups", "none is mounted where this process is", errno.ENOENT),),
    )


ALL = "cpu memory pids"
# What the own folder and the one above it hold -> whether a leaf could be made.
LAYOUTS: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = [
    ("passed on already", {"passed": ALL, "controllers": ALL}, {}, True),
    ("could be passed on", {"controllers": ALL}, {}, True),
    ("but for its processes", {"controllers": ALL, "procs": "1"}, {}, False),
    ("above", {"controllers": ALL, "procs": "1"}, {"passed": ALL, "controllers": ALL}, True),
    ("root", {"procs": "1"}, {"controllers": ALL, "procs": "1", "root": True}, True),
    ("no such controllers", {"controllers": "io"}, {"controllers": "io"}, False),
]


@pytest.mark.parametrize(
    ("own", "above", "offered"), [row[1:] for row in LAYOUTS], ids=[row[0] for row in LAYOUTS]
)
def test_version_2_is_looked_at_upwards(
    tmp_path: Path, own: dict[str, Any], above: dict[str, Any], offered: bool
) -> None:
    top = version_2(tmp_path / "top", **above)
    place = Hierarchy(2, frozenset(), version_2(tmp_path / "top" / "own", **own), top)
    held, lacks = _ask_cgroups([place])
    names = {"memory", "pids", "cpu", "cpuacct"}
    assert held == (dict.fromkeys(names, 2) if offered else {})
    assert {name for name, _, _ in lacks} == (set() if offered else names)
