"""Walls on a machine that lacks something: what is missing is really taken away, and named.

A step without which nothing can start ends the launcher with its name and errno; a protection that
is missing is an errno among the others. Nothing is left running either way.
"""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.security.process.conftest import Person, command
from tests.support import block_syscalls


def on(person: Person, *prefix: str, **described: Any) -> dict[str, Any]:
    """Run /bin/true behind the walls on a machine made so by a prefix."""
    done = subprocess.run(
        [*prefix, *command()],
        input=json.dumps({"arguments": ["/bin/sh", "-c", "echo up"], **described}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **person.options(),
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def without(person: Person, blocks: str) -> dict[str, Any]:
    return on(person, sys.executable, "-P", str(Path(block_syscalls.__file__)), blocks)


@pytest.mark.parametrize(
    ("blocks", "step", "number"),
    [
        ("unshare-refused", "user namespace", errno.EPERM),
        ("unshare-missing", "user namespace", errno.ENOSYS),
        ("clone-refused", "init", errno.EPERM),
        ("mount-refused", "files", errno.EPERM),
        ("open-tree-missing", "files", errno.ENOSYS),
        ("pivot-root-refused", "root", errno.EPERM),
        # The kernel has Landlock: that its rules cannot be put in force is no lack of it.
        ("landlock-restrict", "landlock", errno.EPERM),
        ("landlock-no-room", "landlock", errno.E2BIG),
    ],
)
def test_a_step_that_fails_is_named(person: Person, blocks: str, step: str, number: int) -> None:
    answer = without(person, blocks)
    walls = answer["walls"]
    assert (walls["failed_step"], walls["failed_errno"]) == (step, number), walls
    assert (answer["code"], answer["stdout"]) == (None, "")


@pytest.mark.parametrize(
    ("blocks", "field", "number"),
    [
        ("landlock-missing", "landlock", errno.ENOSYS),
        ("landlock-off", "landlock", errno.EOPNOTSUPP),
        ("landlock-not-permitted", "landlock", errno.EPERM),
        ("seccomp-not-permitted", "seccomp", errno.EPERM),
        ("rlimits", "rlimits", errno.EPERM),
        ("capset", "capabilities", errno.EPERM),
    ],
)
def test_a_protection_that_is_missing_is_said(
    person: Person, blocks: str, field: str, number: int
) -> None:
    walls = without(person, blocks)["walls"]
    assert walls["failed_step"] is None
    assert walls[field] == number
    others = {"no_new_privs", "capabilities", "rlimits", "seccomp", "landlock"} - {field}
    assert [walls[name] for name in others] == [0] * 4
    if field == "landlock":
        assert walls["landlock_probe"] == 0, "the write that only Landlock forbids went through"


def test_the_control_blocks_nothing(person: Person) -> None:
    answer = without(person, "none")
    assert answer["walls"]["failed_step"] is None
    assert (answer["code"], answer["stdout"]) == (0, "up\n")


def nested(script: str) -> tuple[str, ...]:
    """Give a prefix that runs a script as root of a fresh user namespace before the command."""
    return (
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-ec",
        f'{script}; exec "$@"',
        "sh",
    )


def test_a_limit_on_the_number_of_namespaces_is_told_from_a_refusal(person: Person) -> None:
    walls = on(person, *nested("echo 0 > /proc/sys/user/max_user_namespaces"))["walls"]
    assert (walls["failed_step"], walls["failed_errno"]) == ("user namespace", errno.ENOSPC)


def test_where_the_hosts_proc_is_covered_the_programs_own_is_empty(person: Person) -> None:
    prefix = nested("mount -t tmpfs none /proc/driver")
    answer = on(person, *prefix, arguments=["/bin/ls", "/proc"])
    assert answer["walls"]["failed_step"] is None, answer["walls"]
    assert answer["walls"]["proc"] == "empty"
    assert (answer["code"], answer["stdout"]) == (0, "")
    assert on(person, *nested("true"))["walls"]["proc"] == "own"


def test_root_with_a_single_id_is_an_ordinary_user(person: Person) -> None:
    answer = on(person, *nested("true"))
    assert answer["walls"]["identity"] == "own id"
    assert (answer["code"], answer["stdout"]) == (0, "up\n")
