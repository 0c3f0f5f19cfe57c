"""What is told where walls failed and the machine has nothing to do with it."""

from __future__ import annotations

import errno
import os

import pytest

from beddel_cli.errors import GuestError, Place, RefusedError, UsageError
from beddel_cli.process.failures import Caller, other_cause
from beddel_cli.process.mount_rules import MountRequest
from beddel_cli.process.program import Mount, Walls

CALLER = Caller(open_files=20, processes=7)
AT = Place("job.yaml", 3, 5)
DATA = (
    MountRequest("data", "/data", writable=False, place=AT),
    Mount("/srv/data", 9, "/data", writable=False, folder=True),
)


def walls(step: str | None, number: int, detail: str = "") -> Walls:
    return Walls(
        failed_step=step,
        failed_errno=number,
        failed_detail=detail,
        identity="",
        proc=None,
        no_new_privs=None,
        capabilities=None,
        rlimits=None,
        landlock=None,
        landlock_abi=0,
        landlock_probe=None,
        seccomp=None,
        setup_ns=0,
        waited_ns=0,
    )


@pytest.mark.parametrize(
    ("step", "number", "cause", "hint"),
    [
        ("landlock", errno.EMFILE, "this process may have 20 open files", "ulimit -n 1024"),
        ("files", errno.EMFILE, "this process may have 20 open files", "ulimit -n 1024"),
        ("files", errno.ENFILE, "this machine has as many open files as it may", "sudo sysctl"),
        ("request", errno.ETOOMANYREFS, "other programs of this user have as many", "end the"),
        ("init", errno.EAGAIN, "too many processes (ulimit -u gives 7)", "end some"),
        ("network", errno.ENOMEM, "there is too little memory", "run it again"),
        ("scratch folder", errno.ENOSPC, "no scratch folder can be made", "set TMPDIR"),
        ("our own fault", 0, "bug in beddel-cli: KeyError", "please report this"),
    ],
)
def test_what_is_used_up_is_no_lack_of_the_machine(
    step: str, number: int, cause: str, hint: str
) -> None:
    error = other_cause(walls(step, number, "KeyError"), CALLER)
    assert isinstance(error, GuestError)
    assert error.exit_code == 125
    assert cause in error.message
    assert (error.hint or "").startswith(hint)


@pytest.mark.parametrize(
    ("step", "number"),
    [
        ("user namespace", errno.EPERM),
        ("namespaces", errno.ENOSPC),
        ("mounts", errno.ENODEV),
        ("mounts", errno.EPERM),
        ("landlock", errno.E2BIG),
        ("files", errno.ENOSYS),
        ("files", errno.EAGAIN),
        (None, 0),
    ],
)
def test_what_the_machine_refuses_is_left_to_the_plan(step: str | None, number: int) -> None:
    assert other_cause(walls(step, number), CALLER) is None


@pytest.mark.parametrize("step", ["mounts", "mapped mounts"])
@pytest.mark.parametrize("place", ["/srv/data", "/data"])
def test_what_cannot_be_shown_is_named_as_it_was_asked_for(step: str, place: str) -> None:
    detail = f"{place}: {os.strerror(errno.EINVAL)}"
    error = other_cause(walls(step, errno.EINVAL, detail), CALLER, [DATA])
    assert isinstance(error, RefusedError)
    assert (error.reason, error.place, error.needs) == ("files", AT, "'data' at /data")
    assert error.message.startswith(f"'data' cannot be shown to a program: {step} failed with EINV")


def test_a_request_that_is_too_long_is_the_callers() -> None:
    error = other_cause(walls("request", errno.E2BIG, "17000000 bytes of arguments"), CALLER)
    assert isinstance(error, UsageError)
    assert error.got == "17000000 bytes of arguments"
