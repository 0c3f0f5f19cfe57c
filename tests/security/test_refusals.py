"""A protection that this machine does not have is a refusal, signed, and nothing runs."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import block_syscalls
from tests.support.capabilities import require
from tests.support.cli import COMMAND, Home, Result, has_traceback

LAUNCHER = (sys.executable, "-P", str(Path(block_syscalls.__file__)))
STRICT = ("ultra-secure", "high-security")

# what is taken away: the protection that is missing, and the errno the user sees.
REFUSALS = {
    "landlock-missing": ("landlock", "ENOSYS"),
    # EOPNOTSUPP and ENOTSUP are one number on Linux, and Python names it so.
    "landlock-off": ("landlock", errno.errorcode[errno.EOPNOTSUPP]),
    "landlock-not-permitted": ("landlock", "EPERM"),
    "landlock-restrict": ("landlock", "EPERM"),
    "landlock-no-room": ("landlock", "E2BIG"),
    "seccomp-missing": ("seccomp", "EINVAL"),
    "seccomp-not-permitted": ("seccomp", "EPERM"),
    "capset": ("capabilities", "EPERM"),
    "rlimits": ("rlimits", "EPERM"),
}
LANDLOCK = tuple(block for block, (missing, _) in REFUSALS.items() if missing == "landlock")


def run_without(home: Home, block: str, *arguments: str, code: str = "return 42") -> Result:
    """Run a job on a machine where something is blocked."""
    job = home.job(code)
    command = (*LAUNCHER, block, *COMMAND)
    return home.run("run", job, "--json", *arguments, command=command)


def control(predicate: dict[str, Any], name: str) -> dict[str, Any]:
    """Give what a receipt says about one protection."""
    (found,) = (each for each in predicate["controls"] if each["name"] == name)
    return dict(found)


def _assert_refused(home: Home, result: Result, missing: str, number: str) -> None:
    assert result.returncode == 126, result.message
    assert not has_traceback(result)
    document = result.json
    assert document["outcome"]["status"] == "refused"
    assert document["outcome"]["reason"] == "protection"
    assert document["output"] is None
    assert document["fuel"] is None
    error = document["error"]
    assert error["expected"] == missing
    assert number in error["got"]
    assert error["hint"]
    for word in ("needs", "found", "fix"):
        assert f"\n  {word} " in result.message
    assert number in result.message
    assert "not measured" in result.message

    predicate = home.predicate()
    assert predicate["outcome"]["status"] == "refused"
    assert predicate["outcome"]["exitCode"] == 126
    refusal = predicate["outcome"]["refusal"]
    assert refusal["needs"] == missing
    assert number in refusal["found"]
    assert refusal["fix"]
    # Nothing ran, and nothing says that anything did.
    for key in ("plan", "planDigest", "determinism", "output", "heapSnapshot"):
        assert predicate[key] is None, key
    assert predicate["console"]["entries"] == 0
    usage = predicate["usage"]
    for key in ("wall", "guestWall", "guestCpu", "instantiate", "fuel", "linearMemoryPeak"):
        assert usage[key] is None, key
    assert usage["memoryDigest"] is None
    said = control(predicate, missing)
    assert said["requested"] == "required"
    assert said["enforced"] is False
    assert said["enforcedBy"] is None
    assert said["verified"] is None
    assert number in said["found"]


@pytest.mark.parametrize("profile", [*STRICT, "tenant-isolated"])
def test_the_launcher_alone_changes_nothing(home: Home, profile: str) -> None:
    result = run_without(home, "none", "--profile", profile)
    assert (result.returncode, result.json["output"]) == (0, 42), result.message
    assert all(each["enforced"] for each in home.predicate()["controls"])


@pytest.mark.parametrize("block", REFUSALS)
def test_a_missing_protection_is_a_refusal(home: Home, block: str) -> None:
    result = run_without(home, block, "--profile", "ultra-secure")
    _assert_refused(home, result, *REFUSALS[block])


@pytest.mark.parametrize("block", ["landlock-missing", "seccomp-missing"])
def test_so_it_is_under_high_security(home: Home, block: str) -> None:
    result = run_without(home, block, "--profile", "high-security")
    _assert_refused(home, result, *REFUSALS[block])


def test_no_new_privs(home: Home) -> None:
    # Without it only root may install a filter, here as in the worker.
    require("root")
    result = run_without(home, "no-new-privs", "--profile", "ultra-secure")
    assert (result.returncode, result.json["outcome"]["reason"]) == (126, "protection")
    said = control(home.predicate(), "no-new-privs")
    assert (said["requested"], said["enforced"]) == ("required", False)
    assert "EINVAL" in said["found"]
    # Seccomp needs it, once the capabilities are gone.
    said = control(home.predicate(), "seccomp")
    assert said["enforced"] is False
    assert "EACCES" in said["found"]


@pytest.mark.parametrize("block", LANDLOCK)
def test_landlock_is_not_required_of_tenants(home: Home, block: str) -> None:
    result = run_without(home, block, "--profile", "tenant-isolated")
    assert (result.returncode, result.json["output"]) == (0, 42), result.message
    said = control(home.predicate(), "landlock")
    assert (said["requested"], said["enforced"]) == ("applied", False)
    assert (said["enforcedBy"], said["verified"]) == (None, None)
    assert REFUSALS[block][1] in said["found"]
    assert control(home.predicate(), "seccomp")["enforced"] is True
    (found,) = (each for each in result.json["controls"] if each["name"] == "landlock")
    assert found["enforced"] is False
    assert "5/6 confirmed" in result.message
    assert "landlock" not in result.message.split("confirmed:")[1].split("\n")[0]


@pytest.mark.parametrize("block", ["seccomp-missing", "capset", "rlimits"])
def test_the_rest_is_required_of_tenants_too(home: Home, block: str) -> None:
    result = run_without(home, block, "--profile", "tenant-isolated")
    _assert_refused(home, result, *REFUSALS[block])


def test_two_missing_at_once(home: Home) -> None:
    result = run_without(home, "landlock-missing,seccomp-missing", "--profile", "ultra-secure")
    assert result.returncode == 126
    predicate = home.predicate()
    for missing, number in (("landlock", "ENOSYS"), ("seccomp", "EINVAL")):
        said = control(predicate, missing)
        assert said["enforced"] is False
        assert number in said["found"]


def test_the_job_is_not_sent(home: Home) -> None:
    # The control: the same endless job without the block uses up its time.
    arguments = ("--profile", "ultra-secure", "--timeout", "200ms")
    ran = run_without(home, "none", *arguments, code="for (;;) ;")
    assert (ran.returncode, ran.json["outcome"]["reason"]) == (124, "wall")
    refused = run_without(home, "landlock-missing", *arguments, code="for (;;) ;")
    assert (refused.returncode, refused.json["outcome"]["reason"]) == (126, "protection")
    assert refused.json["time"]["wall_ns"] is None


def test_asking_for_more_than_the_profile_grants(home: Home) -> None:
    job = home.job("return 42")
    fits = home.run("run", job, "--memory", "2MiB", "--json")
    assert fits.returncode == 0
    result = home.run("run", job, "--memory", "3MiB", "--json")
    assert result.returncode == 126
    assert result.json["outcome"]["reason"] == "limits"
    refusal = home.predicate()["outcome"]["refusal"]
    assert refusal["needs"] == "memory 3MiB"
    assert refusal["found"] == "ultra-secure grants 2MiB"
    assert home.predicate()["plan"] is None


def test_no_room_for_the_guest(home: Home) -> None:
    result = home.run("run", home.job("return 42"), "--memory", "64KiB", "--json")
    assert result.returncode == 126
    assert home.predicate()["outcome"]["refusal"]["found"] == "memory 64KiB"
