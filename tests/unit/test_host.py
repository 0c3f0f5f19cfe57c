"""What a machine is said to enforce: only what both the worker and a look from outside confirm."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from beddel_cli.host import describe_host
from beddel_cli.profile import PROTECTIONS
from beddel_cli.record import changed
from tests.support.values import OBSERVED, READY

# What breaks -> the one protection that is then not there, and words of what is said of it.
BREAKS: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    ({"store_limits_held": False}, {}, "store-limits", "above its memory limit"),
    ({"seccomp": errno.EINVAL}, {}, "seccomp", "EINVAL"),
    ({"seccomp": errno.ENOSYS}, {}, "seccomp", "ENOSYS"),
    ({}, {"seccomp_mode": 0}, "seccomp", "Seccomp 0"),
    ({}, {"seccomp_mode": 1}, "seccomp", "Seccomp 1"),
    ({}, {"seccomp_mode": None}, "seccomp", "Seccomp None"),
    ({"landlock": errno.ENOSYS}, {}, "landlock", "ENOSYS"),
    ({"landlock": errno.EOPNOTSUPP}, {}, "landlock", "off at boot"),
    ({"landlock": errno.EPERM}, {}, "landlock", "EPERM"),
    ({"landlock_probe": 0}, {}, "landlock", "could still open"),
    ({"no_new_privs": errno.EINVAL}, {}, "no-new-privs", "EINVAL"),
    ({}, {"no_new_privs": 0}, "no-new-privs", "NoNewPrivs 0"),
    ({}, {"no_new_privs": None}, "no-new-privs", "NoNewPrivs None"),
    ({"capabilities": errno.EPERM}, {}, "capabilities", "EPERM"),
    ({}, {"effective_capabilities": 1 << 21}, "capabilities", str(1 << 21)),
    ({}, {"effective_capabilities": None}, "capabilities", "CapEff None"),
    ({"rlimits": errno.EPERM}, {}, "rlimits", "EPERM"),
    ({}, {"file_limit": 1024}, "rlimits", "1024"),
    ({}, {"core_limit": 1}, "rlimits", "prlimit"),
    ({}, {"file_limit": None}, "rlimits", "None"),
]


def test_a_worker_that_confirms_everything_has_every_protection() -> None:
    host = describe_host(READY, OBSERVED)
    assert sorted(item.name for item in host.findings) == sorted(PROTECTIONS)
    for item in host.findings:
        assert item.present
        assert item.enforced_by
        assert item.verified
        assert (item.found, item.fix) == (None, None)
    assert host.isolate_bytes == READY.guest_pages * 65536


@pytest.mark.parametrize(("ready", "observed", "name", "words"), BREAKS)
def test_a_protection_that_either_side_denies_is_missing_with_cause_and_fix(
    ready: dict[str, Any], observed: dict[str, Any], name: str, words: str
) -> None:
    host = describe_host(changed(READY, **ready), changed(OBSERVED, **observed))
    assert [item.name for item in host.findings if not item.present] == [name]
    item = host.finding(name)
    assert item is not None
    assert item.found is not None
    assert words in item.found
    assert item.fix
    assert item.enforced_by == "nothing"


def test_a_protection_nobody_looked_at_is_not_found() -> None:
    assert describe_host(READY, OBSERVED).finding("cgroup") is None
